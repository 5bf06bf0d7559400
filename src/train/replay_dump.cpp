#include "train/replay_dump.h"

#include <algorithm>
#include <filesystem>
#include <map>

#include <fnmatch.h>

#include "train/resume_checks.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/comm/agreement.h>

namespace ziggurat::train {

namespace {

namespace fs = std::filesystem;

bool matches(const std::string& pattern, const std::string& name) {
  return fnmatch(pattern.c_str(), name.c_str(), 0) == 0;
}

// What a rank holds and updates of one tensor, or one output.
struct Piece {
  TensorHeader header;
  Tensor data;        // flat
  std::string where;  // in the global tensor, or the step
};

void add_held(Trainer& trainer, const std::string& pattern, std::vector<Piece>& pieces) {
  OptimizerState& state = trainer.optimizer_state();
  const nn::ParamStore& store = state.store();
  const auto add = [&](const std::string& name, const Shape& global, int64_t first, const Tensor& data) {
    if (data.numel() == 0 || !matches(pattern, name)) return;
    const std::vector<Box> boxes = boxes_of(global, first, first + data.numel());
    const Shape shape = boxes.size() == 1 ? boxes[0].extent : Shape{data.numel()};
    pieces.push_back({{name, data.dtype(), shape},
                      data,
                      fmt::format("elements {} to {} of {}", first, first + data.numel() - 1, global)});
  };
  for (const nn::ParamEntry& entry : store.entries()) {
    const nn::ParamSpec& spec = entry.spec;
    const IndexRange owned = store.owned(entry);
    const int64_t first = entry.first + owned.begin;
    add(spec.name, spec.global_shape, first, state.master(entry));
    add("gradient." + spec.name, spec.global_shape, first, store.owned_gradient(entry));
    for (const OptimizerState::Moment& moment : state.moments(entry)) {
      add(saved_name(moment.name, spec.name), moment.global_shape, moment.first, moment.held);
    }
  }
}

// Nothing of them is changed: tensors are views that could be written through.
Tensor view_of(const SeenOutputs::Output& output) {
  return Tensor(const_cast<std::byte*>(output.bytes.data()), output.dtype, output.shape);
}

std::vector<Piece> pieces_of(Trainer& trainer, const SeenOutputs& outputs, const std::string& pattern) {
  std::vector<Piece> pieces;
  add_held(trainer, pattern, pieces);
  for (const SeenOutputs::Output& output : outputs.all()) {
    pieces.push_back({{output.name, output.dtype, output.shape}, view_of(output), output.where});
  }
  // As the file wants them.
  std::stable_sort(pieces.begin(), pieces.end(), [](const Piece& a, const Piece& b) {
    return size_of(a.header.dtype) > size_of(b.header.dtype);
  });
  return pieces;
}

}  // namespace

void SeenOutputs::watch() {
  trainer_.model().observe([this](int64_t layer, const Tensor& output) { keep(layer, output); });
}

void SeenOutputs::keep(int64_t layer, const Tensor& output) {
  const auto layers = static_cast<int64_t>(trainer_.model().config().layers().size());
  if (layer < 0) ++micro_batch_;
  const std::string of = layer < 0         ? "embedding"
                         : layer == layers ? "final_norm"
                                           : fmt::format("blocks.{}", layer);
  Output seen{.name = fmt::format("output.{}.{}", of, micro_batch_),
              .where = fmt::format("of this rank's micro-batch {}", micro_batch_),
              .dtype = output.dtype(),
              .shape = output.shape(),
              .bytes = {}};
  if (!matches(pattern_, seen.name)) return;
  trainer_.finish_queued_work();
  host_.read(output, [&](const Tensor& piece, int64_t) {
    const auto bytes = bytes_of(piece);
    seen.bytes.insert(seen.bytes.end(), bytes.begin(), bytes.end());
  });
  outputs_.push_back(std::move(seen));
}

void dump(Trainer& trainer, const SeenOutputs& outputs, const ReplayOptions& options, Communicator& world) {
  const std::vector<Piece> pieces = pieces_of(trainer, outputs, options.dump);
  const auto write = [&] {
    check(!pieces.empty(), ErrorKind::argument,
          "--dump '{}' matches no tensor: expected a pattern of names such as 'gradient.blocks.0.*' or "
          "'output.blocks.*'",
          options.dump);
    std::error_code error;
    fs::create_directories(options.output, error);
    check(!error, ErrorKind::argument, "--output {}: cannot make the folder: {}; name another one",
          options.output, error.message());
    std::vector<TensorHeader> headers;
    std::map<std::string, std::string> metadata;
    for (const Piece& piece : pieces) {
      headers.push_back(piece.header);
      metadata[piece.header.name] = piece.where;
    }
    HostPieces host;
    const auto make = [&](size_t i, const WriteBytes& bytes) {
      host.read(pieces[i].data, [&](const Tensor& piece, int64_t) { bytes(bytes_of(piece)); });
    };
    write_safetensors(fmt::format("{}/rank_{}.safetensors", options.output, world.rank()), headers, make,
                      metadata);
    return std::string();
  };
  agree(world, write);
}

}  // namespace ziggurat::train
