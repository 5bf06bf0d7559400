// The sample order of Megatron-LM's GPTDataset, bit for bit (its readme.md and gpt_dataset.py describe it):
// E epochs of all documents are laid end to end in a shuffled order; sample j is S + 1 tokens of that,
// starting at the last token of sample j - 1; the samples are shuffled again. When fewer than 80 % of the
// last epoch's samples are wanted, that epoch is shuffled apart, so that the others are seen whole before it.
//
// Unlike the keyed order this one is an index in memory: 4 bytes per document and epoch, 20 per sample.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

namespace ziggurat {

class MegatronOrder {
 public:
  // `document_starts` [D + 1]: token offsets of the documents, and the total number of tokens T; must be of
  // at most 2^31 - 1 documents. E is the least number of epochs with (E T - 1) / S >= samples.
  MegatronOrder(std::vector<int64_t> document_starts, int64_t sequence_length, int64_t samples,
                uint64_t seed);

  // At least as many as were asked for: all that the epochs hold.
  int64_t samples() const { return static_cast<int64_t>(shuffle_index_.size()); }
  int64_t epochs() const { return epochs_; }
  bool last_epoch_apart() const { return last_epoch_apart_; }

  // Calls body(first token, count) for the parts of documents that make up the S + 1 tokens of the sample at
  // position i in [0, samples()).
  template <class Body>
  void for_each_part(int64_t i, const Body& body) const {
    Cursor at = sample_index_[shuffle_index_[static_cast<size_t>(i)]];
    for (int64_t left = sequence_length_ + 1; left > 0; ++at.entry, at.offset = 0) {
      const auto document = static_cast<size_t>(document_index_[static_cast<size_t>(at.entry)]);
      const int64_t first = starts_[document] + at.offset;
      const int64_t count = std::min(left, starts_[document + 1] - first);
      if (count > 0) body(first, count);
      left -= count;
    }
  }

  const std::vector<int32_t>& document_index() const { return document_index_; }
  const std::vector<uint32_t>& shuffle_index() const { return shuffle_index_; }

 private:
  struct Cursor {
    int64_t entry = 0;   // of document_index_
    int64_t offset = 0;  // tokens of that document that lie before
  };

  std::vector<int64_t> starts_;
  int64_t sequence_length_, epochs_ = 1;
  bool last_epoch_apart_ = false;
  std::vector<int32_t> document_index_;  // [E D]
  std::vector<Cursor> sample_index_;     // [samples]: where each begins
  std::vector<uint32_t> shuffle_index_;  // [samples]
};

}  // namespace ziggurat
