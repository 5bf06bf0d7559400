// A folder of Hugging Face transformers, as it lies on the disk.
#pragma once

#include <deque>
#include <map>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <ziggurat/checkpoint/safetensors.h>

namespace ziggurat::hf {

class ModelFolder {
 public:
  // Reads config.json and the headers of model.safetensors, or of the files that model.safetensors.index.json
  // names. Throws Error(checkpoint) naming the file and the cure; nothing in the folder is trusted.
  explicit ModelFolder(const std::string& path);

  const std::string& path() const { return path_; }
  std::string config_path() const { return path_ + "/config.json"; }
  const nlohmann::json& config() const { return config_; }

  std::vector<std::string> names() const;
  bool contains(const std::string& name) const { return tensors_.contains(name); }
  const SafetensorsEntry& entry(const std::string& name) const {
    return tensors_.at(name).contents->entry(name);
  }

  // The values as f32, row by row, from any of F64, F32, F16 and BF16; of other dtypes Error(checkpoint).
  std::vector<float> read(const std::string& name) const;

 private:
  struct Place {
    std::string file;  // in the folder
    const SafetensorsFile* contents;
  };
  void open(const std::string& file);

  std::string path_;
  nlohmann::json config_;
  std::deque<SafetensorsFile> files_;
  std::map<std::string, Place> tensors_;
};

}  // namespace ziggurat::hf
