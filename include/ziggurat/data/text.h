// Text as it comes from files: normalised, cut into documents, one at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ziggurat {

// Removes a byte-order mark at the start and turns CRLF and lone CR into LF. Works on any blocks of a stream;
// all other bytes, also invalid UTF-8, pass unchanged.
class TextNormaliser {
 public:
  void add(std::string_view block, std::string& out);  // appends
  void finish(std::string& out);                       // end of this file; ready for the next
  static constexpr std::string_view kName = "bom,crlf";

 private:
  std::string start_;  // the first bytes while they may still become a byte-order mark
  bool started_ = false;
  bool after_cr_ = false;
};

// json: every line is a JSON object, and a document is one of its strings.
enum class DocumentPer { file, line, separator, json };

struct TextOptions {
  // Files, folders (all regular files below, sorted by path) and "-" for standard input; files may be
  // compressed with gzip or zstd, whatever their name.
  std::vector<std::filesystem::path> inputs;
  DocumentPer document_per = DocumentPer::file;
  std::string separator;     // for DocumentPer::separator, e.g. "\n---\n"; searched in the normalised text
  std::string key = "text";  // for DocumentPer::json
  bool nfc = false;          // Unicode normalisation form C, last of all
  // A document is held in memory whole. One that is longer is an error rather than cut: it is nearly always
  // a wrong --document-per, and where to cut is the user's to say.
  int64_t max_document_bytes = int64_t{1} << 30;
};

// What is done to the text, as shards record it, e.g. "bom,crlf,nfc".
std::string normalisation_name(const TextOptions& options);

// The documents of all inputs in a fixed order. Empty documents are skipped.
class TextSource {
 public:
  // Errors (data): an input is missing or a folder has no files; argument: an empty separator or key, no
  // library for NFC.
  explicit TextSource(const TextOptions& options);
  ~TextSource();

  // False at the end. Errors (data) name an unreadable or broken file and a document that is too long.
  bool next(std::string& document);

  int64_t total_bytes() const { return total_bytes_; }  // of all files as they lie on the disk
  int64_t bytes_read() const;
  const std::vector<std::filesystem::path>& files() const { return files_; }

 private:
  struct OpenFile;
  bool fill();  // reads another block into buffer_; false at the end of the file
  bool take_document(std::string& document);
  bool next_raw(std::string& document);

  TextOptions options_;
  std::vector<std::filesystem::path> files_;
  size_t next_file_ = 0;
  int64_t total_bytes_ = 0, bytes_read_ = 0;
  std::unique_ptr<OpenFile> open_;
  std::string buffer_;       // normalised text not yet given out
  size_t buffer_begin_ = 0;  // of the next document
  size_t searched_ = 0;      // up to here there is no separator
  std::string place_;        // of the document given out last, for messages
};

}  // namespace ziggurat
