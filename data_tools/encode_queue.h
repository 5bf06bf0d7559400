// Encoding on several threads while the caller reads on. Texts go in one after the other; their ids come out
// in the same order, whatever thread encoded them.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include <ziggurat/data/tokenizer.h>

namespace ziggurat {

class EncodeQueue {
 public:
  // Ids of the next text, or of a part of it: a long text comes in several, `ends_text` with the last.
  using Sink = std::function<void(size_t label, std::span<const int32_t> ids, bool ends_text)>;

  // `threads` encode; reading, the sink and events run on the caller's. The tokenizer must outlive the queue.
  EncodeQueue(const Tokenizer& tokenizer, int threads, Sink sink);

  // Copies the text; `label` goes to the sink with its ids.
  void add(std::string_view text, size_t label);
  // Calls `event` between the ids of the text added last and those of the next.
  void add_event(std::function<void()> event);
  // All that was added has gone to the sink.
  void finish();

 private:
  // A text, or a part of one cut where no token is (Tokenizer::safe_cut), so that several threads share it.
  struct Segment {
    size_t bytes, label;
    bool ends_text;
    size_t ids_end = 0;  // in ids of its Chunk
  };
  // Segments that one thread encodes in one go.
  struct Chunk {
    size_t first_byte, first_segment;
    size_t bytes = 0, segments = 0;
    std::vector<int32_t> ids = {};
  };
  struct Batch {
    std::string text;
    std::vector<Segment> segments;
    std::vector<Chunk> chunks;
    std::vector<std::pair<size_t, std::function<void()>>> events;  // each before the segment of this number
    void add(std::string_view text, size_t label, bool ends_text);
    void clear();
  };

  size_t end_of_segment(std::string_view text) const;
  void next_batch();
  void encode(Chunk& chunk, Encoder& encoder);
  void hand_out(const Batch& batch) const;

  const Tokenizer& tokenizer_;
  Sink sink_;
  std::vector<std::unique_ptr<Encoder>> encoders_;  // one per thread
  size_t batch_bytes_;
  Batch filling_, encoding_, encoded_;
  std::atomic<size_t> next_chunk_{0};
  std::vector<std::future<void>> threads_;  // last: going away, it waits for the threads
};

}  // namespace ziggurat
