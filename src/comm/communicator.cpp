// The checked door of every collective, and the reductions whose order of additions is fixed.
#include <algorithm>
#include <bit>
#include <numeric>

#include "comm/background.h"
#include "comm/begun.h"
#include "comm/host_bytes.h"
#include "comm/levels.h"
#include "comm/noted.h"
#include <ziggurat/comm/communicator.h>
#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/runtime/work_record.h>

namespace ziggurat {
namespace {

using comm::copy_bytes;
using comm::for_each_chunk;
using comm::Noted;
using comm::reduce_into;
using comm::slice;

std::span<std::byte> bytes_of(const Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.raw()), static_cast<size_t>(tensor.bytes())};
}

int64_t row_elements(const Tensor& tensor) {
  int64_t n = 1;
  for (int i = 1; i < tensor.rank(); ++i) n *= tensor.dim(i);
  return n;
}

bool on_host(const Tensor& tensor) { return tensor.device() == Device::cpu; }

// On a group of one. A block may be in place already.
void copy_alone(const Tensor& from, const Tensor& to, Stream& stream) {
  if (from.raw() != to.raw()) copy(from, to, stream);
}

int64_t leading(const Tensor& tensor) { return tensor.rank() == 0 ? 1 : tensor.dim(0); }

}  // namespace

Communicator::Communicator(std::string name, int rank, int size, int64_t reduce_chunk_bytes)
    : name_(std::move(name)), rank_(rank), size_(size), reduce_chunk_bytes_(reduce_chunk_bytes / 8 * 8) {
  check(reduce_chunk_bytes_ > 0, ErrorKind::internal,
        "[communicator] a chunk must hold at least one f64 (8 bytes), got {}", reduce_chunk_bytes);
}

Communicator::~Communicator() { leave_devices(); }

std::string Communicator::where() const {
  return fmt::format("[{} #{} of {} bytes on '{}', rank {} of {}]", last_.name, last_.sequence, last_.bytes,
                     name_, rank_, size_);
}

// Numbers the collective and checks what all of them ask. False: there is no memory to move (a meta device).
bool Communicator::begin(const char* name, const Tensor& input, const Tensor& output, const Stream& stream,
                         bool alike) {
  begin(name, input.bytes(), alike && on_host(input));
  check_alike(input, output);
  check(input.device() != Device::cuda || stream.device() == Device::cuda, ErrorKind::argument,
        "{} tensors of {} need a stream there, got one of {}", where(), to_string(input.device()),
        to_string(stream.device()));
  if (!is_meta(input.device())) return true;
  if (WorkRecord* record = WorkRecord::current(); record != nullptr && size_ > 1) {
    record->add({.kind = WorkItem::Kind::collective,
                 .name = name,
                 .bytes = static_cast<double>(input.bytes()),
                 .along = name_,
                 .ranks = size_});
  }
  return false;
}

void Communicator::check_alike(const Tensor& input, const Tensor& output) const {
  check(input.device() == output.device(), ErrorKind::argument, "{} input is on {}, output on {}", where(),
        to_string(input.device()), to_string(output.device()));
  check(input.dtype() == output.dtype(), ErrorKind::argument, "{} input is {}, output is {}", where(),
        to_string(input.dtype()), to_string(output.dtype()));
}

void Communicator::check_reducible(const Tensor& buffer, ReduceOrder order) const {
  check(buffer.dtype() != DType::bf16, ErrorKind::argument,
        "{} bf16 is not summed over ranks (8 bits of precision): reduce an f32 buffer", where());
  check(order == ReduceOrder::any || std::has_single_bit(static_cast<unsigned>(size_)), ErrorKind::argument,
        "{} a fixed tree needs a power-of-two group: start {} or {} ranks, or use the order `any` "
        "(reproducible: layout)",
        where(), std::bit_floor(static_cast<unsigned>(size_)), std::bit_ceil(static_cast<unsigned>(size_)));
}

void Communicator::check_scatter(const Tensor& input, const Tensor& output, ReduceOrder order) const {
  check_reducible(input, order);
  check(leading(input) == size_ * leading(output) && row_elements(input) == row_elements(output),
        ErrorKind::argument, "{} input {} is not output {} for each of {} ranks", where(), input.shape(),
        output.shape(), size_);
}

void Communicator::check_gather(const Tensor& input, const Tensor& output) const {
  check(leading(output) == size_ * leading(input) && row_elements(output) == row_elements(input),
        ErrorKind::argument, "{} input {} of each of {} ranks does not fill output {}", where(),
        input.shape(), size_, output.shape());
}

std::unique_ptr<Communicator> Communicator::split(int color, int key, const std::string& name) {
  begin("split", 0);
  check(color >= 0, ErrorKind::argument, "{} color must not be negative, got {}", where(), color);
  if (size_ == 1) return make_self_communicator();
  const Noted noted(*this, time());
  std::unique_ptr<Communicator> group = do_split(color, key, name);
  group->devices_ = devices_;
  group->times_ = times_;
  group->background_ = background_;
  if (node_options_) group->use_nodes(*node_options_);
  return group;
}

void Communicator::barrier() {
  begin("barrier", 0, true);
  if (size_ == 1) return;
  const Noted noted(*this, time());
  do_barrier();
}

Work Communicator::broadcast(const Tensor& buffer, int root, Stream& stream) {
  const bool has_memory = begin("broadcast", buffer, buffer, stream, true);
  check(0 <= root && root < size_, ErrorKind::argument, "{} root {} is not in the group", where(), root);
  if (!has_memory || size_ == 1) return {};
  const Noted noted(*this, time());
  if (on_host(buffer)) {
    do_broadcast(bytes_of(buffer), root);
  } else if (goes_between_devices()) {
    device_broadcast(buffer, root, stream);
  } else {
    staged_broadcast(buffer, root, stream);
  }
  return {};
}

void Communicator::await_broadcast(const Tensor& buffer, int root, Stream& stream) {
  const bool has_memory = begin("broadcast", buffer, buffer, stream);
  check(0 <= root && root < size_ && (on_host(buffer) || !has_memory), ErrorKind::argument,
        "{} expected a root of the group and the host's memory, got root {} and memory on {}", where(), root,
        to_string(buffer.device()));
  if (!has_memory || size_ == 1) return;
  const Noted noted(*this, time());
  do_await_broadcast(bytes_of(buffer), root);
}

Work Communicator::all_reduce(const Tensor& buffer, ReduceOp op, ReduceOrder order, Stream& stream) {
  const Span span(stream.profile(), "all_reduce");
  const bool has_memory = begin("all_reduce", buffer, buffer, stream, true);
  check_reducible(buffer, order);
  if (!has_memory || size_ == 1) return {};
  const Noted noted(*this, time());
  if (on_host(buffer)) {
    reduce_on_host(bytes_of(buffer), buffer.dtype(), op, order);
  } else if (goes_between_devices(order, op)) {
    device_all_reduce(buffer, op, stream);
  } else {
    staged_all_reduce(buffer, op, order, stream);
  }
  return {};
}

Work Communicator::all_gather(const Tensor& input, const Tensor& output, Stream& stream) {
  const bool has_memory = begin("all_gather", input, output, stream, true);
  check_gather(input, output);
  if (!has_memory) return {};
  if (size_ == 1) {
    copy_alone(input, output, stream);
    return {};
  }
  const Noted noted(*this, time());
  if (on_host(input)) {
    gather_on_host(bytes_of(input), bytes_of(output));
  } else if (goes_between_devices()) {
    device_all_gather(input, output, stream);
  } else {
    staged_all_gather(input, output, stream);
  }
  return {};
}

Work Communicator::reduce_scatter(const Tensor& input, const Tensor& output, ReduceOrder order,
                                  Stream& stream) {
  const bool has_memory = begin("reduce_scatter", input, output, stream);
  check_scatter(input, output, order);
  if (!has_memory) return {};
  if (size_ == 1) {
    copy_alone(input, output, stream);
    return {};
  }
  const Noted noted(*this, time());
  if (on_host(input)) {
    reduce_blocks_on_host(bytes_of(input), bytes_of(output), input.dtype(), order);
  } else if (goes_between_devices(order)) {
    device_reduce_scatter(input, output, stream);
  } else {
    staged_reduce_scatter(input, output, order, stream);
  }
  return {};
}

CollectiveTime& Communicator::time() {
  for (const auto& [name, time] : time_of_) {
    if (name == last_.name) return *time;
  }
  time_of_.emplace_back(last_.name, &(*times_)[fmt::format("{} on {}", last_.name, name_)]);
  return *time_of_.back().second;
}

Work Communicator::all_to_all(const Tensor& input, const Tensor& output, Stream& stream) {
  const bool has_memory = begin("all_to_all", input, output, stream);
  check(input.shape() == output.shape() && leading(input) % size_ == 0, ErrorKind::argument,
        "{} input {} and output {} must be equal and hold the same number of rows for each of {} ranks",
        where(), input.shape(), output.shape(), size_);
  if (!has_memory) return {};
  if (size_ == 1) {
    copy_alone(input, output, stream);
    return {};
  }
  send_bytes_.assign(static_cast<size_t>(size_), input.bytes() / size_);
  return exchange_blocks(input, send_bytes_, output, send_bytes_, stream);
}

Work Communicator::all_to_all_v(const Tensor& input, std::span<const int64_t> send_rows, const Tensor& output,
                                std::span<const int64_t> recv_rows, Stream& stream) {
  return exchange_rows(input, send_rows, output, recv_rows, stream, false);
}

Work Communicator::begin_all_to_all_v(const Tensor& input, std::span<const int64_t> send_rows,
                                      const Tensor& output, std::span<const int64_t> recv_rows,
                                      Stream& stream) {
  return exchange_rows(input, send_rows, output, recv_rows, stream, true);
}

Work Communicator::exchange_rows(const Tensor& input, std::span<const int64_t> send_rows,
                                 const Tensor& output, std::span<const int64_t> recv_rows, Stream& stream,
                                 bool begin_only) {
  const Span span(stream.profile(), "all_to_all_v");
  const bool has_memory = begin("all_to_all_v", input, output, stream);
  check(input.rank() >= 1 && output.rank() >= 1 && row_elements(input) == row_elements(output),
        ErrorKind::argument, "{} rows of input {} and output {} differ", where(), input.shape(),
        output.shape());
  const int64_t row_bytes = row_elements(input) * size_of(input.dtype());
  const auto in_bytes = [&](std::span<const int64_t> rows, const Tensor& tensor, const char* role,
                            std::vector<int64_t>& counts) {
    check(rows.size() == static_cast<size_t>(size_), ErrorKind::argument,
          "{} {} has {} entries for a group of {}", where(), role, rows.size(), size_);
    counts.clear();
    int64_t sum = 0;
    for (const int64_t n : rows) {
      check(n >= 0, ErrorKind::argument, "{} {} holds the negative count {}", where(), role, n);
      counts.push_back(n * row_bytes);
      sum += n;
    }
    check(sum <= tensor.dim(0), ErrorKind::argument, "{} {} sums to {} rows, the tensor is {}", where(), role,
          sum, tensor.shape());
  };
  in_bytes(send_rows, input, "send_rows", send_bytes_);
  in_bytes(recv_rows, output, "recv_rows", receive_bytes_);
  const size_t self = static_cast<size_t>(rank_);
  check(send_bytes_[self] == receive_bytes_[self], ErrorKind::argument,
        "{} sends itself {} rows and expects {}", where(), send_rows[self], recv_rows[self]);
  if (!has_memory) return {};
  if (size_ == 1) {
    copy_alone(input.rows(0, send_rows[0]), output.rows(0, send_rows[0]), stream);
    return {};
  }
  return exchange_blocks(input, send_bytes_, output, receive_bytes_, stream, begin_only);
}

Work Communicator::exchange_blocks(const Tensor& input, const std::vector<int64_t>& send,
                                   const Tensor& output, const std::vector<int64_t>& receive, Stream& stream,
                                   bool begin_only) {
  const Noted noted(*this, time());
  if (on_host(input)) return exchange_on_host(bytes_of(input), send, bytes_of(output), receive);
  if (goes_between_devices()) {
    count_flat(send);
    if (begin_only) {
      Stream& exchanges = beside(stream, Beside::exchanges);
      device_all_to_all_v(input, send, output, receive, exchanges);
      return done_beside(exchanges, stream);
    }
    device_all_to_all_v(input, send, output, receive, stream);
  } else {
    staged_all_to_all_v(input, send, output, receive, stream);
  }
  return {};
}

Work Communicator::exchange_on_host(ConstBytes input, const std::vector<int64_t>& send, Bytes output,
                                    const std::vector<int64_t>& receive) {
  if (exchanges_by_nodes(send, &send == &receive)) {
    levels_all_to_all_v(input, send, output, receive);
    return {};
  }
  count_flat(send);
  return do_all_to_all_v(input, send, output, receive);
}

void Communicator::count_flat(const std::vector<int64_t>& send) {
  for (size_t r = 0; r < send.size(); ++r) {
    if (send[r] == 0 || r == static_cast<size_t>(rank_)) continue;
    const bool near = node_of_.empty() || node_of_[r] == node_of_[static_cast<size_t>(rank_)];
    Traffic& traffic = near ? traffic_.inside : traffic_.between;
    traffic.messages++, traffic.bytes += send[r];
  }
}

void Communicator::reduce_on_host(Bytes buffer, DType dtype, ReduceOp op, ReduceOrder order) {
  if (op == ReduceOp::sum && sums_by_nodes(static_cast<int64_t>(buffer.size()), order)) {
    return levels_all_reduce(buffer, dtype, order);
  }
  reduce_all(buffer, dtype, op, order);
}

void Communicator::reduce_blocks_on_host(ConstBytes input, Bytes output, DType dtype, ReduceOrder order) {
  if (sums_by_nodes(static_cast<int64_t>(input.size()), order)) {
    return levels_reduce_scatter(input, output, dtype);
  }
  reduce_blocks(input, output, dtype);
}

void Communicator::gather_on_host(ConstBytes input, Bytes output) {
  if (sums_by_nodes(static_cast<int64_t>(output.size()), ReduceOrder::any)) {
    return levels_all_gather(input, output);
  }
  do_all_gather(input, output);
}

std::vector<std::string> Communicator::all_gather_text(const std::string& text) {
  begin("all_gather_text", static_cast<int64_t>(text.size()));
  if (size_ == 1) return {text};
  const Noted noted(*this, time());
  const auto n = static_cast<size_t>(size_);
  // Two rounds, lengths and then text padded to the longest, so that every rank sends equally much.
  const uint64_t length = text.size();
  std::vector<uint64_t> lengths(n);
  do_all_gather(std::as_bytes(std::span(&length, 1)), std::as_writable_bytes(std::span(lengths)));
  const size_t longest = *std::max_element(lengths.begin(), lengths.end());
  std::string padded = text, all(longest * n, '\0');
  padded.resize(longest);
  do_all_gather(std::as_bytes(std::span(padded)), std::as_writable_bytes(std::span(all)));
  std::vector<std::string> texts;
  for (size_t r = 0; r < n; ++r) texts.push_back(all.substr(r * longest, lengths[r]));
  return texts;
}

void Communicator::reduce_all(Bytes buffer, DType dtype, ReduceOp op, ReduceOrder order) {
  if (order == ReduceOrder::fixed_tree && op == ReduceOp::sum) return tree_all_reduce(buffer, dtype);
  for_each_chunk(static_cast<int64_t>(buffer.size()), reduce_chunk_bytes_,
                 [&](int64_t begin, int64_t n) { do_all_reduce(slice(buffer, begin, n), dtype, op); });
}

void Communicator::reduce_blocks(ConstBytes input, Bytes output, DType dtype) {
  if (std::has_single_bit(static_cast<unsigned>(size_))) return tree_reduce_scatter(input, output, dtype);
  gathered_reduce_scatter(input, output, dtype);
}

// Recursive doubling: after the step of width s a rank holds the sum over its aligned group of 2s ranks. Both
// partners compute a + b of the same two values, and addition commutes, so all ranks end with the same bits.
void Communicator::tree_all_reduce(Bytes buffer, DType dtype) {
  for_each_chunk(static_cast<int64_t>(buffer.size()), reduce_chunk_bytes_,
                 [&](int64_t begin, int64_t length) {
                   const Bytes mine = slice(buffer, begin, length), theirs = scratch(length);
                   for (int step = 1; step < size_; step *= 2) {
                     do_exchange(rank_ ^ step, mine, theirs);
                     reduce_into(mine, mine, theirs, dtype, ReduceOp::sum);
                   }
                 });
}

// Recursive halving of the same tree: before the step of width s this rank holds partial sums of the blocks
// b = rank mod s, over its aligned group of s ranks; it keeps those with b = rank mod 2s and gives the others
// to its partner. A chunk of every block goes through all steps before the next chunk, so the partial sums
// stay in cache, and `output` may be this rank's block of `input`.
void Communicator::tree_reduce_scatter(ConstBytes input, Bytes output, DType dtype) {
  const auto block_bytes = static_cast<int64_t>(output.size());
  for_each_chunk(block_bytes, reduce_chunk_bytes_, [&](int64_t begin, int64_t length) {
    const Bytes memory = scratch((size_ / 2 + 1) * length);
    const Bytes theirs = slice(memory, size_ / 2 * length, length);
    const auto sum = [&](int i) { return slice(memory, i * length, length); };
    for (int step = 1; step < size_; step *= 2) {
      const int keep = (rank_ / step) % 2, give = 1 - keep;
      for (int i = 0; i < size_ / (2 * step); ++i) {
        // The i-th pair of blocks held: straight from the input at first, then from the partial sums.
        const auto held = [&](int j) -> ConstBytes {
          return step == 1 ? slice(input, (2 * i + j) * block_bytes + begin, length) : sum(2 * i + j);
        };
        do_exchange(rank_ ^ step, held(give), theirs);
        reduce_into(sum(i), held(keep), theirs, dtype, ReduceOp::sum);
      }
    }
    copy_bytes(sum(0), slice(output, begin, length));
  });
}

// For groups that are no power of two: all-reduce a packed piece of every block, keep one's own.
void Communicator::gathered_reduce_scatter(ConstBytes input, Bytes output, DType dtype) {
  const auto block_bytes = static_cast<int64_t>(output.size());
  const int64_t chunk = std::max<int64_t>(8, reduce_chunk_bytes_ / size_ / 8 * 8);
  for_each_chunk(block_bytes, chunk, [&](int64_t begin, int64_t length) {
    const Bytes packed = scratch(size_ * length);
    for (int r = 0; r < size_; ++r) {
      copy_bytes(slice(input, r * block_bytes + begin, length), slice(packed, r * length, length));
    }
    for_each_chunk(size_ * length, reduce_chunk_bytes_,
                   [&](int64_t at, int64_t n) { do_all_reduce(slice(packed, at, n), dtype, ReduceOp::sum); });
    copy_bytes(slice(Bytes(packed), rank_ * length, length), slice(output, begin, length));
  });
}

Communicator::Bytes Communicator::scratch(int64_t bytes) {
  if (static_cast<int64_t>(scratch_.size()) < bytes) scratch_.resize(static_cast<size_t>(bytes));
  return slice(Bytes(scratch_), 0, bytes);
}

}  // namespace ziggurat
