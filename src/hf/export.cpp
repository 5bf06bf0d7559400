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

// An earlier export may be replaced, nothing else.
void check_place(const std::string& output, bool overwrite) {
  check(!output.empty(), ErrorKind::argument, "expected a folder to export to, got an empty name");
  if (!fs::exists(output)) return;
  if (fs::is_directory(output) && fs::is_empty(output)) return;
  check(overwrite, ErrorKind::argument, "{} stands already: choose another folder, or give --overwrite",
        output);
  check(fs::exists(output + "/config.json"), ErrorKind::argument,
        "{} holds no exported model (no config.json), so --overwrite does not replace it", output);
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

  StagedFolder folder(output);
  try {
    on_rank_0(comm, [&] {
      folder.create();
      folder.check_room(exported.bytes);
      return std::string();
    });
    const std::vector<std::string> hashes = write_shards(checkpoint, config, tensors, shards, options.dtype,
                                                         folder.path(), comm, options.progress);
    exported.weight_hash = weight_hash(tensors, options.dtype, hashes);
    on_rank_0(comm, [&] {
      if (shards.size() > 1) folder.write("model.safetensors.index.json", index_json(tensors, shards));
      write_descriptions(folder, exported, config, provenance, tokenizer, options.dtype);
      folder.publish();
      return std::string();
    });
  } catch (const Error&) {
    if (comm.rank() == 0) folder.discard();
    throw;
  }
  return exported;
}

}  // namespace ziggurat::hf
