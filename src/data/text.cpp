#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "data/input_file.h"
#include "data/json_field.h"
#include "data/nfc.h"
#include <ziggurat/core/error.h>
#include <ziggurat/data/folder.h>
#include <ziggurat/data/text.h>

namespace ziggurat {
namespace {

using Path = std::filesystem::path;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr size_t kBlockBytes = size_t{1} << 20;

void list_files(const Path& input, std::vector<Path>& files) {
  if (input == "-") {
    files.push_back(input);
    return;
  }
  std::error_code reason;
  const auto status = std::filesystem::status(input, reason);
  check(std::filesystem::exists(status), ErrorKind::data, "input {} does not exist{}", input.string(),
        reason && reason != std::errc::no_such_file_or_directory ? ": " + reason.message() : "");
  if (!std::filesystem::is_directory(status)) {
    files.push_back(input);
    return;
  }
  const std::vector<Path> found = files_below(input);
  check(!found.empty(), ErrorKind::data, "folder {} holds no files", input.string());
  files.insert(files.end(), found.begin(), found.end());
}

}  // namespace

void TextNormaliser::add(std::string_view block, std::string& out) {
  if (!started_) {
    const size_t missing = std::min(block.size(), kByteOrderMark.size() - start_.size());
    start_ += block.substr(0, missing);
    block.remove_prefix(missing);
    if (start_.size() < kByteOrderMark.size() && kByteOrderMark.starts_with(start_)) return;
    started_ = true;
    std::string start;
    start.swap(start_);
    if (start != kByteOrderMark) add(start, out);
  }
  while (!block.empty()) {
    if (after_cr_ && block.front() == '\n') block.remove_prefix(1);
    after_cr_ = false;
    const size_t cr = block.find('\r');
    out += block.substr(0, cr);
    if (cr == std::string_view::npos) return;
    out += '\n';
    after_cr_ = true;
    block.remove_prefix(cr + 1);
  }
}

void TextNormaliser::finish(std::string& out) {
  started_ = true;  // what looked like the start of a byte-order mark was none
  std::string start;
  start.swap(start_);
  add(start, out);
  *this = TextNormaliser();
}

std::string normalisation_name(const TextOptions& options) {
  return std::string(TextNormaliser::kName) + (options.nfc ? ",nfc" : "");
}

struct TextSource::OpenFile {
  explicit OpenFile(const Path& file) : name(file == "-" ? "standard input" : file.string()), input(file) {}
  std::string name;
  InputFile input;
  TextNormaliser normaliser;
  int64_t documents = 0;
  int64_t bytes = 0;  // of its normalised text in documents that were given out
  std::string block = std::string(kBlockBytes, '\0');
};

TextSource::TextSource(const TextOptions& options) : options_(options) {
  check(!options.inputs.empty(), ErrorKind::argument, "no input: name at least one file or folder of text");
  const bool json = options_.document_per == DocumentPer::json;
  check(!json || !options_.key.empty(), ErrorKind::argument, "documents are JSON, but their key is empty");
  check(options_.max_document_bytes >= 1, ErrorKind::argument,
        "the most bytes of a document: expected at least 1, got {}", options_.max_document_bytes);
  if (options_.nfc) check_nfc_available();
  if (json || options_.document_per == DocumentPer::line) options_.separator.assign(1, '\n');
  check(options_.document_per == DocumentPer::file || !options_.separator.empty(), ErrorKind::argument,
        "documents are to be cut at a separator, but the separator is empty");
  for (const Path& input : options.inputs) list_files(input, files_);
  for (const Path& file : files_) {
    std::error_code unknown_size;
    const auto bytes = std::filesystem::file_size(file, unknown_size);
    if (!unknown_size) total_bytes_ += static_cast<int64_t>(bytes);
  }
}

TextSource::~TextSource() = default;

int64_t TextSource::bytes_read() const { return bytes_read_ + (open_ ? open_->input.bytes_taken() : 0); }

bool TextSource::fill() {
  const size_t n = open_->input.read(open_->block);
  const std::string_view block(open_->block.data(), n);
  // The lines of JSON stay as they are: what is normalised is the text within.
  if (options_.document_per == DocumentPer::json) {
    buffer_ += block;
  } else {
    open_->normaliser.add(block, buffer_);
  }
  const auto held = static_cast<int64_t>(buffer_.size() - buffer_begin_);
  check(held <= options_.max_document_bytes + static_cast<int64_t>(kBlockBytes), ErrorKind::data,
        "{}: document {}, which begins at byte {} of the text, is longer than {} bytes; cut it up by "
        "--document-per line or separator, or raise --max-document-bytes and have twice as much memory",
        open_->name, open_->documents + 1, open_->bytes, options_.max_document_bytes);
  return n > 0;
}

// A document that is complete in the buffer.
bool TextSource::take_document(std::string& document) {
  if (options_.document_per == DocumentPer::file) return false;
  const size_t overlap = options_.separator.size() - 1;  // a separator may lie across two blocks
  const size_t from = std::max(buffer_begin_, searched_ > overlap ? searched_ - overlap : 0);
  const size_t end = buffer_.find(options_.separator, from);
  if (end == std::string::npos) {
    buffer_.erase(0, buffer_begin_);
    buffer_begin_ = 0;
    searched_ = buffer_.size();
    return false;
  }
  document.assign(buffer_, buffer_begin_, end - buffer_begin_);
  open_->bytes += static_cast<int64_t>(document.size() + options_.separator.size());
  buffer_begin_ = searched_ = end + options_.separator.size();
  return true;
}

bool TextSource::next_raw(std::string& document) {
  for (;;) {
    if (!open_) {
      if (next_file_ == files_.size()) return false;
      open_ = std::make_unique<OpenFile>(files_[next_file_++]);
    }
    bool found = take_document(document);
    while (!found && fill()) found = take_document(document);
    if (!found) {  // the end of the file ends a document
      open_->normaliser.finish(buffer_);
      found = take_document(document);
    }
    ++open_->documents;
    place_ = open_->name;
    check(static_cast<int64_t>(document.size()) <= options_.max_document_bytes || !found, ErrorKind::data,
          "{}: document {} has {} bytes, the most is {}; raise --max-document-bytes", place_,
          open_->documents, document.size(), options_.max_document_bytes);
    if (options_.document_per == DocumentPer::json) place_ += fmt::format(", line {}", open_->documents);
    if (!found) {
      buffer_.erase(0, buffer_begin_);
      document.swap(buffer_);  // neither gives up its memory
      buffer_.clear();
      buffer_begin_ = searched_ = 0;
      bytes_read_ += open_->input.bytes_taken();
      open_.reset();
    }
    if (!document.empty()) return true;
  }
}

bool TextSource::next(std::string& document) {
  while (next_raw(document)) {
    if (options_.document_per == DocumentPer::json) {
      if (document.find_first_not_of(" \t\r") == std::string::npos) continue;  // an empty line
      const std::string text = json_string_field(document, options_.key, place_);
      document.clear();
      TextNormaliser normaliser;
      normaliser.add(text, document);
      normaliser.finish(document);
    }
    if (options_.nfc) document = to_nfc(document);
    if (!document.empty()) return true;
  }
  return false;
}

}  // namespace ziggurat
