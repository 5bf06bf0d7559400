#include <algorithm>
#include <set>
#include <vector>

#include <fmt/ranges.h>

#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/io/content_hash.h>
#include <ziggurat/tensor/host_pieces.h>
#include <ziggurat/train/loaded_model.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {

namespace {
bool is_expert(const nn::ParamSpec& spec) { return spec.expert_parallel > 0; }

// Of rows [begin, end) of a whole tensor, as values of `dtype`.
std::string hash_of_rows(CheckpointReader& checkpoint, const nn::ParamSpec& spec, DType dtype, int64_t begin,
                         int64_t end) {
  const int64_t row = spec.global_shape.numel() / spec.global_shape[0],
                some = std::max<int64_t>(1, (int64_t{1} << 22) / row);
  Arena arena("rows to hash", std::min(some, end - begin) * row * size_of(dtype) + Arena::kAlignment);
  Hasher hasher;
  for (int64_t first = begin; first < end; first += some) {
    const ArenaScope scope(arena);
    const Box box = rows_of(spec.global_shape, first, std::min(first + some, end));
    const Tensor rows = allocate(arena, dtype, box.extent);
    checkpoint.read({spec.name, spec.global_shape, box, rows});
    hasher.update(bytes_of(rows));
  }
  return content_hash(hasher);
}

// How the run was laid out is of no matter to a model that is placed.
RunConfig as_placed(RunConfig config, model::ModelConfig placed) {
  config.model = std::move(placed);
  config.parallel.tensor = config.parallel.expert_tensor = 1;
  return config;
}
}  // namespace

LoadedModel::LoadedModel(const RunConfig& config, ProcessGroups groups, const LoadOptions& options)
    : groups_(std::move(groups)),
      store_(
          std::make_unique<nn::ParamStore>(nn::ParamStore::Options{.compute = compute_dtype(config.precision),
                                                                   .device = options.device,
                                                                   .reproducible = options.reproducible,
                                                                   .trainable = false})),
      model_(std::make_unique<model::Gpt>(model_of(config, groups_.plan().world_size()), *store_, groups_,
                                          options.low_memory)) {
  store_->finalize();
}

LoadedModel::LoadedModel(CheckpointReader& checkpoint, const RunConfig& config, Communicator& world,
                         const LoadOptions& options)
    : LoadedModel(checkpoint, config, model::place(config.model, options.layout, world.size()), world,
                  options) {}

LoadedModel::LoadedModel(CheckpointReader& checkpoint, RunConfig config, model::PlacedModel placed,
                         Communicator& world, const LoadOptions& options)
    : LoadedModel(as_placed(std::move(config), std::move(placed.config)),
                  ProcessGroups(world, std::move(placed.plan)), options) {
  load(checkpoint);
  take_form(options.form);
}

void LoadedModel::take_form(WeightForm form) {
  const bool on_cpu = planned(store_->options().device) == Device::cpu;
  if (form == WeightForm::panels && on_cpu) store_->to_panels();
  if (form != WeightForm::int8) return;
  check(on_cpu, ErrorKind::argument,
        "--weights int8: on a GPU weights of 8 bits have no kernels so far: leave the option out, or take "
        "--device cpu");
  check(
      store_->options().compute != DType::f64, ErrorKind::argument,
      "--weights int8: this model computes in fp64, where weights of 8 bits make no sense; leave the option "
      "out");
  store_->to_int8_panels();
}

void LoadedModel::load(CheckpointReader& checkpoint) {
  if (groups_.world().size() > 1) checkpoint.verify_together(groups_.world());
  int64_t bytes = 0, done = 0;
  for (const nn::ParamEntry& entry : store_->entries()) bytes += entry.param.value.bytes();
  Progress progress("load", "", bytes);
  for (const nn::ParamEntry& entry : store_->entries()) {
    const nn::ParamSpec& spec = entry.spec;
    const Tensor values = entry.param.value.reshape({entry.numel});
    nn::for_each_held_box(spec, 0, entry.numel, [&](const Box& box, int64_t at) {
      checkpoint.read(
          {spec.name, spec.global_shape, box, values.rows(at, at + box.numel()).reshape(box.extent)});
    });
    flight_log().note_progress();
    progress.update(done += entry.param.value.bytes());
  }
  store_->values_changed();
}

std::string LoadedModel::weight_hash(CheckpointReader* checkpoint) const {
  Communicator& world = groups_.world();
  std::string mine;
  HostPieces pieces;
  for (const nn::ParamEntry& entry : store_->entries()) {
    const nn::ParamSpec& spec = entry.spec;
    if (!is_expert(spec) && world.rank() != 0) continue;
    const Tensor& values = entry.param.value;
    const int64_t parts = is_expert(spec) ? spec.row_end - spec.row_begin : 1;
    const auto hash_of_part = [&](int64_t i) {
      if (!spec.cut.empty() || entry.param.panels) {
        check(checkpoint != nullptr, ErrorKind::internal, "[loaded model] {} is cut over ranks, or in panels",
              spec.name);
        const int64_t row = spec.row_begin + i, end = is_expert(spec) ? row + 1 : spec.global_shape[0];
        return hash_of_rows(*checkpoint, spec, values.dtype(), row, end);
      }
      Hasher hasher;
      const int64_t numel = values.numel() / parts;
      pieces.read(values.reshape({values.numel()}).rows(i * numel, (i + 1) * numel),
                  [&](const Tensor& piece, int64_t) { hasher.update(bytes_of(piece)); });
      return content_hash(hasher);
    };
    for (int64_t i = 0; i < parts; ++i) {
      mine += fmt::format("{} {} {} {}\n", spec.name, spec.global_shape, spec.row_begin + i, hash_of_part(i));
    }
    flight_log().note_progress();
  }
  std::set<std::string> lines;  // experts that several ranks hold count once
  for (const std::string& text : world.all_gather_text(mine)) {
    for (size_t begin = 0; begin < text.size(); begin = text.find('\n', begin) + 1) {
      lines.insert(text.substr(begin, text.find('\n', begin) - begin));
    }
  }
  const std::string all = fmt::format("{}", fmt::join(lines, "\n"));
  return content_hash(std::as_bytes(std::span(all)));
}

}  // namespace ziggurat::train
