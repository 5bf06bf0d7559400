#include <algorithm>
#include <optional>

#include <ziggurat/infer/executor.h>
#include <ziggurat/kernels/few_rows.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::infer {

namespace {

constexpr int64_t kLogitsRows = 256;  // at once: they take 4 bytes x vocabulary each

}  // namespace

void Pass::clear() {
  for (auto* values : {&tokens, &positions, &sequence, &blocks, &dropped, &wanted}) values->clear();
  begin.assign(1, 0);
}

void Pass::add_sequence(std::span<const int32_t> of_sequence, int64_t let_go) {
  blocks.insert(blocks.end(), of_sequence.begin(), of_sequence.end());
  begin.push_back(static_cast<int32_t>(blocks.size()));
  dropped.push_back(static_cast<int32_t>(let_go));
}

void Pass::add_row(int32_t token, int64_t position, bool is_wanted) {
  if (is_wanted) wanted.push_back(static_cast<int32_t>(tokens.size()));
  tokens.push_back(token);
  positions.push_back(static_cast<int32_t>(position));
  sequence.push_back(static_cast<int32_t>(dropped.size()) - 1);
}

Executor::Executor(const model::Gpt& model, const ExecutorOptions& options)
    : model_(model),
      options_(options),
      cache_(model.make_cache(options.blocks, options.block)),
      activations_("activations", Arena::all_memory()),
      gradients_("gradients", 1),
      workspace_("workspace", Arena::all_memory()),
      loads_memory_("loads of experts", Arena::all_memory()),
      stream_(Device::cpu, options.reproducible),
      tape_(activations_, gradients_, workspace_, stream_) {
  for (const moe::MoeStats* layer : model.moe_stats()) {
    loads_.push_back(allocate(loads_memory_, DType::f64, layer->sums().shape()));
  }
  reset_loads();
  if (options.copies) stream_.set_weight_rows(Stream::kAllRows);
}

void Executor::run(const Pass& pass, const LogitsVisitor& visit) {
  tape_.begin({.training = false, .dropless = true});
  // Products from panels, and of few rows, are our own, which wait for nobody; others the matrix library's.
  std::optional<InPieces> pieces;
  const bool few = pass.rows() <= kernels::kFewRows && options_.reproducible != Reproducible::strict;
  if (model_.in_panels() || few) pieces.emplace();
  const ops::CacheRows rows{
      pass.sequence.data(),
      pass.positions.data(),
      {options_.block, std::ssize(pass.dropped), pass.blocks.data(), pass.begin.data(), pass.dropped.data()},
      options_.window,
      {}};
  const Var hidden = model_.forward(tape_, {.tokens = pass.tokens.data(),
                                            .sequences = pass.rows(),
                                            .length = 1,
                                            .positions = pass.positions.data(),
                                            .cached = {&cache_, rows},
                                            .wanted = pass.wanted,
                                            .moe_sums = loads_});
  for (int64_t row = 0; row < hidden.dim(0); row += kLogitsRows) {
    const ArenaScope scope(activations_);
    const int64_t n = std::min(kLogitsRows, hidden.dim(0) - row);
    visit(static_cast<size_t>(row), model_.logits(tape_, hidden, row, n).value());
  }
}

std::vector<moe::MoeSums> Executor::loads() const {
  std::vector<moe::MoeSums> sums;
  for (const Tensor& layer : loads_) {
    sums.push_back(moe::moe_sums({layer.data<double>(), static_cast<size_t>(layer.numel())}));
  }
  return sums;
}

void Executor::reset_loads() {
  for (const Tensor& layer : loads_) fill_zero(layer, stream_);
}

}  // namespace ziggurat::infer
