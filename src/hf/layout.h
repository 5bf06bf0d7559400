// Where the numbers of our tensors stand in a folder of Hugging Face transformers: one list, by which a
// folder is written and read.
#pragma once

#include <map>
#include <string>
#include <vector>

#include <ziggurat/hf/form.h>

namespace ziggurat::hf {

// A tensor there: rows [row_begin, row_end) of the leading dim of one of ours, as a matrix transposed or not.
struct FolderTensor {
  std::string name;
  Shape shape;       // there
  std::string ours;  // empty: zeros, for what its class has and the model lacks
  int64_t row_begin = 0, row_end = 0;
  bool transposed = false;
};

// Names and global shapes of the model's parameters.
std::map<std::string, Shape> parameters_of(const model::ModelConfig& config);

// Every tensor there, in the order of the layers. Rows of ours that no tensor holds are padding of the
// vocabulary, and biases that the class lacks: both are zero. `config` must have no obstacle to the class.
std::vector<FolderTensor> layout(const Form& form, const model::ModelConfig& config);

// The name that a tensor may have instead: without the name of the model's trunk, as some folders have it.
std::string name_in_trunk(const std::string& name);

}  // namespace ziggurat::hf
