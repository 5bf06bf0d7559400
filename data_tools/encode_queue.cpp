#include "data_tools/encode_queue.h"

#include <algorithm>

namespace ziggurat {
namespace {

constexpr size_t kChunkBytes = size_t{1} << 20;
// A batch is long enough that waiting for its last chunk does not count.
constexpr size_t kChunksPerThread = 8;

}  // namespace

EncodeQueue::EncodeQueue(const Tokenizer& tokenizer, int threads, Sink sink)
    : tokenizer_(tokenizer),
      sink_(std::move(sink)),
      batch_bytes_(kChunkBytes * kChunksPerThread * static_cast<size_t>(std::max(1, threads))) {
  for (int i = 0; i < std::max(1, threads); ++i) encoders_.push_back(tokenizer.new_encoder());
}

void EncodeQueue::Batch::add(std::string_view part, size_t label, bool ends_text) {
  if (chunks.empty() || chunks.back().bytes + part.size() > kChunkBytes) {
    chunks.push_back({text.size(), segments.size()});
  }
  chunks.back().bytes += part.size();
  ++chunks.back().segments;
  segments.push_back({part.size(), label, ends_text});
  text += part;
}

void EncodeQueue::Batch::clear() { text.clear(), segments.clear(), chunks.clear(), events.clear(); }

// Where the next segment of a text ends: at the last safe place of a chunk, or of as many chunks as it takes
// to find one.
size_t EncodeQueue::end_of_segment(std::string_view text) const {
  for (size_t bytes = kChunkBytes; bytes < text.size(); bytes *= 2) {
    if (const size_t cut = tokenizer_.safe_cut(text.substr(0, bytes)); cut < bytes) return cut;
  }
  return text.size();
}

void EncodeQueue::add(std::string_view text, size_t label) {
  while (!text.empty()) {
    const size_t bytes = end_of_segment(text);
    filling_.add(text.substr(0, bytes), label, bytes == text.size());
    text.remove_prefix(bytes);
    if (filling_.text.size() >= batch_bytes_) next_batch();
  }
}

void EncodeQueue::add_event(std::function<void()> event) {
  filling_.events.emplace_back(filling_.segments.size(), std::move(event));
}

void EncodeQueue::finish() {
  next_batch();  // what was being filled goes to the threads
  next_batch();  // and from there to the sink
}

// Three batches are under way: one is filled, one is encoded by the threads, and while they go on with that,
// the one before is handed out.
void EncodeQueue::next_batch() {
  for (std::future<void>& thread : threads_) thread.get();
  threads_.clear();
  std::swap(encoded_, encoding_);
  std::swap(encoding_, filling_);
  next_chunk_ = 0;
  const size_t wanted = std::min(encoders_.size(), encoding_.chunks.size());
  for (size_t i = 0; i < wanted; ++i) {
    threads_.push_back(std::async(std::launch::async, [this, i] {
      for (size_t c = next_chunk_++; c < encoding_.chunks.size(); c = next_chunk_++) {
        encode(encoding_.chunks[c], *encoders_[i]);
      }
    }));
  }
  hand_out(encoded_);
  encoded_.clear();
  std::swap(filling_, encoded_);  // its memory is used again
}

void EncodeQueue::encode(Chunk& chunk, Encoder& encoder) {
  std::string_view text = std::string_view(encoding_.text).substr(chunk.first_byte, chunk.bytes);
  constexpr size_t kFewestBytesPerToken = 3;  // of most text: a vector that grows copies what it holds
  chunk.ids.reserve(chunk.bytes / kFewestBytesPerToken);
  for (size_t s = chunk.first_segment; s < chunk.first_segment + chunk.segments; ++s) {
    Segment& segment = encoding_.segments[s];
    encoder.encode(text.substr(0, segment.bytes), chunk.ids);
    text.remove_prefix(segment.bytes);
    segment.ids_end = chunk.ids.size();
  }
}

void EncodeQueue::hand_out(const Batch& batch) const {
  auto event = batch.events.begin();
  const auto call_events_before = [&](size_t segment) {
    for (; event != batch.events.end() && event->first <= segment; ++event) event->second();
  };
  for (const Chunk& chunk : batch.chunks) {
    size_t begin = 0;
    for (size_t s = chunk.first_segment; s < chunk.first_segment + chunk.segments; ++s) {
      call_events_before(s);
      const Segment& segment = batch.segments[s];
      sink_(segment.label, std::span(chunk.ids).subspan(begin, segment.ids_end - begin), segment.ends_text);
      begin = segment.ids_end;
    }
  }
  call_events_before(batch.segments.size());
}

}  // namespace ziggurat
