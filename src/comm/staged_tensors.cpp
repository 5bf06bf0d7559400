// Collectives on tensors of a device: copied to host memory, exchanged there, copied back. The host waits for
// the stream before it looks at a copy, and after the last one, before the memory is used again.
#include <algorithm>
#include <numeric>

#include "comm/host_bytes.h"
#include <ziggurat/comm/communicator.h>

namespace ziggurat {
namespace {

using comm::for_each_chunk;
using comm::slice;

// Of what is exchanged in one piece after the other. Gradients would else need as much memory again.
constexpr int64_t kPieceBytes = int64_t{1} << 26;

const std::byte* address(const Tensor& tensor, int64_t begin) {
  return static_cast<const std::byte*>(tensor.raw()) + begin;
}

void copy_down(const Tensor& from, int64_t begin, std::span<std::byte> to, Stream& stream) {
  if (!to.empty()) {
    backend(from.device()).copy(address(from, begin), to.data(), static_cast<int64_t>(to.size()), stream);
  }
  stream.wait();
}

void copy_up(std::span<const std::byte> from, const Tensor& to, int64_t begin, Stream& stream) {
  if (from.empty()) return;
  backend(to.device())
      .copy(from.data(), const_cast<std::byte*>(address(to, begin)), static_cast<int64_t>(from.size()),
            stream);
  stream.wait();
}

int64_t sum(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

}  // namespace

void Communicator::staged_broadcast(const Tensor& buffer, int root, Stream& stream) {
  for_each_chunk(buffer.bytes(), kPieceBytes, [&](int64_t begin, int64_t n) {
    const Bytes here = staging(buffer.device(), n);
    if (rank_ == root) copy_down(buffer, begin, here, stream);
    do_broadcast(here, root);
    if (rank_ != root) copy_up(here, buffer, begin, stream);
  });
}

void Communicator::staged_all_reduce(const Tensor& buffer, ReduceOp op, ReduceOrder order, Stream& stream) {
  for_each_chunk(buffer.bytes(), kPieceBytes, [&](int64_t begin, int64_t n) {
    const Bytes here = staging(buffer.device(), n);
    copy_down(buffer, begin, here, stream);
    reduce_on_host(here, buffer.dtype(), op, order);
    copy_up(here, buffer, begin, stream);
  });
}

void Communicator::staged_all_gather(const Tensor& input, const Tensor& output, Stream& stream) {
  const Bytes all = staging(output.device(), output.bytes());
  const Bytes mine = slice(all, rank_ * input.bytes(), input.bytes());
  copy_down(input, 0, mine, stream);
  gather_on_host(mine, all);
  copy_up(all, output, 0, stream);
}

void Communicator::staged_reduce_scatter(const Tensor& input, const Tensor& output, ReduceOrder order,
                                         Stream& stream) {
  const Bytes all = staging(input.device(), input.bytes());
  const Bytes mine = slice(all, rank_ * output.bytes(), output.bytes());
  copy_down(input, 0, all, stream);
  reduce_blocks_on_host(all, mine, input.dtype(), order);
  copy_up(mine, output, 0, stream);
}

void Communicator::staged_all_to_all_v(const Tensor& input, const std::vector<int64_t>& send,
                                       const Tensor& output, const std::vector<int64_t>& receive,
                                       Stream& stream) {
  const int64_t leaving = sum(send), arriving = sum(receive);
  const Bytes both = staging(input.device(), leaving + arriving);
  const Bytes from = slice(both, 0, leaving), to = slice(both, leaving, arriving);
  copy_down(input, 0, from, stream);
  exchange_on_host(from, send, to, receive).wait();
  copy_up(to, output, 0, stream);
}

Communicator::Bytes Communicator::staging(Device device, int64_t bytes) {
  if (!staging_ || staging_->bytes() < bytes) {
    staging_.reset();
    staging_ = std::make_unique<HostMemory>(device, std::max<int64_t>(bytes, 1));
  }
  return {static_cast<std::byte*>(staging_->data()), static_cast<size_t>(bytes)};
}

}  // namespace ziggurat
