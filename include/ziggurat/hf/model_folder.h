// A folder of Hugging Face transformers, as it lies on the disk.
#pragma once

#include <deque>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <ziggurat/checkpoint/safetensors.h>

namespace ziggurat::hf {

class ModelFolder {
 public:
  // Reads config.json and the headers of model.safetensors, or of the files that model.safetensors.index.json
  // names: then each tensor must be in the file that it says, and in no other, and nothing else there but
  // computed tables. Throws Error(checkpoint) naming the file and the cure; nothing in the folder is trusted.
  explicit ModelFolder(const std::string& path);

  const std::string& path() const { return path_; }
  std::string config_path() const { return path_ + "/config.json"; }
  const nlohmann::json& config() const { return config_; }

  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return tensors_.contains(name); }
  const SafetensorsEntry& entry(const std::string& name) const {
    return tensors_.at(name).contents->entry(name);
  }

  const std::string& file_of(const std::string& name) const { return tensors_.at(name).contents->path(); }

  // Throws Error(checkpoint) naming file, tensor and cure unless its dtype is F64, F32, F16 or BF16.
  void check_dtype(const std::string& name) const;

  // The values from value `first` on as f32, row by row, through a buffer of fixed size; or all of them.
  // Other dtypes as check_dtype.
  void read(const std::string& name, int64_t first, std::span<float> into) const;
  std::vector<float> read(const std::string& name) const;

  // Of whole tensors, a piece at a time.
  static constexpr int64_t kPiece = 1 << 20;  // values
  bool all_zero(const std::string& name) const;
  bool equal(const std::string& a, const std::string& b) const;

 private:
  struct Place {
    std::string file;  // in the folder
    const SafetensorsFile* contents;
  };
  void open(const std::string& file);
  void open_indexed(const std::string& index);
  [[noreturn]] void fail_without_weights() const;
  bool every_piece(const std::string& name,
                   const std::function<bool(int64_t first, std::span<const float> values)>& holds) const;

  std::string path_;
  nlohmann::json config_;
  std::deque<SafetensorsFile> files_;
  std::map<std::string, Place> tensors_;
};

// Tables that older versions of transformers saved and any version computes: causal masks, rotary
// frequencies.
bool is_computed_table(const std::string& name);

}  // namespace ziggurat::hf
