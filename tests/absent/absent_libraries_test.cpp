// What a build without the optional libraries says: this program links their stand-ins instead.
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/data/text.h>
#include <ziggurat/data/tokenizer.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

// The message must name the file and the package to install.
void expect_names(const std::string& message, const std::string& file, const std::string& package) {
  EXPECT_NE(message.find(file), std::string::npos) << message;
  EXPECT_NE(message.find("install " + package), std::string::npos) << message;
}

std::string refusal_of(const std::filesystem::path& file) {
  return error_of(ErrorKind::data, [&] {
    TextSource source({{file}, {}, {}});
    std::string document;
    source.next(document);
  });
}

TEST(AbsentLibraries, CompressedTextIsRefused) {
  const TempDir dir;
  write_text(dir / "a.txt", "\x1f\x8b and more");
  expect_names(refusal_of(dir / "a.txt"), "a.txt", "zlib1g-dev");
  write_text(dir / "b.txt", "\x28\xb5\x2f\xfd and more");
  expect_names(refusal_of(dir / "b.txt"), "b.txt", "libzstd-dev");
}

TEST(AbsentLibraries, NfcIsRefusedBeforeAnythingIsRead) {
  const TempDir dir;
  write_text(dir / "a.txt", "text");
  TextOptions options;
  options.inputs = {dir / "a.txt"}, options.nfc = true;
  expect_names(error_of(ErrorKind::argument, [&] { TextSource source(options); }), "NFC", "libutf8proc-dev");
}

TEST(AbsentLibraries, SentencePieceModelsAreRefused) {
  const TempDir dir;
  write_text(dir / "tokenizer.model", "any");
  expect_names(error_of(ErrorKind::data, [&] { load_tokenizer(dir.path()); }), "tokenizer.model",
               "libsentencepiece-dev");
}

}  // namespace
}  // namespace ziggurat
