// Collectives of ranks that are threads and share the emulated device: each queues its part on its stream,
// and the exchange is done where all streams have come to theirs.
#include "tests/emulation/lib/device_group.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <mutex>
#include <thread>
#include <vector>

#include <kernels/cuda/device/launch.h>

#include "tests/emulation/emulated_device.h"
#include <ziggurat/core/error.h>
#include <ziggurat/runtime/device_group.h>

namespace ziggurat {

namespace {

using emulation::check_device_memory;
using emulation::KernelError;
using Number = DeviceGroup::Number;

// One rank's part of a collective.
struct Part {
  const std::byte* input = nullptr;
  std::byte* output = nullptr;
  std::vector<int64_t> send, receive;  // bytes, of each rank's block
};

struct Call {
  Call(std::string what_, int size)
      : what(std::move(what_)), parts(static_cast<size_t>(size)), meeting(emulation::make_meeting(size)) {}
  std::string what;  // must agree between ranks
  std::vector<Part> parts;
  int joined = 0;
  std::shared_ptr<emulation::Meeting> meeting;
};

// What the ranks of a group share.
struct Links {
  std::mutex mutex;
  std::map<int64_t, std::shared_ptr<Call>> open;  // by number: not all ranks have queued their part
  std::vector<std::weak_ptr<emulation::Meeting>> meetings;
  bool aborted = false;
};

struct Registry {
  std::mutex mutex;
  int64_t ids = 0;
  std::map<DeviceGroup::Id, std::weak_ptr<Links>> groups;
  std::string failure;
  std::atomic<bool> device_of_each_thread = true;
};

Registry& registry() {
  static Registry the_registry;
  return the_registry;
}

int64_t sum(const std::vector<int64_t>& counts, size_t n) {
  int64_t total = 0;
  for (size_t i = 0; i < n; ++i) total += counts[i];
  return total;
}

void check_addresses(const Call& call) {
  for (const Part& part : call.parts) {
    const int64_t in = sum(part.send, part.send.size()), out = sum(part.receive, part.receive.size());
    check_device_memory(part.input, 1, in, in, call.what + ": its input");
    check_device_memory(part.output, 1, out, out, call.what + ": its output");
  }
}

// Block r of rank s goes to block s of rank r. All inputs are read before an output is written: they may
// share memory.
void exchange(const Call& call) {
  check_addresses(call);
  std::vector<std::vector<std::byte>> inputs;
  for (const Part& part : call.parts) {
    inputs.emplace_back(part.input, part.input + sum(part.send, part.send.size()));
  }
  for (size_t r = 0; r < call.parts.size(); ++r) {
    std::byte* to = call.parts[r].output;
    for (size_t s = 0; s < call.parts.size(); ++s) {
      const int64_t bytes = call.parts[s].send[r];
      if (bytes != call.parts[r].receive[s]) {
        throw KernelError(fmt::format("{}: rank {} sends {} bytes to rank {}, which expects {}", call.what, s,
                                      bytes, r, call.parts[r].receive[s]));
      }
      const std::byte* const from = inputs[s].data() + sum(call.parts[s].send, r);
      if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
      to += bytes;
    }
  }
}

// Numbers of all ranks' inputs, the last rank's first, which is no order that another implementation has.
template <class T>
void reduce(const Call& call, bool is_max) {
  check_addresses(call);
  const int64_t n = sum(call.parts[0].send, call.parts.size()) / static_cast<int64_t>(sizeof(T));
  std::vector<T> result(static_cast<size_t>(n));
  for (size_t r = call.parts.size(); r-- > 0;) {
    const auto* values = reinterpret_cast<const T*>(call.parts[r].input);
    for (int64_t i = 0; i < n; ++i) {
      T& value = result[static_cast<size_t>(i)];
      const bool first = r + 1 == call.parts.size();
      value = first ? values[i] : is_max ? std::max(value, values[i]) : static_cast<T>(value + values[i]);
    }
  }
  const auto* from = reinterpret_cast<const std::byte*>(result.data());
  for (const Part& part : call.parts) {
    const int64_t bytes = sum(part.receive, part.receive.size());
    if (bytes > 0) std::memcpy(part.output, from, static_cast<size_t>(bytes));
    if (bytes < n * static_cast<int64_t>(sizeof(T))) from += bytes;  // each rank's own block
  }
}

void reduce(const Call& call, Number type, bool is_max) {
  switch (type) {
    case Number::i32:
      return reduce<int32_t>(call, is_max);
    case Number::f32:
      return reduce<float>(call, is_max);
    case Number::f64:
      return reduce<double>(call, is_max);
  }
}

int64_t size_of(Number type) { return type == Number::f64 ? 8 : 4; }

class EmulatedGroup final : public DeviceGroup {
 public:
  EmulatedGroup(std::shared_ptr<Links> links, int rank, int size)
      : links_(std::move(links)), rank_(rank), size_(size) {}

  void broadcast(void* buffer, int64_t bytes, int root, Stream& stream) override {
    Part part{.input = bytes_at(buffer), .output = bytes_at(buffer), .send = none(), .receive = none()};
    if (rank_ == root) part.send.assign(static_cast<size_t>(size_), bytes);
    part.receive[static_cast<size_t>(root)] = bytes;
    // The root's memory holds its block once, which goes to all.
    queue("broadcast", fmt::format("broadcast of {} bytes from {}", bytes, root), std::move(part), stream,
          [root](const Call& call) {
            const Part& source = call.parts[static_cast<size_t>(root)];
            const int64_t n = source.receive[static_cast<size_t>(root)];
            for (const Part& p : call.parts) {
              check_device_memory(p.output, 1, n, n, call.what);
              if (n > 0) std::memmove(p.output, source.input, static_cast<size_t>(n));
            }
          });
  }

  void all_reduce(void* buffer, int64_t count, Number type, Reduce op, Stream& stream) override {
    Part part{.input = bytes_at(buffer), .output = bytes_at(buffer), .send = none(), .receive = none()};
    part.send[0] = part.receive[0] = count * size_of(type);
    queue("all_reduce", fmt::format("all_reduce of {} numbers, {} {}", count, int(type), int(op)),
          std::move(part), stream, [=](const Call& call) { reduce(call, type, op == Reduce::max); });
  }

  void all_gather(const void* input, void* output, int64_t bytes, Stream& stream) override {
    Part part{.input = bytes_at(input), .output = bytes_at(output), .send = none(), .receive = none()};
    part.send[0] = bytes;
    part.receive.assign(static_cast<size_t>(size_), bytes);
    queue("all_gather", fmt::format("all_gather of {} bytes", bytes), std::move(part), stream,
          [bytes](const Call& call) {
            check_addresses(call);
            for (const Part& to : call.parts) {
              std::byte* block = to.output;
              for (const Part& from : call.parts) {
                if (bytes > 0) std::memmove(block, from.input, static_cast<size_t>(bytes));
                block += bytes;
              }
            }
          });
  }

  void sum_scatter(const void* input, void* output, int64_t count, Number type, Stream& stream) override {
    Part part{.input = bytes_at(input), .output = bytes_at(output), .send = none(), .receive = none()};
    part.send.assign(static_cast<size_t>(size_), count * size_of(type));
    part.receive[0] = count * size_of(type);
    queue("sum_scatter", fmt::format("sum_scatter of {} numbers, {}", count, int(type)), std::move(part),
          stream, [type](const Call& call) { reduce(call, type, false); });
  }

  void all_to_all(const void* input, std::span<const int64_t> send, void* output,
                  std::span<const int64_t> receive, Stream& stream) override {
    queue("all_to_all", "all_to_all",
          {.input = bytes_at(input),
           .output = bytes_at(output),
           .send = {send.begin(), send.end()},
           .receive = {receive.begin(), receive.end()}},
          stream, exchange);
  }

  std::string failure() override {
    const std::lock_guard lock(registry().mutex);
    return registry().failure;
  }

  void abort() noexcept override {
    std::vector<std::weak_ptr<emulation::Meeting>> meetings;
    {
      const std::lock_guard lock(links_->mutex);
      links_->aborted = true;
      meetings = links_->meetings;
    }
    for (const auto& weak : meetings) {  // under the device's lock alone, which launches of graphs hold first
      if (const auto meeting = weak.lock()) emulation::cancel(*meeting);
    }
  }

 private:
  static const std::byte* bytes_at(const void* memory) { return static_cast<const std::byte*>(memory); }
  static std::byte* bytes_at(void* memory) { return static_cast<std::byte*>(memory); }
  std::vector<int64_t> none() const { return std::vector<int64_t>(static_cast<size_t>(size_), 0); }

  // The call that has this rank's next number, with its part.
  std::shared_ptr<Call> join(const std::string& what, Part part) {
    const std::lock_guard lock(links_->mutex);
    check(!links_->aborted, ErrorKind::communication, "the group was given up");
    const int64_t number = next_++;
    std::shared_ptr<Call>& call = links_->open[number];
    if (!call) {
      call = std::make_shared<Call>(what, size_);
      std::erase_if(links_->meetings, [](const auto& meeting) { return meeting.expired(); });
      links_->meetings.push_back(call->meeting);
    }
    check(call->what == what, ErrorKind::communication, "rank {} comes with {}, another with {}", rank_, what,
          call->what);
    call->parts[static_cast<size_t>(rank_)] = std::move(part);
    std::shared_ptr<Call> mine = call;
    if (++mine->joined == size_) links_->open.erase(number);
    return mine;
  }

  template <class Run>
  void queue(const char* name, const std::string& what, Part part, Stream& stream, Run run) {
    const auto meet = [this, what, part = std::move(part), run] {
      const std::shared_ptr<Call> call = join(what, part);
      return emulation::Met{call->meeting, [call, run] { run(*call); }};
    };
    kernels::check_cuda(emulation::enqueue_meeting(kernels::queue_of(stream), rank_, name, meet),
                        "starting a collective");
  }

  std::shared_ptr<Links> links_;
  int rank_, size_;
  int64_t next_ = 0;
};

}  // namespace

std::string device_groups_missing() { return ""; }

std::string device_address() {
  if (!registry().device_of_each_thread) return "emulated";
  return fmt::format("emulated {}", std::hash<std::thread::id>()(std::this_thread::get_id()));
}

DeviceGroup::Id make_device_group_id() {
  const std::lock_guard lock(registry().mutex);
  DeviceGroup::Id id{};
  const int64_t number = ++registry().ids;
  std::memcpy(id.data(), &number, sizeof number);
  return id;
}

std::unique_ptr<DeviceGroup> make_device_group(const DeviceGroup::Id& id, int rank, int size) {
  const std::lock_guard lock(registry().mutex);
  std::weak_ptr<Links>& known = registry().groups[id];
  std::shared_ptr<Links> links = known.lock();
  if (!links) known = links = std::make_shared<Links>();
  return std::make_unique<EmulatedGroup>(links, rank, size);
}

namespace emulation {

void give_each_thread_a_device(bool give) { registry().device_of_each_thread = give; }

void break_links(const std::string& failure) {
  const std::lock_guard lock(registry().mutex);
  registry().failure = failure;
}

}  // namespace emulation
}  // namespace ziggurat
