// A micro-batch's tables on their way to the device that trains: nobody waits.
#pragma once

#include <array>
#include <cstdint>

#include <ziggurat/autograd/tape.h>
#include <ziggurat/model/gpt.h>
#include <ziggurat/runtime/backend.h>

namespace ziggurat::train {

class BatchUpload {
 public:
  // For micro-batches of up to `tokens`.
  BatchUpload(Device device, int64_t tokens);

  // The same batch in the tape's memory, to be called after tape.begin(); on the CPU the batch itself. The
  // batch's own memory may be reused at once. On Device::meta_cuda pointers are not read, only null or not.
  model::TokenBatch operator()(Tape& tape, const model::TokenBatch& batch);

 private:
  static constexpr int64_t kTables = 5;  // tokens, targets, positions, first and last keys
  // Copies leave from here. Two, so that the host fills one while the other's copies are still queued.
  struct Slot {
    HostMemory memory;
    Event copied;
  };
  Device device_;
  int64_t tokens_;
  std::array<Slot, 2> slots_;
  size_t next_ = 0;
};

}  // namespace ziggurat::train
