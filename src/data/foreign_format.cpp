#include "data/foreign_format.h"

#include <algorithm>
#include <cstdint>

namespace ziggurat {
namespace {

using namespace std::string_view_literals;

struct Magic {
  std::string_view bytes;
  ForeignFormat format;
  size_t offset = 0;
  bool may_begin_text = false;  // then a byte that no text has must be near
};

constexpr auto kUnpack = "unpack it first, or pipe its text into --input -"sv;
constexpr auto kArchive = "unpack it into a folder and give that folder"sv;
constexpr auto kTable =
    "write its text column as JSON Lines, e.g. with pandas' or pyarrow's to_json(lines=True), and read that "
    "with "
    "--document-per json"sv;
constexpr auto kNoText = "leave it out of the input"sv;
constexpr auto kDocument = "convert it to plain text first"sv;
constexpr auto kShard =
    "if it holds token ids, see `ziggurat data inspect` and `ziggurat data convert`; else write its texts as "
    "JSON "
    "Lines"sv;
constexpr auto kMegatron = "token ids go from .bin/.idx to shards by `ziggurat data convert --to shards`"sv;
constexpr auto kArray = "arrays of numbers are no text; write the texts in it as JSON Lines"sv;
constexpr auto kUtf16 = "convert it, as in: iconv -f UTF-16 -t UTF-8 FILE > NEW"sv;
constexpr auto kUtf32 = "convert it, as in: iconv -f UTF-32 -t UTF-8 FILE > NEW"sv;

// Longer ones first where one begins like another.
constexpr Magic kMagics[] = {
    // Texts in another encoding
    {"\xff\xfe\0\0"sv, {"UTF-32 text", kUtf32}},
    {"\0\0\xfe\xff"sv, {"UTF-32 text", kUtf32}},
    {"\xff\xfe"sv, {"UTF-16 text", kUtf16}},
    {"\xfe\xff"sv, {"UTF-16 text", kUtf16}},
    {"\x84\x31\x95\x33"sv, {"GB 18030 text", "convert it, as in: iconv -f GB18030 -t UTF-8 FILE > NEW"}},
    // Compressed
    {"\x1f\x8b"sv, {"gzip data", kUnpack}},
    {"\x28\xb5\x2f\xfd"sv, {"zstd data", kUnpack}},
    {"\xfd\x37zXZ\0"sv, {"xz data", "unpack it first, as in: xz -d FILE, or xz -dc FILE | ... --input -"}},
    {"BZh"sv,
     {"bzip2 data", "unpack it first, as in: bzip2 -d FILE, or bzip2 -dc FILE | ... --input -"},
     0,
     true},
    {"\x04\x22\x4d\x18"sv,
     {"lz4 data", "unpack it first, as in: lz4 -d FILE, or lz4 -dc FILE | ... --input -"}},
    {"\x02\x21\x4c\x18"sv,
     {"lz4 data", "unpack it first, as in: lz4 -d FILE, or lz4 -dc FILE | ... --input -"}},
    {"LZIP"sv,
     {"lzip data", "unpack it first, as in: lzip -d FILE, or lzip -dc FILE | ... --input -"},
     0,
     true},
    {"\x5d\0\0"sv, {"lzma data", "unpack it first, as in: xz --format=lzma -d FILE"}},
    {"\x89LZO\0\r\n\x1a\n"sv, {"lzop data", kUnpack}},
    {"\x1f\x9d"sv, {"compress (.Z) data", "unpack it first, as in: gzip -d FILE"}},
    {"\x1f\xa0"sv, {"compress (.Z) data", "unpack it first, as in: gzip -d FILE"}},
    {"\x1f\x1e"sv, {"pack (.z) data", "unpack it first, as in: gzip -d FILE"}},
    {"\xff\x06\0\0sNaPpY"sv, {"snappy data", kUnpack}},
    // Archives
    {"PK\x03\x04"sv,
     {"a zip archive (also .docx, .xlsx, .epub, .npz, .pt)",
      "unpack it into a folder, as in: unzip FILE -d FOLDER"}},
    {"PK\x05\x06"sv, {"an empty zip archive", kNoText}},
    {"PK\x07\x08"sv, {"a zip archive", "unpack it into a folder, as in: unzip FILE -d FOLDER"}},
    {"7z\xbc\xaf\x27\x1c"sv, {"a 7z archive", "unpack it into a folder, as in: 7z x FILE"}},
    {"Rar!\x1a\x07"sv, {"a rar archive", "unpack it into a folder, as in: unrar x FILE"}},
    {"ustar\0"sv, {"a tar archive", "unpack it into a folder, as in: tar -xf FILE -C FOLDER"}, 257},
    {"ustar  \0"sv, {"a tar archive", "unpack it into a folder, as in: tar -xf FILE -C FOLDER"}, 257},
    {"\xc7\x71"sv, {"a cpio archive", kArchive}, 0, true},
    {"MSCF\0\0\0\0"sv, {"a cabinet archive", kArchive}},
    {"\xed\xab\xee\xdb"sv, {"an rpm package", kNoText}},
    {"PACK\0\0\0"sv, {"a git pack", kNoText}},
    // Tables, arrays and tokens
    {"PAR1"sv, {"a Parquet file", kTable}, 0, true},
    {"PARE"sv, {"an encrypted Parquet file", kTable}, 0, true},
    {"ARROW1\0\0"sv, {"an Arrow or Feather file", kTable}},
    {"\xff\xff\xff\xff"sv, {"an Arrow stream or other binary data", kTable}, 0, true},
    {"FEA1"sv, {"a Feather file", kTable}, 0, true},
    {"ORC"sv, {"an ORC file", kTable}, 0, true},
    {"Obj\x01"sv, {"an Avro file", kTable}},
    {"SEQ\x06"sv, {"a Hadoop sequence file", kTable}},
    {"SQLite format 3\0"sv,
     {"an SQLite database", "write the texts in it as JSON Lines, as in: sqlite3 -json"}},
    {"\x89HDF\r\n\x1a\n"sv, {"an HDF5 file", kShard}},
    {"\x93NUMPY"sv, {"a NumPy array", kArray}},
    {"MMIDIDX\0\0"sv, {"an index of Megatron tokens (.idx)", kMegatron}},
    {"TNTIDX\0\0"sv, {"an index of fairseq tokens (.idx)", kMegatron}},
    {"\x80\x02"sv, {"a Python pickle", kArray}},
    {"\x80\x03"sv, {"a Python pickle", kArray}},
    {"\x80\x04\x95"sv, {"a Python pickle", kArray}},
    {"\x80\x05\x95"sv, {"a Python pickle", kArray}},
    {"GGUF"sv, {"a GGUF model", kNoText}, 0, true},
    {"\0\0\0{\""sv, {"a safetensors file", kNoText}, 5},
    {"\n\x0e\n\x05<unk>"sv, {"a SentencePiece model", "give it as --tokenizer, not as --input"}},
    // Programs
    {"\x7f"
     "ELF"sv,
     {"a program or library (ELF)", kNoText}},
    {"MZ"sv, {"a Windows program", kNoText}, 0, true},
    {"\xfe\xed\xfa\xce"sv, {"a program (Mach-O)", kNoText}},
    {"\xfe\xed\xfa\xcf"sv, {"a program (Mach-O)", kNoText}},
    {"\xce\xfa\xed\xfe"sv, {"a program (Mach-O)", kNoText}},
    {"\xcf\xfa\xed\xfe"sv, {"a program (Mach-O)", kNoText}},
    {"\xca\xfe\xba\xbe"sv, {"a program (Mach-O or Java)", kNoText}},
    {"\0asm"sv, {"a WebAssembly program", kNoText}},
    {"!<arch>\n"sv, {"an ar archive (.a, .deb)", kNoText}, 0, true},
    {"\0\0\0\x01"
     "Bud1"sv,
     {"a folder's settings (.DS_Store)", kNoText}},
    // Documents, pictures, sound and film
    {"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"sv, {"an old Office document (.doc, .xls)", kDocument}},
    {"\x89PNG\r\n\x1a\n"sv, {"a PNG picture", kNoText}},
    {"\xff\xd8\xff"sv, {"a JPEG picture", kNoText}},
    {"GIF87a"sv, {"a GIF picture", kNoText}, 0, true},
    {"GIF89a"sv, {"a GIF picture", kNoText}, 0, true},
    {"II*\0"sv, {"a TIFF picture", kNoText}},
    {"MM\0*"sv, {"a TIFF picture", kNoText}},
    {"BM"sv, {"a BMP picture", kNoText}, 0, true},
    {"RIFF"sv, {"a RIFF file (WebP, WAV, AVI)", kNoText}, 0, true},
    {"ftyp"sv, {"an MP4 film", kNoText}, 4, true},
    {"\x1a\x45\xdf\xa3"sv, {"a Matroska film", kNoText}},
    {"ID3"sv, {"an MP3 file", kNoText}, 0, true},
    {"\xff\xfb"sv, {"an MP3 file", kNoText}, 0, true},
    {"OggS\0"sv, {"an Ogg file", kNoText}},
    {"fLaC"sv, {"a FLAC file", kNoText}, 0, true},
};

// A control character that no text has: all but white space, backspace and escape.
bool is_binary(char c) {
  const auto byte = static_cast<uint8_t>(c);
  return byte < 0x20 && byte != 0x1b && (byte < 0x08 || byte > 0x0d);
}

bool is_pdf(std::string_view head) {  // "%PDF-1.7" alone on its line; the rest may be plain ASCII
  const auto digit = [&](size_t i) { return head[i] >= '0' && head[i] <= '9'; };
  return head.size() > 8 && head.starts_with("%PDF-") && digit(5) && head[6] == '.' && digit(7) &&
         (head[8] == '\n' || head[8] == '\r');
}

}  // namespace

ForeignFormat foreign_format(std::string_view head) {
  head = head.substr(0, kFormatHeadBytes);
  if (head.starts_with("{\\rtf")) {
    return {"a rich text document (RTF)", "convert it to plain text first, as in: unrtf --text FILE"};
  }
  if (is_pdf(head)) return {"a PDF document", "convert it to plain text first, as in: pdftotext FILE"};
  const bool binary = std::any_of(head.begin(), head.end(), is_binary);
  for (const Magic& magic : kMagics) {
    if (head.size() <= magic.offset || !head.substr(magic.offset).starts_with(magic.bytes)) continue;
    if (binary || !magic.may_begin_text) return magic.format;
  }
  return {};
}

}  // namespace ziggurat
