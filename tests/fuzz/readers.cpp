#include "readers.h"

#include <algorithm>
#include <fstream>
#include <iterator>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/config/config.h>
#include <ziggurat/data/manifest.h>
#include <ziggurat/data/megatron_file.h>
#include <ziggurat/data/text.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/hf/form.h>
#include <ziggurat/hf/model_folder.h>
#include <ziggurat/train/metrics.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::fuzz {

namespace fs = std::filesystem;

namespace {

constexpr int64_t kTokens = 1 << 16;

void read_checkpoint(const fs::path& folder) {
  CheckpointReader checkpoint(folder);
  checkpoint.verify();
  for (const std::string& name : checkpoint.names()) {
    const auto& [dtype, shape] = checkpoint.tensor(name);
    if (shape.numel() > kTokens) continue;
    std::vector<double> memory(static_cast<size_t>(shape.numel()));
    checkpoint.read({name, shape, rows_of(shape, 0, shape[0]), Tensor(memory.data(), dtype, shape)});
  }
}

void read_safetensors(const fs::path& folder) {
  const SafetensorsFile file(folder / "model.safetensors", {}, AcceptDtypes::any);
  std::vector<std::byte> piece;
  for (const auto& [name, entry] : file.entries()) {
    piece.resize(static_cast<size_t>(std::min<int64_t>(entry.end - entry.begin, kTokens)));
    file.read(entry, 0, piece);
    (void)file.data(name);
  }
}

void read_shard(const fs::path& folder) {
  const ShardReader shard(folder / "shard.h5");
  std::vector<int32_t> tokens(static_cast<size_t>(std::min(shard.size(), kTokens)));
  shard.read(0, static_cast<int64_t>(tokens.size()), tokens.data());
  (void)shard.doc_offsets();
  (void)shard.fingerprint();
  shard.verify();
}

void read_shards(const fs::path& folder) { verify_files(read_manifest(folder, "train")); }

void read_megatron(const fs::path& folder) {
  const MegatronFile file(folder / "corpus");
  std::vector<int32_t> ids;
  for (int64_t d = 0; d < std::min<int64_t>(file.documents(), 100); ++d) file.read_document(d, ids);
}

void use(const Tokenizer& tokenizer) {
  std::vector<int32_t> ids = tokenizer.encode("the cat \xff sat\xe4\xb8\xad on 12345  mats");
  (void)tokenizer.decode(ids);
  (void)tokenizer.fingerprint();
}

void read_tokenizer(const fs::path& folder) { use(*load_tokenizer(folder)); }

void read_config(const fs::path& folder) {
  train::RunConfig config;
  load_config(config, (folder / "config.yaml").string());
  (void)dump_config(config);
}

// As `ziggurat import` does, up to the weights, which it takes as numbers.
void read_model_folder(const fs::path& folder) {
  const hf::ModelFolder model(folder);
  (void)hf::from_config_json(model.config(), {}, model.config_path(), false, nullptr,
                             static_cast<int64_t>(model.names().size()));
  for (const std::string& name : model.names()) {
    model.check_dtype(name);
    std::vector<float> values(
        static_cast<size_t>(std::min<int64_t>(model.entry(name).shape.numel(), kTokens)));
    model.read(name, 0, values);
  }
}

void read_text(const fs::path& folder) {
  for (const auto& entry : fs::directory_iterator(folder)) {
    TextOptions options;
    options.inputs = {entry.path()};
    options.document_per = entry.path().extension() == ".jsonl" ? DocumentPer::json : DocumentPer::line;
    options.allow_invalid_utf8 = 0.3;
    TextSource source(options);
    for (std::string document; source.next(document);) {
    }
  }
}

void read_metrics(const fs::path& folder) {
  const std::string path = folder / "metrics.jsonl";
  (void)train::says_ended(path, 2);
  train::cut_metrics(path, 1);
}

}  // namespace

std::vector<Reader> readers() {
  return {{"checkpoint", read_checkpoint, repair_manifest},
          {"safetensors", read_safetensors},
          {"shard", read_shard},
          {"shards", read_shards},
          {"megatron", read_megatron},
          {"tokenizer", read_tokenizer},
          {"gpt2_tokenizer", read_tokenizer},
          {"sentencepiece", read_tokenizer},
          {"config", read_config},
          {"model_folder", read_model_folder},
          {"text", read_text},
          {"metrics", read_metrics}};
}

void repair_manifest(const fs::path& file) {
  std::string text = read_bytes(file);
  const std::string key = "\"manifest_hash\": \"";
  const size_t at = text.rfind(key);
  if (file.filename() != "manifest.json" || at == std::string::npos) return;
  text.resize(at + key.size());
  write_bytes(file, text + content_hash(std::as_bytes(std::span(text))) + "\"\n}\n");
}

std::string read_bytes(const fs::path& file) {
  std::ifstream in(file, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

void write_bytes(const fs::path& file, const std::string& bytes) {
  std::ofstream(file, std::ios::binary | std::ios::trunc)
      .write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
}

}  // namespace ziggurat::fuzz
