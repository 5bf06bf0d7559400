#include <algorithm>
#include <optional>
#include <utility>

#include <ziggurat/infer/executor.h>
#include <ziggurat/kernels/few_rows.h>
#include <ziggurat/runtime/dry_run.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/tensor/host_values.h>

namespace ziggurat::infer {

namespace {

constexpr int64_t kLogitsRows = 256;  // at once: they take 4 bytes x vocabulary each

int64_t bytes_of_loads(const model::Gpt& model) {
  int64_t bytes = 1;
  for (const moe::MoeStats* layer : model.moe_stats()) bytes += layer->sums().bytes() + Arena::kAlignment;
  return bytes;
}
std::vector<Tensor> loads_of(const model::Gpt& model, Arena& memory) {
  std::vector<Tensor> loads;
  for (const moe::MoeStats* layer : model.moe_stats()) {
    loads.push_back(allocate(memory, DType::f64, layer->sums().shape()));
  }
  return loads;
}

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

namespace {

// Of the tables, int32: tokens, positions and sequences of rows; begin and dropped of sequences, of which
// there are no more than rows; and blocks.
int64_t table_size(const ExecutorOptions& options) { return 5 * options.rows + 1 + options.table_blocks; }

ExecutorOptions checked(const model::Gpt& model, ExecutorOptions options) {
  if (options.table_blocks == 0) options.table_blocks = options.blocks;
  if (planned(model.device()) == Device::cpu) return options;
  check(model.dtype() != DType::f64, ErrorKind::argument,
        "[executor] a model of fp64 computes on the CPU only: use --device cpu");
  return options;
}

bool on_gpu(const model::Gpt& model) { return planned(model.device()) == Device::cuda; }

int64_t logits_bytes(const model::Gpt& model, const ExecutorOptions& options) {
  return std::min(kLogitsRows, options.rows) * model.config().padded_vocab() * size_of(DType::f32);
}

}  // namespace

struct Executor::Place {
  Tape& tape;
  Arena& activations;
  std::span<const Tensor> loads;
};

Executor::Executor(const model::Gpt& model, const ExecutorOptions& options)
    : model_(model),
      options_(checked(model, options)),
      cache_(model.make_cache(options_.blocks, options_.block)),
      tables_(model.device(), on_gpu(model) ? table_size(options_) * size_of(DType::i32) : 0),
      logits_(model.device(), on_gpu(model) ? logits_bytes(model, options_) : 0),
      most_(most_of_a_pass()),
      activations_("activations", most_.activations, model.device()),
      gradients_("gradients", 1, model.device()),
      workspace_("workspace", most_.workspace, model.device()),
      loads_memory_("loads of experts", bytes_of_loads(model), model.device()),
      stream_(model.device(), options.reproducible),
      tape_(activations_, gradients_, workspace_, stream_),
      loads_(loads_of(model, loads_memory_)) {
  reset_loads();
  stream_.wait();  // an executor that never runs gives its memory back
  if (options.copies) stream_.set_weight_rows(Stream::kAllRows);
}

// A device's arenas do not grow: the largest pass, run dry, tells what they need.
Executor::Memory Executor::most_of_a_pass() {
  if (planned(model_.device()) == Device::cpu) return {Arena::all_memory(), Arena::all_memory()};
  const DryRun nothing_runs;  // weights are where they are: ops that read nothing else would begin
  const Device dry = meta_of(model_.device());
  Arena activations("activations", Arena::kUnlimited, dry), gradients("gradients", 1, dry),
      workspace("workspace", Arena::kUnlimited, dry), memory("loads of experts", Arena::kUnlimited, dry);
  Stream stream(dry, options_.reproducible);
  Tape tape(activations, gradients, workspace, stream);
  const std::vector<Tensor> loads = loads_of(model_, memory);
  Pass pass;
  const std::vector<int32_t> blocks(static_cast<size_t>(options_.table_blocks), 0);
  pass.add_sequence(blocks, 0);
  for (int64_t i = 0; i < options_.rows; ++i) pass.add_row(0, 0, true);
  pass.dropped.resize(static_cast<size_t>(options_.rows), 0);
  pass.begin.resize(pass.dropped.size() + 1, 0);
  run(pass, {tape, activations, loads}, [](size_t, const Tensor&) {});
  return {activations.high_water(), workspace.high_water()};
}

void Executor::run(const Pass& pass, const LogitsVisitor& visit) {
  // Products from panels, and of few rows, are our own, which wait for nobody; others the matrix library's.
  std::optional<InPieces> pieces;
  const bool few = pass.rows() <= kernels::kFewRows && options_.reproducible != Reproducible::strict;
  if (model_.in_panels() || few) pieces.emplace();
  const Place place{tape_, activations_, loads_};
  if (model_.device() == Device::cpu) return run(pass, place, visit);
  run(pass, place, [&](size_t first, const Tensor& logits) {
    const Tensor here(logits_.data(), logits.dtype(), logits.shape());
    copy(logits, here, stream_);
    stream_.wait();
    visit(first, here);
  });
  stream_.wait();  // the tables may be written again
}

void Executor::run(const Pass& pass, const Place& place, const LogitsVisitor& visit) {
  Tape& tape = place.tape;
  tape.begin({.training = false, .dropless = true, .worst_routing = true});
  ops::CacheRows rows;
  rows.window = options_.window;
  const int32_t* const tokens = send(pass, tape, rows);
  const Var hidden = model_.forward(tape, {.tokens = tokens,
                                           .sequences = pass.rows(),
                                           .length = 1,
                                           .positions = rows.position,
                                           .cached = {&cache_, rows},
                                           .wanted = pass.wanted,
                                           .moe_sums = place.loads});
  for (int64_t row = 0; row < hidden.dim(0); row += kLogitsRows) {
    const ArenaScope scope(place.activations);
    const int64_t n = std::min(kLogitsRows, hidden.dim(0) - row);
    visit(static_cast<size_t>(row), model_.logits(tape, hidden, row, n).value());
  }
}

// The pass's tables where kernels read them, in the tape's memory: those of `rows`, and the tokens.
const int32_t* Executor::send(const Pass& pass, Tape& tape, ops::CacheRows& rows) {
  const auto place = [&](const auto& at) {
    const int32_t* const tokens = at(pass.tokens);
    rows.position = at(pass.positions);
    rows.sequence = at(pass.sequence);
    rows.tables = {options_.block, std::ssize(pass.dropped), at(pass.blocks), at(pass.begin),
                   at(pass.dropped)};
    return tokens;
  };
  if (model_.device() == Device::cpu) {
    return place([](const std::vector<int32_t>& table) { return table.data(); });
  }
  check(pass.rows() <= options_.rows && std::ssize(pass.blocks) <= options_.table_blocks &&
            std::ssize(pass.dropped) <= options_.rows,
        ErrorKind::internal, "[executor] {} rows of {} sequences in {} blocks, where {} and {} were planned",
        pass.rows(), pass.dropped.size(), pass.blocks.size(), options_.rows, options_.table_blocks);
  auto* const here = static_cast<int32_t*>(tables_.data());
  const Tensor there = tape.save(DType::i32, {table_size(options_)});
  int64_t used = 0;
  const int32_t* const tokens = place([&](const std::vector<int32_t>& table) {
    std::copy(table.begin(), table.end(), here + used);
    return there.data<int32_t>() + std::exchange(used, used + std::ssize(table));
  });
  if (used > 0) copy(Tensor(here, DType::i32, {used}), there.rows(0, used), tape.stream());
  return tokens;
}

int64_t Executor::device_bytes() const {
  const nn::KvCacheShape& cache = cache_.shape();
  return cache_.bytes_per_position() * cache.blocks * cache.block + most_.activations + most_.workspace;
}

std::vector<moe::MoeSums> Executor::loads() const {
  std::vector<moe::MoeSums> sums;
  for (const Tensor& layer : loads_) sums.push_back(moe::moe_sums(host_values(layer, stream_)));
  return sums;
}

void Executor::reset_loads() {
  for (const Tensor& layer : loads_) fill_zero(layer, stream_);
}

}  // namespace ziggurat::infer
