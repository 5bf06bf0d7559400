#include <cstring>

#include <ziggurat/train/batch_upload.h>

namespace ziggurat::train {

namespace {
int64_t slot_bytes(Device device, int64_t tables) {
  return device == Device::cuda ? tables * static_cast<int64_t>(sizeof(int32_t)) : 0;
}
}  // namespace

BatchUpload::BatchUpload(Device device, int64_t tokens)
    : device_(device),
      tokens_(tokens),
      slots_{Slot{HostMemory(device, slot_bytes(device, kTables * tokens)), Event(device)},
             Slot{HostMemory(device, slot_bytes(device, kTables * tokens)), Event(device)}} {}

model::TokenBatch BatchUpload::operator()(Tape& tape, const model::TokenBatch& batch) {
  if (planned(device_) == Device::cpu) return batch;
  check(batch.size() <= tokens_, ErrorKind::internal, "[batch] {} tokens in a micro-batch of up to {}",
        batch.size(), tokens_);
  Slot& slot = slots_[next_];
  next_ = 1 - next_;
  slot.copied.wait();
  auto* from = static_cast<int32_t*>(slot.memory.data());
  const auto send = [&](const int32_t* table) -> const int32_t* {
    if (table == nullptr) return nullptr;
    const Tensor there = tape.save(DType::i32, {batch.size()});
    if (!is_meta(device_)) {
      std::memcpy(from, table, static_cast<size_t>(there.bytes()));
      copy(Tensor(from, DType::i32, there.shape()), there, tape.stream());
      from += batch.size();
    }
    return there.data<int32_t>();
  };
  model::TokenBatch there = batch;
  there.tokens = send(batch.tokens);
  there.targets = send(batch.targets);
  there.positions = send(batch.positions);
  there.first_key = send(batch.first_key);
  there.last_key = send(batch.last_key);
  slot.copied.record(tape.stream());
  return there;
}

}  // namespace ziggurat::train
