#include <algorithm>

#include <ziggurat/train/micro_batch_graphs.h>
#include <ziggurat/train/step_plan.h>
#include <ziggurat/train/teacher.h>

namespace ziggurat::train {

namespace {

// Whether every layer whose experts are shared exchanges as many rows in every micro-batch.
bool exchanges_are_static(const RunConfig& config, const model::ModelConfig& model) {
  const moe::MoeConfig& moe = model.moe;
  const int64_t tokens = config.batch.micro_batch * config.batch.sequence_length;
  ops::RouterArgs args;
  args.top_k = moe.top_k, args.capacity_rule = moe.capacity_rule, args.min_capacity = moe.min_capacity;
  const std::vector<model::BlockSpec> layers = model.layers();
  return std::all_of(layers.begin(), layers.end(), [&](const model::BlockSpec& layer) {
    if (layer.experts == 0 || layer.expert_parallel == 1) return true;
    const int64_t capacity = moe.drop == kernels::DropPolicy::none
                                 ? tokens
                                 : ops::expert_capacity(args, moe.capacity_factor, tokens, layer.experts);
    return moe::fit_blocks(layer.experts * capacity, tokens / config.parallel.tensor * moe.top_k);
  });
}

}  // namespace

std::string why_no_graphs(const RunConfig& config, int world_size, bool devices_exchange) {
  if (config.device != Device::cuda) return "the device is the CPU";
  if (config.train.graphs == Graphs::off) return "train.graphs is off";
  if (config.parallel.zero == 2) return "parallel.zero 2 lends gradients their memory as backward goes";
  const model::ModelConfig model = model_of(config, world_size);
  const auto shared = [](const std::vector<int>& sizes) {
    return std::any_of(sizes.begin(), sizes.end(), [](int ranks) { return ranks > 1; });
  };
  const bool sliced = model.has_experts() && config.parallel.expert_tensor > 1;
  const bool shares_experts = sliced || shared(model.expert_parallel_sizes());
  if (config.distil.enabled()) {
    const std::optional<RunConfig> teacher = teacher_of(config);
    if (!teacher) return "the teacher's checkpoint is not there (distil.teacher)";
    if (shared(model::fit_to_ranks(teacher->model, world_size).expert_parallel_sizes())) {
      return "the teacher's experts are shared by ranks (expert_parallel), and take as many rows as there "
             "are";
    }
  }
  if ((shares_experts || config.parallel.tensor > 1) && !devices_exchange) {
    return "ranks exchange through the host within a micro-batch (expert_parallel, parallel.tensor)";
  }
  if (sliced || (shares_experts && !exchanges_are_static(config, model))) {
    return "experts are shared by ranks (expert_parallel), which learn in every layer how many rows come: a "
           "smaller moe.capacity_factor, or experts that drop tokens, would do without";
  }
  if (model.has_experts() && model.moe.balance_scope == moe::BalanceScope::global_batch && world_size > 1 &&
      !devices_exchange) {
    return "moe.balance_scope global_batch sums over ranks in every layer, through the host";
  }
  return "";
}

bool MicroBatchGraphs::repeats(Variant& variant, const Tape& tape, const model::TokenBatch& batch) {
  const Inputs inputs{tape.numbers(),  batch.tokens,   batch.targets,   batch.positions,
                      batch.first_key, batch.last_key, batch.sequences, batch.length};
  if (variant.inputs == Inputs{}) {
    variant.inputs = inputs;
    return false;
  }
  check(inputs == variant.inputs, ErrorKind::internal,
        "[graphs] a micro-batch of {} sequences of {} tokens at {} and {}, after one of {} of {} at {} and "
        "{}: a "
        "graph reads what lies where it was recorded; train.graphs=off does without",
        inputs.sequences, inputs.length, inputs.numbers, inputs.tokens, variant.inputs.sequences,
        variant.inputs.length, variant.inputs.numbers, variant.inputs.tokens);
  return true;
}

void MicroBatchGraphs::record(Variant& variant, Stream& stream, const std::function<void()>& queue) const {
  for (const nn::ParamEntry& entry : store_.entries()) {
    bool* const flag = entry.param.unwritten;
    if (flag != nullptr && *flag) variant.unwritten.push_back(flag);
  }
  try {
    variant.graph = Graph::record(stream, queue);
  } catch (const Error& error) {
    fail(error.kind(), "{} (while the work of a micro-batch was recorded; train.graphs=off does without)",
         error.what());
  }
  std::copy_if(variant.unwritten.begin(), variant.unwritten.end(), std::back_inserter(variant.written),
               [](const bool* flag) { return !*flag; });
}

void MicroBatchGraphs::take_flags(const Variant& variant) const {
  auto next = variant.unwritten.begin();
  for (const nn::ParamEntry& entry : store_.entries()) {
    const bool* const flag = entry.param.unwritten;
    if (flag == nullptr || !*flag) continue;
    const bool recorded = next != variant.unwritten.end() && *next == flag;
    check(recorded, ErrorKind::internal, "[graphs] {}: its gradient is to be written, the graph adds to it",
          entry.spec.name);
    ++next;
  }
  check(next == variant.unwritten.end(), ErrorKind::internal,
        "[graphs] a gradient is to be added to, the graph writes it");
  for (bool* flag : variant.written) *flag = false;
}

}  // namespace ziggurat::train
