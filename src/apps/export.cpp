// ziggurat export --checkpoint DIR --output OUT
#include <filesystem>
#include <fstream>
#include <memory>

#include "apps/commands.h"
#include "apps/shard_size.h"
#include <ziggurat/comm/mpi.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/hf/export.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/run_tokenizer.h>

namespace ziggurat::apps {

namespace {

namespace fs = std::filesystem;

// A line of metrics.jsonl that tells a loss. Others, also ones that another program or a full disk left
// there, do not.
bool tells_loss(const nlohmann::json& record) {
  return record.is_object() && record.contains("kind") && record["kind"].is_string() &&
         record.contains("step") && record["step"].is_number_integer() && record.contains("loss") &&
         record["loss"].is_number();
}

// The newest losses up to this step that the run told.
std::vector<std::pair<std::string, std::string>> losses_of(const std::string& step_folder, int64_t step) {
  std::ifstream metrics(fs::path(step_folder).parent_path().parent_path() / "metrics.jsonl");
  std::map<std::string, nlohmann::json> newest;
  for (std::string line; std::getline(metrics, line);) {
    const auto record = nlohmann::json::parse(line, nullptr, /*allow_exceptions=*/false);
    if (tells_loss(record) && record["step"] <= step) newest[record["kind"].get<std::string>()] = record;
  }
  std::vector<std::pair<std::string, std::string>> losses;
  for (const auto& [kind, name] : {std::pair("step", "training loss"), {"validation", "validation loss"}}) {
    if (!newest.contains(kind)) continue;
    losses.emplace_back(name, fmt::format("{:.4f} (step {})", newest[kind]["loss"].get<double>(),
                                          newest[kind]["step"].get<int64_t>()));
  }
  return losses;
}

std::string data_in_words(const DataConfig& data) {
  if (data.blend.empty()) return data.train.empty() ? "unknown" : data.train;
  std::string text;
  for (const BlendSource& source : data.blend) {
    text += fmt::format("{}{} (weight {})", text.empty() ? "" : ", ",
                        source.name.empty() ? source.train : source.name, source.weight);
  }
  return text;
}

hf::Provenance provenance_of(const CheckpointReader& reader, const train::RunConfig& config) {
  const Manifest& manifest = reader.manifest();
  hf::Provenance from;
  from.run = config.name;
  from.config = dump_config(config);
  from.data = data_in_words(config.data);
  from.step = manifest.step;
  from.tokens = manifest.state.value("consumed_samples", int64_t{0}) * config.batch.sequence_length;
  from.losses = losses_of(reader.path(), manifest.step);
  if (config.data.reset_attention || config.data.reset_positions) {
    from.not_expressed.push_back(
        "Training kept the documents of a sequence apart (data.reset_attention, data.reset_positions); the "
        "exported model reads one document at a time, as it does in generation.");
  }
  return from;
}

// Null where there is none to find: the run had no text.
std::unique_ptr<Tokenizer> tokenizer_of(const ExportArguments& arguments, const CheckpointReader& reader,
                                        const train::RunConfig& config) {
  const DataConfig& data = config.data;
  const bool no_text =
      data.tokenizer.empty() && data.blend.empty() && (data.train.empty() || data.train == "synthetic");
  if (arguments.no_tokenizer || (arguments.tokenizer.empty() && no_text)) return nullptr;
  return train::find_tokenizer(reader, config, arguments.tokenizer).tokenizer;
}

}  // namespace

void export_model(const ExportArguments& arguments) {
  hf::ExportOptions options;
  options.shard_bytes = parse_shard_size(arguments.shard_size);
  options.overwrite = arguments.overwrite;
  MpiRuntime mpi;
  Communicator& world = mpi.world();
  init_log(world.rank(), world.size());
  set_thread_count(std::max(1, available_cores() / mpi.local_size()));
  Progress progress("export");
  options.progress = std::ref(progress);
  CheckpointReader reader(arguments.checkpoint);
  if (arguments.average) reader.use_averages();
  train::RunConfig config;
  parse_config(config, reader.manifest().config, reader.path());
  const auto tokenizer = tokenizer_of(arguments, reader, config);
  const bool bf16 =
      arguments.dtype.empty() ? config.precision == train::Precision::bf16 : arguments.dtype == "bf16";
  options.dtype = bf16 ? DType::bf16 : DType::f32;
  const hf::Exported exported = hf::export_model(reader, config.model, provenance_of(reader, config),
                                                 tokenizer.get(), arguments.output, options, world);
  if (world.rank() != 0) return;
  fmt::print("{} of {} at step {} as {}: {} in {} file{}\n", arguments.output, config.name,
             reader.manifest().step, hf::class_name(exported.form.model_class),
             format_bytes(static_cast<double>(exported.bytes)), exported.files,
             exported.files == 1 ? "" : "s");
  fmt::print("weights {}\n", exported.weight_hash);
  if (exported.form.model_class == hf::ModelClass::ziggurat) {
    fmt::print("load it with trust_remote_code=True; no class of transformers is this model:\n");
    for (const hf::ModelClass native : hf::kNativeClasses) {
      fmt::print("  {}: {}\n", hf::class_name(native), hf::obstacle(native, config.model).value_or(""));
    }
  }
  if (!tokenizer && !arguments.no_tokenizer)
    fmt::print("no tokenizer: the run had no text; --tokenizer gives one\n");
  for (const std::string& note : exported.notes) fmt::print("note: {}\n", note);
}

}  // namespace ziggurat::apps
