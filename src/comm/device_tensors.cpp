// Collectives on tensors of devices by the devices themselves: queued on the stream, and the host goes on.
#include <algorithm>
#include <array>
#include <chrono>
#include <thread>

#include "comm/noted.h"
#include <ziggurat/comm/communicator.h>

namespace ziggurat {
namespace {

using namespace std::chrono_literals;

// While the host waits for a stream it looks this often for errors that would keep the stream from ending.
constexpr auto kBetweenLooks = 20us;

DeviceGroup::Number number(DType dtype) {
  switch (dtype) {
    case DType::f32:
      return DeviceGroup::Number::f32;
    case DType::f64:
      return DeviceGroup::Number::f64;
    case DType::i32:
      return DeviceGroup::Number::i32;
    case DType::bf16:
      break;
  }
  fail(ErrorKind::internal, "[device tensors] no reduction for {}", to_string(dtype));
}

}  // namespace

// What goes on beside the streams that compute has streams for all groups together, in which the collectives
// of every rank come in one order. Events are kept for the next collectives: none is made in steady state.
struct Communicator::Devices {
  struct Done {
    Event event{Device::cuda};
    Stream* of = nullptr;  // that has to wait for it; null: free
  };

  std::vector<Communicator*> users;               // groups with a group of devices
  std::array<std::unique_ptr<Stream>, 2> beside;  // by Beside
  Event ready{Device::cuda};
  std::deque<Done> done;

  Done& take_done(Stream& of) {
    const auto free = std::find_if(done.begin(), done.end(), [](const Done& d) { return d.of == nullptr; });
    Done& taken = free == done.end() ? done.emplace_back() : *free;
    taken.of = &of;
    return taken;
  }
};

std::string Communicator::use_devices() {
  if (size_ == 1) return "";
  const std::string missing = device_groups_missing();
  const std::vector<std::string> reasons = all_gather_text(missing);
  for (size_t r = 0; r < reasons.size(); ++r) {
    if (!reasons[r].empty()) return fmt::format("rank {}: {}", r, reasons[r]);
  }
  const std::vector<std::string> places = all_gather_text(device_address());
  for (size_t r = 0; r < places.size(); ++r) {
    const auto first =
        static_cast<size_t>(std::find(places.begin(), places.end(), places[r]) - places.begin());
    if (first < r) return fmt::format("ranks {} and {} share the device {}", first, r, places[r]);
  }
  if (!devices_) devices_ = std::make_shared<Devices>();
  return "";
}

// A fixed tree is of sums: a maximum has the same bits in every order.
bool Communicator::goes_between_devices(ReduceOrder order, ReduceOp op) const {
  return devices_ != nullptr && (order == ReduceOrder::any || op == ReduceOp::max);
}

void Communicator::make_device_group() {
  DeviceGroup::Id id{};
  if (rank_ == 0) id = make_device_group_id();
  do_broadcast(id, 0);
  device_group_ = ziggurat::make_device_group(id, rank_, size_);
  devices_->users.push_back(this);
}

void Communicator::leave_devices() {
  if (device_group_) std::erase(devices_->users, this);
}

// With the group of devices, and its errors under the name of the collective under way.
template <class Call>
void Communicator::between_devices(const Call& call) {
  try {
    if (!device_group_) make_device_group();
    call(*device_group_);
  } catch (const Error& error) {
    fail(error.kind(), "{} {}", where(), error.what());
  }
}

Stream& Communicator::beside(Stream& stream, Beside kind) {
  std::unique_ptr<Stream>& own = devices_->beside[static_cast<size_t>(kind)];
  if (!own) own = std::make_unique<Stream>(stream.device());
  devices_->ready.record(stream);
  devices_->ready.hold(*own);
  return *own;
}

Work Communicator::done_beside(Stream& beside, Stream& stream) {
  Devices::Done& done = devices_->take_done(stream);
  done.event.record(beside);
  return Work([&done] { done.event.hold(*std::exchange(done.of, nullptr)); });
}

void Communicator::device_broadcast(const Tensor& buffer, int root, Stream& stream) {
  between_devices([&](DeviceGroup& group) { group.broadcast(buffer.raw(), buffer.bytes(), root, stream); });
}

void Communicator::device_all_reduce(const Tensor& buffer, ReduceOp op, Stream& stream) {
  between_devices([&](DeviceGroup& group) {
    group.all_reduce(buffer.raw(), buffer.numel(), number(buffer.dtype()),
                     op == ReduceOp::sum ? DeviceGroup::Reduce::sum : DeviceGroup::Reduce::max, stream);
  });
}

void Communicator::device_all_gather(const Tensor& input, const Tensor& output, Stream& stream) {
  between_devices(
      [&](DeviceGroup& group) { group.all_gather(input.raw(), output.raw(), input.bytes(), stream); });
}

void Communicator::device_reduce_scatter(const Tensor& input, const Tensor& output, Stream& stream) {
  between_devices([&](DeviceGroup& group) {
    group.sum_scatter(input.raw(), output.raw(), output.numel(), number(output.dtype()), stream);
  });
}

void Communicator::device_all_to_all_v(const Tensor& input, const std::vector<int64_t>& send,
                                       const Tensor& output, const std::vector<int64_t>& receive,
                                       Stream& stream) {
  between_devices(
      [&](DeviceGroup& group) { group.all_to_all(input.raw(), send, output.raw(), receive, stream); });
}

void Communicator::watch(Stream& stream) {
  if (devices_ == nullptr || devices_->users.empty() || stream.device() != Device::cuda) return;
  const comm::Noted noted(*this, "wait for device");
  while (!backend(stream.device()).done(stream)) {
    for (const Communicator* user : devices_->users) {
      const std::string failure = user->device_group_->failure();
      if (failure.empty()) continue;
      // The stream may wait in each of them, for ranks that give up where the failed one's do.
      for (Communicator* other : devices_->users) other->device_group_->abort();
      fail(ErrorKind::communication, "{} or a collective before it failed on the devices: {}", user->where(),
           failure);
    }
    std::this_thread::sleep_for(kBetweenLooks);
  }
}

}  // namespace ziggurat
