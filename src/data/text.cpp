#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <utility>

#include <ziggurat/core/error.h>
#include <ziggurat/data/text.h>

namespace ziggurat {
namespace {

using Path = std::filesystem::path;
constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";
constexpr size_t kBlockBytes = size_t{1} << 20;

void list_files(const Path& input, std::vector<Path>& files) {
  std::error_code reason;
  const auto status = std::filesystem::status(input, reason);
  check(std::filesystem::exists(status), ErrorKind::data, "input {} does not exist", input.string());
  if (!std::filesystem::is_directory(status)) {
    files.push_back(input);
    return;
  }
  std::vector<Path> found;
  std::filesystem::recursive_directory_iterator it(input, reason), end;
  for (; !reason && it != end; it.increment(reason)) {
    if (it->is_regular_file()) found.push_back(it->path());
  }
  check(!reason, ErrorKind::data, "cannot read folder {}: {}", input.string(), reason.message());
  check(!found.empty(), ErrorKind::data, "folder {} holds no files", input.string());
  std::sort(found.begin(), found.end());
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

struct TextSource::OpenFile {
  explicit OpenFile(const Path& file) : path(file), stream(file, std::ios::binary) {
    check(stream.good(), ErrorKind::data, "cannot read {}: {}", file.string(), std::strerror(errno));
  }
  Path path;
  std::ifstream stream;
  TextNormaliser normaliser;
  std::string block = std::string(kBlockBytes, '\0');
};

TextSource::TextSource(const TextOptions& options) : options_(options) {
  check(!options.inputs.empty(), ErrorKind::argument, "no input: name at least one file or folder of text");
  if (options_.document_per == DocumentPer::line) options_.separator.assign(1, '\n');
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

bool TextSource::fill() {
  open_->stream.read(open_->block.data(), static_cast<std::streamsize>(open_->block.size()));
  const auto n = open_->stream.gcount();
  check(!open_->stream.bad(), ErrorKind::data, "cannot read {} to its end: {}", open_->path.string(),
        std::strerror(errno));
  if (n == 0) return false;
  bytes_read_ += n;
  open_->normaliser.add({open_->block.data(), static_cast<size_t>(n)}, buffer_);
  return true;
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
  buffer_begin_ = searched_ = end + options_.separator.size();
  return true;
}

bool TextSource::next(std::string& document) {
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
      if (!found) {
        document = std::exchange(buffer_, {}).substr(buffer_begin_);
        buffer_begin_ = searched_ = 0;
        open_.reset();
      }
    }
    if (!document.empty()) return true;
  }
}

}  // namespace ziggurat
