#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/build_config.h>
#include <ziggurat/data/text.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

TEST(TextNormaliser, SameResultHoweverTheStreamIsCut) {
  struct Case {
    std::string from, to;
  };
  const std::vector<Case> cases = {{"", ""},
                                   {"\xef\xbb\xbf", ""},
                                   {"\xef\xbb", "\xef\xbb"},
                                   {"\xef\xbb\xbf\r\nx", "\nx"},
                                   {"a\r\nb\rc\nd\r\r\n\r", "a\nb\nc\nd\n\n\n"},
                                   {"x\xef\xbb\xbfy", "x\xef\xbb\xbfy"},
                                   {"\xff\xfe\x80 broken", "\xff\xfe\x80 broken"}};
  for (const auto& [from, to] : cases) {
    for (size_t block = 1; block <= from.size() + 1; ++block) {
      TextNormaliser normaliser;
      std::string out;
      for (size_t i = 0; i < from.size(); i += block) normaliser.add(from.substr(i, block), out);
      normaliser.finish(out);
      EXPECT_EQ(out, to) << "blocks of " << block;
    }
  }
}

TEST(TextNormaliser, KeepsLineEndsOnRequest) {
  TextNormaliser normaliser(LineEnds::keep);
  std::string out;
  for (const char* block : {"\xef", "\xbb",
                            "\xbf"
                            "a\r",
                            "\nb\rc"})
    normaliser.add(block, out);
  normaliser.finish(out);
  EXPECT_EQ(out, "a\r\nb\rc");
  EXPECT_EQ(normaliser.carriage_returns(), 2);
}

std::vector<std::string> documents_of(const TextOptions& options) {
  TextSource source(options);
  std::vector<std::string> documents;
  for (std::string document; source.next(document);) documents.push_back(document);
  return documents;
}

TEST(TextSource, CutsDocuments) {
  const TempDir dir;
  write_text(dir / "b/2.txt", "\xef\xbb\xbfone\r\ntwo\r\n\r\n---\nthree");
  write_text(dir / "a/1.txt", "four\n");
  write_text(dir / "a/0.txt", "");
  write_text(dir / "c.txt", "---\n---\nfive---\n");
  TextOptions options;
  options.inputs = {dir.path()};
  using Texts = std::vector<std::string>;
  EXPECT_EQ(documents_of(options), (Texts{"four\n", "one\ntwo\n\n---\nthree", "---\n---\nfive---\n"}));
  options.document_per = DocumentPer::line;
  EXPECT_EQ(documents_of(options), (Texts{"four", "one", "two", "---", "three", "---", "---", "five---"}));
  options.document_per = DocumentPer::separator;
  options.separator = "---\n";
  EXPECT_EQ(documents_of(options), (Texts{"four\n", "one\ntwo\n\n", "three", "five"}));
  options.inputs = {dir / "c.txt", dir / "a/1.txt"};  // in the order given
  EXPECT_EQ(documents_of(options), (Texts{"five", "four\n"}));
}

TEST(TextSource, LongDocumentsAndSeparatorsAcrossBlocks) {
  const TempDir dir;
  std::string text;
  std::vector<std::string> expected;
  for (const size_t n : {(size_t{1} << 20) - 2, size_t{1}, (size_t{1} << 20) + 7, size_t{3} << 20}) {
    expected.emplace_back(n, 'x');
    text += expected.back() + "<END>";
  }
  write_text(dir / "long.txt", text);
  TextOptions options{{dir / "long.txt"}, DocumentPer::separator, "<END>"};
  EXPECT_EQ(documents_of(options), expected);
}

// What `gzip` and `zstd` make of "hello\n".
const std::string kGzip(
    "\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xcb\x48\xcd\xc9\xc9\xe7\x02\x00\x20\x30\x3a\x36\x06\x00\x00"
    "\x00",
    26);
const std::string kZstd("\x28\xb5\x2f\xfd\x20\x06\x31\x00\x00hello\n", 15);

TEST(TextSource, UnpacksGzipAndZstd) {
  for (const auto& [packed, available] : {std::pair(kGzip, kHasGzip), std::pair(kZstd, kHasZstd)}) {
    const TempDir dir;
    std::string joined, expected;
    for (int i = 0; i < 50000; ++i) joined += packed, expected += "hello\n";  // more than a block either way
    write_text(dir / "packed.txt", joined);
    TextOptions options;
    options.inputs = {dir / "packed.txt"};
    if (!available) {
      EXPECT_NE(error_of(ErrorKind::data, [&] { documents_of(options); }).find("install"), std::string::npos);
      continue;
    }
    EXPECT_EQ(documents_of(options), std::vector<std::string>{expected});
    write_text(dir / "packed.txt", joined.substr(0, joined.size() - 3));
    EXPECT_NE(error_of(ErrorKind::data, [&] { documents_of(options); }).find("packed.txt"),
              std::string::npos);
  }
}

// Tapes and disks pad with zeros; anything else after the data is named.
TEST(TextSource, ZerosMayFollowCompressedDataAndNothingElse) {
  const std::string skippable("\x50\x2a\x4d\x18\x04\0\0\0abcd", 12);
  for (const auto& [packed, available] : {std::pair(kGzip, kHasGzip), std::pair(kZstd, kHasZstd)}) {
    if (!available) continue;
    const TempDir dir;
    TextOptions options;
    options.inputs = {dir / "packed"};
    const std::string zeros(700000, '\0');
    for (const auto& [good, text] :
         {std::pair(packed + zeros, "hello\n"), std::pair(packed + zeros + packed, "hello\nhello\n"),
          std::pair(packed + packed + std::string(1, '\0'), "hello\nhello\n")}) {
      write_text(dir / "packed", good);
      EXPECT_EQ(documents_of(options), std::vector<std::string>{text});
    }
    for (const std::string& before : {packed, packed + zeros, packed + packed}) {
      write_text(dir / "packed", before + "garbage");
      const std::string message = error_of(ErrorKind::data, [&] { documents_of(options); });
      const std::string place =
          "packed: what follows its compressed data at byte " + std::to_string(before.size());
      EXPECT_NE(message.find(place + " "), std::string::npos) << message;
    }
  }
  if (!kHasZstd) return;
  const TempDir dir;
  TextOptions options;
  options.inputs = {dir / "packed"};
  for (const std::string& good : {skippable + kZstd, kZstd + skippable, skippable + kZstd + skippable}) {
    write_text(dir / "packed", good);
    EXPECT_EQ(documents_of(options), std::vector<std::string>{"hello\n"});
  }
}

TEST(TextSource, NormalisesToNfc) {
  const TempDir dir;
  write_text(dir / "a.txt", "e\u0301\x80 \u1100\u1161");
  TextOptions options;
  options.inputs = {dir / "a.txt"}, options.nfc = true, options.allow_invalid_utf8 = 0.5;
  EXPECT_EQ(normalisation_name(options), "bom,crlf,nfc");
  if (!kHasNfc) {
    error_of(ErrorKind::argument, [&] { documents_of(options); });
    return;
  }
  EXPECT_EQ(documents_of(options), std::vector<std::string>{"\u00e9\x80 \uac00"});
}

TEST(TextSource, ATooLongDocumentIsAnError) {
  const TempDir dir;
  write_text(dir / "a.txt", "short\n" + std::string(3 << 20, 'x') + "\n");
  TextOptions options;
  options.inputs = {dir / "a.txt"}, options.document_per = DocumentPer::line,
  options.max_document_bytes = 1000;
  const std::string message = error_of(ErrorKind::data, [&] { documents_of(options); });
  EXPECT_NE(message.find("document 2"), std::string::npos) << message;
  EXPECT_NE(message.find("--max-document-bytes"), std::string::npos) << message;
}

// Standard input is `from` while it lives.
class StandardInput {
 public:
  explicit StandardInput(int from) : before_(::dup(STDIN_FILENO)) { ::dup2(from, STDIN_FILENO); }
  ~StandardInput() { ::dup2(before_, STDIN_FILENO), ::close(before_); }
  StandardInput(const StandardInput&) = delete;
  StandardInput& operator=(const StandardInput&) = delete;

 private:
  int before_;
};

TEST(TextSource, ReadsStandardInput) {
  const TempDir dir;
  write_text(dir / "a.txt", "\xef\xbb\xbfone\r\ntwo\n\nthree");
  const int file = ::open((dir / "a.txt").c_str(), O_RDONLY);
  {
    const StandardInput input(file);
    TextOptions options;
    options.inputs = {"-"}, options.document_per = DocumentPer::line;
    EXPECT_EQ(documents_of(options), (std::vector<std::string>{"one", "two", "three"}));
  }
  ::close(file);
}

// A line without end comes through a pipe: it is refused after little more than the limit.
TEST(TextSource, ALineWithoutEndIsRefusedBeforeItFillsTheMemory) {
  int pipe[2];
  ASSERT_EQ(::pipe(pipe), 0);
  const pid_t writer = ::fork();
  if (writer == 0) {
    ::close(pipe[0]);
    const std::string block = "\n\nshort\n" + std::string(1 << 16, 'x');
    for (size_t at = 0;; at = 9) {
      if (::write(pipe[1], block.data() + at, block.size() - at) < 0) ::_exit(0);  // or SIGPIPE
    }
  }
  ::close(pipe[1]);
  {
    const StandardInput input(pipe[0]);
    ::close(pipe[0]);
    TextOptions options;
    options.inputs = {"-"}, options.document_per = DocumentPer::line;
    options.max_document_bytes = 3 << 20;
    TextSource source(options);
    std::string document;
    const std::string message = error_of(ErrorKind::data, [&] {
      while (source.next(document)) EXPECT_EQ(document, "short");
    });
    EXPECT_NE(message.find("standard input: document 4, which begins at byte 8 "), std::string::npos)
        << message;
    EXPECT_LT(source.bytes_read(), 6 << 20);
  }
  ::waitpid(writer, nullptr, 0);
}

// As nobody, since root may read everything.
TEST(TextSource, AnUnreadableFolderIsNamed) {
  const TempDir dir;
  write_text(dir / "text/closed/a.txt", "text");
  std::filesystem::permissions(dir.path(), std::filesystem::perms::all);
  std::filesystem::permissions(dir / "text/closed", std::filesystem::perms::none);
  EXPECT_EXIT(
      {
        constexpr uid_t kNobody = 65534;
        if (::geteuid() == 0 && ::setuid(kNobody) != 0) std::exit(1);
        try {
          TextSource source({{dir / "text"}, {}, {}});
        } catch (const Error& e) {
          std::fputs(e.what(), stderr);
          std::exit(exit_code(e.kind()));
        }
        std::exit(0);
      },
      ::testing::ExitedWithCode(3), "cannot read folder .*text/closed: Permission denied");
  std::filesystem::permissions(dir / "text/closed", std::filesystem::perms::all);
}

TEST(TextSource, LinksThatAreNotFollowedAreNamed) {
  const TempDir dir;
  write_text(dir / "elsewhere/a.txt", "text");
  write_text(dir / "text/b.txt", "text");
  TextOptions options;
  options.inputs = {dir / "text"};
  std::filesystem::create_symlink(dir / "elsewhere/a.txt", dir / "text/a.txt");
  EXPECT_EQ(documents_of(options).size(), 2u);
  for (const char* target : {"elsewhere", "nothing"}) {
    std::filesystem::create_directory_symlink(dir / target, dir / "text/link");
    EXPECT_NE(error_of(ErrorKind::data, [&] { documents_of(options); }).find("text/link is a link to "),
              std::string::npos);
    std::filesystem::remove(dir / "text/link");
  }
}

TEST(TextSource, ErrorsNameTheInput) {
  const TempDir dir;
  std::filesystem::create_directory(dir / "empty");
  EXPECT_NE(error_of(ErrorKind::data,
                     [&] {
                       documents_of({{dir / "none"}, {}, {}});
                     })
                .find("none"),
            std::string::npos);
  EXPECT_NE(error_of(ErrorKind::data,
                     [&] {
                       documents_of({{dir / "empty"}, {}, {}});
                     })
                .find("empty"),
            std::string::npos);
  error_of(ErrorKind::argument, [&] { documents_of({}); });
  error_of(ErrorKind::argument, [&] { documents_of({{dir / "empty"}, DocumentPer::separator, ""}); });
}

}  // namespace
}  // namespace ziggurat
