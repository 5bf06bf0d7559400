// Files that cannot be read say what is the matter with them.
#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/data/dataset.h>
#include <ziggurat/data/megatron_file.h>
#include <ziggurat/io/files.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;
using Path = std::filesystem::path;

std::string message_of_opening(const Path& file) {
  return error_of(ErrorKind::data, [&] { ShardReader reader(file); });
}

TEST(UnreadableShard, ALockOfAnotherProgramDoesNotMatter) {
  const TempDir dir;
  const Path file = dir / counting_shards(dir.path(), {1000}).shards[0].file;
  const int fd = ::open(file.c_str(), O_RDWR);
  ASSERT_EQ(::flock(fd, LOCK_EX | LOCK_NB), 0);  // as HDF5 does for a writer
  EXPECT_EQ(ShardReader(file).size(), 1000);
  ::close(fd);
}

TEST(UnreadableShard, TheSystemsReasonIsTold) {
  const TempDir dir;
  counting_shards(dir.path(), {1000});
  EXPECT_NE(message_of_opening(dir / "none.h5").find("No such file or directory (errno 2)"),
            std::string::npos);
  EXPECT_NE(message_of_opening(dir.path()).find("folder"), std::string::npos);
  write_text(dir / "empty.h5", "");
  EXPECT_NE(message_of_opening(dir / "empty.h5").find("is empty (0 bytes)"), std::string::npos);
  write_text(dir / "text.h5", "no shard at all");
  EXPECT_NE(message_of_opening(dir / "text.h5").find("copy or tokenize it again"), std::string::npos);
  // A disk that fails: reading the first byte of one's own address space is an input/output error.
  std::filesystem::create_symlink("/proc/self/mem", dir / "failing.h5");
  const std::string failing = message_of_opening(dir / "failing.h5");
  EXPECT_NE(failing.find("Input/output error (errno 5)"), std::string::npos) << failing;
  EXPECT_NE(failing.find("whoever runs the storage"), std::string::npos) << failing;
  EXPECT_EQ(failing.find("tokenize"), std::string::npos) << failing;
}

TEST(UnreadableShard, AFileThatMayNotBeReadSaysSo) {
  const TempDir dir;
  const Path file = dir / counting_shards(dir.path(), {1000}).shards[0].file;
  std::filesystem::permissions(file, std::filesystem::perms::none);
  EXPECT_EXIT(
      {
        if (::geteuid() == 0 && ::seteuid(65534) != 0) std::exit(1);
        try {
          ShardReader reader(file);
        } catch (const Error& e) {
          std::fputs(e.what(), stderr);
          std::exit(exit_code(e.kind()));
        }
        std::exit(0);
      },
      ::testing::ExitedWithCode(3), "Permission denied.*give you access");
}

TEST(Reasons, FitTheErrorNumber) {
  for (const int number : {ESTALE, EIO, ETIMEDOUT, ENOTCONN, EHOSTDOWN}) {
    EXPECT_NE(reason_of(number).find("storage"), std::string::npos) << number;
  }
  EXPECT_NE(reason_of(EAGAIN).find("HDF5_USE_FILE_LOCKING=FALSE"), std::string::npos);
}

TEST(UnreadableMegatron, SizesThatDoNotFitAreTold) {
  const TempDir dir;
  std::filesystem::create_directories(dir / "in");
  counting_shards(dir / "in", {300, 200}, 1000);
  write_megatron(TokenStream(read_manifest(dir / "in", "train")), dir / "m");
  const std::string bin = read_text(dir / "m.bin"), idx = read_text(dir / "m.idx");
  ASSERT_EQ(bin.size(), 1000u);
  EXPECT_EQ(MegatronFile(dir / "m").documents(), 2);
  const auto message = [&](const std::string& bin_now, const std::string& idx_now) {
    write_text(dir / "m.bin", bin_now);
    write_text(dir / "m.idx", idx_now);
    return error_of(ErrorKind::data, [&] { MegatronFile file(dir / "m"); });
  };
  const auto expect_parts = [](const std::string& text, const std::vector<std::string>& parts) {
    for (const std::string& part : parts) EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  expect_parts(message("", idx), {"m.bin is empty (0 bytes)", "1000 bytes of tokens"});
  expect_parts(message(bin, ""), {"m.idx is empty (0 bytes)"});
  expect_parts(message(bin.substr(0, 993), idx), {"m.bin has 993 bytes", "describes 1000", "7 are missing"});
  expect_parts(message(bin + "abcd", idx), {"m.bin has 1004 bytes", "4 too many", "no pair"});
  expect_parts(message(bin, idx.substr(0, idx.size() - 5)), {"m.idx", "5 are missing"});
  expect_parts(message(bin, idx + "123"), {"m.idx", "3 too many"});
  std::filesystem::remove(dir / "m.idx");
  expect_parts(error_of(ErrorKind::data, [&] { MegatronFile file(dir / "m"); }), {"m.idx", "No such file"});
  EXPECT_TRUE(is_megatron(dir / "m"));
}

}  // namespace
}  // namespace ziggurat
