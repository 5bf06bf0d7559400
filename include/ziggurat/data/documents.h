// Documents packed into a sequence. Each ends with the end-of-document token, which belongs to it; the first
// of a sequence may have begun, and the last may go on, in another sequence.
#pragma once

#include <cstdint>

namespace ziggurat {

// For tokens [count, length]:
//   positions [count, length] the place of each token in its document, as far as this sequence holds it
//   first_key [count, length] where in the sequence that document begins
// Either may be null. (Megatron-LM's reset_position_ids and reset_attention_mask.)
void locate_documents(const int32_t* tokens, int64_t count, int64_t length, int32_t eod, int32_t* positions,
                      int32_t* first_key);

}  // namespace ziggurat
