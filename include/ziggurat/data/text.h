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

enum class DocumentPer { file, line, separator };

struct TextOptions {
  std::vector<std::filesystem::path> inputs;  // files, and folders (all regular files below, sorted by path)
  DocumentPer document_per = DocumentPer::file;
  std::string separator;  // for DocumentPer::separator, e.g. "\n---\n"; searched in the normalised text
};

// The documents of all inputs in a fixed order. Empty documents are skipped.
class TextSource {
 public:
  // Errors (data): an input is missing or a folder has no files; argument: an empty separator.
  explicit TextSource(const TextOptions& options);
  ~TextSource();

  // False at the end. Errors (data) name an unreadable file.
  bool next(std::string& document);

  int64_t total_bytes() const { return total_bytes_; }  // of all files
  int64_t bytes_read() const { return bytes_read_; }
  const std::vector<std::filesystem::path>& files() const { return files_; }

 private:
  struct OpenFile;
  bool fill();  // reads another block into buffer_; false at the end of the file
  bool take_document(std::string& document);

  TextOptions options_;
  std::vector<std::filesystem::path> files_;
  size_t next_file_ = 0;
  int64_t total_bytes_ = 0, bytes_read_ = 0;
  std::unique_ptr<OpenFile> open_;
  std::string buffer_;       // normalised text not yet given out
  size_t buffer_begin_ = 0;  // of the next document
  size_t searched_ = 0;      // up to here there is no separator
};

}  // namespace ziggurat
