// Folders as others write them: other dtypes, names and extras, and what is wrong with some.
#include <atomic>
#include <cstring>

#include <sys/stat.h>

#include "tests/unit/hf/hf_test_support.h"
#include <ziggurat/checkpoint/staged_folder.h>
#include <ziggurat/comm/thread.h>
#include <ziggurat/hf/upcycle.h>

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
    const Tensor master = whole_->store().find(name).param.value;
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

TEST_F(HfImport, ExpertsInOneTensorAreNamed) {
  RawFolder folder = gpt2();
  folder.tensors["model.layers.0.mlp.experts.gate_up_proj"] = {"F32", {1}, std::string(4, '\0')};
  folder.tensors.erase("transformer.ln_f.weight");
  EXPECT_THAT(refusal(folder),
              AllOf(HasSubstr("experts.gate_up_proj"), HasSubstr("save_pretrained(NEW_FOLDER)")));
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

TEST_F(HfImport, ASharedExpertOfZerosIsNone) {
  const auto named = [](const std::string& name) {
    return std::find_if(small_models().begin(), small_models().end(),
                        [&](const auto& model) { return model.first == name; })
        ->second;
  };
  const ModelConfig config = named("qwen2_moe");
  export_to(path("qwen"), checkpoint_of(config), config);
  EXPECT_FALSE(hf::read_config(ModelFolder(path("qwen")), {}).second.has(model::FfnKind::residual_moe));
  RawFolder folder(path("qwen"));
  folder.tensors["model.layers.1.mlp.shared_expert.down_proj.weight"].bytes[3] = 1;
  folder.write(path("shared"));
  const ModelConfig shared = hf::read_config(ModelFolder(path("shared")), {}).second;
  EXPECT_TRUE(shared.has(model::FfnKind::residual_moe));
  EXPECT_EQ(shared.moe.residual_mix, moe::ResidualMix::sigmoid);
  EXPECT_EQ(shared.residual_width(), 8);
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

// What an index says and what lies in the files must be the same, or one of both is of another model.
TEST_F(HfImport, AnIndexAndItsFilesMustAgree) {
  const RawFolder good = gpt2();
  const std::string bias = "transformer.ln_f.bias", weight = "transformer.ln_f.weight";
  // The model in two files: the norm's weight in the second.
  RawFolder first = good, second = good;
  first.tensors.erase(weight);
  second.tensors = {{weight, good.tensors.at(weight)}};
  nlohmann::json map;
  for (const auto& [name, raw] : good.tensors) map[name] = name == weight ? "b.safetensors" : "a.safetensors";
  const auto write = [&](const nlohmann::json& index) {
    good.write(path("bad"));
    fs::remove(path("bad/model.safetensors"));
    first.write_tensors(path("bad/a.safetensors"));
    second.write_tensors(path("bad/b.safetensors"));
    std::ofstream(path("bad/model.safetensors.index.json")) << nlohmann::json({{"weight_map", index}});
  };
  const auto message = [&] {
    return error_of(ErrorKind::checkpoint, [&] { ModelFolder folder(path("bad")); });
  };
  write(map);
  EXPECT_EQ(ModelFolder(path("bad")).names().size(), good.tensors.size());
  const auto cure = HasSubstr("save_pretrained(NEW_FOLDER)");

  nlohmann::json changed = map;
  changed.erase(bias);
  write(changed);
  EXPECT_THAT(message(), AllOf(HasSubstr("does not name '" + bias + "' of a.safetensors"), cure));
  changed = map, changed[bias] = "b.safetensors";
  write(changed);
  EXPECT_THAT(message(),
              AllOf(HasSubstr("'" + bias + "' is not in b.safetensors but in a.safetensors"), cure));
  changed = map, changed["other"] = "b.safetensors";
  write(changed);
  EXPECT_THAT(message(), AllOf(HasSubstr("'other' is not in b.safetensors but in none of its files"), cure));
  write(nlohmann::json::object());
  EXPECT_THAT(message(), AllOf(HasSubstr("names no tensors"), HasSubstr("copy it again")));

  write(map);
  first.tensors[weight] = good.tensors.at(weight);
  first.write_tensors(path("bad/a.safetensors"));
  EXPECT_THAT(message(), AllOf(HasSubstr("'" + weight + "' stands in two files"), cure));
  first.tensors.erase(weight);

  write(map);
  good.write_tensors(path("bad/model.safetensors"));
  EXPECT_THAT(message(), AllOf(HasSubstr("two models"), HasSubstr("Take away the one")));
  fs::remove(path("bad/model.safetensors"));
  fs::remove(path("bad/b.safetensors"));
  EXPECT_THAT(message(), AllOf(HasSubstr("b.safetensors, which is not there"), HasSubstr("copy the folder")));
  fs::remove(path("bad/model.safetensors.index.json"));
  EXPECT_THAT(message(), AllOf(HasSubstr("holds 'a.safetensors' and no"), HasSubstr("copy the folder")));

  // What every model computes anew may lie there unnamed.
  first.tensors["h.0.attn.bias"] = {"BOOL", {1, 1, 4, 4}, std::string(16, '\1')};
  write(map);
  EXPECT_THAT(import_from(path("bad")), ElementsAre("h.0.attn.bias"));
}

TEST_F(HfImport, AKeyThatStandsTwiceIsRefused) {
  gpt2().write(path("bad"));
  const auto message = [&] {
    return error_of(ErrorKind::checkpoint, [&] { ModelFolder folder(path("bad")); });
  };
  std::ofstream(path("bad/config.json")) << R"({"a": {"n_embd": 1}, "n_embd": 16, "b": [{}], "n_embd": 32})";
  EXPECT_THAT(message(), AllOf(HasSubstr("bad/config.json"), HasSubstr("\"n_embd\" stands twice")));
}

TEST_F(HfImport, TwoJobsForOnePlaceLeaveEachOtherAlone) {
  StagedFolder first(path("out")), second(path("out"));
  first.create();
  first.write("file", "first");
  EXPECT_THAT(error_of(ErrorKind::config, [&] { second.create(); }),
              AllOf(HasSubstr(".out.lock"), HasSubstr("alive"), HasSubstr("choose another output folder")));
  second.discard();
  first.publish();
  EXPECT_EQ(text_of(path("out/file")), "first");
  EXPECT_FALSE(fs::exists(path(".out.lock")));
  second.create();
  second.discard();
  EXPECT_FALSE(fs::exists(second.path()) || fs::exists(path(".out.lock")));
  EXPECT_EQ(text_of(path("out/file")), "first");
}

TEST_F(HfImport, APipeIsNotWaitedFor) {
  gpt2().write(path("bad"));
  fs::remove(path("bad/config.json"));
  ASSERT_EQ(::mkfifo(path("bad/config.json").c_str(), 0600), 0);
  EXPECT_THAT(error_of(ErrorKind::checkpoint, [&] { ModelFolder folder(path("bad")); }),
              AllOf(HasSubstr("bad/config.json"), HasSubstr("it is no file")));
}

TEST_F(HfImport, ALinkStandsForItsFolder) {
  fs::create_directory(path("real"));
  fs::create_directory_symlink("real", path("link"));
  StagedFolder folder(path("link")), same(path("real"));
  folder.create();
  EXPECT_THROW(same.create(), Error) << "two jobs for one place";
  folder.write("file", "text");
  folder.publish();
  EXPECT_TRUE(fs::is_symlink(path("link")));
  EXPECT_EQ(text_of(path("real/file")), "text");
  fs::create_directory_symlink("nowhere", path("dangling"));
  EXPECT_THAT(error_of(ErrorKind::argument, [&] { StagedFolder bad(path("dangling")); }),
              AllOf(HasSubstr("dangling"), HasSubstr("is a link to what is not there")));
}

TEST_F(HfImport, AFileThatChangesWhileItIsReadIsNamed) {
  gpt2();
  const auto message_after = [&](const auto& change) {
    fs::remove_all(path("changing"));
    fs::copy(path("good"), path("changing"));
    const ModelFolder folder(path("changing"));
    change(path("changing/model.safetensors"));
    return error_of(ErrorKind::checkpoint, [&] { folder.read("transformer.ln_f.weight"); });
  };
  EXPECT_THAT(message_after([](const std::string& file) { fs::resize_file(file, fs::file_size(file) / 2); }),
              AllOf(HasSubstr("changing/model.safetensors was cut off"), HasSubstr("copy this one again")));
  EXPECT_THAT(message_after([&](const std::string& file) {
                fs::copy_file(path("good/model.safetensors"), path("new"));
                fs::rename(path("new"), file);
              }),
              HasSubstr("was replaced while it was in use"));
}

TEST_F(HfImport, AFullDiskIsToldBeforeAnythingIsWritten) {
  StagedFolder folder(path("out"));
  folder.create();
  EXPECT_NO_THROW(folder.check_room(1));
  EXPECT_THAT(error_of(ErrorKind::checkpoint, [&] { folder.check_room(int64_t{1} << 60); }),
              AllOf(HasSubstr(path("out")), HasSubstr("would take"), HasSubstr("make room")));
}

// ---- A piece at a time

std::vector<float> in_pieces(hf::FolderWeights& weights, const nn::ParamEntry& entry, int64_t piece) {
  std::vector<float> values(static_cast<size_t>(entry.numel), -1.0f);
  for (int64_t at = 0; at < entry.numel; at += piece) {
    weights.read(entry, at, Tensor(values.data() + at, DType::f32, {std::min(piece, entry.numel - at)}));
  }
  return values;
}

class HfPieces : public HfTest, public ::testing::WithParamInterface<size_t> {};
INSTANTIATE_TEST_SUITE_P(Hf, HfPieces, ::testing::Range(size_t{0}, small_models().size()),
                         [](const auto& i) { return small_models()[i.param].first; });

TEST_P(HfPieces, GiveTheModelThatWasExported) {
  const ModelConfig& config = small_models()[GetParam()].second;
  export_to(path("out"), checkpoint_of(config), config, {.shard_bytes = 4000});
  const ModelFolder folder(path("out"));
  const auto [form, read] = hf::read_config(folder, config);
  WholeModel original(config), imported(read);
  original.randomise();
  hf::FolderWeights weights(folder, form, read, imported.store());
  for (const nn::ParamEntry& entry : imported.store().entries()) {
    const Tensor whole = original.store().find(entry.spec.name).param.value;
    std::vector<float> expected(whole.data<float>(), whole.data<float>() + whole.numel());
    const bool padded = entry.spec.name == "embed.token.weight" || entry.spec.name == "head.weight";
    if (padded) std::fill(expected.begin() + config.vocab_size * config.hidden, expected.end(), 0.0f);
    EXPECT_EQ(in_pieces(weights, entry, 7), expected) << entry.spec.name;
  }
}

// With a NaN or an infinity nothing can be trained: `import` says so, and where, instead of the run it is
// for.
TEST_F(HfImport, NumbersThatAreNotFiniteAreToldWhereAsked) {
  RawFolder folder = gpt2();
  const std::string name = "transformer.ln_f.weight";
  const uint16_t infinity = 0x7c00, nan = 0x7e01, largest = 0x7bff;
  for (const uint16_t last : {infinity, nan, largest}) {
    std::vector<uint16_t> values(16, 0x3c00);
    values.back() = last;
    folder.tensors[name] = {"F16", {16}, bytes_of(values)};
    const ModelFolder read_folder(folder.write(path("values")));
    const auto [form, config] = hf::read_config(read_folder, {});
    WholeModel model(config);
    using Values = hf::FolderWeights::Values;
    hf::FolderWeights any(read_folder, form, config, model.store());
    hf::FolderWeights finite(read_folder, form, config, model.store(), Values::finite);
    const nn::ParamEntry& entry = model.store().find("final_norm.weight");
    EXPECT_NO_THROW(in_pieces(any, entry, 7));
    if (last == largest) {
      EXPECT_NO_THROW(in_pieces(finite, entry, 7));
    } else {
      EXPECT_THAT(error_of(ErrorKind::checkpoint, [&] { in_pieces(finite, entry, 7); }),
                  ::testing::AllOf(HasSubstr("model.safetensors"), HasSubstr(name), HasSubstr("not finite")));
    }
    fs::remove_all(path("values"));
  }
}

TEST_F(HfImport, AConfigThatCannotBeReadIsTold) {
  const RawFolder folder = gpt2();
  const std::string to = folder.write(path("bad")), file = to + "/config.json";
  const auto refusal_of = [&] { return error_of(ErrorKind::checkpoint, [&] { import_from(to); }); };
  const std::string deep = std::string(1'000'000, '[') + std::string(1'000'000, ']');
  std::ofstream(file) << "{\"model_type\": \"gpt2\", \"rope_scaling\": " << deep << "}";
  EXPECT_THAT(refusal_of(), ::testing::AllOf(HasSubstr("config.json"), HasSubstr("deeper than")));
  fs::remove(file);
  fs::create_directory(file);
  EXPECT_THAT(refusal_of(), ::testing::AllOf(HasSubstr("config.json"), HasSubstr("Is a directory")));
}

// Experts are copies of the layer's MLP; what is new starts as in any model of the seed.
TEST_F(HfImport, PiecesOfAnUpcycledModel) {
  const ModelConfig& dense = small_models()[0].second;  // GPT-2: transposed there
  export_to(path("dense"), checkpoint_of(dense), dense);
  WholeModel original(dense);
  original.randomise();
  const ModelConfig config = hf::upcycled(dense, {.experts = 3, .every = 2, .residual = true});
  WholeModel fresh(config);
  const ModelFolder folder(path("dense"));
  hf::FolderWeights weights(folder, hf::choose_form(dense), dense, fresh.store());
  int copies = 0, initial = 0;
  for (const nn::ParamEntry& entry : fresh.store().entries()) {
    const std::string& name = entry.spec.name;
    const std::vector<float> pieces = in_pieces(weights, entry, 11);
    const auto values = [](WholeModel& model, const std::string& of) {
      const Tensor master = model.store().find(of).param.value;
      return std::vector<float>(master.data<float>(), master.data<float>() + master.numel());
    };
    if (const size_t at = name.find(".moe.experts."); at != std::string::npos) {
      const std::vector<float> mlp = values(original, name.substr(0, at) + ".mlp." + name.substr(at + 13));
      std::vector<float> three;
      for (int e = 0; e < 3; ++e) three.insert(three.end(), mlp.begin(), mlp.end());
      EXPECT_EQ(pieces, three) << name;
      ++copies;
    } else if (name.find(".moe.") != std::string::npos) {
      EXPECT_EQ(pieces, values(fresh, name)) << name;
      ++initial;
    }
  }
  EXPECT_EQ(copies, 4);
  EXPECT_EQ(initial, 3) << "a router and a coefficient";
}

// Any number of ranks and of files: the same bytes, the same values.
TEST_F(HfImport, RanksWriteTheSameFiles) {
  const ModelConfig& config = small_models()[7].second;
  export_to(path("out"), checkpoint_of(config), config);
  const auto import = [&](int ranks, int64_t file_bytes) {
    const std::string to = path(fmt::format("ranks_{}_{}", ranks, file_bytes));
    run_on_threads(ranks, [&](Communicator& world) {
      const ModelFolder folder(path("out"));
      const auto [form, read] = hf::read_config(folder, config);
      WholeModel model(read);
      hf::FolderWeights weights(folder, form, read, model.store());
      train::RunConfig run;
      run.name = "test", run.model = read;
      const auto values = [&](const nn::ParamEntry& entry, int64_t first, const Tensor& into) {
        weights.read(entry, first, into);
      };
      int64_t told = 0, of = 0;
      train::save_starting_point({run, model.store(), values, "", file_bytes}, to, world,
                                 [&](int64_t done, int64_t total) {
                                   EXPECT_GE(done, told);
                                   told = done, of = total;
                                 });
      EXPECT_EQ(told, of);
    });
    return CheckpointReader(to);
  };
  CheckpointReader one = import(1, 1 << 30), many = import(1, 2000), three = import(3, 2000);
  ASSERT_EQ(one.manifest().files.size(), 1u);
  ASSERT_GT(many.manifest().files.size(), 10u);
  ASSERT_EQ(three.manifest().files.size(), many.manifest().files.size());
  bool cut = false;
  for (size_t f = 0; f < many.manifest().files.size(); ++f) {
    const FileRecord &a = many.manifest().files[f], &b = three.manifest().files[f];
    EXPECT_EQ(a.path, b.path);
    EXPECT_EQ(a.hash, b.hash) << a.path;
    for (const SliceRecord& slice : a.slices) cut |= slice.box.end(0) < slice.global_shape[0];
  }
  EXPECT_TRUE(cut) << "no tensor was larger than a file";
  ASSERT_EQ(one.names(), three.names());
  int64_t elements = 0;
  for (const std::string& name : one.names()) elements += one.tensor(name).shape.numel();
  EXPECT_LT(one.manifest().files[0].bytes, elements / 3 * 4 + 10000) << "moments that are zero took room";
  for (const std::string& name : one.names()) {
    const Shape& shape = one.tensor(name).shape;
    std::vector<float> a(static_cast<size_t>(shape.numel())), b(a.size());
    one.read({name, shape, rows_of(shape, 0, shape[0]), Tensor(a.data(), DType::f32, shape)});
    three.read({name, shape, rows_of(shape, 0, shape[0]), Tensor(b.data(), DType::f32, shape)});
    EXPECT_EQ(a, b) << name;
    if (!name.starts_with("adam.")) continue;
    EXPECT_EQ(a, std::vector<float>(a.size(), 0.0f)) << name;
  }
}

// A rank that fails ends all, after its round, and nothing is left.
TEST_F(HfImport, AFailureOnOneRankIsEveryones) {
  const ModelConfig& config = small_models()[0].second;
  std::atomic<int> told = 0, asked = 0;
  run_on_threads(2, [&](Communicator& world) {
    WholeModel model(config);
    train::RunConfig run;
    run.model = config;
    const auto values = [&](const nn::ParamEntry&, int64_t, const Tensor& to) {
      check(world.rank() == 0, ErrorKind::checkpoint, "the disk of rank 1 broke");
      fill_zero(to);
      ++asked;
    };
    EXPECT_THAT(
        error_of(ErrorKind::checkpoint,
                 [&] {
                   train::save_starting_point({run, model.store(), values, "", 4000}, path("to"), world);
                 }),
        AllOf(HasSubstr("the disk of rank 1 broke"), HasSubstr("rank 1 of 2")));
    ++told;
  });
  EXPECT_EQ(told, 2);
  EXPECT_LE(asked, 3) << "rank 0 went on after its first file";
  EXPECT_TRUE(fs::is_empty(path("to")));
}

}  // namespace
}  // namespace ziggurat::test
