#include "tests/unit/data/data_test_support.h"
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
