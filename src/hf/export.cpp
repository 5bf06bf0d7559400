#include <algorithm>
#include <filesystem>

#include "hf/card.h"
#include "hf/remote_code.h"
#include "hf/tokenizer_files.h"
#include "hf/weights.h"
#include <ziggurat/checkpoint/staged_folder.h>
#include <ziggurat/comm/agreement.h>
#include <ziggurat/core/log.h>
#include <ziggurat/hf/export.h>

namespace ziggurat::hf {

namespace fs = std::filesystem;

namespace {

// Is it a name that an export writes?
bool is_ours(const std::string& name) {
  constexpr std::string_view kNames[] = {"config.json",
                                         "generation_config.json",
                                         "ziggurat.yaml",
                                         "README.md",
                                         "tokenizer.json",
                                         "configuration_ziggurat.py",
                                         "modeling_ziggurat.py",
                                         "tokenizer_config.json",
                                         "tokenizer.model",
                                         "tokenization_ziggurat.py",
                                         "model.safetensors.index.json"};
  return std::find(std::begin(kNames), std::end(kNames), name) != std::end(kNames) ||
         (name.starts_with("model") && name.ends_with(".safetensors"));
}

// An earlier export may be replaced, nothing else.
void check_place(const std::string& output, bool overwrite) {
  if (!fs::exists(output)) return;
  if (fs::is_directory(output) && fs::is_empty(output)) return;
  check(overwrite, ErrorKind::argument, "{} stands already: choose another folder, or give --overwrite",
        output);
  check(fs::exists(output + "/config.json"), ErrorKind::argument,
        "{} holds no exported model (no config.json), so --overwrite does not replace it", output);
  for (const auto& entry : fs::directory_iterator(output)) {
    const std::string name = entry.path().filename().string();
    check(is_ours(name) && !entry.is_directory(), ErrorKind::argument,
          "{} also holds '{}', which no export wrote and --overwrite would remove: move it away, or choose "
          "another folder",
          output, name);
  }
}

int64_t total_bytes(std::span<const Shard> shards) {
  int64_t bytes = 0;
  for (const Shard& shard : shards) bytes += shard.bytes;
  return bytes;
}

void write_descriptions(const StagedFolder& folder, const Exported& exported,
                        const model::ModelConfig& config, const Provenance& provenance,
                        const Tokenizer* tokenizer, DType dtype) {
  const int64_t eod = tokenizer ? tokenizer->eod_id() : -1;
  folder.write("config.json", to_config_json(exported.form, config, dtype, eod).dump(2) + "\n");
  nlohmann::ordered_json generation = nlohmann::ordered_json::object();
  if (eod >= 0) generation["bos_token_id"] = generation["eos_token_id"] = generation["pad_token_id"] = eod;
  folder.write("generation_config.json", generation.dump(2) + "\n");
  folder.write("ziggurat.yaml", provenance.config);
  if (tokenizer) write_tokenizer(*tokenizer, config.max_sequence, folder);
  if (exported.form.model_class == ModelClass::ziggurat) {
    folder.write("configuration_ziggurat.py", configuration_py());
    folder.write("modeling_ziggurat.py", modeling_py());
  }
  folder.write("README.md", model_card(exported, config, dtype, provenance, tokenizer));
}

}  // namespace

Exported export_model(CheckpointReader& checkpoint, const model::ModelConfig& config,
                      const Provenance& provenance, const Tokenizer* tokenizer, const std::string& output,
                      const ExportOptions& options, Communicator& comm) {
  StagedFolder folder(output);
  check_place(output, options.overwrite);
  Exported exported{.form = choose_form(config)};
  const std::vector<FolderTensor> tensors = layout(exported.form, config);
  check_tensors(checkpoint, config, tensors);
  const std::vector<Shard> shards = plan_shards(tensors, options.dtype, options.shard_bytes);
  exported.bytes = total_bytes(shards);
  exported.files = static_cast<int64_t>(shards.size());
  exported.notes = not_expressed(exported.form, config);
  exported.notes.insert(exported.notes.end(), provenance.not_expressed.begin(),
                        provenance.not_expressed.end());
  if (tokenizer && !tokenizer_note(*tokenizer).empty()) exported.notes.push_back(tokenizer_note(*tokenizer));

  if (comm.size() > 1) checkpoint.verify_together(comm);

  try {
    on_rank_0(comm, [&] {
      folder.create();
      check_place(output, options.overwrite);  // again: nobody else writes there now
      folder.check_room(exported.bytes);
      return std::string();
    });
    const std::vector<std::string> hashes = write_shards(checkpoint, config, tensors, shards, options.dtype,
                                                         folder.path(), comm, options.progress);
    exported.weight_hash = weight_hash(tensors, options.dtype, hashes);
    on_rank_0(comm, [&] {
      if (shards.size() > 1) folder.write("model.safetensors.index.json", index_json(tensors, shards));
      write_descriptions(folder, exported, config, provenance, tokenizer, options.dtype);
      check_place(output, options.overwrite);
      folder.publish();
      return std::string();
    });
  } catch (...) {
    folder.discard();
    throw;
  }
  return exported;
}

}  // namespace ziggurat::hf
