#include <algorithm>
#include <set>

#include "hf/layout.h"
#include <ziggurat/hf/import.h>

namespace ziggurat::hf {

namespace {

bool is_zero(const std::vector<float>& values) {
  return std::all_of(values.begin(), values.end(), [](float x) { return x == 0; });
}

// Where a tensor of the dense model stands in the store: once, or once in each expert that starts from it.
class Places {
 public:
  explicit Places(nn::ParamStore& store) : store_(store) {
    for (const nn::ParamEntry& entry : store.entries()) entries_[entry.spec.name] = &entry;
  }

  // Whole tensors of `shape`, each in memory of its own.
  std::vector<Tensor> of(const std::string& name, const Shape& shape) const {
    std::vector<Tensor> places;
    if (const auto own = entries_.find(name); own != entries_.end()) {
      places.push_back(store_.master(*own->second));
    }
    if (const auto stack = entries_.find(name_in_experts(name)); stack != entries_.end()) {
      const Tensor experts = store_.master(*stack->second);
      for (int64_t e = 0; e < experts.dim(0); ++e) {
        places.push_back(experts.rows(e, e + 1).reshape(shape));
      }
    }
    return places;
  }

 private:
  static std::string name_in_experts(std::string name) {
    const size_t mlp = name.find(".mlp.");
    return mlp == std::string::npos ? "" : name.replace(mlp, 5, ".moe.experts.");
  }

  nn::ParamStore& store_;
  std::map<std::string, const nn::ParamEntry*> entries_;
};

int64_t elements_of_row(const Shape& shape) { return shape.numel() / std::max<int64_t>(1, shape[0]); }

template <class T>
void place(const std::vector<float>& values, const FolderTensor& tensor, T* to) {
  if (!tensor.transposed) {
    std::transform(values.begin(), values.end(), to, [](float x) { return T(x); });
    return;
  }
  const int64_t rows = tensor.shape[0], cols = tensor.shape[1];  // there
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < cols; ++c) to[c * rows + r] = T(values[static_cast<size_t>(r * cols + c)]);
  }
}

class WeightReader {
 public:
  WeightReader(const ModelFolder& folder, const Form& form, const model::ModelConfig& config,
               nn::ParamStore& store)
      : folder_(folder),
        config_(config),
        tensors_(layout(form, config)),
        ours_(parameters_of(config)),
        places_(store) {}

  std::vector<std::string> read() {
    for (const FolderTensor& tensor : tensors_) check_there(tensor);
    const std::vector<std::string> skipped = check_rest();
    for (const auto& [name, shape] : ours_) {
      for (const Tensor& to : places_.of(name, shape)) fill_zero(to);
    }
    for (const FolderTensor& tensor : tensors_) read(tensor);
    return skipped;
  }

 private:
  // Its name in this folder; empty: it is not there.
  std::string find(const FolderTensor& tensor) const {
    for (const std::string& name : {tensor.name, name_in_trunk(tensor.name)}) {
      if (folder_.contains(name)) return name;
    }
    return "";
  }

  void check_there(const FolderTensor& tensor) {
    const std::string name = find(tensor);
    check(!name.empty(), ErrorKind::checkpoint, "{} has no tensor '{}', which its config.json asks for",
          folder_.path(), tensor.name);
    const Shape& found = folder_.entry(name).shape;
    check(found == tensor.shape, ErrorKind::checkpoint, "{}: tensor '{}' is {}, its config.json makes it {}",
          folder_.path(), name, found, tensor.shape);
    used_.insert(name);
  }

  std::vector<std::string> check_rest() const {
    std::vector<std::string> skipped;
    for (const std::string& name : folder_.names()) {
      if (used_.contains(name)) continue;
      if (name == "lm_head.weight" && config_.tied_embeddings) {
        check_same_as_embedding(name);
        continue;
      }
      check(is_computed_table(name), ErrorKind::checkpoint,
            "{}: tensor '{}' has no place in the model that its config.json describes", folder_.path(), name);
      skipped.push_back(name);
    }
    return skipped;
  }

  void check_same_as_embedding(const std::string& head) const {
    const std::string table = find(tensors_.front());
    const bool same =
        folder_.entry(head).shape == folder_.entry(table).shape && folder_.read(head) == folder_.read(table);
    check(same, ErrorKind::checkpoint,
          "{}: its config.json ties the head to the embedding (tie_word_embeddings), but '{}' differs from "
          "'{}': say there which of both is meant",
          folder_.path(), head, table);
  }

  void read(const FolderTensor& tensor) const {
    const std::vector<float> values = folder_.read(find(tensor));
    if (tensor.ours.empty()) {
      check(is_zero(values), ErrorKind::checkpoint,
            "{}: tensor '{}' is not zero, and a model here has no such part", folder_.path(), tensor.name);
      return;
    }
    const Shape& shape = ours_.at(tensor.ours);
    const int64_t first = tensor.row_begin * elements_of_row(shape);
    for (const Tensor& to : places_.of(tensor.ours, shape)) {
      visit_float_dtype(to.dtype(), [&]<class T>() { place(values, tensor, to.data<T>() + first); });
    }
  }

  const ModelFolder& folder_;
  const model::ModelConfig& config_;
  const std::vector<FolderTensor> tensors_;
  const std::map<std::string, Shape> ours_;
  const Places places_;
  std::set<std::string> used_;
};

}  // namespace

std::pair<Form, model::ModelConfig> read_config(const ModelFolder& folder, const model::ModelConfig& base) {
  auto [form, config] = from_config_json(folder.config(), base, folder.config_path());
  if (form.model_class != ModelClass::qwen2_moe) return {form, config};
  const std::vector<std::string> names = folder.names();
  config.bias = std::any_of(names.begin(), names.end(), [&](const std::string& name) {
    return name.ends_with("_proj.bias") && !is_zero(folder.read(name));
  });
  return {form, config};
}

std::vector<std::string> read_weights(const ModelFolder& folder, const Form& form,
                                      const model::ModelConfig& config, nn::ParamStore& store) {
  return WeightReader(folder, form, config, store).read();
}

}  // namespace ziggurat::hf
