// Every file under configs/ is what it says: it loads, can be planned for its ranks, survives a dump, and the
// tiny ones train.
#include <algorithm>
#include <cmath>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string_view>

#include <gtest/gtest.h>

#include "tests/support/source_dir.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/config/config.h>
#include <ziggurat/plan/cluster.h>
#include <ziggurat/train/memory_plan.h>
#include <ziggurat/train/review.h>
#include <ziggurat/train/trainer.h>

namespace ziggurat {
namespace {

namespace fs = std::filesystem;

std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> files;
  for (const auto& entry : fs::recursive_directory_iterator(test::source_dir() + "/configs/" + folder)) {
    if (entry.path().extension() == ".yaml") {
      files.push_back(fs::relative(entry.path(), test::source_dir() + "/configs"));
    }
  }
  std::sort(files.begin(), files.end());
  return files;
}

train::RunConfig load(const std::string& file, std::vector<std::string> overrides = {}) {
  // Pieces that others include: complete but for the sizes and layers.
  if (file.starts_with("base/") || file.starts_with("data/")) {
    for (const char* missing :
         {"model.hidden=32", "model.heads=4", "model.blocks=[{pattern: [{ffn: residual_moe, experts: 8}]}]"})
      overrides.emplace_back(missing);
  }
  train::RunConfig config;
  load_config(config, test::source_dir() + "/configs/" + file, overrides);
  return config;
}

int natural_ranks(const train::RunConfig& config) {
  const std::vector<int> sizes = config.model.expert_parallel_sizes();
  return sizes.empty() ? 1 : *std::max_element(sizes.begin(), sizes.end());
}

std::string test_name(const ::testing::TestParamInfo<std::string>& info) {
  std::string name = info.param;
  std::replace_if(
      name.begin(), name.end(), [](unsigned char c) { return std::isalnum(c) == 0; }, '_');
  return name;
}

class EveryConfig : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryConfig, LoadsAndCanBePlanned) {
  const train::RunConfig config = load(GetParam());
  const int ranks = natural_ranks(config);
  EXPECT_NO_THROW(train::check_trainable(config));
  EXPECT_NO_THROW(train::check_for_ranks(config, ranks));
  for (const train::Warning& w : train::warnings_of(config)) ADD_FAILURE() << train::to_string(w);
  const train::MemoryPlan plan = train::plan_memory(config, ranks);
  EXPECT_EQ(plan.global_parameters, model::count(config.model, config.batch.sequence_length).parameters);
  EXPECT_GT(plan.activations, 0);
}

TEST_P(EveryConfig, ItsDumpLoadsBackToTheSame) {
  const train::RunConfig config = load(GetParam());
  for (const DumpMode mode : {DumpMode::full, DumpMode::changed}) {
    train::RunConfig back;
    parse_config(back, dump_config(config, mode));
    for (const ConfigDifference& d : config_diff(config, back)) {
      ADD_FAILURE() << d.key << ": " << d.before << " became " << d.after;
    }
  }
}

std::vector<std::string> run_files() {
  std::vector<std::string> files = files_in("");
  std::erase_if(files, [](const std::string& file) { return file.starts_with("clusters/"); });
  return files;
}

INSTANTIATE_TEST_SUITE_P(Configs, EveryConfig, ::testing::ValuesIn(run_files()), test_name);

std::string text_of(const std::string& file) {
  std::ifstream stream(test::source_dir() + "/configs/" + file);
  return {std::istreambuf_iterator<char>(stream), {}};
}

// What editors check it against: `# yaml-language-server: $schema=` in the first line.
void expect_schema(const std::string& file, const std::string& schema) {
  const fs::path configs = test::source_dir() + "/configs";
  const std::string text = text_of(file), line = text.substr(0, text.find('\n'));
  constexpr std::string_view kModeline = "# yaml-language-server: $schema=";
  ASSERT_TRUE(line.starts_with(kModeline)) << line;
  EXPECT_TRUE(
      fs::equivalent((configs / file).parent_path() / line.substr(kModeline.size()), configs / schema));
}

TEST_P(EveryConfig, NamesItsSchema) { expect_schema(GetParam(), "schema.json"); }

TEST(Schema, InTheRepositoryIsThePrograms) {
  EXPECT_EQ(text_of("schema.json"), config_schema<train::RunConfig>() + "\n")
      << "ziggurat config schema > configs/schema.json";
  EXPECT_EQ(text_of("clusters/schema.json"), config_schema<ClusterConfig>() + "\n")
      << "ziggurat config schema --cluster > configs/clusters/schema.json";
}

class EveryCluster : public ::testing::TestWithParam<std::string> {};

TEST_P(EveryCluster, NamesItsSchema) { expect_schema(GetParam(), "clusters/schema.json"); }

TEST_P(EveryCluster, LoadsAndItsDumpLoadsBackToTheSame) {
  ClusterConfig cluster;
  load_config(cluster, test::source_dir() + "/configs/" + GetParam());
  // Named for its devices and how many there are: a100_128.
  EXPECT_NE(GetParam().find(fmt::format("00_{}", cluster.ranks())), std::string::npos);
  ClusterConfig back;
  parse_config(back, dump_config(cluster));
  EXPECT_TRUE(config_diff(cluster, back).empty());
}

INSTANTIATE_TEST_SUITE_P(Configs, EveryCluster, ::testing::ValuesIn(files_in("clusters")), test_name);

class TinyConfig : public ::testing::TestWithParam<std::string> {};

// A student's teacher, trained for a step by the config that the student names.
void train_teacher(const std::string& config_file, const std::string& output) {
  const train::RunConfig config = load(fs::relative(config_file, "configs"),
                                       {"train.tokens=2048", "eval.sequences=0", "output=" + output});
  run_on_threads(1, [&](Communicator& world) {
    train::Trainer trainer(config, world);
    trainer.step();
    trainer.save();
  });
}

TEST_P(TinyConfig, TrainsTwoSteps) {
  const ziggurat::testing::TempDir folder;
  train::RunConfig config =
      load(GetParam(), {"train.tokens=4096", "eval.sequences=4", "output=" + (folder / "run").string()});
  if (config.distil.enabled()) {
    config.distil.teacher = folder / "teacher";
    train_teacher(config.distil.teacher_config, config.distil.teacher);
  }
  run_on_threads(1, [&](Communicator& world) {
    train::Trainer trainer(config, world);
    for (int i = 0; i < 2; ++i) {
      const train::StepRecord record = trainer.step();
      // Untrained: close to a uniform guess over the vocabulary.
      EXPECT_NEAR(record.loss, std::log(static_cast<double>(config.model.vocab_size)), 1.0);
      EXPECT_GT(record.grad_norm, 0);
      EXPECT_EQ(record.layers.size(), config.model.expert_parallel_sizes().size());
    }
    EXPECT_TRUE(std::isfinite(trainer.validate().loss));
  });
}

INSTANTIATE_TEST_SUITE_P(Configs, TinyConfig, ::testing::ValuesIn(files_in("tiny")), test_name);

}  // namespace
}  // namespace ziggurat
