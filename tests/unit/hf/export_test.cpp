// What export writes, import reads: the same numbers, whatever the class, the shards and the ranks.
#include <algorithm>
#include <cmath>

#include "hf/layout.h"
#include "hf/remote_code.h"
#include "tests/support/source_dir.h"
#include "tests/unit/hf/hf_test_support.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/hf/upcycle.h>

namespace ziggurat::test {
namespace {

using hf::ModelFolder;
using ::testing::AllOf;
using ::testing::HasSubstr;

const std::vector<int32_t> kTokens = {3, 17, 0, 39, 8, 8, 25};

double largest_difference(const std::vector<float>& a, const std::vector<float>& b) {
  EXPECT_EQ(a.size(), b.size());
  double largest = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    largest = std::max(largest, std::abs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
  }
  return largest;
}

class HfModels : public HfTest, public ::testing::WithParamInterface<size_t> {
 protected:
  const ModelConfig& config() const { return small_models()[GetParam()].second; }
};
std::string model_name(const ::testing::TestParamInfo<size_t>& info) {
  return small_models()[info.param].first;
}
INSTANTIATE_TEST_SUITE_P(Hf, HfModels, ::testing::Range(size_t{0}, small_models().size()), model_name);

// Every number of ours stands in the folder once, but for the padding of the vocabulary.
TEST_P(HfModels, TheLayoutHoldsEveryNumberOnce) {
  const auto ours = hf::parameters_of(config());
  std::map<std::string, std::vector<int>> times;
  for (const auto& [name, shape] : ours) times[name].resize(static_cast<size_t>(shape.numel()));
  for (const hf::FolderTensor& tensor : hf::layout(hf::choose_form(config()), config())) {
    if (tensor.ours.empty()) continue;
    const Shape& shape = ours.at(tensor.ours);
    const int64_t row = shape.numel() / shape[0];
    ASSERT_EQ((tensor.row_end - tensor.row_begin) * row, tensor.shape.numel()) << tensor.name;
    for (int64_t i = tensor.row_begin * row; i < tensor.row_end * row; ++i) {
      ++times[tensor.ours][static_cast<size_t>(i)];
    }
  }
  for (const auto& [name, counts] : times) {
    const bool padded = name == "embed.token.weight" || name == "head.weight";
    const int64_t held = padded ? config().vocab_size * config().hidden : ours.at(name).numel();
    for (size_t i = 0; i < counts.size(); ++i) {
      ASSERT_EQ(counts[i], static_cast<int64_t>(i) < held ? 1 : 0) << name << " " << i;
    }
  }
}

TEST_P(HfModels, ComesBackAsItWas) {
  const std::string checkpoint = checkpoint_of(config());
  export_to(path("out"), checkpoint, config());
  const ModelFolder folder(path("out"));
  const auto [form, read] = hf::read_config(folder, config());
  WholeModel original(config()), imported(read);
  original.randomise();
  hf::read_weights(folder, form, read, imported.store());
  EXPECT_EQ(original.logits(kTokens), imported.logits(kTokens));
  imported.save(path("again"));
  export_to(path("out_again"), path("again"), read);
  for (const char* file : {"model.safetensors", "config.json"}) {
    EXPECT_TRUE(text_of(path("out/") + file) == text_of(path("out_again/") + file)) << file;
  }
}

TEST_P(HfModels, ShardsAndRanksChangeNothing) {
  const std::string checkpoint = checkpoint_of(config());
  const hf::Exported whole = export_to(path("whole"), checkpoint, config());
  const hf::ExportOptions options{.shard_bytes = 4000};
  const hf::Exported shards = export_to(path("shards"), checkpoint, config(), options);
  EXPECT_GT(shards.files, 3);
  EXPECT_EQ(shards.weight_hash, whole.weight_hash);
  run_on_threads(3, [&](Communicator& world) {
    CheckpointReader reader(checkpoint);
    const hf::Exported e =
        hf::export_model(reader, config(), provenance(), nullptr, path("ranks"), options, world);
    EXPECT_EQ(e.weight_hash, whole.weight_hash);
  });
  int files = 0;
  for (const auto& entry : fs::directory_iterator(path("shards"))) {
    const std::string name = entry.path().filename().string();
    EXPECT_TRUE(text_of(path("shards/") + name) == text_of(path("ranks/") + name)) << name;
    files += name.ends_with(".safetensors") ? 1 : 0;
  }
  EXPECT_EQ(files, shards.files);
  const ModelFolder one(path("whole")), many(path("shards"));
  ASSERT_EQ(one.names(), many.names());
  for (const std::string& name : one.names()) EXPECT_EQ(one.read(name), many.read(name)) << name;
}

TEST_P(HfModels, Bf16IsRounded) {
  export_to(path("out"), checkpoint_of(config()), config(), {.dtype = DType::bf16});
  const ModelFolder folder(path("out"));
  WholeModel original(config());
  original.randomise();
  const nn::ParamEntry& entry = original.store().find("final_norm.weight");
  const float* exact = entry.param.value.data<float>();
  const bool gpt2 = folder.contains("transformer.ln_f.weight");
  const std::vector<float> rounded = folder.read(gpt2 ? "transformer.ln_f.weight" : "model.norm.weight");
  for (size_t i = 0; i < rounded.size(); ++i) EXPECT_EQ(rounded[i], static_cast<float>(bf16(exact[i])));
  EXPECT_EQ(folder.config()["torch_dtype"], "bfloat16");
}

// Written by transformers itself, with its logits (scripts/golden/make_hf_goldens.py).
class HfGolden : public HfTest, public ::testing::WithParamInterface<const char*> {};
INSTANTIATE_TEST_SUITE_P(Hf, HfGolden,
                         ::testing::Values("gpt2", "llama", "mixtral", "qwen2_moe", "qwen3", "qwen3_moe",
                                           "olmoe", "ziggurat", "ziggurat_qk_norm", "qwen2_moe_shared",
                                           "ziggurat_openmoe", "ziggurat_sigmoid", "mixtral_window"),
                         [](const auto& golden) { return std::string(golden.param); });

TEST_P(HfGolden, FolderOfTransformersComputesTheSameHereAndLeavesAsItCame) {
  const std::string golden = source_dir() + "/tests/golden/data/hf_" + GetParam();
  const ModelFolder folder(golden);
  ModelConfig base;
  base.vocab_multiple = 16;
  const auto [form, config] = hf::read_config(folder, base);
  WholeModel imported(config);
  EXPECT_THAT(hf::read_weights(folder, form, config, imported.store()), ::testing::IsEmpty());
  const SafetensorsFile expected(golden + "/logits.safetensors");
  const Tensor tokens = expected.tensor("tokens"), logits = expected.tensor("logits");
  const std::vector<int32_t> ids(tokens.data<int32_t>(), tokens.data<int32_t>() + tokens.numel());
  const std::vector<float> values(logits.data<float>(), logits.data<float>() + logits.numel());
  EXPECT_LT(largest_difference(imported.logits(ids), values), 1e-4);

  imported.save(path("checkpoint"));
  const hf::Exported exported = export_to(path("out"), path("checkpoint"), config);
  EXPECT_EQ(exported.form.model_class, form.model_class);
  const ModelFolder back(path("out"));
  const std::vector<std::string> came = folder.names();
  for (const std::string& name : back.names()) {
    if (std::find(came.begin(), came.end(), name) != came.end()) continue;
    // A layer of ours has biases everywhere or nowhere.
    EXPECT_TRUE(name.ends_with(".bias")) << name;
    for (const float value : back.read(name)) EXPECT_EQ(value, 0.0f) << name;
  }
  for (const std::string& name : came) {
    EXPECT_EQ(back.entry(name).shape, folder.entry(name).shape) << name;
    EXPECT_EQ(back.read(name), folder.read(name)) << name;
  }
}

// Folders as above, and the hash of the checkpoint that `ziggurat import` made of them when it still held the
// whole model in memory.
using WholeImport = std::pair<const char*, const char*>;
class HfWholeImport : public HfTest, public ::testing::WithParamInterface<WholeImport> {};
INSTANTIATE_TEST_SUITE_P(
    Hf, HfWholeImport,
    ::testing::Values(WholeImport("gpt2", "xxh3-128:01c9797e2ea5629e01dbb9d2d6c84630"),
                      WholeImport("llama", "xxh3-128:c9161cd57f89370b9e8fc56c22fab69a"),
                      WholeImport("mixtral", "xxh3-128:8344d02d2f2e748c37d461bf2544e012"),
                      WholeImport("qwen2_moe", "xxh3-128:bd8d8ebb36c188a8f9d1348ec940131f"),
                      WholeImport("ziggurat", "xxh3-128:8164d0cacceaacf8a73fbc0ef4cf69b7")),
    [](const auto& import) { return std::string(import.param.first); });

TEST_P(HfWholeImport, HadTheSameBytes) {
  const auto& [name, hash] = GetParam();
  const ModelFolder folder(source_dir() + "/tests/golden/data/hf_" + name);
  train::RunConfig run;
  run.name = name;
  const auto [form, config] = hf::read_config(folder, run.model);
  run.model = config;
  const WholeModel model(config);
  hf::FolderWeights weights(folder, form, config, model.store());
  const auto values = [&](const nn::ParamEntry& entry, int64_t first, const Tensor& to) {
    weights.read(entry, first, to);
  };
  const auto self = make_self_communicator();
  train::save_starting_point({run, model.store(), values}, path("to"), *self);
  CheckpointReader reader(path("to"));
  ASSERT_EQ(reader.manifest().files.size(), 1u);
  std::vector<std::vector<float>> data;
  std::vector<NamedTensor> tensors;
  for (const SliceRecord& slice : reader.manifest().files[0].slices) {
    const Shape& shape = slice.global_shape;
    data.emplace_back(static_cast<size_t>(shape.numel()), -1.0f);
    tensors.push_back({slice.name, Tensor(data.back().data(), DType::f32, shape)});
    reader.read({slice.name, shape, rows_of(shape, 0, shape[0]), tensors.back().data});
  }
  // With the moments written out, as they were then.
  const WrittenFile whole =
      write_safetensors(path("whole"), tensors, {{"run_id", name}, {"step", "0"}, {"rank", "0"}});
  EXPECT_EQ(whole.hash, hash);
}

TEST_F(HfTest, TheFolderHasItsDescriptions) {
  const ModelConfig& config = small_models()[6].second;
  const auto tokenizer = load_tokenizer("bytes");
  const hf::Exported exported = export_to(path("out"), checkpoint_of(config), config, {}, tokenizer.get());
  EXPECT_EQ(text_of(path("out/modeling_ziggurat.py")),
            text_of(source_dir() + "/src/hf/remote_code/modeling_ziggurat.py"));
  EXPECT_EQ(text_of(path("out/configuration_ziggurat.py")), hf::configuration_py());
  EXPECT_EQ(text_of(path("out/ziggurat.yaml")), "name: test\n");
  EXPECT_THAT(text_of(path("out/README.md")),
              AllOf(HasSubstr(exported.weight_hash), HasSubstr("trust_remote_code=True"),
                    HasSubstr(tokenizer->fingerprint()), HasSubstr("Training dropped tokens")));
  EXPECT_THAT(text_of(path("out/generation_config.json")), HasSubstr("\"eos_token_id\": 256"));
  EXPECT_THAT(text_of(path("out/tokenizer_config.json")), HasSubstr("<|endoftext|>"));
  // The bytes come back as a vocabulary without merges: the same ids.
  const std::vector<int32_t> ids = load_tokenizer(path("out"))->encode("Zig \xc3\xa9\n");
  EXPECT_EQ(ids, tokenizer->encode("Zig \xc3\xa9\n"));
}

TEST_F(HfTest, AnExportIsReplacedOnRequestAndNothingElseEver) {
  const ModelConfig& config = small_models()[0].second;
  const std::string checkpoint = checkpoint_of(config);
  export_to(path("out"), checkpoint, config);
  EXPECT_THAT(error_of(ErrorKind::argument, [&] { export_to(path("out"), checkpoint, config); }),
              HasSubstr("--overwrite"));
  EXPECT_NO_THROW(export_to(path("out"), checkpoint, config, {.overwrite = true}));
  EXPECT_THAT(
      error_of(ErrorKind::argument, [&] { export_to(checkpoint, checkpoint, config, {.overwrite = true}); }),
      HasSubstr("no config.json"));
  for (const char* other : {"notes.txt", "run"}) {  // a run may have been begun in the folder
    fs::create_directory(path("out") + "/" + other);
    EXPECT_THAT(error_of(ErrorKind::argument,
                         [&] { export_to(path("out"), checkpoint, config, {.overwrite = true}); }),
                HasSubstr(std::string("out also holds '") + other + "'"));
    EXPECT_TRUE(fs::exists(path("out") + "/" + other));
    fs::remove(path("out") + "/" + other);
  }
  fs::create_directory(path("empty"));
  EXPECT_NO_THROW(export_to(path("empty"), checkpoint, config));
  EXPECT_TRUE(fs::exists(path("empty/config.json")));
}

TEST_F(HfTest, ADamagedCheckpointLeavesNothingBehind) {
  const ModelConfig& config = small_models()[0].second;
  const std::string checkpoint = checkpoint_of(config);
  const std::string file = checkpoint + "/step_00000000/rank_00000.safetensors";
  ModelConfig deeper = config;
  deeper.blocks[0].repeat = 3;
  EXPECT_THAT(error_of(ErrorKind::checkpoint, [&] { export_to(path("out"), checkpoint, deeper); }),
              HasSubstr("no tensor 'blocks.2.norm1.weight'"));
  std::fstream damaged(file, std::ios::in | std::ios::out | std::ios::binary);
  damaged.seekp(static_cast<std::streamoff>(fs::file_size(file)) - 3);
  damaged.put('!');
  damaged.close();
  EXPECT_THAT(error_of(ErrorKind::checkpoint, [&] { export_to(path("out"), checkpoint, config); }),
              HasSubstr("damaged"));
  EXPECT_EQ(std::distance(fs::directory_iterator(path("")), fs::directory_iterator()), 1) << "the checkpoint";
  EXPECT_THAT(
      error_of(ErrorKind::checkpoint, [&] { export_to("/proc/no/out", checkpoint_of(config), config); }),
      HasSubstr("/proc/no"));
}

int64_t bytes_read_by_this_process() {
  std::ifstream file("/proc/self/io");
  std::string key;
  int64_t bytes = 0;
  file >> key >> bytes;
  EXPECT_EQ(key, "rchar:");
  return bytes;
}

// Ranks on one machine read a checkpoint's file once to check it, and each its part of the weights.
TEST_F(HfTest, RanksCheckAFileOnce) {
  ModelConfig config = small_models()[0].second;
  config.hidden = 128, config.ffn_hidden = 512;
  const std::string checkpoint = checkpoint_of(config);
  const int64_t bytes = CheckpointReader(checkpoint).manifest().files.at(0).bytes;
  ASSERT_GT(bytes, 1'000'000);
  const int64_t before = bytes_read_by_this_process();
  run_on_threads(4, [&](Communicator& world) {
    CheckpointReader reader(checkpoint);
    hf::export_model(reader, config, provenance(), nullptr, path("out"), {.shard_bytes = 300'000}, world);
  });
  EXPECT_LT(bytes_read_by_this_process() - before, 5 * bytes / 2);
}

// Another file under the same name, as on a disk of its own, is not taken for checked.
TEST_F(HfTest, ARankTrustsItsOwnFileOnly) {
  const ModelConfig& config = small_models()[0].second;
  const std::string checkpoint = checkpoint_of(config);
  fs::copy(checkpoint, path("copy"), fs::copy_options::recursive);
  const std::string file = CheckpointReader(path("copy")).path() + "/rank_00000.safetensors";
  std::fstream(file, std::ios::in | std::ios::out | std::ios::binary).seekp(-1, std::ios::end).put('x');
  run_on_threads(2, [&](Communicator& world) {
    CheckpointReader reader(world.rank() == 0 ? checkpoint : path("copy"));
    reader.verify_together(world);  // rank 0 has checked its own
    const Shape shape = reader.tensor("final_norm.weight").shape;
    std::vector<float> values(static_cast<size_t>(shape.numel()));
    const auto read = [&] {
      reader.read({"final_norm.weight", shape, rows_of(shape, 0, shape[0]),
                   Tensor(values.data(), DType::f32, shape)});
    };
    if (world.rank() == 0) {
      EXPECT_NO_THROW(read());
    } else {
      EXPECT_THAT(error_of(ErrorKind::checkpoint, read), HasSubstr("damaged"));
    }
  });
}

TEST_F(HfTest, UpcyclingStartsFromTheSameFunction) {
  for (const size_t index : {0u, 3u}) {
    const ModelConfig& dense = small_models()[index].second;
    export_to(path("dense"), checkpoint_of(dense), dense, {.overwrite = true});
    const ModelFolder folder(path("dense"));
    WholeModel original(dense);
    original.randomise();
    for (const hf::Upcycling& how : {hf::Upcycling{.experts = 4, .every = 2}, hf::Upcycling{4, 1, 1, false},
                                     hf::Upcycling{3, 1, 2, true}}) {
      const ModelConfig config = hf::upcycled(dense, how);
      WholeModel experts(config);
      hf::read_weights(folder, hf::choose_form(dense), dense, experts.store());
      EXPECT_LT(largest_difference(experts.logits(kTokens), original.logits(kTokens)), 1e-5);
    }
  }
}

TEST_F(HfTest, UpcyclingNamesWhatIsWrong) {
  const ModelConfig &dense = small_models()[0].second, &moe = small_models()[4].second;
  const auto message = [&](const ModelConfig& config, const hf::Upcycling& how) {
    return error_of(ErrorKind::argument, [&] { hf::upcycled(config, how); });
  };
  EXPECT_THAT(message(moe, {4, 1}), HasSubstr("has experts already"));
  EXPECT_THAT(message(dense, {4, 3}), HasSubstr("from 1 to 2"));
  EXPECT_THAT(message(dense, {1, 1, 2}), HasSubstr("at least top_k"));
}

}  // namespace
}  // namespace ziggurat::test
