// A communicator as the contract's tests call it: with tensors of the host. For a device these are copied
// there before a collective, and back when its Work is done.
#pragma once

#include <memory>
#include <utility>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/runtime/backend.h>

namespace ziggurat::contract {

class Group {
 public:
  Group(Communicator& group, Device device) : group_(&group), device_(device) {}
  Group(std::unique_ptr<Communicator> group, Device device) : Group(*group, device) {
    owned_ = std::move(group);
  }

  Communicator& communicator() const { return *group_; }
  int rank() const { return group_->rank(); }
  int size() const { return group_->size(); }
  const Collective& last_collective() const { return group_->last_collective(); }
  std::unique_ptr<Group> split(int color, int key, const std::string& name) {
    return std::make_unique<Group>(group_->split(color, key, name), device_);
  }
  void barrier() { group_->barrier(); }
  std::vector<std::string> all_gather_text(const std::string& text) { return group_->all_gather_text(text); }

  Work broadcast(const Tensor& buffer, int root, Stream& host) {
    return there(buffer, buffer, host,
                 [&](Tensor b, Tensor, Stream& s) { return group_->broadcast(b, root, s); });
  }
  Work all_reduce(const Tensor& buffer, ReduceOp op, ReduceOrder order, Stream& host) {
    return there(buffer, buffer, host,
                 [&](Tensor b, Tensor, Stream& s) { return group_->all_reduce(b, op, order, s); });
  }
  Work all_gather(const Tensor& input, const Tensor& output, Stream& host) {
    return there(input, output, host,
                 [&](Tensor in, Tensor out, Stream& s) { return group_->all_gather(in, out, s); });
  }
  Work reduce_scatter(const Tensor& input, const Tensor& output, ReduceOrder order, Stream& host) {
    return there(input, output, host,
                 [&](Tensor in, Tensor out, Stream& s) { return group_->reduce_scatter(in, out, order, s); });
  }
  Work all_to_all(const Tensor& input, const Tensor& output, Stream& host) {
    return there(input, output, host,
                 [&](Tensor in, Tensor out, Stream& s) { return group_->all_to_all(in, out, s); });
  }
  Work all_to_all_v(const Tensor& input, std::span<const int64_t> send, const Tensor& output,
                    std::span<const int64_t> receive, Stream& host) {
    return there(input, output, host, [&](Tensor in, Tensor out, Stream& s) {
      return group_->all_to_all_v(in, send, out, receive, s);
    });
  }

 private:
  // Two tensors' memory on the device, laid out as on the host: one may be a part of the other.
  struct Twins {
    Twins(Device device, const Tensor& x, const Tensor& y) : a(x), b(y), stream(device) {
      const auto first = std::min(begin(a), begin(b)), last = std::max(end(a), end(b));
      const bool apart = begin(a) >= end(b) || begin(b) >= end(a);
      const int64_t size_a = (a.bytes() + 63) / 64 * 64;
      bytes = std::max<int64_t>(1, apart ? size_a + b.bytes() : static_cast<int64_t>(last - first));
      memory = static_cast<std::byte*>(backend(device).allocate(bytes));
      const auto twin = [&](const Tensor& host, int64_t offset) {
        return Tensor(memory + offset, host.dtype(), host.shape(), device);
      };
      there_a = twin(a, apart ? 0 : static_cast<int64_t>(begin(a) - first));
      there_b = twin(b, apart ? size_a : static_cast<int64_t>(begin(b) - first));
      copy(a, there_a, stream);
      copy(b, there_b, stream);
    }
    ~Twins() {
      stream.wait();
      backend(stream.device()).free(memory);
    }
    Twins(const Twins&) = delete;
    Twins& operator=(const Twins&) = delete;
    void copy_back() {
      copy(there_a, a, stream);
      copy(there_b, b, stream);
      stream.wait();
    }
    static uintptr_t begin(const Tensor& t) { return reinterpret_cast<uintptr_t>(t.raw()); }
    static uintptr_t end(const Tensor& t) { return begin(t) + static_cast<uintptr_t>(t.bytes()); }

    Tensor a, b, there_a, there_b;
    Stream stream;
    std::byte* memory;
    int64_t bytes;
  };

  template <class Call>
  Work there(const Tensor& a, const Tensor& b, Stream& host, const Call& call) {
    if (device_ == Device::cpu || a.device() != Device::cpu) return call(a, b, host);
    const auto twins = std::make_shared<Twins>(device_, a, b);
    const auto work = std::make_shared<Work>(call(twins->there_a, twins->there_b, twins->stream));
    return Work([twins, work] {
      work->wait();
      twins->copy_back();
    });
  }

  std::unique_ptr<Communicator> owned_;
  Communicator* group_;
  Device device_;
};

}  // namespace ziggurat::contract
