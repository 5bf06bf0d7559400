// Megatron-LM's token files, a pair <prefix>.idx and <prefix>.bin.
//   .bin  the tokens, u16 (vocabularies below 65,500) or i32, sequence after sequence
//   .idx  magic "MMIDIDX", two zero bytes; u64 version 1; u8 type of the tokens (4: i32, 8: u16);
//         u64 sequences n; u64 entries of the document index m; then i32 lengths [n], i64 byte offsets into
//         .bin [n], i64 first sequence of each document [m], the last entry n. All little endian, unaligned.
//         Newer files may end with one more byte per sequence.
// Usually a document is one sequence.
#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <vector>

#include <ziggurat/data/dataset.h>

namespace ziggurat {

class MegatronFile {
 public:
  // `input`: the prefix, or either file. Errors (data) name the file: missing, empty, cut off (by how many
  // bytes), not of this format; or .bin and .idx are no pair.
  explicit MegatronFile(const std::filesystem::path& input);
  ~MegatronFile();

  int64_t documents() const;
  int64_t sequences() const;
  const std::filesystem::path& path() const;  // of the .bin file

  // Replaces `ids` by the tokens of document d, its sequences joined. Error (data) if the index is damaged.
  void read_document(int64_t d, std::vector<int32_t>& ids) const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// Whether `input` is the common prefix, the .idx or the .bin of such a pair.
bool is_megatron(const std::filesystem::path& input);
// Of such a pair, from its prefix or either file.
std::filesystem::path megatron_prefix(const std::filesystem::path& input);

// Writes all documents of a stream as one pair, each as one sequence, with Megatron's own choice of the token
// type. `progress(done, total)` hears of tokens. Errors (data): a shard without documents, one of 2^31 tokens
// or more, a full disk.
void write_megatron(const TokenStream& stream, const std::filesystem::path& prefix,
                    const std::function<void(int64_t done, int64_t total)>& progress = {});

}  // namespace ziggurat
