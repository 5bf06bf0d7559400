#include "apps/trained_model.h"

#include <algorithm>
#include <set>

#include <fmt/ranges.h>

#include <ziggurat/config/config.h>
#include <ziggurat/train/run_tokenizer.h>

namespace ziggurat::apps {

namespace {

bool is_expert(const nn::ParamSpec& spec) { return spec.expert_parallel > 0; }

train::Precision precision_of(const std::string& name, train::Precision trained, const std::string& path) {
  for (const EnumName& known : train::enum_names(train::Precision{})) {
    if (known.name != name) continue;
    const auto value = static_cast<train::Precision>(known.value);
    const bool wide = trained == train::Precision::fp64;  // its weights are, too
    check((value == train::Precision::fp64) == wide, ErrorKind::argument,
          "--precision: {} was trained {} fp64, so it runs {} fp64", path, wide ? "in" : "without",
          wide ? "only in" : "without");
    return value;
  }
  fail(ErrorKind::argument, "--precision: expected bf16, fp32 or fp64, got {}", name);
}

}  // namespace

LoadedModel::LoadedModel(CheckpointReader& checkpoint, const train::RunConfig& config, Communicator& world,
                         WeightForm form) {
  const model::ModelConfig shape = model::fit_to_ranks(config.model, world.size());
  groups_ = std::make_unique<ProcessGroups>(world, ParallelPlan(world.size(), shape.expert_parallel_sizes()));
  store_ = std::make_unique<nn::ParamStore>(
      nn::ParamStore::Options{.compute = train::compute_dtype(config.precision),
                              .trainable = false,
                              .step_tokens = form == WeightForm::packed ? 1 : 0});
  model_ = std::make_unique<model::Gpt>(shape, *store_, *groups_);
  store_->finalize();
  if (world.size() > 1) checkpoint.verify_together(world);
  for (const nn::ParamEntry& entry : store_->entries()) {
    const nn::ParamSpec& spec = entry.spec;
    const int64_t begin = is_expert(spec) ? spec.row_begin : 0,
                  end = is_expert(spec) ? spec.row_end : spec.global_shape[0];
    checkpoint.read(
        {spec.name, spec.global_shape, rows_of(spec.global_shape, begin, end), entry.param.value});
  }
  store_->values_changed();
  if (form == WeightForm::panels) store_->to_panels();
}

TrainedModel::TrainedModel(const std::string& checkpoint, const std::string& precision,
                           const std::string& tokenizer, bool average, Communicator& world, WeightForm form,
                           int expert_parallel)
    : reader_(checkpoint), world_(world) {
  if (average) reader_.use_averages();
  parse_config(config_, reader_.manifest().config, reader_.path());
  tokenizer_ = train::find_tokenizer(reader_, config_, tokenizer).tokenizer;
  if (!precision.empty()) config_.precision = precision_of(precision, config_.precision, reader_.path());
  if (expert_parallel > 0) config_.model = model::share_experts(std::move(config_.model), expert_parallel);
  loaded_ = std::make_unique<LoadedModel>(reader_, config_, world, form);
}

std::string TrainedModel::weight_hash() const {
  std::string mine;
  const nn::ParamStore& weights = loaded_->weights();
  for (const nn::ParamEntry& entry : weights.entries()) {
    const Tensor& values = entry.param.value;
    const int64_t pieces = is_expert(entry.spec) ? values.dim(0) : 1, first = entry.spec.row_begin;
    if (!is_expert(entry.spec) && world_.rank() != 0) continue;
    const auto bytes = static_cast<size_t>(values.numel() / pieces * size_of(values.dtype()));
    for (int64_t i = 0; i < pieces; ++i) {
      const auto* piece = static_cast<const std::byte*>(values.raw()) + static_cast<size_t>(i) * bytes;
      mine += fmt::format("{} {} {} {}\n", entry.spec.name, entry.spec.global_shape, first + i,
                          content_hash({piece, bytes}));
    }
  }
  std::set<std::string> lines;  // experts that several ranks hold count once
  for (const std::string& text : world_.all_gather_text(mine)) {
    for (size_t begin = 0; begin < text.size(); begin = text.find('\n', begin) + 1) {
      lines.insert(text.substr(begin, text.find('\n', begin) - begin));
    }
  }
  const std::string all = fmt::format("{}", fmt::join(lines, "\n"));
  return content_hash(std::as_bytes(std::span(all)));
}

}  // namespace ziggurat::apps
