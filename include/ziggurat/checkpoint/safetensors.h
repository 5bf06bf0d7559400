// The safetensors file format, read strictly and written durably.
// Layout: header length (8 bytes, little-endian) | JSON header | tensor data without gaps.
// (format: README of huggingface/safetensors; here at most 4 dims)
#pragma once

#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <ziggurat/io/content_hash.h>
#include <ziggurat/io/mapped_file.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat {

struct NamedTensor {
  std::string name;
  Tensor data;  // on Device::cpu
};

struct TensorHeader {
  std::string name;
  DType dtype = DType::f32;
  Shape shape;
};

struct SafetensorsEntry {
  std::string name;
  std::string code;            // the dtype as the file writes it
  std::optional<DType> dtype;  // none: one that Tensor lacks
  Shape shape;
  int64_t begin = 0, end = 0;  // bytes of the file
};

struct WrittenFile {
  int64_t bytes = 0;
  std::string hash;  // content_hash of all bytes
};

// Writes, hashes on the way, and fsyncs. Tensors are laid out by falling element size, so that each is
// aligned. Throws Error(checkpoint) naming path and errno; then the file is incomplete and the caller removes
// it.
WrittenFile write_safetensors(const std::string& path, std::span<const NamedTensor> tensors,
                              const std::map<std::string, std::string>& metadata = {});

inline std::span<const std::byte> bytes_of(const Tensor& cpu) {
  return {static_cast<const std::byte*>(cpu.raw()), static_cast<size_t>(cpu.bytes())};
}

// Takes the next bytes of what is written.
using WriteBytes = std::function<void(std::span<const std::byte>)>;

// The same of tensors that are made while they are written: `make(i, write)` hands the bytes of tensors[i] to
// write(), in as many pieces as it likes. They lie in the file in this order, so those of larger elements
// come first.
WrittenFile write_safetensors(const std::string& path, std::span<const TensorHeader> tensors,
                              const std::function<void(size_t i, const WriteBytes& write)>& make,
                              const std::map<std::string, std::string>& metadata = {});

// Which dtypes a file may have: those of Tensor, as Ziggurat writes them, or others beside them.
enum class AcceptDtypes { of_tensors, any };

// Of a file only the header is held. Nothing in it is trusted: the constructor throws Error(checkpoint)
// naming the file and the entry when the header is not exactly what the format allows (no duplicate names,
// shape x dtype == bytes without overflow, data covered without overlap or hole).
class SafetensorsFile {
 public:
  // The header is parsed in memory of about its own size; longer ones are refused (the format allows 100 MB).
  static constexpr int64_t kMaxHeaderBytes = int64_t{16} << 20;

  // With `expected`, size and hash are compared before anything else is looked at.
  explicit SafetensorsFile(const std::string& path, const std::optional<WrittenFile>& expected = {},
                           AcceptDtypes accept = AcceptDtypes::of_tensors);
  SafetensorsFile(SafetensorsFile&& other) noexcept;
  SafetensorsFile& operator=(SafetensorsFile&&) = delete;

  const std::string& path() const { return path_; }
  const FileIdentity& identity() const { return identity_; }
  const std::map<std::string, SafetensorsEntry>& entries() const { return entries_; }  // by name
  const std::map<std::string, std::string>& metadata() const { return metadata_; }

  // Throws Error(checkpoint) naming the file when there is no such tensor.
  const SafetensorsEntry& entry(const std::string& name) const;

  // The bytes of `entry` from its byte `first` on; holds nothing. Throws Error(checkpoint) when the file was
  // cut off or replaced since it was opened.
  void read(const SafetensorsEntry& entry, int64_t first, std::span<std::byte> into) const;

  // Views for reading only, valid as long as this object: the first one maps the whole file. tensor() throws
  // Error(checkpoint) for a dtype that Tensor lacks, and for data that its writer did not align to the
  // element size; take such tensors through data().
  std::span<const std::byte> data(const std::string& name) const;
  Tensor tensor(const std::string& name) const;

 private:
  ReadOnlyFile reopened() const;  // throws when it was cut off or replaced since
  void parse_header(std::string_view text, AcceptDtypes accept);
  void check_coverage(int64_t data_begin) const;

  std::string path_;
  FileIdentity identity_;                     // of the file that was opened
  mutable std::mutex mapping_;                // of the next
  mutable std::optional<MappedFile> mapped_;  // once a view was asked for
  std::map<std::string, SafetensorsEntry> entries_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace ziggurat
