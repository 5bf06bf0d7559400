#include "data/megatron_order.h"

#include <algorithm>
#include <limits>
#include <numeric>

#include "data/numpy_random.h"
#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

// `epochs` times all documents, shuffled together, at the end of `index`.
void append_documents(std::vector<int32_t>& index, int64_t documents, int64_t epochs,
                      NumpyRandomState& random) {
  const size_t begin = index.size();
  for (int64_t e = 0; e < epochs; ++e) {
    for (int64_t d = 0; d < documents; ++d) index.push_back(static_cast<int32_t>(d));
  }
  random.shuffle(std::span(index).subspan(begin));
}

}  // namespace

MegatronOrder::MegatronOrder(std::vector<int64_t> document_starts, int64_t sequence_length, int64_t samples,
                             uint64_t seed)
    : starts_(std::move(document_starts)), sequence_length_(sequence_length) {
  const int64_t S = sequence_length, tokens = starts_.back();
  const auto documents = static_cast<int64_t>(starts_.size()) - 1;
  const auto samples_in = [&](int64_t epochs) { return (epochs * tokens - 1) / S; };
  check(S >= 1 && samples >= 1 && tokens >= 2, ErrorKind::argument,
        "[megatron order] expected at least one sample of one token, got {} of {} from {} tokens", samples, S,
        tokens);
  epochs_ = std::max<int64_t>(1, (samples * S + tokens) / tokens);  // about right; then exact:
  while (epochs_ > 1 && samples_in(epochs_ - 1) >= samples) --epochs_;
  while (samples_in(epochs_) < samples) ++epochs_;
  const int64_t all = samples_in(epochs_);
  check(documents <= std::numeric_limits<int32_t>::max() && all < std::numeric_limits<uint32_t>::max() &&
            epochs_ * documents < std::numeric_limits<uint32_t>::max(),
        ErrorKind::data,
        "the Megatron order indexes fewer than 2^32 samples and documents, this run has {} samples and {} "
        "epochs of {} documents; use data.order=keyed, which needs no index",
        all, epochs_, documents);

  const int64_t before_last = epochs_ == 1 ? 0 : samples_in(epochs_ - 1);
  // Megatron's int(0.80 * n), in the same floating-point arithmetic.
  const auto most = static_cast<int64_t>(0.80 * static_cast<double>(samples_in(1)));
  last_epoch_apart_ = epochs_ > 1 && samples - before_last < most;

  NumpyRandomState random(static_cast<uint32_t>(seed));
  document_index_.reserve(static_cast<size_t>(epochs_ * documents));
  append_documents(document_index_, documents, last_epoch_apart_ ? epochs_ - 1 : epochs_, random);
  if (last_epoch_apart_) append_documents(document_index_, documents, 1, random);

  sample_index_.reserve(static_cast<size_t>(all));
  Cursor at;
  for (int64_t j = 0; j < all; ++j) {
    sample_index_.push_back(at);
    // S tokens on: the next sample begins with this one's last token, within the document that holds it.
    for (int64_t left = S + 1;;) {
      const auto document = static_cast<size_t>(document_index_[static_cast<size_t>(at.entry)]);
      const int64_t rest = starts_[document + 1] - starts_[document] - at.offset;
      if (left <= rest) {
        at.offset += left - 1;
        break;
      }
      left -= rest, ++at.entry, at.offset = 0;
    }
  }

  shuffle_index_.resize(static_cast<size_t>(all));
  std::iota(shuffle_index_.begin(), shuffle_index_.end(), 0u);
  const std::span<uint32_t> shuffled(shuffle_index_);
  const auto first_part = static_cast<size_t>(last_epoch_apart_ ? before_last : all);
  random.shuffle(shuffled.first(first_part));
  random.shuffle(shuffled.subspan(first_part));
}

}  // namespace ziggurat
