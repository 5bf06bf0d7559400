#include <algorithm>
#include <string_view>

#include <ziggurat/infer/text_stream.h>

namespace ziggurat::infer {

namespace {

// How much of the end of `text` may be the beginning of a stop.
size_t may_become_stop(std::string_view text, const std::vector<std::string>& stops) {
  size_t most = 0;
  for (const std::string& stop : stops) {
    for (size_t n = std::min(stop.size() - 1, text.size()); n > most; --n) {
      if (stop.compare(0, n, text.substr(text.size() - n)) == 0) most = n;
    }
  }
  return most;
}

}  // namespace

TextStream::TextStream(const Tokenizer& tokenizer, std::span<const int32_t> prompt,
                       std::vector<std::string> stops)
    : detokenizer_(tokenizer.new_detokenizer()), stops_(std::move(stops)) {
  for (const int32_t id : prompt) detokenizer_->add(id);
}

void TextStream::add(int32_t token) { append(detokenizer_->add(token)); }

void TextStream::finish() {
  append(detokenizer_->finish());
  finished_ = true;
}

// Drops the text from the first stop on. What is pending was searched already, but for stops that go on.
void TextStream::append(const std::string& text) {
  if (stopped_) return;
  const size_t searched = pending_.size();
  pending_ += text;
  size_t cut = std::string::npos;
  for (const std::string& stop : stops_) {
    cut = std::min(cut, pending_.find(stop, searched - std::min(searched, stop.size() - 1)));
  }
  if (cut == std::string::npos) return;
  pending_.resize(cut);
  stopped_ = true;
}

std::string TextStream::take() {
  const bool all = stopped_ || finished_;
  const size_t certain = pending_.size() - (all ? 0 : may_become_stop(pending_, stops_));
  std::string text = pending_.substr(0, certain);
  pending_.erase(0, certain);
  return text;
}

}  // namespace ziggurat::infer
