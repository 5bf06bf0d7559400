#include <algorithm>
#include <map>
#include <utility>

#include <fmt/format.h>
#include <sys/stat.h>

#include "data/input_file.h"
#include "data/invalid_text.h"
#include "data/json_field.h"
#include "data/nfc.h"
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
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
  check(std::filesystem::exists(status), ErrorKind::data,
        "input {} does not exist{}; name files, folders, or - for standard input", input.string(),
        reason && reason != std::errc::no_such_file_or_directory ? ": " + reason.message() : "");
  if (!std::filesystem::is_directory(status)) {
    files.push_back(input);
    return;
  }
  const std::vector<Path> found = files_below(input);
  check(!found.empty(), ErrorKind::data, "folder {} holds no files; name one with text", input.string());
  files.insert(files.end(), found.begin(), found.end());
}

// Under two names, by links or by a folder and a file in it: its text would count twice.
void tell_files_named_twice(const std::vector<Path>& files) {
  std::map<std::pair<dev_t, ino_t>, const Path*> seen;
  int64_t again = 0;
  std::string first;
  for (const Path& file : files) {
    struct stat status = {};
    if (file == "-" || ::stat(file.c_str(), &status) != 0 || !S_ISREG(status.st_mode)) continue;
    const auto [other, is_new] = seen.try_emplace({status.st_dev, status.st_ino}, &file);
    if (is_new) continue;
    if (again++ == 0) first = fmt::format("{} and {}", other->second->string(), file.string());
  }
  if (again == 0) return;
  warn(
      "--input names {} files more than once, and their text counts as often (the first: {}); name each "
      "once, "
      "unless that is meant, or say --deduplicate",
      again, first);
}

}  // namespace

std::string normalisation_name(const TextOptions& options) {
  return std::string(options.line_ends == LineEnds::lf ? "bom,crlf" : "bom") + (options.nfc ? ",nfc" : "");
}

void TextSource::Met::add(int64_t times, const std::string& place) {
  if (times == 0) return;
  if (count == 0) first = place;
  count += times;
}

struct TextSource::OpenFile {
  OpenFile(const Path& file, LineEnds ends)
      : name(file == "-" ? "standard input" : file.string()), input(file), normaliser(ends) {}
  std::string name;
  InputFile input;
  InvalidText invalid;
  TextNormaliser normaliser;
  int64_t documents = 0;
  int64_t bytes = 0;  // of its normalised text in documents that were given out
  std::string block = std::string(kBlockBytes, '\0');
};

TextSource::TextSource(const TextOptions& options) : options_(options) {
  check(!options.inputs.empty(), ErrorKind::argument, "no input: name at least one file or folder of text");
  const bool json = options_.document_per == DocumentPer::json;
  check(!json || !options_.key.empty(), ErrorKind::argument,
        "documents are JSON, but their key is empty; name it by --key");
  check(options_.max_document_bytes >= 1, ErrorKind::argument,
        "the most bytes of a document: expected at least 1, got {}", options_.max_document_bytes);
  if (options_.nfc) check_nfc_available();
  if (json || options_.document_per == DocumentPer::line) options_.separator.assign(1, '\n');
  check(options_.document_per == DocumentPer::file || !options_.separator.empty(), ErrorKind::argument,
        "documents are to be cut at a separator, but it is empty; name one by --separator");
  check(options_.line_ends == LineEnds::keep || options_.document_per != DocumentPer::separator ||
            options_.separator.find('\r') == std::string::npos,
        ErrorKind::argument,
        "the separator {:?} has a carriage return, but line ends become \\n before it is looked for; write "
        "\\n, "
        "or say --newlines keep",
        options_.separator);
  check(options_.allow_invalid_utf8 >= 0 && options_.allow_invalid_utf8 <= 1, ErrorKind::argument,
        "the share of invalid UTF-8: expected a number from 0 to 1, got {}", options_.allow_invalid_utf8);
  for (const Path& input : options.inputs) list_files(input, files_);
  for (const Path& file : files_) {
    std::error_code unknown_size;
    const auto bytes = std::filesystem::file_size(file, unknown_size);
    if (!unknown_size) total_bytes_ += static_cast<int64_t>(bytes);
  }
  look_at_all_files();
}

TextSource::~TextSource() = default;

int64_t TextSource::bytes_read() const { return bytes_read_ + (open_ ? open_->input.bytes_taken() : 0); }

// Before hours of work, and all of them at once. A pipe can be read only once, so it is looked at later.
void TextSource::look_at_all_files() const {
  constexpr size_t kFewBytes = size_t{1} << 12, kMostTold = 10;
  std::vector<std::string> faults;
  for (const Path& file : files_) {
    if (!std::filesystem::is_regular_file(file)) continue;
    try {
      InputFile(file, kFewBytes);
    } catch (const Error& error) {
      faults.emplace_back(error.what());
    }
  }
  if (faults.empty()) return;
  check(faults.size() > 1, ErrorKind::data, "{}", faults.front());
  std::string list;
  for (size_t i = 0; i < std::min(faults.size(), kMostTold); ++i) list += "\n  " + faults[i];
  if (faults.size() > kMostTold) list += fmt::format("\n  and {} more", faults.size() - kMostTold);
  fail(ErrorKind::data, "{} of {} files cannot be read as text:{}", faults.size(), files_.size(), list);
}

// `bytes`: how many the file has, or at least has.
void TextSource::check_utf8(int64_t bytes) const {
  const double most = options_.allow_invalid_utf8 * static_cast<double>(bytes);
  check(static_cast<double>(open_->invalid.invalid()) <= most, ErrorKind::data,
        "{} is not UTF-8 text: {}, or, if it shall go in as it is, raise --allow-invalid-utf8 (now {}) above "
        "its share",
        open_->name, open_->invalid.description(), options_.allow_invalid_utf8);
}

bool TextSource::fill() {
  const size_t n = open_->input.read(open_->block);
  const std::string_view block(open_->block.data(), n);
  open_->invalid.add(block);
  // As soon as it is sure; of a file whose length is not known that is at its end.
  if (const int64_t bytes = open_->input.known_bytes(); bytes > 0) {
    check_utf8(std::max(bytes, open_->invalid.bytes()));
  }
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
  separator_met_ = true;
  document.assign(buffer_, buffer_begin_, end - buffer_begin_);
  open_->bytes += static_cast<int64_t>(document.size() + options_.separator.size());
  buffer_begin_ = searched_ = end + options_.separator.size();
  return true;
}

// Judges it and keeps its counts.
void TextSource::close_file() {
  InvalidText& invalid = open_->invalid;
  invalid.finish();
  check_utf8(invalid.bytes());
  if (invalid.invalid() > 0) invalid_utf8_.add(invalid.invalid(), open_->name + ", " + invalid.first_place());
  carriage_returns_.add(open_->normaliser.carriage_returns(), open_->name);
  bytes_read_ += open_->input.bytes_taken();
}

void TextSource::stop() {
  if (!open_) return;
  close_file();
  open_.reset();
}

bool TextSource::next_raw(std::string& document) {
  for (;;) {
    if (!open_) {
      if (next_file_ == 0) tell_files_named_twice(files_);
      if (next_file_ == files_.size()) return false;
      open_ = std::make_unique<OpenFile>(files_[next_file_++], options_.line_ends);
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
      close_file();
      buffer_.erase(0, buffer_begin_);
      document.swap(buffer_);  // neither gives up its memory
      buffer_.clear();
      buffer_begin_ = searched_ = 0;
      open_.reset();
    }
    if (!document.empty()) return true;
  }
}

// `document` is a line, and becomes the text in it.
bool TextSource::take_json_text(std::string& document) {
  std::string_view line = document;
  if (line.starts_with(kByteOrderMark)) line.remove_prefix(kByteOrderMark.size());
  if (line.find_first_not_of(" \t\r") == std::string_view::npos) return false;  // an empty line
  const JsonField field = read_json_field(line, options_.key, place_);
  if (field.times > 1) repeated_keys_.add(1, place_);
  if (field.kind != "string") {
    check(options_.missing_text == MissingText::skip, ErrorKind::data,
          "{} has {} under the key {:?}; name the key of the text with --key, or leave such lines out with "
          "--missing-text skip",
          place_, field.times == 0 ? "no string" : field.kind + ", not a string,", options_.key);
    missing_texts_.add(1, place_);
    return false;
  }
  check(field.lone_surrogates == 0 || options_.lone_surrogates == LoneSurrogates::replace, ErrorKind::data,
        "{} has half a surrogate pair (as in \"\\ud83d\" alone) under the key {:?}, which is no character; "
        "mend it, "
        "or say --lone-surrogates replace",
        place_, options_.key);
  lone_surrogates_.add(field.lone_surrogates, place_);
  document.clear();
  TextNormaliser normaliser(options_.line_ends);
  normaliser.add(field.text, document);
  normaliser.finish(document);
  carriage_returns_.add(normaliser.carriage_returns(), place_);
  return true;
}

bool TextSource::next(std::string& document) {
  while (next_raw(document)) {
    if (options_.document_per == DocumentPer::json && !take_json_text(document)) continue;
    if (options_.nfc) document = to_nfc(document);
    if (!document.empty()) return true;
  }
  return false;
}

std::vector<std::string> TextSource::remarks() const {
  std::vector<std::string> remarks;
  const auto tell = [&](const Met& met, std::string_view what, std::string_view done) {
    if (met.count > 0)
      remarks.push_back(fmt::format("{}: {} (first: {}); {}", what, met.count, met.first, done));
  };
  tell(invalid_utf8_, "bytes that are no valid UTF-8 or NUL",
       "they go to the tokenizer as they are, for --allow-invalid-utf8 lets them in");
  tell(lone_surrogates_, "halves of surrogate pairs in JSON texts",
       "each is now U+FFFD; --lone-surrogates refuse stops at them");
  tell(repeated_keys_, fmt::format("lines of JSON with the key {:?} more than once", options_.key),
       "the last was taken");
  tell(missing_texts_, fmt::format("lines of JSON without a string under the key {:?}", options_.key),
       "they were left out");
  tell(carriage_returns_, "line ends that were CRLF or CR",
       options_.line_ends == LineEnds::lf ? "they are LF now; --newlines keep leaves them"
                                          : "they stay; --newlines unix makes them LF");
  if (options_.document_per == DocumentPer::separator && !separator_met_) {
    remarks.push_back(fmt::format(
        "the separator {:?} occurs nowhere in the input, so every file is one document; is it written as in "
        "the "
        "files?{}",
        options_.separator,
        carriage_returns_.count > 0 && options_.line_ends == LineEnds::keep ? " Their line ends have a CR."
                                                                            : ""));
  }
  return remarks;
}

}  // namespace ziggurat
