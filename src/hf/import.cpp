#include <algorithm>
#include <atomic>

#include "hf/layout.h"
#include <ziggurat/core/finite.h>
#include <ziggurat/hf/import.h>
#include <ziggurat/nn/initial_values.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::hf {

namespace {

int64_t elements_of_row(const Shape& shape) { return shape.numel() / std::max<int64_t>(1, shape[0]); }

template <class T>
bool holds_only_numbers(const Tensor& tensor) {
  std::atomic<bool> good = true;
  parallel_for_blocks(tensor.numel(), 65536, [&](int64_t begin, int64_t end) {
    if (!all_finite(tensor.data<T>(), begin, end)) good = false;
  });
  return good;
}

// The parameter of a dense model that each expert of a stack starts from; empty: the stack is none.
std::string dense_name(std::string name) {
  constexpr std::string_view kExperts = ".moe.experts.";
  const size_t at = name.find(kExperts);
  return at == std::string::npos ? "" : name.replace(at, kExperts.size(), ".mlp.");
}

}  // namespace

FolderWeights::FolderWeights(const ModelFolder& folder, const Form& form, const model::ModelConfig& config,
                             const nn::ParamStore& model, Values values)
    : folder_(folder),
      values_(values),
      tied_(config.tied_embeddings),
      seed_(model.options().seed),
      tensors_(layout(form, config)),
      ours_(parameters_of(config)) {
  std::set<std::string> used;
  for (const FolderTensor& tensor : tensors_) {
    check_there(tensor, used);
    if (!tensor.ours.empty()) parts_[tensor.ours].push_back(&tensor);
  }
  check_rest(used);
}

FolderWeights::~FolderWeights() = default;

// Its name in this folder; empty: it is not there.
std::string FolderWeights::find(const FolderTensor& tensor) const {
  for (const std::string& name : {tensor.name, name_in_trunk(tensor.name)}) {
    if (folder_.contains(name)) return name;
  }
  return "";
}

// transformers 5 holds a layer's experts in one tensor, and writes them apart unless told otherwise.
void FolderWeights::check_experts_apart() const {
  for (const std::string& name : folder_.names()) {
    check(!name.ends_with(".experts.gate_up_proj"), ErrorKind::checkpoint,
          "{}: '{}' holds all experts of a layer; expected a tensor for each, as save_pretrained() writes "
          "them: "
          "in Python, AutoModelForCausalLM.from_pretrained(\"{}\").save_pretrained(NEW_FOLDER)",
          folder_.file_of(name), name, folder_.path());
  }
}

void FolderWeights::check_there(const FolderTensor& tensor, std::set<std::string>& used) const {
  const std::string name = find(tensor);
  if (name.empty()) check_experts_apart();
  check(!name.empty(), ErrorKind::checkpoint,
        "{} has no tensor '{}', which its config.json asks for; is a file missing, or config.json of another "
        "model?",
        folder_.path(), tensor.name);
  const Shape& found = folder_.entry(name).shape;
  check(found == tensor.shape, ErrorKind::checkpoint,
        "{}: tensor '{}' is {}, its config.json makes it {}; is config.json of another model?",
        folder_.file_of(name), name, found, tensor.shape);
  folder_.check_dtype(name);
  used.insert(name);
}

void FolderWeights::check_rest(const std::set<std::string>& used) {
  for (const std::string& name : folder_.names()) {
    if (used.contains(name)) continue;
    if (name == "lm_head.weight" && tied_) {
      second_head_ = name;
      continue;
    }
    check(is_computed_table(name), ErrorKind::checkpoint,
          "{}: tensor '{}' has no place in the model that its config.json describes; a model here computes "
          "nothing from it, so it would be lost. Take it out of the file, or correct config.json",
          folder_.file_of(name), name);
    skipped_.push_back(name);
  }
}

void FolderWeights::check_values(int part, int parts) const {
  int i = 0;
  for (const FolderTensor& tensor : tensors_) {
    if (!tensor.ours.empty() || i++ % parts != part) continue;
    const std::string name = find(tensor);
    check(folder_.all_zero(name), ErrorKind::checkpoint,
          "{}: tensor '{}' is not zero, and a model here has no such part: it cannot be imported",
          folder_.file_of(name), name);
  }
  if (second_head_.empty() || i % parts != part) return;
  const std::string table = find(tensors_.front());
  check(folder_.equal(second_head_, table), ErrorKind::checkpoint,
        "{}: its config.json ties the head to the embedding (tie_word_embeddings), but '{}' differs from "
        "'{}': say there which of both is meant",
        folder_.path(), second_head_, table);
}

void FolderWeights::read(const nn::ParamEntry& entry, int64_t first, const Tensor& to) {
  const std::string& name = entry.spec.name;
  if (ours_.contains(name)) return read_dense(name, first, to);
  const auto dense = ours_.find(dense_name(name));
  if (dense == ours_.end()) return nn::draw_initial(entry.spec, seed_, first, to);
  const int64_t n = to.numel(), of_expert = dense->second.numel();
  for (int64_t at = 0; at < n;) {
    const int64_t begin = (first + at) % of_expert, count = std::min(n - at, of_expert - begin);
    read_dense(dense->first, begin, to.rows(at, at + count));
    at += count;
  }
}

// What no tensor of the folder holds is zero.
void FolderWeights::read_dense(const std::string& ours, int64_t first, const Tensor& to) {
  fill_zero(to);
  const int64_t row = elements_of_row(ours_.at(ours)), last = first + to.numel();
  for (const FolderTensor* tensor : parts_[ours]) {
    const int64_t its_first = tensor->row_begin * row;
    const int64_t begin = std::max(first, its_first), end = std::min(last, tensor->row_end * row);
    if (begin < end) read_part(*tensor, begin - its_first, to.rows(begin - first, end - first));
  }
}

void FolderWeights::read_part(const FolderTensor& tensor, int64_t first, const Tensor& to) {
  const std::string name = find(tensor);
  copy_part(tensor, name, first, to);
  if (values_ == Values::any) return;
  const bool good = to.dtype() == DType::f64 ? holds_only_numbers<double>(to) : holds_only_numbers<float>(to);
  check(good, ErrorKind::checkpoint,
        "{}: tensor '{}' holds numbers that are not finite (NaN, infinity, or too large for 32 bits), with "
        "which no model can be trained; copy the file again, or take weights of an earlier step",
        folder_.file_of(name), name);
}

void FolderWeights::copy_part(const FolderTensor& tensor, const std::string& name, int64_t first,
                              const Tensor& to) {
  const int64_t n = to.numel();
  if (tensor.transposed && held_ != name) {
    held_values_ = folder_.read(name);
    held_ = name;
  }
  visit_float_dtype(to.dtype(), [&]<class T>() {
    T* out = to.data<T>();
    if (tensor.transposed) {
      const int64_t rows = tensor.shape[0], cols = tensor.shape[1];  // there
      parallel_for_blocks(n, 65536, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
          const int64_t r = (first + i) % rows, c = (first + i) / rows;
          out[i] = T(held_values_[static_cast<size_t>(r * cols + c)]);
        }
      });
    } else if constexpr (std::is_same_v<T, float>) {
      folder_.read(name, first, {out, static_cast<size_t>(n)});
    } else {
      std::vector<float> values(static_cast<size_t>(n));
      folder_.read(name, first, values);
      std::transform(values.begin(), values.end(), out, [](float x) { return T(x); });
    }
  });
}

std::pair<Form, model::ModelConfig> read_config(const ModelFolder& folder, const model::ModelConfig& base,
                                                std::vector<std::string>* notes) {
  const std::vector<std::string> names = folder.names();
  const auto has_numbers = [&](const char* part) {
    return std::any_of(names.begin(), names.end(), [&](const std::string& name) {
      return name.find(part) != std::string::npos && !folder.all_zero(name);
    });
  };
  auto [form, config] = from_config_json(folder.config(), base, folder.config_path(),
                                         has_numbers(".mlp.shared_expert"), notes, std::ssize(names));
  if (form.model_class == ModelClass::qwen2_moe) config.bias = has_numbers("_proj.bias");
  return {form, config};
}

}  // namespace ziggurat::hf
