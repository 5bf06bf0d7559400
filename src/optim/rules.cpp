#include <algorithm>
#include <cmath>

#include <ziggurat/autograd/note_work.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/kernels/adafactor.h>
#include <ziggurat/kernels/lion.h>
#include <ziggurat/kernels/muon.h>
#include <ziggurat/kernels/weight_average.h>
#include <ziggurat/optim/adamw.h>
#include <ziggurat/optim/rules.h>

namespace ziggurat {

namespace {

using Over = MomentSpec::Over;

// Of a parameter, or of each expert's share of one, whose leading dim is then the experts; a vector is one
// row.
struct Matrices {
  int64_t rows, cols;
};
Matrices matrices_of(const nn::ParamSpec& spec) {
  const Shape& shape = spec.global_shape;
  const bool stacked = spec.expert_parallel > 0 || shape.rank() == 3;
  const int64_t rank = shape.rank() - (stacked ? 1 : 0), last = shape[shape.rank() - 1];
  return {rank < 2 ? 1 : shape[shape.rank() - 2], last};
}

bool is_factored(const OptimizerConfig& config, const nn::ParamSpec& spec) {
  const Matrices m = matrices_of(spec);
  return spec.matrix && std::min(m.rows, m.cols) >= config.adafactor.least_factored;
}

// Calls body(pointer offset of each owned matrix).
template <class Body>
void for_each_matrix(const Updated& p, const Matrices& shape, const Body& body) {
  const int64_t elements = shape.rows * shape.cols, owned = p.gradient.numel();
  check(owned % elements == 0, ErrorKind::internal, "[optimizer] {} elements of {}, in matrices of {}", owned,
        p.spec.name, elements);
  for (int64_t matrix = 0; matrix < owned / elements; ++matrix) body(matrix);
}

double decay_of(const OptimizerConfig& config, const Updated& p) {
  return p.spec.decay ? config.weight_decay / lr_scale(config, p.spec) : 0;
}

void adamw(const OptimizerConfig& config, const Updated& p, const UpdateStep& step, Stream& stream) {
  const ParamRange all{0, p.gradient.numel(), p.spec.decay, hash_name(p.spec.name), p.first};
  adamw_step({p.master, p.gradient, p.moments[0].held, p.moments[1].held, p.rounded},
             p.runs.empty() ? std::span(&all, 1) : p.runs, config,
             {step.lr, step.grad_scale, step.step, step.seed, 1 / lr_scale(config, p.spec)}, stream);
}

template <class T>
bf16* rounded_of(const Updated& p, int64_t at) {
  return p.rounded ? p.rounded.data<bf16>() + at : nullptr;
}

void lion(const OptimizerConfig& config, const Updated& p, const UpdateStep& step, Stream& stream) {
  note_kernel("lion", Pass::backward, p.gradient, 2 * bytes_touched(p.master),
              2 * bytes_touched(p.moments[0].held), p.rounded);
  visit_kernels<kernels::LionKernels>(p.gradient, [&]<Device D, class T>() {
    kernels::lion_update<D>(
        kernels::LionArgs<T>{p.gradient.numel(), p.gradient.data<T>(), p.master.data<T>(),
                             p.moments[0].held.data<T>(), rounded_of<T>(p, 0), step.lr, config.beta1,
                             config.beta2, decay_of(config, p), step.grad_scale},
        stream);
  });
}

void muon(const OptimizerConfig& config, const Updated& p, const UpdateStep& step, Arena& workspace,
          Stream& stream) {
  const Matrices shape = matrices_of(p.spec);
  const auto rows = static_cast<double>(shape.rows), cols = static_cast<double>(shape.cols);
  const double scale = config.muon.scale == MuonScale::adamw ? 0.2 * std::sqrt(std::max(rows, cols))
                                                             : std::sqrt(std::max(1.0, rows / cols));
  note_kernel("muon", Pass::backward, p.gradient, 2 * bytes_touched(p.master),
              2 * bytes_touched(p.moments[0].held), p.rounded);
  visit_kernels<kernels::MuonKernels>(p.gradient, [&]<Device D, class T>() {
    for_each_matrix(p, shape, [&](int64_t matrix) {
      const int64_t at = matrix * shape.rows * shape.cols;
      kernels::muon_update<D>(
          kernels::MuonArgs<T>{shape.rows, shape.cols, p.gradient.data<T>() + at, p.master.data<T>() + at,
                               p.moments[0].held.data<T>() + at, rounded_of<T>(p, at), step.lr,
                               step.lr * scale, config.muon.momentum, decay_of(config, p),
                               config.muon.nesterov, config.muon.iterations, step.grad_scale},
          workspace, stream);
    });
  });
}

void adafactor(const OptimizerConfig& config, const Updated& p, const UpdateStep& step, Arena& workspace,
               Stream& stream) {
  const Matrices shape = matrices_of(p.spec);
  const bool factored = is_factored(config, p.spec);
  note_kernel("adafactor", Pass::backward, 3 * bytes_touched(p.gradient), 3 * bytes_touched(p.master),
              factored ? 0.0 : 2 * bytes_touched(p.moments[0].held), p.rounded);
  visit_kernels<kernels::AdafactorKernels>(p.gradient, [&]<Device D, class T>() {
    for_each_matrix(p, shape, [&](int64_t matrix) {
      const int64_t at = matrix * shape.rows * shape.cols;
      kernels::AdafactorArgs<T> args;
      args.rows = shape.rows, args.cols = shape.cols;
      args.gradient = p.gradient.data<T>() + at;
      args.master = p.master.data<T>() + at;
      if (factored) {
        args.row_squares = p.moments[0].held.data<T>() + matrix * shape.rows;
        args.col_squares = p.moments[1].held.data<T>() + matrix * shape.cols;
      } else {
        args.squares = p.moments[0].held.data<T>() + at;
      }
      args.compute = rounded_of<T>(p, at);
      args.lr = step.lr;
      args.decay_exponent = config.adafactor.decay_exponent;
      args.clip = config.adafactor.clip;
      args.least_scale = config.adafactor.least_scale;
      args.weight_decay = decay_of(config, p);
      args.grad_scale = step.grad_scale;
      args.step = step.step;
      kernels::adafactor_update<D>(args, workspace, stream);
    });
  });
}

}  // namespace

OptimizerKind rule_for(const OptimizerConfig& config, const nn::ParamSpec& spec) {
  if (config.kind != OptimizerKind::muon) return config.kind;
  const bool vocabulary = spec.name.starts_with("embed.") || spec.name.starts_with("head.");
  return spec.matrix && spec.global_shape.rank() >= 2 && !vocabulary ? OptimizerKind::muon
                                                                     : OptimizerKind::adamw;
}

double lr_scale(const OptimizerConfig& config, const nn::ParamSpec& spec) {
  switch (rule_for(config, spec)) {
    case OptimizerKind::adamw:
    case OptimizerKind::lion:
      return spec.lr_scale;
    case OptimizerKind::muon:  // it takes hidden matrices, of which Adam's is 1 / m
      return config.muon.scale == MuonScale::adamw ? std::sqrt(spec.lr_scale) : 1;
    case OptimizerKind::adafactor:
      return spec.lr_scale / spec.width_init;
  }
  return 1;
}

namespace {

std::vector<MomentSpec> rule_moments(const OptimizerConfig& config, const nn::ParamSpec& spec) {
  switch (rule_for(config, spec)) {
    case OptimizerKind::adamw:
      return {{"adam.m"}, {"adam.v"}};
    case OptimizerKind::lion:
      return {{"lion.m"}};
    case OptimizerKind::muon:
      return {{"muon.m"}};
    case OptimizerKind::adafactor:
      if (!is_factored(config, spec)) return {{"adafactor.v"}};
      return {{"adafactor.rows", Over::rows}, {"adafactor.cols", Over::columns}};
  }
  return {};
}

// The last of the moments.
void average(const OptimizerConfig& config, const Updated& p, const UpdateStep& step, Stream& stream) {
  note_kernel("weight_average", Pass::backward, p.master, 2 * bytes_touched(p.master));
  visit_kernels<kernels::WeightAverageKernels>(p.master, [&]<Device D, class T>() {
    if constexpr (!std::is_same_v<T, bf16>) {  // of exact weights only
      kernels::weight_average<D>(
          kernels::WeightAverageArgs<T>{p.master.numel(), p.master.data<T>(), p.moments.back().held.data<T>(),
                                        config.average, step.step, step.grad_scale},
          stream);
    }
  });
}

void update_by_rule(const OptimizerConfig& config, const Updated& parameter, const UpdateStep& step,
                    Arena& workspace, Stream& stream) {
  switch (rule_for(config, parameter.spec)) {
    case OptimizerKind::adamw:
      return adamw(config, parameter, step, stream);
    case OptimizerKind::lion:
      return lion(config, parameter, step, stream);
    case OptimizerKind::muon:
      return muon(config, parameter, step, workspace, stream);
    case OptimizerKind::adafactor:
      return adafactor(config, parameter, step, workspace, stream);
  }
}

}  // namespace

void start_average(OptimizerState& state, Stream& stream) {
  for (const nn::ParamEntry& entry : state.store().entries()) {
    for (const OptimizerState::Moment& moment : state.moments(entry)) {
      if (moment.name == kAverage) copy(state.master(entry), moment.held, stream);
    }
  }
}

std::vector<MomentSpec> moments_for(const OptimizerConfig& config, const nn::ParamSpec& spec) {
  std::vector<MomentSpec> moments = rule_moments(config, spec);
  if (config.average > 0) moments.push_back({kAverage});
  return moments;
}

void update(const OptimizerConfig& config, const Updated& parameter, const UpdateStep& of_all,
            Arena& workspace, Stream& stream) {
  UpdateStep step = of_all;
  step.lr *= lr_scale(config, parameter.spec);
  update_by_rule(config, parameter, step, workspace, stream);
  if (config.average > 0) average(config, parameter, step, stream);
}

}  // namespace ziggurat
