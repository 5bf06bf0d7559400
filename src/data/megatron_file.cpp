#include <algorithm>
#include <limits>
#include <numeric>
#include <span>

#include <ziggurat/core/error.h>
#include <ziggurat/data/folder.h>
#include <ziggurat/data/megatron_file.h>
#include <ziggurat/io/files.h>
#include <ziggurat/io/mapped_file.h>
#include <ziggurat/io/output_file.h>

namespace ziggurat {
namespace {

using Path = std::filesystem::path;

constexpr char kMagic[] = "MMIDIDX\0";  // 9 bytes with the literal's own zero
constexpr size_t kMagicBytes = 9, kHeaderBytes = kMagicBytes + 8 + 1 + 8 + 8;
constexpr uint8_t kInt32 = 4, kUint16 = 8;

Path with_suffix(const Path& input, const char* suffix) {
  Path prefix = input;
  if (input.extension() == ".idx" || input.extension() == ".bin") prefix.replace_extension();
  prefix += suffix;
  return prefix;
}

template <class T>
T load_at(const std::byte* from) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  return value;
}

}  // namespace

struct MegatronFile::Impl {
  explicit Impl(const Path& input)
      : index_path_(with_suffix(input, ".idx")),
        bin_path_(with_suffix(input, ".bin")),
        index_(index_path_),
        bin_(bin_path_) {
    const std::byte* at = index_.data();
    check(index_.size() > 0, ErrorKind::data,
          "{} is empty (0 bytes), its index must have {} at least; copy it again", index_path_.string(),
          kHeaderBytes);
    check(index_.size() >= kHeaderBytes && std::memcmp(at, kMagic, kMagicBytes) == 0, ErrorKind::data,
          "{}: expected a Megatron index (MMIDIDX), got something else; give the prefix of an .idx and .bin "
          "pair made by Megatron's preprocess_data.py",
          index_path_.string());
    const auto version = load_at<uint64_t>(at + kMagicBytes);
    const auto code = load_at<uint8_t>(at + kMagicBytes + 8);
    const auto sequences = load_at<uint64_t>(at + kMagicBytes + 9),
               entries = load_at<uint64_t>(at + kMagicBytes + 17);
    check(version == 1, ErrorKind::data,
          "{}: index version {}, this program reads version 1; preprocess the text again",
          index_path_.string(), version);
    check(code == kUint16 || code == kInt32, ErrorKind::data,
          "{}: tokens of type code {}, expected 8 (u16) or 4 (i32); preprocess the text again",
          index_path_.string(), code);
    // Bound the counts before multiplying them.
    const uint64_t room = index_.size() - kHeaderBytes;
    const bool bounded = sequences <= UINT64_MAX / 32 && entries <= UINT64_MAX / 32;
    const uint64_t needed = bounded ? 12 * sequences + 8 * entries : UINT64_MAX - kHeaderBytes;
    check(room >= needed, ErrorKind::data,
          "{}: {} sequences and {} document entries need {} bytes, but the file has {}: {} are missing; it "
          "is cut "
          "off or damaged: copy it again",
          index_path_.string(), sequences, entries, kHeaderBytes + needed, index_.size(), needed - room);
    check(room == needed || room == needed + sequences, ErrorKind::data,
          "{}: {} sequences and {} document entries need {} bytes (or {} with a mode each), but the file has "
          "{}: "
          "{} too many; it is damaged or no index of Megatron's: copy it again",
          index_path_.string(), sequences, entries, kHeaderBytes + needed, kHeaderBytes + needed + sequences,
          index_.size(), room - needed);
    token_bytes_ = code == kUint16 ? 2 : 4;
    sequences_ = static_cast<int64_t>(sequences), documents_ = static_cast<int64_t>(entries) - 1;
    lengths_ = at + kHeaderBytes;
    offsets_ = lengths_ + 4 * sequences;
    firsts_ = offsets_ + 8 * sequences;
    check(documents_ >= 0 && first_sequence(0) == 0 && first_sequence(documents_) == sequences_,
          ErrorKind::data, "{}: its documents do not cover its {} sequences; preprocess the text again",
          index_path_.string(), sequences_);
    check_bin_size();
  }

  // The sequences lie in the .bin file one after the other and fill it.
  void check_bin_size() const {
    int64_t needed = 0, all = 0;  // bytes: to the last one's end, and of all
    for (int64_t s = 0; s < sequences_; ++s) {
      const int64_t length = load_at<int32_t>(lengths_ + 4 * s), offset = load_at<int64_t>(offsets_ + 8 * s);
      constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
      check(length >= 0 && offset >= 0 && offset <= kMost - length * token_bytes_, ErrorKind::data,
            "{}: sequence {} has {} tokens at byte {}; the file is damaged: copy it again",
            index_path_.string(), s, length, offset);
      needed = std::max(needed, offset + length * token_bytes_);
      all += length * token_bytes_;  // fewer than 2^61 sequences fit in a file, and 2^33 bytes in one of them
      check(all <= kMost / 2, ErrorKind::data,
            "{}: its sequences have more tokens than any file; it is damaged", index_path_.string());
    }
    const auto bytes = static_cast<int64_t>(bin_.size());
    check(bytes > 0 || needed == 0, ErrorKind::data,
          "{} is empty (0 bytes), but {} describes {} bytes of tokens; copy it again", bin_path_.string(),
          index_path_.string(), needed);
    check(bytes >= needed, ErrorKind::data,
          "{} has {} bytes, but {} describes {}: {} are missing; it is cut off, or the two are no pair: copy "
          "them "
          "again",
          bin_path_.string(), bytes, index_path_.string(), needed, needed - bytes);
    check(bytes == needed, ErrorKind::data,
          "{} has {} bytes, but {} describes only {}: {} too many; the two are no pair: copy them again",
          bin_path_.string(), bytes, index_path_.string(), needed, bytes - needed);
    // Or a small file would be a large text.
    check(all == needed, ErrorKind::data,
          "{}: its sequences have {} bytes together, but {} has {}: they overlap or leave holes; it is "
          "damaged: copy it again",
          index_path_.string(), all, bin_path_.string(), bytes);
  }

  void read_document(int64_t d, std::vector<int32_t>& ids) const {
    ids.clear();
    const int64_t begin = first_sequence(d), end = first_sequence(d + 1);
    check(begin >= 0 && begin <= end && end <= sequences_, ErrorKind::data,
          "{}: document {} has the sequences {} to {} of {}; the file is damaged: copy it again",
          index_path_.string(), d, begin, end, sequences_);
    for (int64_t s = begin; s < end; ++s) {
      const int64_t length = load_at<int32_t>(lengths_ + 4 * s), offset = load_at<int64_t>(offsets_ + 8 * s);
      const std::byte* from = bin_.data() + offset;
      for (int64_t t = 0; t < length; ++t) {
        ids.push_back(token_bytes_ == 2 ? load_at<uint16_t>(from + 2 * t) : load_at<int32_t>(from + 4 * t));
      }
    }
  }

  int64_t first_sequence(int64_t d) const { return load_at<int64_t>(firsts_ + 8 * d); }

  Path index_path_, bin_path_;
  MappedFile index_, bin_;
  int64_t token_bytes_ = 2, sequences_ = 0, documents_ = 0;
  const std::byte *lengths_ = nullptr, *offsets_ = nullptr, *firsts_ = nullptr;
};

MegatronFile::MegatronFile(const Path& input) : impl_(std::make_unique<Impl>(input)) {}
MegatronFile::~MegatronFile() = default;

int64_t MegatronFile::documents() const { return impl_->documents_; }
int64_t MegatronFile::sequences() const { return impl_->sequences_; }
const Path& MegatronFile::path() const { return impl_->bin_path_; }
void MegatronFile::read_document(int64_t d, std::vector<int32_t>& ids) const { impl_->read_document(d, ids); }

namespace {

template <class T>
void write_raw(OutputFile& out, const std::vector<T>& values) {
  out.write(std::as_bytes(std::span(values)));
}

void write_bin(const TokenStream& stream, bool wide, OutputFile& out,
               const std::function<void(int64_t done, int64_t total)>& progress) {
  std::vector<int32_t> tokens(static_cast<size_t>(std::min(kCrcBlockTokens, stream.size())));
  std::vector<uint16_t> narrow;
  for (int64_t first = 0; first < stream.size(); first += kCrcBlockTokens) {
    tokens.resize(static_cast<size_t>(std::min(kCrcBlockTokens, stream.size() - first)));
    stream.read(first, static_cast<int64_t>(tokens.size()), tokens.data());
    narrow.assign(tokens.begin(), tokens.end());
    wide ? write_raw(out, tokens) : write_raw(out, narrow);
    if (progress) progress(first + static_cast<int64_t>(tokens.size()), stream.size());
  }
}

void write_index(const std::vector<int64_t>& starts, bool wide, OutputFile& out) {
  const size_t documents = starts.size() - 1;
  std::vector<int32_t> lengths;
  std::vector<int64_t> offsets, firsts(documents + 1);
  for (size_t d = 0; d < documents; ++d) {
    const int64_t length = starts[d + 1] - starts[d];
    check(length <= std::numeric_limits<int32_t>::max(), ErrorKind::data,
          "document {} has {} tokens, Megatron's index holds at most 2^31 - 1; split it", d, length);
    lengths.push_back(static_cast<int32_t>(length));
    offsets.push_back(starts[d] * (wide ? 4 : 2));
  }
  std::iota(firsts.begin(), firsts.end(), 0);
  out.write(std::string_view(kMagic, kMagicBytes));
  write_raw(out, std::vector<uint64_t>{1});
  write_raw(out, std::vector<uint8_t>{wide ? kInt32 : kUint16});
  write_raw(out, std::vector<uint64_t>{documents, documents + 1});
  write_raw(out, lengths);
  write_raw(out, offsets);
  write_raw(out, firsts);
}

}  // namespace

bool is_megatron(const Path& input) {
  std::error_code ignored;
  return input.extension() == ".idx" || input.extension() == ".bin" ||
         std::filesystem::exists(with_suffix(input, ".idx"), ignored) ||
         std::filesystem::exists(with_suffix(input, ".bin"), ignored);
}

Path megatron_prefix(const Path& input) { return with_suffix(input, ""); }

void write_megatron(const TokenStream& stream, const Path& prefix,
                    const std::function<void(int64_t done, int64_t total)>& progress) {
  const std::vector<int64_t> starts = stream.document_starts();
  const bool wide = stream.vocab_size() == 0 || stream.vocab_size() >= 65500;
  const Path bin = with_suffix(prefix, ".bin"), index = with_suffix(prefix, ".idx");
  if (bin.has_parent_path()) make_folder(bin.parent_path());
  replace_file(bin, [&](OutputFile& out) { write_bin(stream, wide, out, progress); });
  // Last: where it stands the pair is whole.
  replace_file(index, [&](OutputFile& out) { write_index(starts, wide, out); });
}

}  // namespace ziggurat
