// A checkpoint's tokenizer is found wherever its run was moved, and no other is taken for it.
#include <filesystem>

#include "tests/support/source_dir.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/config/config.h>
#include <ziggurat/data/bpe_tokenizer.h>
#include <ziggurat/data/bpe_trainer.h>
#include <ziggurat/train/run_tokenizer.h>

namespace ziggurat::train {
namespace {

using namespace ziggurat::testing;
namespace fs = std::filesystem;

BpeTokenizer tokenizer_of(const std::string& text) {
  BpeTrainer trainer;
  trainer.add_text(text + text + text);
  return BpeTokenizer(trainer.train(260));
}

class RunTokenizer : public ::testing::Test {
 protected:
  // <dir>/project/{tok, run/checkpoints/step_...}, and a config that names both.
  RunTokenizer() {
    right_.save(project() / "tok");
    load_config(config_, test::source_dir() + "/configs/tiny/350m_dense.yaml", {});
    config_.output = (project() / "run").string();
    config_.data.tokenizer = (project() / "tok").string();
    config_.data.train = (project() / "shards").string();
    config_.model.vocab_size = 300;
    save({{"tokenizer", right_.fingerprint()}});
  }
  fs::path project() const { return dir_ / "project"; }
  fs::path checkpoints() const { return project() / "run/checkpoints"; }

  void save(const nlohmann::json& state) {
    fs::create_directories(checkpoints());
    float value = 1;
    const TensorSlice slice{"w", {1}, rows_of({1}, 0, 1), Tensor(&value, DType::f32, {1})};
    const auto self = make_self_communicator();
    save_checkpoint(
        checkpoints().string(),
        {.run_id = "r", .step = ++step_, .state = state, .config = dump_config(config_), .synced_first = ""},
        {&slice, 1}, *self);
  }
  std::string found(const fs::path& checkpoint, const std::string& named = "") {
    const CheckpointReader reader(checkpoint.string());
    RunConfig config;
    parse_config(config, reader.manifest().config, reader.path());
    return find_tokenizer(reader, config, named).tokenizer->fingerprint();
  }
  std::string failure(const fs::path& checkpoint, const std::string& named = "") {
    return error_of(ErrorKind::data, [&] { found(checkpoint, named); });
  }

  const TempDir dir_;
  const BpeTokenizer right_ = tokenizer_of("the cat sat on the mat"),
                     wrong_ = tokenizer_of("another text, no cats");
  RunConfig config_;
  int64_t step_ = 0;
};

void expect_parts(const std::string& message, const std::vector<std::string>& parts) {
  for (const std::string& part : parts)
    EXPECT_NE(message.find(part), std::string::npos) << part << " in:\n" << message;
}

TEST_F(RunTokenizer, IsSavedWithTheRunAndFoundWhereverThatIs) {
  save_tokenizer(config_, right_.fingerprint());
  save_tokenizer(config_, right_.fingerprint());  // a resumed run
  fs::rename(project() / "run", dir_ / "moved");
  fs::remove_all(project());
  const fs::path step = latest_checkpoint((dir_ / "moved/checkpoints").string()).value();
  for (const fs::path& checkpoint : {dir_ / "moved", dir_ / "moved/", dir_ / "moved/checkpoints", step}) {
    EXPECT_EQ(found(checkpoint), right_.fingerprint()) << checkpoint;
  }
  // A copy of one step, with the tokenizer beside it.
  fs::copy(step, dir_ / "alone", fs::copy_options::recursive);
  expect_parts(failure(dir_ / "alone"), {"--tokenizer", config_.data.tokenizer});
  fs::copy(dir_ / "moved/tokenizer", dir_ / "tokenizer", fs::copy_options::recursive);
  EXPECT_EQ(found(dir_ / "alone"), right_.fingerprint());
}

TEST_F(RunTokenizer, OfAnOlderRunIsWhereTheConfigSaysAlsoWhenAllWasMoved) {
  EXPECT_EQ(found(checkpoints()), right_.fingerprint());
  fs::rename(project(), dir_ / "elsewhere");
  EXPECT_EQ(found(dir_ / "elsewhere/run"), right_.fingerprint());
}

TEST_F(RunTokenizer, BesideTheShardsServesARunWhoseConfigNamesNone) {
  config_.data.tokenizer.clear();
  save({{"tokenizer", right_.fingerprint()}});
  right_.save(project() / "shards");
  EXPECT_EQ(found(checkpoints()), right_.fingerprint());
  save_tokenizer(config_, right_.fingerprint());
  fs::remove_all(project() / "shards");
  EXPECT_EQ(found(checkpoints()), right_.fingerprint());
}

TEST_F(RunTokenizer, ThatIsAnotherIsPassedByAndNamed) {
  wrong_.save(project() / "run/tokenizer");
  EXPECT_EQ(found(checkpoints()), right_.fingerprint());  // the config's
  fs::remove_all(project() / "tok");
  expect_parts(failure(checkpoints()),
               {"run/tokenizer", wrong_.fingerprint().substr(0, 12), right_.fingerprint().substr(0, 12),
                (project() / "tok").string(), "does not exist", "--tokenizer"});
  wrong_.save(project() / "tok");
  expect_parts(failure(checkpoints(), (project() / "tok").string()),
               {(project() / "tok").string(), "--tokenizer", right_.fingerprint().substr(0, 12)});
}

TEST_F(RunTokenizer, OfAnOlderCheckpointIsKnownByItsFirstDigitsOrItsSize) {
  for (const std::string place : {"", "source 0, "}) {
    save({{"data", fmt::format("order: keyed\n{}tokenizer: {:.16}\nshard x: 3 tokens\n", place,
                               right_.fingerprint())}});
    EXPECT_EQ(found(checkpoints()), right_.fingerprint());
    expect_parts(failure(checkpoints(), "bytes"), {right_.fingerprint().substr(0, 12)});
  }
  save({{"data", "order: keyed\ntokenizer: \nshard x: 3 tokens\n"}});
  EXPECT_EQ(found(checkpoints(), "bytes"), load_tokenizer("bytes")->fingerprint());
  config_.model.vocab_size = 256;
  save({});
  expect_parts(failure(checkpoints(), "bytes"), {"257", "256"});
}

TEST_F(RunTokenizer, ADamagedOneIsPassedBy) {
  write_text(project() / "run/tokenizer/tokenizer.json", "{");
  EXPECT_EQ(found(checkpoints()), right_.fingerprint());
  fs::remove_all(project() / "tok");
  expect_parts(failure(checkpoints()), {"tokenizer.json"});
}

TEST_F(RunTokenizer, IsNoneForTheSyntheticLanguage) {
  config_.data.train = "synthetic", config_.data.tokenizer.clear();
  save_tokenizer(config_, "");
  EXPECT_FALSE(fs::exists(project() / "run/tokenizer"));
  save({{"tokenizer", ""}});
  expect_parts(failure(checkpoints()), {"synthetic", "--tokenizer"});
  EXPECT_EQ(found(checkpoints(), "bytes"), load_tokenizer("bytes")->fingerprint());
}

TEST_F(RunTokenizer, OfAnotherRunIsNotReplaced) {
  wrong_.save(project() / "run/tokenizer");
  expect_parts(error_of(ErrorKind::config, [&] { save_tokenizer(config_, right_.fingerprint()); }),
               {"output", "run/tokenizer"});
  EXPECT_EQ(load_tokenizer(project() / "run/tokenizer")->fingerprint(), wrong_.fingerprint());
}

}  // namespace
}  // namespace ziggurat::train
