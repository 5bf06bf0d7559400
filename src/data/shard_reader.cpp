#include <algorithm>
#include <cstring>
#include <mutex>

#include "data/hdf5_file.h"
#include <ziggurat/core/crc32c.h>
#include <ziggurat/core/error.h>
#include <ziggurat/data/sha256.h>
#include <ziggurat/data/shard.h>
#include <ziggurat/data/shard_format.h>
#include <ziggurat/io/mapped_file.h>

namespace ziggurat {
namespace {

template <class T>
void widen(const std::byte* from, int64_t count, int32_t* to) {
  // /data is 4 KiB aligned in our files but may lie anywhere in foreign ones: memcpy, which compiles to
  // plain unaligned loads.
  for (int64_t i = 0; i < count; ++i) {
    T value;
    std::memcpy(&value, from + i * static_cast<int64_t>(sizeof(T)), sizeof(T));
    to[i] = static_cast<int32_t>(value);
  }
}

ShardInfo read_info(const Hdf5File& file, const std::filesystem::path& path, int64_t n_tokens) {
  const std::string name = path.string();
  ShardInfo info;
  info.n_tokens = file.find_int("n_tokens").value_or(n_tokens);
  check(info.n_tokens == n_tokens, ErrorKind::data,
        "{}: attribute n_tokens says {}, but /data holds {}; tokenize it again", name, info.n_tokens,
        n_tokens);
  if (file.find_string("format").value_or("") == kShardFormat) {
    const int64_t version = file.find_int("version").value_or(0);
    check(version == kShardVersion, ErrorKind::data,
          "{}: shard version {}, this program reads version {}; make the shards again with its `ziggurat "
          "data tokenize`",
          name, version, kShardVersion);
  }
  info.n_docs = file.find_int("n_docs").value_or(0);
  info.vocab_size = file.find_int("vocab_size").value_or(0);
  info.eod_id = file.find_int("eod_id").value_or(-1);
  info.eod_appended = file.find_int("eod_appended").value_or(0) != 0;
  info.tokenizer = file.find_string("tokenizer").value_or("");
  info.tokenizer_sha256 = file.find_string("tokenizer_sha256").value_or("");
  info.unicode_version = file.find_string("unicode_version").value_or("");
  info.normalisation = file.find_string("normalisation").value_or("");
  info.source = file.find_string("source").value_or("");
  info.split = file.find_string("split").value_or("");
  info.shard = file.find_int("shard").value_or(0);
  info.shards = file.find_int("shards").value_or(0);
  info.created_by = file.find_string("created_by").value_or("");
  info.text_xxh3 = file.find_string("text_xxh3").value_or("");
  return info;
}

int64_t blocks_of(int64_t tokens) { return (tokens + kCrcBlockTokens - 1) / kCrcBlockTokens; }

}  // namespace

struct ShardReader::Impl {
  std::filesystem::path path;
  ShardInfo info;
  Hdf5File::Dataset layout;
  std::vector<uint32_t> checksums;
  MappedFile map;                      // empty if not mapped
  std::unique_ptr<Hdf5File> fallback;  // open only if not mapped
  mutable std::mutex fallback_mutex;
};

ShardReader::ShardReader(const std::filesystem::path& path) : impl_(std::make_unique<Impl>()) {
  impl_->path = path;
  Hdf5File file = Hdf5File::open(path);
  impl_->layout = file.describe("data");
  const Hdf5File::Dataset& layout = impl_->layout;
  impl_->info = read_info(file, path, layout.length);
  if (file.has_dataset("crc32c")) {
    const int64_t blocks = file.describe("crc32c").length;
    check(blocks == blocks_of(layout.length), ErrorKind::data,
          "{}: /crc32c has {} blocks, {} tokens need {}; tokenize it again", path.string(), blocks,
          layout.length, blocks_of(layout.length));
    impl_->checksums.resize(static_cast<size_t>(blocks));
    file.read_dataset("crc32c", 0, static_cast<int64_t>(impl_->checksums.size()), impl_->checksums.data());
  }
  const bool mappable = layout.file_offset >= 0 && layout.little_endian_unsigned &&
                        (layout.element_bytes == 2 || layout.element_bytes == 4);
  if (mappable && layout.length > 0) {
    impl_->map = MappedFile(path);
    const auto bytes = static_cast<int64_t>(impl_->map.size());
    // The length is bounded by the file's size (Hdf5File::describe), the offset is not.
    check(layout.file_offset <= bytes - layout.length * layout.element_bytes, ErrorKind::data,
          "{}: the file is cut off: {} bytes, but {} tokens begin at byte {}; copy or tokenize it again",
          path.string(), bytes, layout.length, layout.file_offset);
  } else {
    impl_->fallback = std::make_unique<Hdf5File>(std::move(file));
  }
}

ShardReader::~ShardReader() = default;
ShardReader::ShardReader(ShardReader&&) noexcept = default;
ShardReader& ShardReader::operator=(ShardReader&&) noexcept = default;

const ShardInfo& ShardReader::info() const { return impl_->info; }
const std::filesystem::path& ShardReader::path() const { return impl_->path; }
bool ShardReader::mapped() const { return impl_->fallback == nullptr; }
const std::vector<uint32_t>& ShardReader::checksums() const { return impl_->checksums; }

void ShardReader::read(int64_t first, int64_t count, int32_t* tokens) const {
  check(first >= 0 && count >= 0 && first + count <= size(), ErrorKind::internal,
        "[shard] tokens {}..{} of {}, which has {}", first, first + count, path().string(), size());
  if (!mapped()) {
    const std::lock_guard<std::mutex> lock(impl_->fallback_mutex);
    impl_->fallback->read_dataset("data", first, count, tokens);
    return;
  }
  const std::byte* from = impl_->map.data() + impl_->layout.file_offset + first * impl_->layout.element_bytes;
  impl_->layout.element_bytes == 2 ? widen<uint16_t>(from, count, tokens)
                                   : widen<uint32_t>(from, count, tokens);
}

void ShardReader::prefetch(int64_t first, int64_t count) const {
  if (!mapped()) return;
  const int64_t element = impl_->layout.element_bytes;
  impl_->map.will_need(static_cast<size_t>(impl_->layout.file_offset + first * element),
                       static_cast<size_t>(count * element));
}

std::vector<int64_t> ShardReader::doc_offsets() const {
  const Hdf5File file = Hdf5File::open(path());
  if (!file.has_dataset("doc_offsets")) return {};
  std::vector<int64_t> offsets(static_cast<size_t>(file.describe("doc_offsets").length));
  file.read_dataset("doc_offsets", 0, static_cast<int64_t>(offsets.size()), offsets.data());
  return offsets;
}

std::vector<int64_t> ShardReader::damaged_blocks() const {
  std::vector<int64_t> damaged;
  if (!mapped()) return damaged;  // a foreign file: HDF5 checks its own chunks
  const int64_t element = impl_->layout.element_bytes;
  for (int64_t block = 0; block < static_cast<int64_t>(checksums().size()); ++block) {
    const int64_t first = block * kCrcBlockTokens, count = std::min(kCrcBlockTokens, size() - first);
    const std::byte* from = impl_->map.data() + impl_->layout.file_offset + first * element;
    if (crc32c(from, static_cast<size_t>(count * element)) != checksums()[static_cast<size_t>(block)]) {
      damaged.push_back(block);
    }
  }
  return damaged;
}

std::string ShardReader::fingerprint() const {
  Sha256 hash;
  for (const uint32_t checksum : checksums()) hash.update_u64(checksum);
  if (!checksums().empty()) return hash.hex();
  constexpr int64_t kSamples = 16, kSampleTokens = 4096;
  const bool whole = size() <= kSamples * kSampleTokens;
  const int64_t count = whole ? size() : kSampleTokens, samples = whole ? 1 : kSamples;
  std::vector<int32_t> tokens(static_cast<size_t>(count));
  for (int64_t i = 0; i < samples; ++i) {
    read(whole ? 0 : (size() - count) * i / (kSamples - 1), count, tokens.data());
    hash.update({reinterpret_cast<const char*>(tokens.data()), tokens.size() * sizeof(tokens[0])});
  }
  return hash.hex();
}

void ShardReader::verify() const {
  const std::string name = path().string();
  const std::vector<int64_t> damaged = damaged_blocks();
  check(damaged.empty(), ErrorKind::data,
        "{}: block {} of {} (tokens {} to {}) is damaged: its CRC-32C is wrong; {} damaged in all. Copy or "
        "tokenize "
        "the file again",
        name, damaged.empty() ? 0 : damaged[0], checksums().size(),
        damaged.empty() ? 0 : damaged[0] * kCrcBlockTokens,
        damaged.empty() ? 0 : std::min((damaged[0] + 1) * kCrcBlockTokens, size()), damaged.size());
  const std::vector<int64_t> offsets = doc_offsets();
  const bool ordered = std::is_sorted(offsets.begin(), offsets.end());
  check(offsets.empty() || (ordered && offsets.front() == 0 && offsets.back() == size()), ErrorKind::data,
        "{}: /doc_offsets must rise from 0 to {}; tokenize it again", name, size());
  if (info().vocab_size <= 0) return;
  std::vector<int32_t> tokens(static_cast<size_t>(std::min(kCrcBlockTokens, size())));
  for (int64_t first = 0; first < size(); first += kCrcBlockTokens) {
    const int64_t count = std::min(kCrcBlockTokens, size() - first);
    read(first, count, tokens.data());
    for (int64_t i = 0; i < count; ++i) {
      const int32_t id = tokens[static_cast<size_t>(i)];
      check(id >= 0 && id < info().vocab_size, ErrorKind::data,
            "{}: token {} is {}, outside the vocabulary of {}; tokenize it again", name, first + i, id,
            info().vocab_size);
    }
  }
}

}  // namespace ziggurat
