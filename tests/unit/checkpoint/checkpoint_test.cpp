// What a checkpoint promises while nothing goes wrong: any layout loads any layout, and nothing is guessed.
#include <gmock/gmock.h>

#include "checkpoint_fixture.h"

namespace ziggurat::test {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

TEST_F(CheckpointTest, AnyLayoutLoadsAnyLayout) {
  for (const int writers : {1, 2, 4}) {
    save(writers, writers);
    for (const int readers : {1, 2, 3, 4, 7}) {
      EXPECT_TRUE(loads(step_dir(writers), writers, readers)) << writers << " -> " << readers;
      EXPECT_FALSE(loads(step_dir(writers), writers + 1, readers)) << "the comparison must be able to fail";
    }
  }
}

// Ranges of elements, which begin and end inside rows, and columns.
RankSlices cut_up(int rank, int ranks, bool columns) {
  RankSlices mine(0, 1);
  mine.slices.clear();
  for (const ModelTensor& t : model()) {
    const int64_t n = columns ? t.shape[t.shape.rank() - 1] : t.shape.numel();
    const int64_t begin = n * rank / ranks, end = n * (rank + 1) / ranks;
    if (columns) {
      Box box = rows_of(t.shape, 0, t.shape[0]);
      const int last = t.shape.rank() - 1;
      box.begin = with(box.begin, last, begin), box.extent = with(box.extent, last, end - begin);
      if (box.numel() > 0 || rank == 0) mine.add(t, box);
    } else {
      for (const Box& box : boxes_of(t.shape, begin, end)) mine.add(t, box);
      if (t.shape.numel() == 0 && rank == 0) mine.add(t, rows_of(t.shape, 0, 0));
    }
  }
  return mine;
}

TEST_F(CheckpointTest, AnyBoxesLoadAnyBoxes) {
  for (const bool columns : {false, true}) {
    for (const int writers : {1, 2, 5}) {
      const int64_t step = 10 * writers + columns;
      run_on_threads(writers, [&](Communicator& comm) {
        RankSlices mine = cut_up(comm.rank(), writers, columns);
        mine.fill(step);
        save_checkpoint(dir_, info(step), mine.slices, comm);
      });
      CheckpointReader reader(step_dir(step));
      for (const bool in_columns : {false, true}) {
        for (int rank = 0; rank < 3; ++rank) {
          const RankSlices mine = cut_up(rank, 3, in_columns);
          for (const TensorSlice& slice : mine.slices) reader.read(slice);
          EXPECT_TRUE(mine.holds(step)) << writers << columns << in_columns;
          EXPECT_FALSE(mine.holds(step + 1000)) << "the comparison must be able to fail";
        }
      }
      EXPECT_TRUE(loads(step_dir(step), step, 2)) << "by rows";
    }
  }
}

// It is written in pieces, and still what the library for JSON would write of it.
TEST_F(CheckpointTest, ManifestsAreWrittenAsEver) {
  for (const int writers : {1, 2, 20}) {
    save(writers, writers);
    const std::string text = slurp(step_dir(writers) + "/manifest.json");
    const size_t hash = text.rfind(",\n \"manifest_hash\": ");
    ASSERT_NE(hash, std::string::npos);
    const std::string before = text.substr(0, hash) + "\n}";
    EXPECT_EQ(before, nlohmann::json::parse(before).dump(1));
  }
}

// As programs wrote it before there were boxes: rows, and in version 2 zeros that no file holds.
TEST_F(CheckpointTest, OldVersionsAreRead) {
  save(1, 2);
  const std::string path = step_dir(1) + "/manifest.json";
  for (const int version : {1, 2}) {
    nlohmann::json manifest = nlohmann::json::parse(slurp(path));
    manifest["format_version"] = version;
    for (auto& file : manifest["files"]) {
      for (auto& slice : file["slices"]) {
        if (version == 1) {
          const int64_t begin = slice["begin"][0];
          slice["rows"] = {begin, begin + slice["extent"][0].get<int64_t>()};
          slice.erase("begin"), slice.erase("extent");
        }
        if (version == 2 && slice["name"] == "block.0.norm.weight") slice["stored_as"] = "";
      }
    }
    manifest.erase("manifest_hash");
    std::string text = manifest.dump(1);
    text.resize(text.size() - 2);
    text += ",\n \"manifest_hash\": \"";
    spit(path, text + content_hash(std::as_bytes(std::span(text))) + "\"\n}\n");
    EXPECT_EQ(loads(step_dir(1), 1, 3), version == 1);
  }
  CheckpointReader reader(step_dir(1));
  float norm[5] = {1, 2, 3, 4, 5};
  reader.read({"block.0.norm.weight", {5}, rows_of({5}, 0, 5), Tensor(norm, DType::f32, {5})});
  for (const float value : norm) EXPECT_EQ(value, 0);
}

TEST_F(CheckpointTest, FloatsAreRoundedForBfloats) {
  run_on_threads(1, [&](Communicator& comm) {
    std::vector<float> values(1000);
    for (size_t i = 0; i < values.size(); ++i) values[i] = 1 + static_cast<float>(i) * 0x1p-12f;
    const Box box = rows_of({1000}, 0, 1000);
    const TensorSlice slice{"w", {1000}, box, Tensor(values.data(), DType::f32, {1000})};
    save_checkpoint(dir_, info(1), {&slice, 1}, comm);
    std::vector<bf16> rounded(1000);
    CheckpointReader(dir_).read({"w", {1000}, box, Tensor(rounded.data(), DType::bf16, {1000})});
    for (size_t i = 0; i < values.size(); ++i) EXPECT_EQ(rounded[i].bits, bf16(values[i]).bits);
  });
}

TEST_F(CheckpointTest, TheManifestSaysWhatWasSaved) {
  save(1200, 2);
  EXPECT_THAT(entries(), ElementsAre("step_00001200"));
  const CheckpointReader reader(dir_);
  EXPECT_EQ(reader.path(), step_dir(1200));
  const Manifest& m = reader.manifest();
  EXPECT_EQ(m.run_id, "test-run");
  EXPECT_EQ(m.step, 1200);
  EXPECT_EQ(m.world_size, 2);
  EXPECT_EQ(m.state.at("cursor"), 120000);
  EXPECT_EQ(m.config, "model: tiny\n");
  EXPECT_EQ(m.created.size(), std::string("2026-01-01T00:00:00Z").size());
  ASSERT_EQ(m.files.size(), 2u);
  EXPECT_EQ(m.files[1].path, "rank_00001.safetensors");
  EXPECT_EQ(m.files[1].bytes,
            static_cast<int64_t>(fs::file_size(step_dir(1200) + "/rank_00001.safetensors")));
  EXPECT_EQ(reader.names().size(), model().size());
  EXPECT_EQ(reader.tensor("embedding.weight").shape, Shape({13, 6}));
  EXPECT_EQ(reader.tensor("embedding.weight").dtype, DType::bf16);
  EXPECT_TRUE(nlohmann::json::accept(slurp(step_dir(1200) + "/manifest.json")));
}

TEST_F(CheckpointTest, OneRankWritesAPlainSafetensorsFile) {
  save(3, 1);
  const SafetensorsFile file(step_dir(3) + "/rank_00000.safetensors");
  EXPECT_EQ(file.tensor("embedding.weight").shape(), Shape({13, 6}));
  EXPECT_EQ(file.metadata().at("step"), "3");
}

TEST_F(CheckpointTest, TheNewestIsByNumberNotByAlphabet) {
  EXPECT_EQ(latest_checkpoint(dir_), std::nullopt);
  for (const int64_t step : {7, 99999999, 100000000, 20}) save(step, 1);
  EXPECT_EQ(latest_checkpoint(dir_), step_dir(100000000));
  fs::create_directory(dir_ + "/step_999999999");   // no manifest
  fs::create_directory(dir_ + "/step_0000000300");  // not a name of ours
  fs::create_directory(dir_ + "/step_-0000001");
  EXPECT_EQ(latest_checkpoint(dir_), step_dir(100000000));
  EXPECT_EQ(CheckpointReader(step_dir(20) + "/").manifest().step, 20);
}

TEST_F(CheckpointTest, KeepsTheNewestAndLaterOnes) {
  for (const int64_t step : {10, 20, 30}) save(step, 1);
  save(25, 2, 2);
  EXPECT_THAT(entries(), ElementsAre("step_00000020", "step_00000025", "step_00000030"));
  save(40, 1, 1);
  EXPECT_THAT(entries(), ElementsAre("step_00000040"));
}

TEST_F(CheckpointTest, WhatStandsInTheWayIsSetAside) {
  save(5, 4);
  for (const int64_t content : {77, 78}) {
    run_on_threads(2, [&](Communicator& comm) {
      RankSlices mine(comm.rank(), 2);
      mine.fill(content);
      save_checkpoint(dir_, info(5), mine.slices, comm);
    });
  }
  EXPECT_THAT(entries(), ElementsAre("step_00000005", "step_00000005.aside_1", "step_00000005.aside_2"));
  EXPECT_TRUE(loads(dir_, 78, 3)) << "names of what was set aside are no checkpoints";
  EXPECT_FALSE(fs::exists(step_dir(5) + "/rank_00002.safetensors"));
  fs::rename(step_dir(5) + ".aside_1", root_ + "/step_00000005");
  EXPECT_TRUE(loads(root_, 5, 3)) << "and nothing is lost";
}

// Each save in a process of its own, as it were: nothing is known of older ones.
class LineageTest : public CheckpointTest {
 protected:
  void save_of(const std::string& id, int64_t step, int keep, Lineage* known = nullptr) const {
    Lineage fresh{id, {}};
    CheckpointInfo of = info(step, keep);
    of.lineage = known == nullptr ? &fresh : known;
    const auto comm = make_self_communicator();
    RankSlices mine(0, 1);
    mine.fill(step);
    save_checkpoint(dir_, of, mine.slices, *comm);
  }
  void damage(int64_t step) const {
    std::string bytes = slurp(step_dir(step) + "/rank_00000.safetensors");
    bytes.back() = static_cast<char>(bytes.back() ^ 1);
    spit(step_dir(step) + "/rank_00000.safetensors", bytes);
  }
};

TEST_F(LineageTest, OnlyItsOwnAreRotatedAway) {
  for (const int64_t step : {10, 20}) save_of("theirs", step, 0);
  for (const int64_t step : {15, 25, 30}) save_of("ours", step, 1);
  EXPECT_THAT(entries(), ElementsAre("step_00000010", "step_00000020", "step_00000030"));
  EXPECT_EQ(lineage_of(CheckpointReader(step_dir(30)).manifest()), "ours");
}

TEST_F(LineageTest, ADamagedOneIsNeitherRemovedNorCounted) {
  for (const int64_t step : {10, 20, 30}) save_of("ours", step, 0);
  damage(20);
  save_of("ours", 40, 2);
  EXPECT_THAT(entries(), ElementsAre("step_00000020", "step_00000030", "step_00000040"));
  spit(step_dir(30) + "/manifest.json", "{}");
  save_of("ours", 50, 1);
  EXPECT_THAT(entries(), ElementsAre("step_00000020", "step_00000030", "step_00000050"));
}

TEST_F(LineageTest, WhatTheJobSavedItselfIsNotReadAgain) {
  Lineage ours{"ours", {}};
  for (const int64_t step : {10, 20}) save_of("", step, 0, &ours);
  damage(10);  // not seen: removing old checkpoints costs no reading
  save_of("", 30, 2, &ours);
  EXPECT_THAT(entries(), ElementsAre("step_00000020", "step_00000030"));
}

TEST_F(LineageTest, LaterStepsAreSetAside) {
  for (const int64_t step : {10, 20, 30}) save_of("ours", step, 0);
  fs::create_directory(dir_ + "/step_00000040");
  spit(dir_ + "/step_00000050", "not even a folder");
  EXPECT_THAT(set_aside_later(dir_, 20),
              ElementsAre(step_dir(50) + ".aside_1", step_dir(40) + ".aside_1", step_dir(30) + ".aside_1"));
  EXPECT_THAT(list_checkpoints(dir_), ElementsAre(step_dir(20), step_dir(10)));
  EXPECT_TRUE(set_aside_later(dir_, 20).empty());
  EXPECT_TRUE(set_aside_later(root_ + "/never", 0).empty());
}

TEST_F(CheckpointTest, ReadingIsStrict) {
  save(1, 2);
  CheckpointReader reader(dir_);
  float memory[78] = {};
  const auto message = [&](const std::string& name, Shape global, int64_t begin, int64_t end, DType dtype,
                           Shape local) {
    return refusal([&] {
      reader.read({name, global, rows_of(global, begin, end), Tensor(memory, dtype, local)});
    });
  };
  EXPECT_EQ(message("embedding.weight/m", {13, 6}, 2, 4, DType::f32, {2, 6}), "");
  EXPECT_EQ(message("embedding.weight/m", {13, 6}, 4, 4, DType::f32, {0, 6}), "");
  EXPECT_THAT(message("lm_head.weight", {13, 6}, 0, 2, DType::f32, {2, 6}),
              HasSubstr("no tensor 'lm_head.weight'"));
  EXPECT_THAT(message("embedding.weight/m", {14, 6}, 0, 2, DType::f32, {2, 6}),
              HasSubstr("'embedding.weight/m' is f32 [13, 6], the model expects f32 [14, 6]"));
  EXPECT_THAT(message("embedding.weight/m", {13, 3}, 0, 2, DType::f32, {2, 3}),
              HasSubstr("the model expects"));
  EXPECT_THAT(message("embedding.weight/m", {13, 6}, 0, 2, DType::i32, {2, 6}), HasSubstr("expects i32"));
  EXPECT_THAT(message("embedding.weight/m", {13, 6}, 0, 3, DType::f32, {2, 6}),
              HasSubstr("are not [0:3, 0:6]"));
  EXPECT_THAT(message("embedding.weight/m", {13, 6}, 12, 14, DType::f32, {2, 6}),
              HasSubstr("are not [12:14, 0:6] of [13, 6]"));
}

// Saving refuses a layout that leaves rows out or has two owners for a row.
TEST_F(CheckpointTest, SavingRefusesAnIncompleteLayout) {
  save(1, 2);
  const ModelTensor t{"w", DType::f32, {6, 2}};
  const auto attempt = [&](std::vector<std::pair<int64_t, int64_t>> rows, ModelTensor second) {
    return refusal([&] {
      run_on_threads(2, [&](Communicator& comm) {
        RankSlices mine(0, 1);
        mine.slices.clear();
        const auto [begin, end] = rows[static_cast<size_t>(comm.rank())];
        mine.add(comm.rank() == 0 ? t : second, begin, end);
        mine.fill(2);
        save_checkpoint(dir_, info(2), mine.slices, comm);
      });
    });
  };
  EXPECT_THAT(attempt({{0, 3}, {4, 6}}, t), HasSubstr("2 of 12 elements have no owner"));
  EXPECT_THAT(attempt({{0, 3}, {3, 5}}, t), HasSubstr("2 of 12 elements have no owner"));
  EXPECT_THAT(attempt({{1, 3}, {3, 6}}, t), HasSubstr("2 of 12 elements have no owner"));
  EXPECT_THAT(attempt({{0, 4}, {3, 6}}, t), HasSubstr("[3:4, 0:2] has two owners"));
  EXPECT_THAT(attempt({{0, 6}, {0, 6}}, t), HasSubstr("two owners"));
  EXPECT_THAT(attempt({{0, 3}, {3, 6}}, {"w", DType::bf16, {6, 2}}), HasSubstr("disagree"));
  EXPECT_THAT(attempt({{0, 3}, {3, 6}}, {"w", DType::f32, {7, 2}}), HasSubstr("disagree"));
  EXPECT_THAT(entries(), ElementsAre("step_00000001"));
  EXPECT_EQ(attempt({{0, 3}, {3, 6}}, t), "");
}

TEST_F(CheckpointTest, SavingRefusesASliceThatContradictsItself) {
  RankSlices mine(0, 1);
  mine.slices[0].box = rows_of({13, 6}, 0, 12);
  run_on_threads(1, [&](Communicator& comm) {
    EXPECT_THAT(refusal([&] { save_checkpoint(dir_, info(1), mine.slices, comm); }),
                HasSubstr("are not [0:12, 0:6]"));
  });
  EXPECT_TRUE(entries().empty());
}

}  // namespace
}  // namespace ziggurat::test
