#include <ziggurat/data/documents.h>

namespace ziggurat {

void locate_documents(const int32_t* tokens, int64_t count, int64_t length, int32_t eod, int32_t* positions,
                      int32_t* first_key) {
  for (int64_t sequence = 0; sequence < count; ++sequence) {
    int64_t begin = 0;
    for (int64_t t = 0; t < length; ++t) {
      const int64_t i = sequence * length + t;
      if (positions != nullptr) positions[i] = static_cast<int32_t>(t - begin);
      if (first_key != nullptr) first_key[i] = static_cast<int32_t>(begin);
      if (tokens[i] == eod) begin = t + 1;
    }
  }
}

}  // namespace ziggurat
