// The weights of a folder of Hugging Face transformers as the parameters of a model of ours.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include <ziggurat/hf/form.h>
#include <ziggurat/hf/model_folder.h>
#include <ziggurat/nn/param_store.h>

namespace ziggurat::hf {

struct FolderTensor;

// The class and the model of config.json (see from_config_json). Biases of q, k and v and shared experts
// that are all zero, as an export to Qwen2-MoE may have them, are none.
std::pair<Form, model::ModelConfig> read_config(const ModelFolder& folder, const model::ModelConfig& base,
                                                std::vector<std::string>* notes = nullptr);

// Any part of any parameter at a time, so that a model may be far larger than memory. Errors are
// Error(checkpoint) and name the folder or file, and the tensor.
class FolderWeights {
 public:
  enum class Values { any, finite };

  // `model`: the parameters of `config`, or of a model that `config` was upcycled to; it needs no memory.
  // Throws where a tensor is missing, has another shape or dtype, or has no place in the model.
  // Values::finite: read() throws where it meets a NaN or an infinity, with which nothing can be trained.
  FolderWeights(const ModelFolder& folder, const Form& form, const model::ModelConfig& config,
                const nn::ParamStore& model, Values values = Values::any);
  ~FolderWeights();

  // Computed tables that old folders carry.
  const std::vector<std::string>& skipped() const { return skipped_; }

  // Throws where numbers stand that a model here has no place for: parts of the class that must be zero, and
  // a second copy of a tied embedding, which must be equal to it. Looks at every parts-th such tensor.
  void check_values(int part = 0, int parts = 1) const;

  // Fills `to` ([n], f32 or f64) with the parameter's values from element `first` on, row by row. Rows that
  // pad the vocabulary and biases that the class lacks are zero; what upcycling adds has its initial values.
  // Reads through a buffer of fixed size, but of a transposed matrix the whole.
  void read(const nn::ParamEntry& entry, int64_t first, const Tensor& to);

 private:
  std::string find(const FolderTensor& tensor) const;
  void check_there(const FolderTensor& tensor, std::set<std::string>& used) const;
  void check_experts_apart() const;
  void check_rest(const std::set<std::string>& used);
  void read_dense(const std::string& ours, int64_t first, const Tensor& to);
  void read_part(const FolderTensor& tensor, int64_t first, const Tensor& to);
  void copy_part(const FolderTensor& tensor, const std::string& name, int64_t first, const Tensor& to);

  const ModelFolder& folder_;
  const Values values_;
  const bool tied_;
  const uint64_t seed_;
  const std::vector<FolderTensor> tensors_;
  const std::map<std::string, Shape> ours_;
  std::map<std::string, std::vector<const FolderTensor*>> parts_;  // of each of ours
  std::vector<std::string> skipped_;
  std::string second_head_;  // the copy of a tied embedding; may be empty
  std::string held_;         // the transposed matrix that was read last, and its values
  std::vector<float> held_values_;
};

}  // namespace ziggurat::hf
