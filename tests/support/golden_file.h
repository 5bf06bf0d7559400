// GoldenFile: the committed oracle vectors of tests/golden/data, as plain vectors. Names: its FORMAT.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ziggurat {

class GoldenFile {
 public:
  // Reads the whole safetensors file. Throws Error(checkpoint), naming the file and the entry, when it cannot
  // be read or is not exactly what the format allows with dtypes F64, F32 and I32.
  explicit GoldenFile(const std::string& path);

  // The committed file of that name: "gpt_dense" is tests/golden/data/gpt_dense.safetensors.
  static GoldenFile committed(const std::string& stem);

  bool contains(const std::string& name) const { return entries_.contains(name); }
  std::vector<std::string> names(const std::string& prefix = "") const;  // sorted, with the prefix

  // The rest throws Error(checkpoint), naming the file, for a name that is absent or of another kind.
  const std::vector<int64_t>& shape(const std::string& name) const;
  std::vector<double> doubles(const std::string& name) const;  // F64 or F32
  std::vector<int64_t> ints(const std::string& name) const;    // I32

  const std::string& text(const std::string& key) const;         // a metadata value
  double number(const std::string& key) const;                   // ... that is one number
  std::vector<std::string> words(const std::string& key) const;  // ... split at blanks
  bool has_text(const std::string& key) const { return metadata_.contains(key); }

 private:
  struct Entry {
    std::string dtype;
    std::vector<int64_t> shape;
    size_t begin = 0, end = 0;  // bytes of content_
  };
  const Entry& entry(const std::string& name) const;
  void check_coverage(size_t data_begin) const;

  std::string path_, content_;
  std::map<std::string, Entry> entries_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace ziggurat
