// GoldenFile: the committed oracle vectors of tests/golden/data, as plain vectors. Names: its FORMAT.md.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ziggurat/checkpoint/safetensors.h>
#include <ziggurat/nn/param_store.h>

namespace ziggurat {

class GoldenFile {
 public:
  // Throws Error(checkpoint), naming the file and the entry, when it is not exactly what the format allows.
  explicit GoldenFile(const std::string& path) : file_(path) {}

  // The committed file of that name: "gpt_dense" is tests/golden/data/gpt_dense.safetensors.
  static GoldenFile committed(const std::string& stem);

  bool contains(const std::string& name) const { return file_.entries().contains(name); }
  std::vector<std::string> names(const std::string& prefix = "") const;  // sorted, with the prefix

  // The rest throws Error(checkpoint), naming the file, for a name that is absent or of another kind.
  const Shape& shape(const std::string& name) const { return file_.entry(name).shape; }
  std::vector<double> doubles(const std::string& name) const;  // F64 or F32
  std::vector<int64_t> ints(const std::string& name) const;    // I32

  const std::string& text(const std::string& key) const;         // a metadata value
  double number(const std::string& key) const;                   // ... that is one number
  int64_t whole(const std::string& key) const;                   // ... that is one whole number
  std::vector<std::string> words(const std::string& key) const;  // ... split at blanks
  bool has_text(const std::string& key) const { return file_.metadata().contains(key); }

 private:
  SafetensorsFile file_;
};

namespace test {

// The elements of a whole tensor that this rank holds of the parameter: all of it, or its experts' rows.
std::vector<double> held(const nn::ParamEntry& entry, const std::vector<double>& whole);

// Sets every parameter to the file's tensor `prefix` + its name without `strip`, which all names start with.
void load_parameters(nn::ParamStore& store, const GoldenFile& file, const std::string& prefix,
                     const std::string& strip = "");

}  // namespace test
}  // namespace ziggurat
