// ziggurat import --from FOLDER --output DIR [--config key=value ...] [--upcycle experts=8,every=2]
#include <filesystem>
#include <fstream>
#include <memory>
#include <sstream>

#include "apps/commands.h"
#include <ziggurat/checkpoint/staged_folder.h>
#include <ziggurat/comm/mpi.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/log.h>
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

}  // namespace

void import_model(const ImportArguments& arguments) {
  check(!started_by_mpi_launcher(std::getenv), ErrorKind::argument,
        "import runs in one process: start it without mpirun");
  const fs::path output(arguments.output);
  check(!fs::exists(output) || (fs::is_directory(output) && fs::is_empty(output)), ErrorKind::argument,
        "--output: {} stands already: choose another folder", arguments.output);
  set_thread_count(available_cores());

  const hf::ModelFolder folder(arguments.from);
  train::RunConfig run = base_of(folder);
  const auto [form, dense] = hf::read_config(folder, run.model);
  run.model = dense;
  if (!arguments.upcycle.empty()) run.model = hf::upcycled(dense, parse_upcycling(arguments.upcycle));
  const model::ModelConfig imported = run.model;
  if (run.data.train.empty()) {  // no earlier run of ours
    run.precision = is_half(folder) ? train::Precision::bf16 : train::Precision::fp32;
    run.batch.sequence_length = std::min(run.batch.sequence_length, run.model.max_sequence);
    run.name = output.filename().string();
  }
  run.output = arguments.output;
  run.checkpoint.resume = train::Resume::automatic;

  StagedFolder staged(arguments.output);
  try {
    staged.create();
    const auto tokenizer = copy_tokenizer(arguments.from, staged, run.model.vocab_size);
    run.data.tokenizer = tokenizer ? (output / "tokenizer").string() : "";
    train::RunConfig final = run;
    parse_config(final, dump_config(run), "the imported run", arguments.overrides);
    check_same_function(imported, final.model);

    model::ModelConfig source = final.model;  // as the folder has it: with the padding of the final one
    source.blocks = dense.blocks;
    const model::ModelConfig whole = model::fit_to_ranks(final.model, 1);
    const auto self = make_self_communicator();
    const ProcessGroups groups(*self, ParallelPlan(1, whole.expert_parallel_sizes()));
    nn::ParamStore store({.compute = final.precision == train::Precision::fp64 ? DType::f64 : DType::f32,
                          .seed = static_cast<uint64_t>(final.seed),
                          .trainable = false});
    const model::Gpt model(whole, store, groups);
    store.finalize();
    for (const std::string& name : hf::read_weights(folder, form, source, store)) {
      info("skipped '{}': every model computes it anew", name);
    }
    train::save_starting_point(final, store, tokenizer ? tokenizer->fingerprint() : "",
                               staged.path() + "/checkpoints");
    staged.write("config.yaml", dump_config(final));
    staged.publish();
    fmt::print("{}: {} as {}, {} parameters\n", arguments.output, arguments.from, final.name,
               store.global_parameters());
    fmt::print("go on with: ziggurat train {}/config.yaml [key=value ...]\n", arguments.output);
  } catch (...) {
    staged.discard();
    throw;
  }
}

}  // namespace ziggurat::apps
