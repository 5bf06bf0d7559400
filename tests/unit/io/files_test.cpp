// What is written is there and whole, or as it was before; whatever the system says meanwhile.
#include <optional>

#include <gmock/gmock.h>
#include <sys/stat.h>

#include "tests/support/failing_calls.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/io/content_hash.h>
#include <ziggurat/io/files.h>
#include <ziggurat/io/mapped_file.h>
#include <ziggurat/io/output_file.h>

namespace ziggurat {
namespace {

namespace fs = std::filesystem;
using test::FailingCalls;
using test::WatchedCalls;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ziggurat::testing::error_of;
using ziggurat::testing::TempDir;

// What replacing a file by "new" says while a call fails; nullopt: it never came to that call.
std::optional<std::string> told_while_failing(const fs::path& file, const char* call, int nth, int error,
                                              bool for_ever) {
  const FailingCalls failing(call, nth, error, for_ever);
  std::string told;
  try {
    replace_file(file, "new", ErrorKind::config);
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::config);
    told = e.what();
  }
  return failing.came_to_it() ? std::optional(told) : std::nullopt;
}

TEST(Files, AreReplacedWholeOrNotAtAll) {
  const TempDir dir;
  const fs::path file = dir / "file";
  int failures = 0;
  for (const char* call : {"open", "write", "fsync", "close", "rename"}) {
    for (const int error : {EIO, ENOSPC, EDQUOT, EROFS}) {
      for (const bool for_ever : {false, true}) {
        for (int nth = 1;; ++nth) {
          replace_file(file, "old");
          const auto told = told_while_failing(file, call, nth, error, for_ever);
          if (!told) break;
          ++failures;
          EXPECT_THAT(*told, AllOf(HasSubstr(dir.path()), HasSubstr(fmt::format("errno {}", error)))) << call;
          // The second of these is of the folder, after the new one has got its name, whole.
          const bool renamed = nth == 2 && (call == std::string("open") || call == std::string("fsync"));
          EXPECT_EQ(read_file(file), renamed ? "new" : "old") << call << nth << for_ever;
          EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 1) << "something half-written";
        }
      }
    }
  }
  EXPECT_EQ(failures, (2 + 1 + 2 + 1 + 1) * 4 * 2);
}

TEST(Files, InterruptedAndShortWritesGoOn) {
  const TempDir dir;
  std::atomic<int> calls = 0;
  const WatchedCalls watched([&](std::string_view call, const fs::path&) {
    const bool interrupted = ++calls % 2 == 1 && call != "close";
    return WatchedCalls::Fault{.error = interrupted ? EINTR : 0, .most_bytes = 3};
  });
  replace_file(dir / "file", "ten bytes.");
  EXPECT_EQ(read_file(dir / "file"), "ten bytes.");
  EXPECT_GE(calls, 2 * 4);
}

TEST(Files, ReplaceFilesOnly) {
  const TempDir dir;
  const fs::path pipe = dir / "pipe", folder = dir / "folder";
  ASSERT_EQ(::mkfifo(pipe.c_str(), 0600), 0);
  fs::create_directory(folder);
  EXPECT_THAT(error_of(ErrorKind::data, [&] { replace_file(pipe, "text"); }), HasSubstr("pipe is no file"));
  EXPECT_TRUE(fs::is_fifo(pipe));
  EXPECT_THAT(error_of(ErrorKind::data, [&] { replace_file(folder, "text"); }),
              HasSubstr("folder is a folder: name a file in it"));
  EXPECT_THAT(error_of(ErrorKind::argument, [&] { check_replaceable("/dev/null", ErrorKind::argument); }),
              HasSubstr("/dev/null is no file"));
  replace_file(dir / "file", "old");
  replace_file(dir / "file", "text");
  EXPECT_EQ(read_file(dir / "file"), "text");
  EXPECT_EQ(std::distance(fs::directory_iterator(dir.path()), {}), 3) << "something half-written is left";
}

TEST(Files, ThatWereCutOffOrReplacedAreNotReadOn) {
  const TempDir dir;
  const fs::path path = dir / "file";
  replace_file(path, "ten bytes.");
  const ReadOnlyFile file(path, ErrorKind::checkpoint);
  const FileIdentity before = file.identity();
  fs::resize_file(path, 4);
  std::array<std::byte, 10> bytes{};
  EXPECT_THAT(error_of(ErrorKind::checkpoint, [&] { file.read(0, bytes); }), HasSubstr("ends at byte 4"));
  const auto reopen = [&] { ReadOnlyFile(path, before, ErrorKind::checkpoint, Links::followed); };
  EXPECT_THAT(error_of(ErrorKind::checkpoint, reopen), HasSubstr("was cut off"));
  replace_file(path, "ten others");
  EXPECT_THAT(error_of(ErrorKind::checkpoint, reopen), HasSubstr("was replaced"));
  fs::create_symlink(path, dir / "link");
  EXPECT_EQ(ReadOnlyFile(dir / "link").read_all(), "ten others");
  EXPECT_THAT(error_of(ErrorKind::data, [&] { ReadOnlyFile(dir / "link", ErrorKind::data, Links::refused); }),
              HasSubstr("it is a link"));
  EXPECT_THAT(error_of(ErrorKind::data, [&] { ReadOnlyFile{dir.path()}; }), HasSubstr("no regular file"));
}

TEST(Files, HaveOneHash) {
  const TempDir dir;
  const std::string text(3'000'000, 'x');
  replace_file(dir / "file", text);
  Hasher hasher;
  for (size_t at = 0; at < text.size(); at += 70'001)
    hasher.update(as_bytes(text).subspan(at).first(std::min<size_t>(70'001, text.size() - at)));
  EXPECT_EQ(hasher.bytes(), std::ssize(text));
  EXPECT_EQ(hex_hash_of_file(dir / "file"), hasher.hex());
  EXPECT_EQ(content_hash(as_bytes(text)), "xxh3-128:" + hasher.hex());
  EXPECT_EQ(content_hash(MappedFile(dir / "file").bytes()), content_hash(hasher));
  EXPECT_EQ(content_hash(std::span<const std::byte>()), "xxh3-128:99aa06d3014798d86001c324468d497f");
}

}  // namespace
}  // namespace ziggurat
