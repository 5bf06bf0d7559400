#include <ziggurat/data/documents.h>
#include <ziggurat/train/batch_reader.h>

namespace ziggurat::train {

BatchReader::BatchReader(const RunConfig& config)
    : sequences_(config.batch.micro_batch),
      length_(config.batch.sequence_length),
      tokens_(static_cast<size_t>(sequences_ * length_)),
      targets_(tokens_.size()),
      positions_(config.data.reset_positions ? tokens_.size() : 0),
      first_keys_(config.data.reset_attention ? tokens_.size() : 0) {}

model::TokenBatch BatchReader::read(const SampleSource& source, int64_t first) {
  source.load(first, sequences_, tokens_.data(), targets_.data());
  const auto data_or_null = [](std::vector<int32_t>& v) { return v.empty() ? nullptr : v.data(); };
  int32_t *const positions = data_or_null(positions_), *const first_keys = data_or_null(first_keys_);
  if (positions != nullptr || first_keys != nullptr) {
    locate_documents(tokens_.data(), sequences_, length_, source.eod_id(), positions, first_keys);
  }
  return {tokens_.data(), targets_.data(), sequences_, length_, positions, first_keys};
}

}  // namespace ziggurat::train
