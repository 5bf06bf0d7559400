// Files that are damaged, or made to do harm: every one is read or refused with an error that names it.
#include <array>
#include <csignal>

#include <hdf5.h>
#include <sys/wait.h>
#include <unistd.h>

#include "data/hdf5_guard.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/core/philox.h>
#include <ziggurat/data/dataset.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

// Opens and reads everything, in a child process: HDF5 itself may crash. True if that went well; else the
// child must have ended as the program does for bad data, with a message that names the file.
bool survives(const std::filesystem::path& path) {
  int message_pipe[2];
  if (::pipe(message_pipe) != 0) throw std::runtime_error("no pipe");
  const pid_t child = ::fork();
  if (child == 0) {
    ::dup2(message_pipe[1], STDERR_FILENO);
    try {
      const ShardReader shard(path);
      std::vector<int32_t> tokens(static_cast<size_t>(std::min<int64_t>(shard.size(), 1 << 16)));
      shard.read(0, static_cast<int64_t>(tokens.size()), tokens.data());
      shard.verify();
      ::_exit(0);
    } catch (const Error& e) {
      std::fputs(e.what(), stderr);
      ::_exit(exit_code(e.kind()));
    }
  }
  ::close(message_pipe[1]);
  std::string message;
  std::array<char, 4096> block;
  for (ssize_t n = 0; (n = ::read(message_pipe[0], block.data(), block.size())) > 0;) {
    message.append(block.data(), static_cast<size_t>(n));
  }
  ::close(message_pipe[0]);
  int status = 0;
  ::waitpid(child, &status, 0);
  EXPECT_TRUE(WIFEXITED(status)) << "killed by signal " << WTERMSIG(status) << ": " << message;
  if (WEXITSTATUS(status) == 0) return true;
  EXPECT_EQ(WEXITSTATUS(status), exit_code(ErrorKind::data)) << message;
  EXPECT_NE(message.find(path.string()), std::string::npos) << message;
  return false;
}

// Flips a bit, sets a byte, makes a size absurd or cuts the end off. Damage goes where there are headers:
// runs of zeros between aligned objects would say nothing.
std::string damaged(const std::string& bytes, uint64_t n) {
  static constexpr uint64_t kSeed = 17;
  const Philox::Block r = Philox(kSeed, Purpose::test).block(n);
  std::string text = bytes;
  size_t place = r[0] % text.size();
  while (text[place] == 0) place = (place + 1) % text.size();
  switch (n % 4) {
    case 0:
      text[place] = static_cast<char>(text[place] ^ (1 << r[1] % 8));
      break;
    case 1:
      text[place] = static_cast<char>(r[1]);
      break;
    case 2:
      for (size_t k = 0; k < 4 && place + k < text.size(); ++k) text[place + k] = '\xff';
      break;
    default:
      text.resize(r[1] % text.size());
  }
  return text;
}

void expect_read_or_refused(const std::filesystem::path& good, uint64_t cases) {
  const std::string bytes = read_text(good);
  ASSERT_TRUE(survives(good));
  auto bad = good;
  bad.replace_filename("bad.h5");
  uint64_t refused = 0;
  for (uint64_t n = 0; n < cases; ++n) {
    write_text(bad, damaged(bytes, n));
    refused += !survives(bad);
  }
  EXPECT_GT(refused, cases / 5);  // cut files alone are a quarter
}

TEST(HostileShard, ThousandsOfDamagedFilesAreReadOrRefused) {
  const TempDir dir;
  const ShardManifest manifest = counting_shards(dir.path(), {300, 200});
  expect_read_or_refused(dir / manifest.shards[0].file, 600);
}

// A file whose /data is as `make` creates it.
template <class Make>
std::filesystem::path file_with(const TempDir& dir, const Make& make) {
  const auto path = dir / "made.h5";
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  make(file);
  H5Fclose(file);
  return path;
}

void make_data(hid_t file, hsize_t length, hid_t options) {
  const hid_t space = H5Screate_simple(1, &length, nullptr);
  H5Dclose(H5Dcreate2(file, "data", H5T_STD_U16LE, space, H5P_DEFAULT, options, H5P_DEFAULT));
  H5Sclose(space);
}

// As Cerebras' tools write them: chunks, shuffled and deflated.
TEST(HostileShard, DamagedForeignFilesAreReadOrRefused) {
  const TempDir dir;
  const auto path = file_with(dir, [](hid_t file) {
    const hsize_t length = 3000, chunk = 256;
    std::vector<uint16_t> tokens(length);
    std::iota(tokens.begin(), tokens.end(), uint16_t{0});
    const hid_t options = H5Pcreate(H5P_DATASET_CREATE), space = H5Screate_simple(1, &length, nullptr);
    H5Pset_chunk(options, 1, &chunk), H5Pset_shuffle(options), H5Pset_deflate(options, 4);
    const hid_t data = H5Dcreate2(file, "data", H5T_STD_U16LE, space, H5P_DEFAULT, options, H5P_DEFAULT);
    H5Dwrite(data, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, tokens.data());
    H5Dclose(data), H5Sclose(space), H5Pclose(options);
  });
  expect_read_or_refused(path, 300);
}

TEST(HostileShard, ACrashOfTheLibraryNamesTheFile) {
  const std::filesystem::path file = "folder/shard.h5";
  const auto crash_with_guard = [&] {
    const Hdf5Guard guard(file);
    std::raise(SIGSEGV);
  };
  EXPECT_EXIT(crash_with_guard(), ::testing::ExitedWithCode(exit_code(ErrorKind::data)),
              "folder/shard.h5: the HDF5 library crashed");
  const auto crash_afterwards = [&] {
    { const Hdf5Guard guard(file); }
    std::raise(SIGSEGV);
  };
  EXPECT_EXIT(
      crash_afterwards(), [](int status) { return WIFSIGNALED(status) || WEXITSTATUS(status) == 1; }, "");
}

std::string refusal(const std::filesystem::path& path) {
  return error_of(ErrorKind::data, [&] { ShardReader shard(path); });
}

TEST(HostileShard, AbsurdSizesAreRefusedBeforeTheyAreAllocated) {
  const TempDir dir;
  for (const bool chunked : {false, true}) {
    const auto path = file_with(dir, [&](hid_t file) {
      const hid_t options = H5Pcreate(H5P_DATASET_CREATE);
      const hsize_t chunk = 1024;
      if (chunked) H5Pset_chunk(options, 1, &chunk);
      make_data(file, hsize_t{1} << 50, options);
      H5Pclose(options);
    });
    const std::string message = refusal(path);
    EXPECT_NE(message.find("declares 1125899906842624 elements"), std::string::npos) << message;
    EXPECT_NE(message.find("made.h5"), std::string::npos) << message;
  }
}

TEST(HostileShard, LinksAndOtherFilesAreNotFollowed) {
  const TempDir dir;
  const ShardManifest manifest = counting_shards(dir.path(), {300});
  auto path = file_with(dir, [&](hid_t file) {
    H5Lcreate_external((dir / manifest.shards[0].file).c_str(), "/data", file, "data", H5P_DEFAULT,
                       H5P_DEFAULT);
  });
  EXPECT_NE(refusal(path).find("is a link"), std::string::npos);
  path = file_with(dir,
                   [](hid_t file) { H5Lcreate_soft("/elsewhere", file, "data", H5P_DEFAULT, H5P_DEFAULT); });
  EXPECT_NE(refusal(path).find("is a link"), std::string::npos);
  path = file_with(dir, [&](hid_t file) {
    const hid_t options = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(options, "/etc/hostname", 0, 20);
    make_data(file, 10, options);
    H5Pclose(options);
  });
  EXPECT_NE(refusal(path).find("other files"), std::string::npos);
  path = file_with(dir, [](hid_t) {});
  EXPECT_NE(refusal(path).find("has no dataset data"), std::string::npos);
}

TEST(HostileShardManifest, DeepOrAmbiguousJsonIsRefused) {
  const TempDir dir;
  const ShardManifest manifest = counting_shards(dir.path(), {300});
  const auto path = dir / manifest_name(manifest.source, manifest.split);
  const auto read = [&] { read_manifest(dir.path(), manifest.split); };
  std::string twice = read_text(path);
  twice.insert(twice.find('"'), "\"split\": \"valid\", ");
  ASSERT_NO_THROW(read());
  write_text(path, "{\"x\": " + std::string(1 << 22, '['));
  const std::string deep = error_of(ErrorKind::data, read);
  EXPECT_NE(deep.find("deeper"), std::string::npos) << deep;
  EXPECT_NE(deep.find(path.filename().string()), std::string::npos) << deep;
  write_text(path, twice);
  const std::string ambiguous = error_of(ErrorKind::data, read);
  EXPECT_NE(ambiguous.find("split"), std::string::npos) << ambiguous;
}

// A filter that exists while the file is written and not afterwards, as a plug-in of another machine.
size_t pass_through(unsigned, size_t, const unsigned*, size_t bytes, size_t*, void**) { return bytes; }

TEST(HostileShard, AnUnknownFilterIsNamed) {
  constexpr H5Z_filter_t kFilter = 32100;
  const H5Z_class2_t filter = {H5Z_CLASS_T_VERS, kFilter, 1, 1, "squeeze", nullptr, nullptr, pass_through};
  ASSERT_GE(H5Zregister(&filter), 0);
  const TempDir dir;
  const auto path = file_with(dir, [&](hid_t file) {
    const hid_t options = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t chunk = 16;
    H5Pset_chunk(options, 1, &chunk);
    H5Pset_alloc_time(options, H5D_ALLOC_TIME_EARLY);
    H5Pset_filter(options, kFilter, H5Z_FLAG_MANDATORY, 0, nullptr);
    make_data(file, 32, options);
    H5Pclose(options);
  });
  H5Zunregister(kFilter);
  const std::string message = refusal(path);
  EXPECT_NE(message.find("filter 32100 (squeeze)"), std::string::npos) << message;
  EXPECT_NE(message.find("h5repack"), std::string::npos) << message;
}

// 300B tokens: shards that declare 2^27 tokens each but own no disk blocks. Opening reads only metadata.
TEST(HostileShard, AWholeTrainingSetOpensWithoutReadingIt) {
  const TempDir dir;
  constexpr int64_t kShards = 40, kTokens = int64_t{1} << 27;  // 40 of 2,236: the work is the same for each
  ShardManifest manifest;
  manifest.folder = dir.path(), manifest.source = "big", manifest.split = "train";
  for (int64_t i = 0; i < kShards; ++i) {
    const std::string name = shard_name("big", "train", i, kShards);
    const hid_t file = H5Fcreate((dir / name).c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
    const hid_t options = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_alloc_time(options, H5D_ALLOC_TIME_EARLY);
    H5Pset_fill_time(options, H5D_FILL_TIME_NEVER);
    make_data(file, static_cast<hsize_t>(kTokens), options);
    H5Pclose(options), H5Fclose(file);
    manifest.shards.push_back({name, kTokens, 0, 0, ""});
  }
  write_manifest(manifest);
  DatasetOptions options;
  options.sequence_length = 2048;
  const Dataset data(dir.path(), "train", options);
  EXPECT_EQ(data.stream().size(), kShards * kTokens);
  std::vector<int32_t> tokens(2048, 1), targets(2048, 1);
  data.load(data.samples_per_epoch() - 1, 1, tokens.data(), targets.data());
  EXPECT_EQ(tokens, std::vector<int32_t>(2048, 0));
}

}  // namespace
}  // namespace ziggurat
