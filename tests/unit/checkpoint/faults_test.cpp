// Damage, kills and failing disks: a checkpoint is whole and verified, or it is not there.
#include <csignal>
#include <mutex>

#include <gmock/gmock.h>
#include <sys/resource.h>
#include <sys/wait.h>

#include "checkpoint_fixture.h"
#include <ziggurat/core/philox.h>

namespace ziggurat::test {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

// What the verified loading of a damaged checkpoint says; "" when it loads.
std::string load_message(const std::string& path) {
  return refusal([&] {
    CheckpointReader reader(path);
    reader.verify();
  });
}

std::vector<std::string> files_in(const std::string& path) {
  std::vector<std::string> files;
  for (const auto& e : fs::directory_iterator(path)) files.push_back(e.path().string());
  std::sort(files.begin(), files.end());
  return files;
}

TEST_F(CheckpointTest, EveryFlippedBitIsRefused) {
  save(10, 2);
  const std::vector<std::string> files = files_in(step_dir(10));
  ASSERT_EQ(files.size(), 3u);
  const Philox rng(5, Purpose::test);
  for (uint64_t trial = 0; trial < 2000; ++trial) {
    const std::string& path = files[trial % files.size()];
    const std::string good = slurp(path);
    const uint64_t bit = rng.bits(trial) % (good.size() * 8);
    std::string bad = good;
    bad[bit / 8] = static_cast<char>(bad[bit / 8] ^ (1 << (bit % 8)));
    spit(path, bad);
    ASSERT_THAT(load_message(step_dir(10)), HasSubstr(path)) << "bit " << bit;
    spit(path, good);
  }
  EXPECT_EQ(load_message(step_dir(10)), "");
}

TEST_F(CheckpointTest, ReadNeverUsesAByteOfADamagedFile) {
  save(10, 2);
  const std::string path = step_dir(10) + "/rank_00001.safetensors";
  std::string bytes = slurp(path);
  bytes.back() = static_cast<char>(bytes.back() ^ 1);
  spit(path, bytes);
  CheckpointReader reader(dir_);
  const RankSlices own(0, 2), others(1, 2);
  for (const TensorSlice& s : own.slices) reader.read(s);  // the sound file serves its own rows
  for (const TensorSlice& s : others.slices) {
    EXPECT_THAT(refusal([&] { reader.read(s); }), AllOf(HasSubstr(path), HasSubstr("expected hash")));
  }
}

TEST_F(CheckpointTest, DamagedFilesAreRefusedAndThePreviousCheckpointTaken) {
  save(10, 2);
  save(20, 2);
  const std::string outside = root_ + "/outside";
  for (const std::string& path : files_in(step_dir(20))) {
    const std::string good = slurp(path);
    const std::vector<std::pair<std::string, std::function<void()>>> damages = {
        {"truncated", [&] { spit(path, good.substr(0, good.size() - 1)); }},
        {"halved", [&] { spit(path, good.substr(0, good.size() / 2)); }},
        {"extended", [&] { spit(path, good + '\n'); }},
        {"zeroed", [&] { spit(path, std::string(good.size(), '\0')); }},
        {"emptied", [&] { spit(path, ""); }},
        {"missing", [&] { fs::remove(path); }},
        {"a directory", [&] { fs::remove(path), fs::create_directory(path); }},
        {"a symlink", [&] { fs::remove(path), spit(outside, good), fs::create_symlink(outside, path); }},
        {"of another step",
         [&] { spit(path, slurp(step_dir(10) + "/" + fs::path(path).filename().string())); }},
    };
    for (const auto& [name, damage] : damages) {
      damage();
      EXPECT_NE(load_message(step_dir(20)), "") << path << " " << name;
      run_on_threads(2, [&](Communicator& comm) {
        NewestValid found = open_newest_valid(dir_, comm);
        ASSERT_TRUE(found.reader.has_value()) << path << " " << name;
        EXPECT_EQ(found.reader->manifest().step, 10);
        EXPECT_THAT(found.skipped, ElementsAre(HasSubstr(step_dir(20)))) << name;
      });
      fs::remove_all(path);
      spit(path, good);
    }
    EXPECT_EQ(load_message(step_dir(20)), "");
  }
}

TEST_F(CheckpointTest, EqualTensorsOfAnotherStepOrRankAreStillSwappedFiles) {
  for (const int64_t step : {1, 2}) {  // the same values in both
    run_on_threads(2, [&](Communicator& comm) {
      RankSlices mine(comm.rank(), 2);
      mine.fill(9);
      save_checkpoint(dir_, info(step), mine.slices, comm);
    });
  }
  const auto file = [&](int64_t step) { return step_dir(step) + "/rank_00000.safetensors"; };
  fs::copy_file(file(1), file(2), fs::copy_options::overwrite_existing);
  EXPECT_THAT(load_message(step_dir(2)), HasSubstr("damaged or of another checkpoint"));
  fs::rename(step_dir(1), step_dir(3));
  EXPECT_THAT(load_message(step_dir(3)), HasSubstr("is of step 1"));
}

TEST_F(CheckpointTest, NothingValidIsToldWithAllReasons) {
  for (const int64_t step : {1, 2, 3}) save(step, 1);
  for (const int64_t step : {1, 2, 3}) spit(step_dir(step) + "/rank_00000.safetensors", "gone");
  run_on_threads(1, [&](Communicator& comm) {
    const NewestValid found = open_newest_valid(dir_, comm);
    EXPECT_FALSE(found.reader.has_value());
    EXPECT_THAT(found.skipped,
                ElementsAre(HasSubstr(step_dir(3)), HasSubstr(step_dir(2)), HasSubstr(step_dir(1))));
    const NewestValid nothing = open_newest_valid(root_ + "/never", comm);
    EXPECT_FALSE(nothing.reader.has_value());
    EXPECT_TRUE(nothing.skipped.empty());
  });
  // The same of their manifests, to who names the folder that they lie in, or the run's.
  for (const int64_t step : {1, 2, 3}) spit(step_dir(step) + "/manifest.json", "gone");
  const auto newest_is_damaged = HasSubstr(step_dir(3) + "/manifest.json is cut off or damaged");
  for (const std::string& folder : {dir_, root_}) {
    EXPECT_THAT(refusal([&] { CheckpointReader reader(folder); }), newest_is_damaged);
  }
  fs::create_directory(root_ + "/empty");
  EXPECT_THAT(refusal([&] { CheckpointReader reader(root_ + "/empty"); }),
              HasSubstr("no complete checkpoint"));
  EXPECT_THAT(refusal([&] { CheckpointReader reader(root_ + "/never"); }), HasSubstr("not a directory"));
}

TEST_F(CheckpointTest, WhatAKilledSaveLeftIsIgnoredAndRemoved) {
  save(10, 2);
  save(20, 2);
  fs::rename(step_dir(20), dir_ + "/.step_00000020.tmp");  // killed before the rename
  fs::create_directory(dir_ + "/.step_00000030.tmp");      // killed in the first file
  spit(dir_ + "/.step_00000030.tmp/rank_00000.safetensors", "half");
  spit(dir_ + "/notes.txt", "the user's own");
  EXPECT_EQ(latest_checkpoint(dir_), step_dir(10));
  EXPECT_TRUE(loads(dir_, 10, 3));
  remove_stale_temporaries(dir_);
  EXPECT_THAT(entries(), ElementsAre("notes.txt", "step_00000010"));
  remove_stale_temporaries(root_ + "/never");

  fs::create_directory(dir_ + "/.step_00000020.tmp");
  spit(dir_ + "/.step_00000020.tmp/manifest.json", "{}");
  save(20, 4);
  EXPECT_TRUE(loads(dir_, 20, 1));
}

// A file larger than the process may write fails in the middle with EFBIG, as a full disk does with ENOSPC.
class FileSizeLimit {
 public:
  explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    ::getrlimit(RLIMIT_FSIZE, &before_);
    const rlimit now{bytes, before_.rlim_max};
    ::setrlimit(RLIMIT_FSIZE, &now);
  }
  ~FileSizeLimit() {
    ::setrlimit(RLIMIT_FSIZE, &before_);
    std::signal(SIGXFSZ, handler_);
  }

 private:
  rlimit before_{};
  void (*handler_)(int);
};

TEST_F(CheckpointTest, AFailedWriteOnOneRankFailsAllAndLeavesTheOldCheckpoint) {
  save(10, 2);
  std::vector<float> big(1 << 18, 1.0f);
  int told = 0;
  std::mutex mutex;
  run_on_threads(2, [&](Communicator& comm) {
    std::vector<TensorSlice> slices;
    if (comm.rank() == 1)
      slices.push_back(
          {"big", {1 << 18}, rows_of({1 << 18}, 0, 1 << 18), Tensor(big.data(), DType::f32, {1 << 18})});
    std::optional<FileSizeLimit> limit;  // of the process, so one rank sets it
    comm.barrier();
    if (comm.rank() == 0) limit.emplace(1 << 19);
    comm.barrier();
    const std::string message = refusal([&] { save_checkpoint(dir_, info(20), slices, comm); });
    comm.barrier();
    limit.reset();
    comm.barrier();
    const std::lock_guard lock(mutex);
    EXPECT_THAT(message, AllOf(HasSubstr("cannot write"), HasSubstr("rank_00001.safetensors"),
                               HasSubstr("errno 27"), HasSubstr("rank 1 of 2")));
    ++told;
  });
  EXPECT_EQ(told, 2);
  EXPECT_THAT(entries(), ElementsAre("step_00000010"));
  EXPECT_TRUE(loads(dir_, 10, 1));
  save(20, 2);  // the next save succeeds
  EXPECT_TRUE(loads(dir_, 20, 1));
}

TEST_F(CheckpointTest, AnImpossibleDirectoryIsNamed) {
  spit(root_ + "/file", "");
  run_on_threads(2, [&](Communicator& comm) {
    RankSlices mine(comm.rank(), 2);
    EXPECT_THAT(refusal([&] { save_checkpoint(root_ + "/file/below", info(1), mine.slices, comm); }),
                AllOf(HasSubstr(root_ + "/file"), HasSubstr("errno")));
  });
}

// A child saves over and over until it is killed; whatever the moment, the newest checkpoint is whole.
TEST_F(CheckpointTest, AKillAtAnyMomentLeavesAVerifiedCheckpoint) {
  save(0, 1);
  int64_t step = 0;
  const Philox rng(3, Purpose::test);
  for (uint64_t trial = 0; trial < 25; ++trial) {
    const pid_t child = ::fork();
    ASSERT_GE(child, 0);
    if (child == 0) {
      const std::unique_ptr<Communicator> comm = make_self_communicator();
      RankSlices mine(0, 1);
      for (int64_t next = step + 1;; ++next) {
        mine.fill(next);
        save_checkpoint(dir_, info(next, 2), mine.slices, *comm);
      }
    }
    ::usleep(static_cast<useconds_t>(500 + rng.bits(trial) % 20000));
    ::kill(child, SIGKILL);
    ::waitpid(child, nullptr, 0);
    const auto comm = make_self_communicator();
    NewestValid found = open_newest_valid(dir_, *comm);
    ASSERT_TRUE(found.reader.has_value());
    EXPECT_TRUE(found.skipped.empty()) << found.skipped.front();
    EXPECT_GE(found.reader->manifest().step, step);
    step = found.reader->manifest().step;
    EXPECT_TRUE(loads(dir_, step, 2));
  }
  // Kills also hit the removal of old checkpoints; the next save that completes makes up for all of them.
  const auto comm = make_self_communicator();
  RankSlices mine(0, 1);
  mine.fill(step + 1);
  save_checkpoint(dir_, info(step + 1, 2), mine.slices, *comm);
  EXPECT_EQ(entries().size(), 2u);
}

// A manifest with a right hash may still be hostile.
class HostileManifest : public CheckpointTest {
 protected:
  // Replaces `from` by `to` in the manifest of step 1 and makes its hash right again.
  std::string refused(const std::string& from, const std::string& to) const {
    const std::string path = step_dir(1) + "/manifest.json", good = slurp(path);
    std::string text = good.substr(0, good.rfind("xxh3-128:"));
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    text.replace(at, from.size(), to);
    spit(path, text + content_hash(std::as_bytes(std::span(text))) + "\"\n}\n");
    const std::string message = refusal([&] {
      CheckpointReader reader(step_dir(1));
      for (const std::string& name : reader.names()) {
        const auto info = reader.tensor(name);
        std::vector<std::byte> memory(static_cast<size_t>(info.shape.numel() * size_of(info.dtype)) + 1);
        reader.read({name, info.shape, rows_of(info.shape, 0, info.shape[0]),
                     Tensor(memory.data(), info.dtype, info.shape)});
      }
    });
    spit(path, good);
    EXPECT_TRUE(message.empty() || tells_a_cure(message)) << message;
    return message;
  }
  static bool tells_a_cure(const std::string& message) {
    for (const char* cure :
         {"copy it again", "read it with the program that wrote it", "give the folder its name"}) {
      if (message.find(cure) != std::string::npos) return true;
    }
    return false;
  }
};

TEST_F(HostileManifest, IsRefused) {
  save(1, 2);
  EXPECT_EQ(refused("test-run", "other-run"), "") << "an edit that keeps to the rules must pass";
  const std::string path = "\"path\": \"rank_00000.safetensors\"";
  fs::copy_file(step_dir(1) + "/rank_00000.safetensors", dir_ + "/rank_00000.safetensors");
  for (const char* outside : {"../rank_00000.safetensors", "/etc/passwd", "..", ".", "", "a\\u0000b"}) {
    EXPECT_THAT(refused(path, fmt::format("\"path\": \"{}\"", outside)), HasSubstr("not a plain file name"));
  }
  EXPECT_THAT(refused("\"format_version\": 3", "\"format_version\": 4"), HasSubstr("versions 1 to 3"));
  EXPECT_THAT(refused("\"format_version\": 3", "\"format_version\": 2"), HasSubstr("'rows' is missing"));
  EXPECT_THAT(refused("\"step\": 1", "\"step\": 2"), HasSubstr("is of step 2"));
  EXPECT_THAT(refused("\"step\": 1", "\"step\": -1"), HasSubstr("whole number"));
  EXPECT_THAT(refused("\"config\"", "\"confug\""), HasSubstr("'config' is missing"));
  EXPECT_THAT(refused("\"dtype\": \"BF16\"", "\"dtype\": \"F64\""), HasSubstr("elsewhere"));
  EXPECT_THAT(refused("\"global_shape\": [\n      13", "\"global_shape\": [\n      4611686018427387904"),
              HasSubstr("overflows"));
  // Of the first slice, of [13, 6].
  const auto extent = [](int rows) { return fmt::format("\"extent\": [\n      {},\n      6", rows); };
  const auto begin = [](int row) { return fmt::format("\"begin\": [\n      {},\n      0", row); };
  EXPECT_THAT(refused(extent(6), extent(9)),
              HasSubstr("[6:9, 0:6] of tensor 'embedding.weight' stands in both"));
  EXPECT_THAT(refused(extent(6), extent(5)), HasSubstr("the manifest says"));
  EXPECT_THAT(refused(begin(6), begin(7)), HasSubstr("impossible"));
  EXPECT_THAT(refused(begin(0), begin(-1)), HasSubstr("whole number"));
  EXPECT_THAT(refused(extent(6), "\"extent\": [\n      6"), HasSubstr("impossible"));
  EXPECT_THAT(refused("\"stored_as\": \"embedding.weight[0:6, 0:6]\"", "\"stored_as\": \"nowhere\""),
              HasSubstr("no tensor 'nowhere'"));
  EXPECT_THAT(refused("\"files\": [", "\"files\": 1, \"f\": ["), HasSubstr("files must be a list"));
  EXPECT_THAT(refused("\"files\": [", "\"f\": " + std::string(1 << 22, '[') + ", \"files\": ["),
              HasSubstr("deeper"));
  EXPECT_THAT(refused("\"step\": 1", "\"step\": 1, \"step\": 1"), HasSubstr("twice"));
}

}  // namespace
}  // namespace ziggurat::test
