#include <algorithm>

#include <ziggurat/data/text.h>

namespace ziggurat {
namespace {

constexpr std::string_view kByteOrderMark = "\xef\xbb\xbf";

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
  if (ends_ == LineEnds::keep) {
    carriage_returns_ += std::count(block.begin(), block.end(), '\r');
    out += block;
    return;
  }
  while (!block.empty()) {
    if (after_cr_ && block.front() == '\n') block.remove_prefix(1);
    after_cr_ = false;
    const size_t cr = block.find('\r');
    out += block.substr(0, cr);
    if (cr == std::string_view::npos) return;
    out += '\n';
    after_cr_ = true;
    ++carriage_returns_;
    block.remove_prefix(cr + 1);
  }
}

void TextNormaliser::finish(std::string& out) {
  started_ = true;  // what looked like the start of a byte-order mark was none
  std::string start;
  start.swap(start_);
  add(start, out);
  started_ = after_cr_ = false;
}

}  // namespace ziggurat
