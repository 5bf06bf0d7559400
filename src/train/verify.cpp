#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <vector>

#include "train/temporary_run.h"
#include <ziggurat/tensor/host_pieces.h>
#include <ziggurat/train/trainer.h>
#include <ziggurat/train/verify.h>

namespace ziggurat::train {

namespace {

double relative(double squared_difference, double squared_size) {
  if (squared_difference == 0) return 0;  // also of two tensors of zeros
  const double ratio = std::sqrt(squared_difference / squared_size);
  return std::isnan(ratio) ? std::numeric_limits<double>::infinity() : ratio;
}

std::vector<double> values_of(const Tensor& tensor, HostPieces& pieces) {
  std::vector<double> values;
  values.reserve(static_cast<size_t>(tensor.numel()));
  pieces.read(tensor, [&](const Tensor& piece, int64_t) {
    visit_float_dtype(piece.dtype(), [&]<class T>() {
      const T* const data = piece.data<T>();
      for (int64_t i = 0; i < piece.numel(); ++i) values.push_back(static_cast<double>(data[i]));
    });
  });
  return values;
}

// Of one tensor in both runs: the squares of its differences and of its values, added up.
struct Compared {
  std::string what;
  double difference = 0, size = 0;
  int64_t numel = 0;
  void add(const Tensor& a, const Tensor& b, HostPieces& pieces) {
    if (a.numel() == 0) return;
    const std::vector<double> x = values_of(a, pieces), y = values_of(b, pieces);
    for (size_t i = 0; i < y.size(); ++i) difference += (x[i] - y[i]) * (x[i] - y[i]), size += y[i] * y[i];
    numel += a.numel();
  }
};

// Tensors of one kind. One whose elements are a tenth of the model's, as where a gradient cancels to almost
// nothing, is judged as if they were that.
void tell(const std::vector<Compared>& tensors, std::vector<Deviation>& all) {
  double size = 0;
  int64_t numel = 0;
  for (const Compared& tensor : tensors) size += tensor.size, numel += tensor.numel;
  for (const Compared& tensor : tensors) {
    const double least = 0.01 * size * static_cast<double>(tensor.numel) / static_cast<double>(numel);
    all.push_back({tensor.what, relative(tensor.difference, std::max(tensor.size, least))});
  }
}

// In the order in which a step makes them. Weights as one: Adam makes a whole step of a gradient that is
// nothing but rounding, as that of a key's bias is, so that such tensors differ without being wrong.
std::vector<Deviation> compare(Trainer& a, Trainer& b, double loss, double other_loss) {
  std::vector<Deviation> all = {
      {"loss", relative((loss - other_loss) * (loss - other_loss), other_loss * other_loss)}};
  const nn::ParamStore &store = a.params(), &others = b.params();
  const OptimizerState &state = a.optimizer_state(), &other_state = b.optimizer_state();
  HostPieces pieces;
  std::vector<Compared> gradients;
  std::array<std::vector<Compared>, 2> moments;  // first, second
  Compared weights{"weights"};
  for (const nn::ParamEntry& entry : store.entries()) {
    const nn::ParamEntry& same = others.find(entry.spec.name);
    const auto add = [&](std::vector<Compared>& kind, const std::string& name, const Tensor& x,
                         const Tensor& y) {
      kind.push_back({name + entry.spec.name});
      kind.back().add(x, y, pieces);
    };
    // Of what this rank owns in both runs, which may differ in how they share it.
    const IndexRange x = store.owned(entry), y = others.owned(same);
    const IndexRange both{std::max(x.begin, y.begin), std::min(x.end, y.end)};
    const auto of = [&](const Tensor& held, const IndexRange& range) {
      return both.size() > 0 ? held.rows(both.begin - range.begin, both.end - range.begin) : held.rows(0, 0);
    };
    add(gradients, "gradient of ", of(store.owned_gradient(entry), x), of(others.owned_gradient(same), y));
    for (size_t i = 0; i < state.moments(entry).size(); ++i) {
      const OptimizerState::Moment &mine = state.moments(entry)[i], &its = other_state.moments(same)[i];
      const bool by_element = mine.global_shape == entry.spec.global_shape;
      const Tensor a_held = by_element ? of(mine.held, x) : mine.held;
      const Tensor b_held = by_element ? of(its.held, y) : its.held;
      add(moments[i == 0 ? 0 : 1], mine.name + " of ", a_held, b_held);
    }
    weights.add(of(state.master(entry), x), of(other_state.master(same), y), pieces);
  }
  std::reverse(gradients.begin(), gradients.end());  // backward's order
  for (const auto& kind : {gradients, moments[0], moments[1], {weights}}) tell(kind, all);
  return all;
}

// The same on every rank. All compare tensors of the same names in the same order.
std::vector<Deviation> largest_of_ranks(std::vector<Deviation> mine, Communicator& world) {
  std::vector<double> differences;
  for (const Deviation& d : mine) differences.push_back(d.difference);
  Stream stream;
  const Tensor all(differences.data(), DType::f64, {static_cast<int64_t>(differences.size())});
  world.all_reduce(all, ReduceOp::max, ReduceOrder::any, stream).wait();
  for (size_t i = 0; i < mine.size(); ++i) mine[i].difference = differences[i];
  return mine;
}

}  // namespace

double verify_tolerance(const RunConfig& config) {
  switch (config.precision) {
    case Precision::bf16:
      return 0.25;
    case Precision::fp32:
      return config.optimizer.moments == StateDtype::bf16 ? 0.05 : 1e-3;
    case Precision::fp64:
      return 1e-9;
  }
  return 0;
}

void verify(const RunConfig& config, const RunConfig& other, int64_t steps, double tolerance,
            Communicator& world, Communicator& other_world,
            const std::function<void(const StepDeviation&)>& report,
            const std::function<void(int64_t done, int64_t total)>& progress) {
  TemporaryRun first_run(config, "verify_a", world), second_run(other, "verify_b", world);
  first_run.config().checkpoint.resume = second_run.config().checkpoint.resume = Resume::never;
  Trainer first(first_run.config(), world), second(second_run.config(), other_world);
  for (int64_t i = 0; i < steps; ++i) {
    StepDeviation step;
    step.step = i + 1;
    step.loss = first.step().loss;
    if (progress) progress(2 * i + 1, 2 * steps);
    step.other_loss = second.step().loss;
    if (progress) progress(2 * i + 2, 2 * steps);
    const std::vector<Deviation> all =
        largest_of_ranks(compare(first, second, step.loss, step.other_loss), world);
    const auto smaller = [](const Deviation& x, const Deviation& y) { return x.difference < y.difference; };
    step.worst = *std::max_element(all.begin(), all.end(), smaller);
    const auto beyond = std::find_if(all.begin(), all.end(),
                                     [&](const Deviation& d) { return !(d.difference <= tolerance); });
    if (beyond != all.end()) step.first = *beyond;
    report(step);
    if (step.first) return;
  }
}

}  // namespace ziggurat::train
