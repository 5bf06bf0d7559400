#include <algorithm>

#include <ziggurat/data/documents.h>
#include <ziggurat/train/batch_reader.h>

namespace ziggurat::train {

BatchReader::BatchReader(const RunConfig& config)
    : length_(config.batch.sequence_length),
      tokens_(static_cast<size_t>(config.batch.micro_batch * length_)),
      targets_(tokens_.size()),
      positions_(config.data.reset_positions ? tokens_.size() : 0),
      first_keys_(config.data.reset_attention ? tokens_.size() : 0),
      last_keys_(config.data.ul2.enabled() && config.data.ul2.bidirectional ? tokens_.size() : 0),
      prefixes_(last_keys_.empty() ? 0 : static_cast<size_t>(config.batch.micro_batch)) {}

model::TokenBatch BatchReader::read(const SampleSource& source, int64_t first, int64_t sequences) {
  source.load(first, sequences, tokens_.data(), targets_.data());
  const auto data_or_null = [](std::vector<int32_t>& v) { return v.empty() ? nullptr : v.data(); };
  int32_t *const positions = data_or_null(positions_), *const first_keys = data_or_null(first_keys_);
  if (positions != nullptr || first_keys != nullptr) {
    locate_documents(tokens_.data(), sequences, length_, source.eod_id(), positions, first_keys);
  }
  if (!last_keys_.empty()) {
    source.load_prefixes(first, sequences, prefixes_.data());
    for (int64_t i = 0; i < sequences * length_; ++i) {
      const auto place = static_cast<int32_t>(i % length_);
      last_keys_[static_cast<size_t>(i)] = std::max(place, prefixes_[static_cast<size_t>(i / length_)] - 1);
    }
  }
  return {tokens_.data(), targets_.data(),         sequences, length_, positions,
          first_keys,     data_or_null(last_keys_)};
}

int64_t BatchReader::count_targets(const SampleSource& source, int64_t first, int64_t sequences) {
  if (const int64_t known = source.known_targets(first, sequences); known >= 0) return known;
  source.load(first, sequences, tokens_.data(), targets_.data());
  const auto end = targets_.begin() + sequences * length_;
  return (end - targets_.begin()) - std::count(targets_.begin(), end, -1);
}

}  // namespace ziggurat::train
