// Text as it comes from files: normalised, cut into documents, one at a time.
#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace ziggurat {

// What becomes of CRLF and of CR alone. lf: either turns into LF.
enum class LineEnds { lf, keep };

// Removes a byte-order mark at the start and does what LineEnds says. Works on any blocks of a stream; all
// other bytes, also invalid UTF-8, pass unchanged.
class TextNormaliser {
 public:
  explicit TextNormaliser(LineEnds ends = LineEnds::lf) : ends_(ends) {}
  void add(std::string_view block, std::string& out);             // appends
  void finish(std::string& out);                                  // end of this file; ready for the next
  int64_t carriage_returns() const { return carriage_returns_; }  // met; a CRLF is one

 private:
  LineEnds ends_;
  std::string start_;  // the first bytes while they may still become a byte-order mark
  bool started_ = false;
  bool after_cr_ = false;
  int64_t carriage_returns_ = 0;
};

// json: every line is a JSON object, and a document is one of its strings.
enum class DocumentPer { file, line, separator, json };

// What to do with an odd thing: stop and name it, or mend or leave out and say at the end how often.
enum class LoneSurrogates { replace, refuse };
enum class MissingText { refuse, skip };

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
  LineEnds line_ends = LineEnds::lf;
  // Most of the bytes of one file (unpacked) that may be no valid UTF-8, or NUL, as a share. They stay as
  // they are, in the hash and split of their document too, unless the tokenizer replaces them.
  double allow_invalid_utf8 = 0.001;
  LoneSurrogates lone_surrogates = LoneSurrogates::replace;  // in the text of a JSON object; by U+FFFD
  MissingText missing_text = MissingText::refuse;            // a JSON object without a string under `key`
};

// What is done to the text, as shards record it, e.g. "bom,crlf,nfc".
std::string normalisation_name(const TextOptions& options);

// The documents of all inputs in a fixed order. Empty documents are skipped.
class TextSource {
 public:
  // Errors (data): an input is missing, a folder has no files, or files are no text by their first bytes (all
  // of them are looked at); argument: an option without sense, no library for NFC.
  explicit TextSource(const TextOptions& options);
  ~TextSource();

  // False at the end. Errors (data) name an unreadable or broken file, one that has too much of no valid
  // UTF-8 (at its end or as soon as that is sure) and a document that is too long or no JSON.
  bool next(std::string& document);
  // No more will be asked for: judges the file that was being read by what was read of it.
  void stop();

  // What the user should know about the text read: one sentence for each kind of thing that was mended, left
  // out or looks wrong. To be asked for after the end.
  std::vector<std::string> remarks() const;

  int64_t total_bytes() const { return total_bytes_; }  // of all files as they lie on the disk
  int64_t bytes_read() const;
  const std::vector<std::filesystem::path>& files() const { return files_; }

 private:
  struct OpenFile;
  // How often something was met, and where first.
  struct Met {
    int64_t count = 0;
    std::string first;
    void add(int64_t times, const std::string& place);
  };
  void look_at_all_files() const;
  bool fill();  // reads another block into buffer_; false at the end of the file
  void check_utf8(int64_t bytes) const;
  void close_file();
  bool take_document(std::string& document);
  bool next_raw(std::string& document);
  bool take_json_text(std::string& document);  // false: it is left out

  TextOptions options_;
  std::vector<std::filesystem::path> files_;
  size_t next_file_ = 0;
  int64_t total_bytes_ = 0, bytes_read_ = 0;
  std::unique_ptr<OpenFile> open_;
  std::string buffer_;       // normalised text not yet given out
  size_t buffer_begin_ = 0;  // of the next document
  size_t searched_ = 0;      // up to here there is no separator
  std::string place_;        // of the document given out last, for messages
  bool separator_met_ = false;
  Met invalid_utf8_, carriage_returns_, lone_surrogates_, repeated_keys_, missing_texts_;
};

}  // namespace ziggurat
