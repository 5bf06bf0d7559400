// ziggurat import --from FOLDER --output DIR [--config key=value ...] [--upcycle experts=8,every=2]
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <sstream>

#include "apps/commands.h"
#include "apps/shard_size.h"
#include <ziggurat/checkpoint/staged_folder.h>
#include <ziggurat/comm/agreement.h>
#include <ziggurat/comm/mpi.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/data/vocabulary.h>
#include <ziggurat/hf/import.h>
#include <ziggurat/hf/upcycle.h>
#include <ziggurat/model/gpt.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/starting_point.h>

namespace ziggurat::apps {

namespace {

namespace fs = std::filesystem;

struct UpcycleOption {
  hf::Upcycling value;
  template <class V>
  void visit_fields(V& v) {
    v.field("experts", value.experts, "of each layer that gets some", at_least(1), at_most(100000));
    v.field("every", value.every, "layers every, 2 every, ... get experts", at_least(1));
    v.field("top_k", value.top_k, "experts per token", at_least(1));
    v.field("residual", value.residual, "keep the MLP beside them");
  }
};

hf::Upcycling parse_upcycling(const std::string& text) {
  std::vector<std::string> overrides;
  std::istringstream parts(text);
  for (std::string part; std::getline(parts, part, ',');) overrides.push_back(part);
  UpcycleOption option;
  parse_config(option, "", "--upcycle", overrides);
  return option.value;
}

// An earlier run of ours says more than config.json can.
train::RunConfig base_of(const hf::ModelFolder& folder) {
  train::RunConfig base;
  const std::string path = folder.path() + "/ziggurat.yaml";
  if (fs::exists(path)) load_config(base, path);
  return base;
}

// Does the folder store the values in two bytes?
bool is_half(const hf::ModelFolder& folder) {
  for (const std::string& name : folder.names()) {
    const std::string& code = folder.entry(name).code;
    if (name.ends_with(".weight")) return code == "BF16" || code == "F16";
  }
  return false;
}

// Saves the folder's tokenizer for the run; null, with the reason in the log, where it has none that can be
// read.
std::unique_ptr<Tokenizer> copy_tokenizer(const std::string& from, const StagedFolder& to,
                                          int64_t vocab_size) {
  if (!holds_tokenizer(from)) return nullptr;
  try {
    auto tokenizer = load_tokenizer(from);
    check_fit(vocabulary_of(*tokenizer, from), {"the model", "", vocab_size, true}, "it is not imported");
    tokenizer->save(fs::path(to.path()) / "tokenizer");
    return tokenizer;
  } catch (const Error& e) {
    warn("no tokenizer is imported, so give the run one (data.tokenizer): {}", e.what());
    return nullptr;
  }
}

// What the weights compute must be what they computed in the folder; how they are trained is free.
void check_same_function(const model::ModelConfig& imported, const model::ModelConfig& wanted) {
  const auto entries = [](const model::ModelConfig& config) {
    auto json = hf::to_config_json({.model_class = hf::ModelClass::ziggurat}, config, DType::f32, -1);
    for (const char* training :
         {"embedding_dropout", "attention_dropout", "hidden_dropout", "initializer_range"})
      json.erase(training);
    return json;
  };
  const auto had = entries(imported), wants = entries(wanted);
  for (const auto& [name, value] : had.items()) {
    check(wants[name] == value, ErrorKind::config,
          "--config changes the model itself: '{}' of the imported weights is {}, the config makes it {}",
          name, value.dump(), wants[name].dump());
  }
}

// What every rank knows of the job from the folder alone.
struct Import {
  hf::ModelFolder folder;
  hf::Form form;
  model::ModelConfig dense;  // the folder's; without upcycling the run's too
  train::RunConfig run;
  std::vector<std::string> notes;  // where it is the same for some inputs only
};

Import read_folder(const ImportArguments& arguments) {
  hf::ModelFolder folder(arguments.from);
  train::RunConfig run = base_of(folder);
  std::vector<std::string> notes;
  const auto [form, dense] = hf::read_config(folder, run.model, &notes);
  run.model = dense;
  if (!arguments.upcycle.empty()) run.model = hf::upcycled(dense, parse_upcycling(arguments.upcycle));
  const fs::path output(arguments.output);
  if (run.data.train.empty()) {  // no earlier run of ours
    run.precision = is_half(folder) ? train::Precision::bf16 : train::Precision::fp32;
    run.batch.sequence_length = std::min(run.batch.sequence_length, run.model.max_sequence);
    run.name = output.filename().string();
  }
  run.output = arguments.output;
  run.checkpoint.resume = train::Resume::automatic;
  run.data.tokenizer = "";
  return {std::move(folder), form, dense, std::move(run), std::move(notes)};
}

train::RunConfig with_overrides(const train::RunConfig& run, const std::vector<std::string>& overrides) {
  train::RunConfig final = run;
  parse_config(final, dump_config(run), "the imported run", overrides);
  check_same_function(run.model, final.model);
  return final;
}

// The parameters of a whole model, of which none is in memory.
class Parameters {
 public:
  explicit Parameters(const train::RunConfig& run)
      : config_(model::fit_to_ranks(run.model, 1)),
        groups_(*self_, ParallelPlan(1, config_.expert_parallel_sizes())),
        store_({.compute = run.precision == train::Precision::fp64 ? DType::f64 : DType::f32,
                .device = Device::meta,
                .seed = static_cast<uint64_t>(run.seed),
                .trainable = false}),
        model_(config_, store_, groups_) {}
  const nn::ParamStore& store() const { return store_; }

 private:
  const model::ModelConfig config_;
  const std::unique_ptr<Communicator> self_ = make_self_communicator();
  const ProcessGroups groups_;
  nn::ParamStore store_;
  const model::Gpt model_;
};

void check_place(const fs::path& output) {
  check(!fs::exists(output) || (fs::is_directory(output) && fs::is_empty(output)), ErrorKind::argument,
        "--output: {} stands already: choose another folder", output.string());
}

void import_on(Communicator& world, const ImportArguments& arguments, int64_t file_bytes) {
  const fs::path output(arguments.output);
  on_rank_0(world, [&] {
    check_place(output);
    return std::string();
  });
  StagedFolder staged(arguments.output);
  std::optional<Import> import;
  agree(world, [&] {
    import.emplace(read_folder(arguments));
    return std::string();
  });

  try {
    const std::string fingerprint = on_rank_0(world, [&] {
      staged.create();
      check_place(output);  // again: nobody else writes there now
      const auto tokenizer = copy_tokenizer(arguments.from, staged, import->run.model.vocab_size);
      return tokenizer ? tokenizer->fingerprint() : "";
    });
    if (!fingerprint.empty()) import->run.data.tokenizer = (output / "tokenizer").string();
    std::optional<train::RunConfig> run;
    std::optional<Parameters> parameters;
    std::optional<hf::FolderWeights> weights;
    agree(world, [&] {
      run = with_overrides(import->run, arguments.overrides);
      model::ModelConfig source = run->model;  // as the folder has it: with the padding of the final one
      source.blocks = import->dense.blocks;
      parameters.emplace(*run);
      weights.emplace(import->folder, import->form, source, parameters->store(),
                      hf::FolderWeights::Values::finite);
      weights->check_values(world.rank(), world.size());
      return std::string();
    });
    const auto values = [&](const nn::ParamEntry& entry, int64_t first, const Tensor& to) {
      weights->read(entry, first, to);
    };
    const train::StartingPoint start{*run, parameters->store(), values, fingerprint, file_bytes};
    on_rank_0(world, [&] {
      staged.check_room(train::bytes_of(start));
      return std::string();
    });
    Progress progress("import");
    train::save_starting_point(start, staged.path() + "/checkpoints", world, std::ref(progress));
    on_rank_0(world, [&] {
      staged.write("config.yaml", dump_config(*run));
      check_place(output);
      staged.publish();
      return std::string();
    });
    if (world.rank() != 0) return;
    for (const std::string& note : import->notes) warn("{}", note);
    for (const std::string& name : weights->skipped()) {
      info("skipped '{}': every model computes it anew", name);
    }
    fmt::print("{}: {} as {}, {} parameters\n", arguments.output, arguments.from, run->name,
               parameters->store().global_parameters());
    fmt::print("go on with: ziggurat train {}/config.yaml [key=value ...]\n", arguments.output);
  } catch (...) {
    staged.discard();
    throw;
  }
}

}  // namespace

void import_model(const ImportArguments& arguments) {
  const int64_t file_bytes = parse_shard_size(arguments.shard_size);
  MpiRuntime mpi;
  init_log(mpi.world().rank(), mpi.world().size());
  set_thread_count(std::max(1, available_cores() / mpi.local_size()));
  import_on(mpi.world(), arguments, file_bytes);
}

}  // namespace ziggurat::apps
