// What is no UTF-8 text is refused by name, with the cure; what is, however odd, is read.
#include "data/invalid_text.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/build_config.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/data/text.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;
using namespace std::string_literals;

std::vector<std::string> documents_of(const TextOptions& options) {
  TextSource source(options);
  std::vector<std::string> documents;
  for (std::string document; source.next(document);) documents.push_back(document);
  return documents;
}

class NoText : public ::testing::Test {
 protected:
  TextOptions options_for(const std::string& bytes) const {
    write_text(dir / "file", bytes);
    TextOptions options;
    options.inputs = {dir / "file"};
    return options;
  }
  void expect_refused(const std::string& bytes, const std::string& name, const std::string& cure) const {
    const TextOptions options = options_for(bytes);
    const std::string message = error_of(ErrorKind::data, [&] { documents_of(options); });
    for (const std::string& part : {"file "s, name, cure})
      EXPECT_NE(message.find(part), std::string::npos) << message;
  }
  void expect_text(const std::string& text) const {
    EXPECT_EQ(documents_of(options_for(text)), std::vector<std::string>{text});
  }
  const TempDir dir;
};

std::string tar(const std::string& magic) {
  std::string header(512, '\0');
  header.replace(0, 5, "a.txt");
  header.replace(257, magic.size(), magic);
  return header + "honest text" + std::string(10000, '\0');
}

const std::vector<std::array<std::string, 3>> kForeign = {
    {"\xfd\x37zXZ\0\0\x04"s, "xz data", "xz -d"},
    {"BZh91AY&SY\x01\x02\x03"s, "bzip2 data", "bzip2 -d"},
    {"\x04\x22\x4d\x18\x64\x40"s, "lz4 data", "lz4 -d"},
    {"LZIP\x01\x0c"s, "lzip data", "lzip -d"},
    {"\x5d\0\0\x80\0\xff"s, "lzma data", "xz --format=lzma"},
    {"\x1f\x9d\x90"s, ".Z", "gzip -d"},
    {"7z\xbc\xaf\x27\x1c\0\x04"s, "7z archive", "7z x"},
    {"PK\x03\x04\x14\0\0\0"s, "zip archive", "unzip"},
    {"Rar!\x1a\x07\x01\0"s, "rar archive", "unrar"},
    {tar("ustar\00000"s), "tar archive", "tar -xf"},
    {tar("ustar  \0"s), "tar archive", "tar -xf"},
    {"PAR1\x15\x04\x15\x10"s, "Parquet", "JSON Lines"},
    {"ARROW1\0\0\xff\xff"s, "Arrow", "JSON Lines"},
    {"FEA1\0\0\0\0"s, "Feather", "JSON Lines"},
    {"ORC\n\x0b\x0a\x03\0\0"s, "ORC", "JSON Lines"},
    {"Obj\x01\x04\x14"s, "Avro", "JSON Lines"},
    {"SQLite format 3\0\x10"s, "SQLite", "JSON Lines"},
    {"\x89HDF\r\n\x1a\n\0"s, "HDF5", "data convert"},
    {"\x93NUMPY\x01\0v\0"s, "NumPy", "JSON Lines"},
    {"MMIDIDX\0\0\x01"s, "Megatron", "data convert"},
    {"\x80\x04\x95\x10\0\0"s, "pickle", "JSON Lines"},
    {"\x60\x01\0\0\0\0\0\0{\"a\":"s, "safetensors", "leave it out"},
    {"\x7f"
     "ELF\x02\x01\x01\0"s,
     "ELF", "leave it out"},
    {"MZ\x90\0\x03\0"s, "Windows program", "leave it out"},
    {"\xcf\xfa\xed\xfe\x0c\0"s, "Mach-O", "leave it out"},
    {"%PDF-1.4\n1 0 obj << >> endobj"s, "PDF", "pdftotext"},
    {"{\\rtf1\\ansi hello}"s, "RTF", "unrtf"},
    {"\x89PNG\r\n\x1a\n\0\0"s, "PNG", "leave it out"},
    {"\xff\xd8\xff\xe0\0\x10JFIF"s, "JPEG", "leave it out"},
    {"GIF89a\x01\0\x01\0"s, "GIF", "leave it out"},
    {"\xff\xfeH\0i\0"s, "UTF-16", "iconv -f UTF-16 "},
    {"\xfe\xff\0H\0i"s, "UTF-16", "iconv -f UTF-16 "},
    {"\xff\xfe\0\0H\0\0\0"s, "UTF-32", "iconv -f UTF-32 "},
    {"\0\0\xfe\xff\0\0\0H"s, "UTF-32", "iconv -f UTF-32 "},
};

TEST_F(NoText, IsRefusedByNameAndCure) {
  for (const auto& [bytes, name, cure] : kForeign) expect_refused(bytes, name, cure);
}

TEST_F(NoText, IsFoundWithinCompressedData) {
  if (!kHasZstd) GTEST_SKIP() << "built without zstd";
  const auto packed = [](const std::string& bytes) {  // a zstd frame of one raw block
    const auto size = static_cast<uint32_t>(bytes.size());
    const uint32_t block = size << 3 | 1;
    std::string frame = "\x28\xb5\x2f\xfd\xa0";  // one segment, its size in four bytes
    for (int i = 0; i < 4; ++i) frame += static_cast<char>(size >> (8 * i) & 0xff);
    for (int i = 0; i < 3; ++i) frame += static_cast<char>(block >> (8 * i) & 0xff);
    return frame + bytes;
  };
  EXPECT_EQ(documents_of(options_for(packed("text"))), std::vector<std::string>{"text"});
  for (const auto& [bytes, name, cure] : kForeign) expect_refused(packed(bytes), "holds ", name);
  expect_refused(packed(packed("text")), "holds zstd data", "unpack");
  expect_refused(packed("caf\xe9"), "file is not UTF-8 text", "iconv");
}

TEST_F(NoText, TextWithTheLettersOfAMagicIsText) {
  for (const std::string word : {"BZh",
                                 "BZh9",
                                 "PK",
                                 "ORC",
                                 "MZ",
                                 "PAR1",
                                 "GIF89a",
                                 "BM",
                                 "RIFF",
                                 "LZIP",
                                 "7z",
                                 "Rar!",
                                 "ID3",
                                 "FEA1",
                                 "Obj",
                                 "GGUF",
                                 "fLaC",
                                 "%PDF-1.4",
                                 "SQLite format 3",
                                 "!<arch>"}) {
    expect_text(word);
    expect_text(word + " is a word of text.\n");
    expect_text(word + "\t\x1b[1mis\x1b[0m\f caf\u00e9 \u4e2d\n");
  }
  expect_text(std::string(257, 'x') + "ustar  x");
  expect_text("\xef\xbf\xbe");  // U+FFFE is UTF-8 like any other
}

TEST_F(NoText, EncodingsWithoutAMarkAreGuessed) {
  const auto wide = [](const std::u16string& text, bool little, size_t width) {
    std::string bytes;
    for (int repeat = 0; repeat < 50; ++repeat) {
      for (const char16_t c : text) {
        std::string unit(width, '\0');
        unit[width - 1] = static_cast<char>(c & 0xff), unit[width - 2] = static_cast<char>(c >> 8);
        bytes += little ? std::string(unit.rbegin(), unit.rend()) : unit;
      }
    }
    return bytes;
  };
  for (const std::u16string text :
       {u"Plain words.\n", u"\u041f\u0440\u0438\u0432\u0435\u0442 \u043c\u0438\u0440\n"}) {
    expect_refused(wide(text, true, 2), "not UTF-8 text", "iconv -f UTF-16LE");
    expect_refused(wide(text, false, 2), "not UTF-8 text", "iconv -f UTF-16BE");
    expect_refused(wide(text, true, 4), "not UTF-8 text", "iconv -f UTF-32LE");
    expect_refused(wide(text, false, 4), "not UTF-8 text", "iconv -f UTF-32BE");
  }
  expect_refused("O\xf9 est n\xe9\x65 la f\xe9\x65?\n",
                 "3 of 19 bytes (15.8 %) are no text (3 not valid UTF-8), the first "
                 "at byte 1 (line 1)",
                 "iconv -f ISO-8859-1");
  std::string random;
  const Philox bits(1, Purpose::test);
  for (uint64_t i = 0; i < 5000; ++i) random += static_cast<char>(bits.bits(i));
  expect_refused("x" + random, "not UTF-8 text", "--allow-invalid-utf8");
}

TEST_F(NoText, TheShareOfEachFileDecides) {
  const std::string good(9999, 'x');
  TextOptions options = options_for(good + "\n");
  for (int i = 0; i < 20; ++i) write_text(dir / ("good" + std::to_string(i)), good);
  options.inputs = {dir.path()};
  write_text(dir / "file",
             "\n\n" + std::string(9987, 'x') + "\n\xe9" + std::string(10, '\0'));  // 11 of 10001
  const std::string message = error_of(ErrorKind::data, [&] { documents_of(options); });
  for (const char* part : {"file is not", "11 of 10001 bytes (0.11 %)", "1 not valid UTF-8, 10 NUL",
                           "byte 9990 (line 4)", "--allow-invalid-utf8 (now 0.001)"}) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
  options.document_per = DocumentPer::line;
  error_of(ErrorKind::data, [&] { documents_of(options); });
  write_text(dir / "file", "\n\n" + std::string(9987, 'x') + "\n\xe9" + std::string(9, '\0'));  // 10 of 10000
  TextSource source(options);
  size_t documents = 0;
  for (std::string document; source.next(document);) ++documents;
  EXPECT_EQ(documents, 22u);
  ASSERT_EQ(source.remarks().size(), 1u);
  EXPECT_NE(source.remarks()[0].find("no valid UTF-8 or NUL: 10 (first: "), std::string::npos)
      << source.remarks()[0];
  EXPECT_NE(source.remarks()[0].find("file, byte 9990 (line 4)"), std::string::npos) << source.remarks()[0];
  options.allow_invalid_utf8 = 0;
  error_of(ErrorKind::data, [&] { documents_of(options); });
  for (const double bad : {-0.1, 1.1, std::nan("")}) {
    options.allow_invalid_utf8 = bad;
    error_of(ErrorKind::argument, [&] { documents_of(options); });
  }
}

// A long file is refused as soon as its share is sure.
TEST_F(NoText, ALongFileIsRefusedBeforeItsEnd) {
  TextOptions options = options_for("text\n" + std::string(20 << 20, '\xe9'));
  options.document_per = DocumentPer::line;
  TextSource source(options);
  std::string document;
  error_of(ErrorKind::data, [&] { source.next(document); });
  EXPECT_LT(source.bytes_read(), 4 << 20);
}

// By the definition: the bytes outside of well-formed characters, which are tried from every place on.
TEST_F(NoText, CountsDoNotDependOnBlocks) {
  struct Case {
    std::string bytes;
    int64_t invalid;
    std::string first;
  };
  const std::string ascii(100, 'a');
  const std::vector<Case> cases = {
      {"caf\u00e9 \u4e2d \U0001F600\n", 0, ""},
      {"a\n\xe9\n", 1, "byte 2 (line 2)"},
      {"\xc3", 1, "byte 0 (line 1)"},
      {"\xf0\x9f\x98", 3, "byte 0 (line 1)"},
      {"\xf0\x9f\x98x\xf0\x9f\x98\x80", 3, "byte 0 (line 1)"},
      {"\xe4\xb8\xe4\xb8\xad", 2, "byte 0 (line 1)"},
      {"\xc0\xaf\xed\xa0\x80\xf5\x80", 7, "byte 0 (line 1)"},
      {"x\0y\0"s, 2, "byte 1 (line 1)"},
      {ascii + "\n" + ascii + "\xff" + ascii + "\n\0"s + ascii + "\xe4\xb8\xad" + ascii + "\xe4\xb8", 4,
       "byte 201 (line 2)"}};
  for (const auto& [bytes, invalid, first] : cases) {
    for (size_t block = 1; block <= bytes.size(); ++block) {
      InvalidText counted;
      for (size_t i = 0; i < bytes.size(); i += block) counted.add(std::string_view(bytes).substr(i, block));
      counted.finish();
      EXPECT_EQ(counted.invalid(), invalid) << "blocks of " << block;
      EXPECT_EQ(counted.bytes(), static_cast<int64_t>(bytes.size()));
      if (invalid > 0) {
        EXPECT_EQ(counted.first_place(), first) << "blocks of " << block;
      }
    }
  }
}

TEST_F(NoText, AllForeignFilesOfAFolderAreNamedBeforeAnyIsRead) {
  write_text(dir / "a.txt", "text");
  write_text(dir / "b.xz", kForeign[0][0]);
  write_text(dir / "below/c.zip", "PK\x03\x04\x14");
  TextOptions options;
  options.inputs = {dir.path()};
  const std::string message = error_of(ErrorKind::data, [&] { TextSource source(options); });
  for (const char* part : {"2 of 3 files", "b.xz is xz data", "c.zip is a zip archive"}) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  }
}

TEST_F(NoText, ASeparatorThatNeverOccursIsTold) {
  TextOptions options = options_for("a\r\n---\r\nb");
  options.document_per = DocumentPer::separator, options.separator = "\n---\n";
  const auto remarks = [&] {
    TextSource source(options);
    for (std::string document; source.next(document);) {
    }
    return source.remarks();
  };
  EXPECT_EQ(remarks().size(), 1u);  // of the line ends
  options.line_ends = LineEnds::keep;
  EXPECT_EQ(normalisation_name(options), "bom");
  EXPECT_EQ(documents_of(options), std::vector<std::string>{"a\r\n---\r\nb"});
  const auto told = remarks();
  ASSERT_EQ(told.size(), 2u);
  EXPECT_NE(told[1].find("\"\\n---\\n\" occurs nowhere"), std::string::npos) << told[1];
  options.separator = "\r\n---\r\n";
  EXPECT_EQ(documents_of(options), (std::vector<std::string>{"a", "b"}));
  options.line_ends = LineEnds::lf;
  EXPECT_NE(error_of(ErrorKind::argument, [&] { documents_of(options); }).find("--newlines keep"),
            std::string::npos);
}

}  // namespace
}  // namespace ziggurat
