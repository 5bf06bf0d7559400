#include <algorithm>
#include <filesystem>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/io/event_file.h>
#include <ziggurat/train/run_records.h>

namespace ziggurat::train {
namespace {

using nlohmann::json;
using ziggurat::testing::read_text;
using ziggurat::testing::TempDir;

std::vector<std::string> event_files(const TempDir& folder) {
  std::vector<std::string> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder.path())) {
    const std::string name = entry.path().filename();
    if (name.starts_with("events.out.tfevents.")) files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end());
  return files;
}

TEST(RunRecords, EveryStartHasAnEventFileOfItsOwn) {
  const TempDir folder;
  for (const int64_t step : {0, 7}) {  // within a second
    RunRecords records(folder.path().string(), step);
    records.write(R"({"kind":"start","step":0})");
    records.write(R"({"kind":"step","step":8,"loss":2})");
  }
  EXPECT_EQ(read_text(folder / "metrics.jsonl"),
            "{\"kind\":\"start\",\"step\":0}\n{\"kind\":\"step\",\"step\":8,\"loss\":2}\n"
            "{\"kind\":\"start\",\"step\":0}\n{\"kind\":\"step\",\"step\":8,\"loss\":2}\n");
  const std::vector<std::string> files = event_files(folder);
  ASSERT_EQ(files.size(), 2U);
  const std::vector<NamedScalar> loss = {{"train/loss", 2}};
  const size_t whole =
      event_file_head(0).size() + event_of_start(0, 7).size() + event_of_scalars(0, 8, loss).size();
  EXPECT_EQ(read_text(files[0]).size(), whole);
  EXPECT_EQ(read_text(files[1]).size(), whole);
}

TEST(RunRecords, BecomeCurvesWithNamesInGroups) {
  const json step = {{"kind", "step"},
                     {"step", 3},
                     {"loss", 1.5},
                     {"lr", 0.1},
                     {"losses", {{"cross_entropy", 1.5}, {"balance", 0.25}}},
                     {"objective", {{"distillation_weight", 0.5}}},
                     {"moe", json::array({json{{"layer", 1}, {"imbalance", 2.0}, {"drop_rate", 0.5}}})}};
  const std::vector<NamedScalar> curves = {{"train/loss", 1.5},
                                           {"train/lr", 0.1},
                                           {"losses/balance", 0.25},
                                           {"losses/cross_entropy", 1.5},
                                           {"objective/distillation_weight", 0.5},
                                           {"moe_imbalance/layer_01", 2.0},
                                           {"moe_drop_rate/layer_01", 0.5}};
  EXPECT_EQ(event_of(step, 10), event_of_scalars(10, 3, curves));
  const json validation = {{"kind", "validation"}, {"split", "test"}, {"step", 3}, {"loss", 1.25}};
  const std::vector<NamedScalar> test = {{"test/loss", 1.25}};
  EXPECT_EQ(event_of(validation, 10), event_of_scalars(10, 3, test));
  const json tasks = {{"kind", "tasks"}, {"step", 3}, {"scores", {{"piqa acc", 0.5}}}};
  const std::vector<NamedScalar> piqa = {{"tasks/piqa acc", 0.5}};
  EXPECT_EQ(event_of(tasks, 10), event_of_scalars(10, 3, piqa));
  const json sample = {{"kind", "sample"}, {"step", 3}, {"prompt_number", 2}, {"prompt", "a"}, {"text", "b"}};
  const std::vector<NamedText> text = {{"samples/2", "ab"}};
  EXPECT_EQ(event_of(sample, 10), event_of_texts(10, 3, text));
  EXPECT_EQ(event_of(json{{"kind", "start"}, {"step", 3}}, 10), "");
}

// Folders that cannot be written are told by the file's name, as before.
TEST(RunRecords, NameTheFileThatCannotBeOpened) {
  const TempDir folder;
  EXPECT_THAT(
      ziggurat::testing::error_of(ErrorKind::config, [&] { RunRecords records(folder / "nowhere", 0); }),
      ::testing::HasSubstr("nowhere/metrics.jsonl"));
}

}  // namespace
}  // namespace ziggurat::train
