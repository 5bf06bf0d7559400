// Folders as others write them: other dtypes, names and extras, and what is wrong with some.
#include <cstring>

#include "tests/unit/hf/hf_test_support.h"

namespace ziggurat::test {
namespace {

using hf::ModelFolder;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

struct Raw {
  std::string code;
  std::vector<int64_t> shape;
  std::string bytes;
};

// A folder's tensors as bytes, to be changed and written again.
class RawFolder {
 public:
  explicit RawFolder(const std::string& from) {
    const SafetensorsFile file(from + "/model.safetensors");
    for (const auto& [name, entry] : file.entries()) {
      std::vector<int64_t> shape;
      for (int i = 0; i < entry.shape.rank(); ++i) shape.push_back(entry.shape[i]);
      const auto data = file.data(name);
      tensors[name] = {entry.code, shape, {reinterpret_cast<const char*>(data.data()), data.size()}};
    }
    std::ifstream in(from + "/config.json");
    config = nlohmann::json::parse(in);
  }

  std::string write(const std::string& folder) const {
    fs::remove_all(folder);
    fs::create_directories(folder);
    std::ofstream(folder + "/config.json") << config.dump();
    write_tensors(folder + "/model.safetensors");
    return folder;
  }

  void write_tensors(const std::string& path) const {
    nlohmann::json header = {{"__metadata__", {{"format", "pt"}}}};
    std::string data;
    for (const auto& [name, raw] : tensors) {
      header[name] = {{"dtype", raw.code},
                      {"shape", raw.shape},
                      {"data_offsets", {data.size(), data.size() + raw.bytes.size()}}};
      data += raw.bytes;
    }
    const std::string text = header.dump();
    const uint64_t length = text.size();
    std::ofstream out(path, std::ios::binary);
    out.write(reinterpret_cast<const char*>(&length), sizeof(length));
    out << text << data;
  }

  std::map<std::string, Raw> tensors;
  nlohmann::json config;
};

class HfImport : public HfTest {
 protected:
  // A GPT-2 of ours, exported.
  RawFolder gpt2(bool tied = true) {
    ModelConfig config = small_models()[0].second;
    config.tied_embeddings = tied;
    export_to(path("good"), checkpoint_of(config), config, {.overwrite = true});
    return RawFolder(path("good"));
  }

  // Reads the folder into a model of its own; returns what was skipped.
  std::vector<std::string> import_from(const std::string& folder) {
    const ModelFolder model_folder(folder);
    const auto [form, config] = hf::read_config(model_folder, {});
    whole_ = std::make_unique<WholeModel>(config);
    return hf::read_weights(model_folder, form, config, whole_->store());
  }
  std::vector<float> values_of(const std::string& name) {
    const Tensor master = whole_->store().master(whole_->store().find(name));
    return {master.data<float>(), master.data<float>() + master.numel()};
  }
  std::string refusal(const RawFolder& folder) {
    return error_of(ErrorKind::checkpoint, [&] { import_from(folder.write(path("bad"))); });
  }

 private:
  std::unique_ptr<WholeModel> whole_;
};

template <class T>
std::string bytes_of(const std::vector<T>& values) {
  return {reinterpret_cast<const char*>(values.data()), values.size() * sizeof(T)};
}

TEST_F(HfImport, ReadsEveryFloatingDtype) {
  RawFolder folder = gpt2();
  const std::string name = "transformer.ln_f.weight";
  // 1, -2, the largest, the smallest normal, the smallest subnormal, -0, 1/3 rounded, infinity in F16; twice.
  const std::vector<uint16_t> halves = {0x3c00, 0xc000, 0x7bff, 0x0400, 0x0001, 0x8000, 0x3555, 0x7c00};
  std::vector<uint16_t> all = halves;
  all.insert(all.end(), halves.begin(), halves.end());
  folder.tensors[name] = {"F16", {16}, bytes_of(all)};
  import_from(folder.write(path("f16")));
  const std::vector<float> read = values_of("final_norm.weight");
  const float expected[] = {
      1, -2, 65504, 6.103515625e-05f, 5.9604644775390625e-08f, -0.0f, 0.333251953125f, INFINITY};
  for (size_t i = 0; i < 16; ++i) EXPECT_EQ(read[i], expected[i % 8]) << i;

  folder.tensors[name] = {"BF16", {16}, bytes_of(std::vector<uint16_t>(16, 0x3fc0))};
  import_from(folder.write(path("bf16")));
  EXPECT_EQ(values_of("final_norm.weight"), std::vector<float>(16, 1.5f));
  folder.tensors[name] = {"F64", {16}, bytes_of(std::vector<double>(16, 0.1))};
  import_from(folder.write(path("f64")));
  EXPECT_EQ(values_of("final_norm.weight"), std::vector<float>(16, 0.1f));
}

TEST_F(HfImport, QuantisedWeightsAreRefused) {
  RawFolder folder = gpt2();
  for (const char* code : {"I8", "F8_E4M3", "U8"}) {
    folder.tensors["transformer.ln_f.weight"] = {code, {16}, std::string(16, '\1')};
    EXPECT_THAT(refusal(folder),
                AllOf(HasSubstr("transformer.ln_f.weight"), HasSubstr(code), HasSubstr("BF16")));
  }
}

TEST_F(HfImport, NamesWithoutTheTrunkAndComputedTablesAreFine) {
  const RawFolder folder = gpt2();
  import_from(path("good"));
  const std::vector<float> expected = values_of("blocks.1.attention.qkv.weight");
  RawFolder old = folder;
  old.tensors.clear();
  for (const auto& [name, raw] : folder.tensors) old.tensors[name.substr(std::strlen("transformer."))] = raw;
  old.tensors["h.0.attn.bias"] = {"BOOL", {1, 1, 4, 4}, std::string(16, '\1')};
  EXPECT_THAT(import_from(old.write(path("old"))), ElementsAre("h.0.attn.bias"));
  EXPECT_EQ(values_of("blocks.1.attention.qkv.weight"), expected);
}

TEST_F(HfImport, PaddingOfTheVocabularyIsZero) {
  gpt2();
  import_from(path("good"));
  const std::vector<float> table = values_of("embed.token.weight");  // 40 rows of 16, padded to 128
  ASSERT_EQ(table.size(), 128u * 16);
  EXPECT_EQ(std::vector<float>(table.begin() + 40 * 16, table.end()), std::vector<float>(88 * 16, 0.0f));
  EXPECT_NE(table[40 * 16 - 1], 0.0f);
}

TEST_F(HfImport, ATiedHeadMayStandThereIfItIsTheEmbedding) {
  RawFolder folder = gpt2();
  folder.tensors["lm_head.weight"] = folder.tensors["transformer.wte.weight"];
  EXPECT_NO_THROW(import_from(folder.write(path("tied"))));
  folder.tensors["lm_head.weight"].bytes[5] ^= 1;
  EXPECT_THAT(refusal(folder), HasSubstr("tie_word_embeddings"));
}

TEST_F(HfImport, WhatIsMissingOrDoesNotFitIsNamed) {
  const RawFolder good = gpt2(/*tied=*/false);
  RawFolder folder = good;
  folder.tensors.erase("lm_head.weight");
  EXPECT_THAT(refusal(folder), HasSubstr("no tensor 'lm_head.weight'"));
  folder = good;
  folder.tensors["transformer.h.2.ln_1.weight"] = folder.tensors["transformer.h.1.ln_1.weight"];
  EXPECT_THAT(refusal(folder), AllOf(HasSubstr("transformer.h.2.ln_1.weight"), HasSubstr("no place")));
  folder = good;
  folder.config["n_inner"] = 32;
  EXPECT_THAT(refusal(folder), AllOf(HasSubstr("mlp.c_fc"), HasSubstr("[16, 24]"), HasSubstr("[16, 32]")));
  folder = good;
  folder.config["scale_attn_weights"] = false;
  EXPECT_THAT(refusal(folder), HasSubstr("scale_attn_weights"));
}

TEST_F(HfImport, ASharedExpertThatComputesSomethingIsRefused) {
  const ModelConfig& config = small_models()[5].second;
  export_to(path("qwen"), checkpoint_of(config), config);
  RawFolder folder(path("qwen"));
  folder.tensors["model.layers.1.mlp.shared_expert.down_proj.weight"].bytes[3] = 1;
  EXPECT_THAT(refusal(folder), AllOf(HasSubstr("shared_expert.down_proj"), HasSubstr("not zero")));
}

TEST_F(HfImport, BadFoldersAreRefused) {
  const RawFolder good = gpt2();
  const auto message = [&] {
    return error_of(ErrorKind::checkpoint, [&] { ModelFolder folder(path("bad")); });
  };
  EXPECT_THAT(message(), HasSubstr("is no folder"));
  good.write(path("bad"));
  fs::resize_file(path("bad/model.safetensors"), fs::file_size(path("bad/model.safetensors")) - 1);
  EXPECT_THAT(message(), HasSubstr("model.safetensors"));
  fs::remove(path("bad/model.safetensors"));
  EXPECT_THAT(message(), HasSubstr("neither"));
  std::ofstream(path("bad/pytorch_model.bin")) << "x";
  EXPECT_THAT(message(), AllOf(HasSubstr("safe_serialization"), HasSubstr("pytorch_model.bin")));
  std::ofstream(path("bad/config.json")) << "{";
  EXPECT_THAT(message(), HasSubstr("no valid JSON"));

  good.write(path("bad"));
  const auto index = [&](const std::string& text) {
    std::ofstream(path("bad/model.safetensors.index.json")) << text;
    return message();
  };
  EXPECT_THAT(index("[]"), HasSubstr("weight_map"));
  EXPECT_THAT(index(R"({"weight_map": {"a": "../good/model.safetensors"}})"),
              HasSubstr("no plain file name"));
  EXPECT_THAT(index(R"({"weight_map": {"a": ".."}})"), HasSubstr("no plain file name"));
  EXPECT_THAT(index(R"({"weight_map": {"a": "gone.safetensors"}})"), HasSubstr("gone.safetensors"));
  EXPECT_THAT(index(R"({"weight_map": {"a": "model.safetensors"}})"), HasSubstr("'a' is not in"));
  good.write_tensors(path("bad/copy.safetensors"));
  EXPECT_THAT(index(R"({"weight_map": {"transformer.ln_f.weight": "model.safetensors",
                                       "transformer.ln_f.bias": "copy.safetensors"}})"),
              HasSubstr("two files"));
}

}  // namespace
}  // namespace ziggurat::test
