// Collectives of a group whose ranks lie on several nodes, in two levels: between the ranks of a node, which
// share its memory, and between the ranks that have the same place on every node. N nodes of G ranks; node n,
// place g.
//
// A stage is a collective of a level, under the name and number of the one under way: its errors name both.
#include "comm/levels.h"

#include <algorithm>
#include <array>
#include <bit>
#include <numeric>

#include "comm/host_bytes.h"
#include <ziggurat/core/log.h>

namespace ziggurat {
namespace {

using comm::copy_bytes;
using comm::for_each_chunk;
using comm::slice;
using Bytes = std::span<std::byte>;
using ConstBytes = std::span<const std::byte>;

// By going through its node a block costs bytes (packed, exchanged, packed again, unpacked: some 2 GB/s), and
// saves messages between nodes (some 2 us each to their sender). A message is worth as many bytes as this.
constexpr int64_t kBytesOfAMessage = 4096;

constexpr int64_t kCountBytes = sizeof(int64_t);

// Of a reduce-scatter or all-gather so many chunks are packed at once, in order to send few messages of them.
constexpr int64_t kPackedChunks = 4;

int64_t sum(const std::vector<int64_t>& counts) {
  return std::accumulate(counts.begin(), counts.end(), int64_t{0});
}

Bytes grown(std::vector<std::byte>& memory, int64_t bytes) {
  if (static_cast<int64_t>(memory.size()) < bytes) memory.resize(static_cast<size_t>(bytes));
  return slice(Bytes(memory), 0, bytes);
}

ConstBytes bytes_of(const std::vector<int64_t>& v) { return std::as_bytes(std::span(v)); }

}  // namespace

void Communicator::use_nodes(const NodeOptions& options) {
  begin("use_nodes", 0);
  check(options.node >= 0, ErrorKind::argument, "{} a node's number must not be negative, got {}", where(),
        options.node);
  node_options_ = options;
  levels_.reset();
  nodes_ = 1;
  if (size_ == 1) return;
  using Told = std::array<int64_t, 3>;
  const Told mine = {options.node, static_cast<int64_t>(options.all_to_all), options.sums_from};
  std::vector<Told> all(static_cast<size_t>(size_));
  do_all_gather(std::as_bytes(std::span(&mine, 1)), std::as_writable_bytes(std::span(all)));
  std::vector<int64_t> ids;  // of nodes, in the order of their first ranks
  node_of_.clear();
  for (int r = 0; r < size_; ++r) {
    const Told& told = all[static_cast<size_t>(r)];
    check(told[1] == mine[1] && told[2] == mine[2], ErrorKind::communication,
          "{} rank {} exchanges by other options: give every rank the same config", where(), r);
    const auto known = std::find(ids.begin(), ids.end(), told[0]);
    node_of_.push_back(static_cast<int>(known - ids.begin()));
    if (known == ids.end()) ids.push_back(told[0]);
  }
  std::vector<int> ranks_of(ids.size(), 0);
  for (const int node : node_of_) ranks_of[static_cast<size_t>(node)]++;
  const auto [fewest, most] = std::minmax_element(ranks_of.begin(), ranks_of.end());
  if (ids.size() == 1 || *most == 1) return;
  if (*fewest < *most) {
    info("collectives of '{}' stay flat: its {} nodes hold {} to {} ranks, and not equally many", name_,
         ids.size(), *fewest, *most);
    return;
  }
  make_levels(options);
}

void Communicator::make_levels(const NodeOptions& options) {
  const int here = node_of_[static_cast<size_t>(rank_)];
  const auto place = std::count(node_of_.begin(), node_of_.begin() + rank_, here);
  auto levels = std::make_unique<Levels>();
  levels->inside = do_split(here, rank_, name_ + ", inside nodes");
  levels->between = do_split(static_cast<int>(place), here, name_ + ", between nodes");
  const int N = levels->nodes(), G = levels->places();
  levels->rank_at.resize(static_cast<size_t>(size_));
  std::vector<int> next(static_cast<size_t>(N), 0);  // place of a node
  for (int r = 0; r < size_; ++r) {
    const int node = node_of_[static_cast<size_t>(r)];
    levels->rank_at[static_cast<size_t>(node * G + next[static_cast<size_t>(node)]++)] = r;
  }
  levels->in_order = std::is_sorted(levels->rank_at.begin(), levels->rank_at.end());
  levels->all_to_all = options.all_to_all;
  levels->sums_from = options.sums_from;
  const int64_t saved = int64_t{N - 1} * (G - 1);  // messages between nodes: (N - 1) G became N - 1
  levels->small_block = saved * kBytesOfAMessage / size_;
  const auto p = static_cast<size_t>(size_), n = static_cast<size_t>(N), g = static_cast<size_t>(G);
  for (auto* counts :
       {&levels->to_pass, &levels->passed, &levels->passed_at, &levels->send_at, &levels->receive_at}) {
    counts->resize(p);
  }
  levels->inside_send.resize(g), levels->inside_receive.resize(g);
  levels->between_send.resize(n), levels->between_receive.resize(n);
  levels->count_bytes.assign(g, N * kCountBytes);
  levels_ = std::move(levels);
  nodes_ = N;
}

// In the order of the tree, groups of consecutive ranks are subtrees: those of a node are summed first.
bool Communicator::sums_by_nodes(int64_t bytes, ReduceOrder order) const {
  return levels_ && bytes >= levels_->sums_from && (order == ReduceOrder::any || levels_->in_order);
}

void Communicator::begin_stage(Communicator& level, int64_t bytes) const {
  level.last_ = {last_.sequence, last_.name, bytes};
}

// Each rank of a node sums a part of all, exchanges its sums with those of its place, and hands them out.
void Communicator::levels_all_reduce(Bytes buffer, DType dtype, ReduceOrder order) {
  Communicator &inside = *levels_->inside, &between = *levels_->between;
  const int64_t unit = int64_t{inside.size()} * size_of(dtype), bytes = static_cast<int64_t>(buffer.size());
  const int64_t part = bytes / unit * size_of(dtype);
  const Bytes even = slice(buffer, 0, part * inside.size()), mine = slice(even, part * inside.rank(), part);
  begin_stage(inside, part * inside.size());
  inside.reduce_blocks(even, mine, dtype);
  begin_stage(between, part);
  between.reduce_all(mine, dtype, ReduceOp::sum, order);
  begin_stage(inside, part);
  inside.do_all_gather(mine, even);
  // Fewer elements than a node has ranks.
  if (part * inside.size() < bytes) {
    reduce_all(slice(buffer, part * inside.size(), bytes - part * inside.size()), dtype, ReduceOp::sum,
               order);
  }
}

// Rank g of a node sums the node's blocks for place g of every node, and then its own block with those of its
// place.
void Communicator::levels_reduce_scatter(ConstBytes input, Bytes output, DType dtype) {
  Communicator &inside = *levels_->inside, &between = *levels_->between;
  const int N = levels_->nodes(), G = levels_->places();
  const auto block = static_cast<int64_t>(output.size());
  const int64_t chunk = std::max<int64_t>(8, kPackedChunks * reduce_chunk_bytes_ / size_ / 8 * 8);
  for_each_chunk(block, chunk, [&](int64_t begin, int64_t n) {
    const Bytes packed = grown(levels_->leaving, size_ * n),
                sums = slice(packed, inside.rank() * N * n, N * n);
    for (int g = 0, at = 0; g < G; ++g) {
      for (int node = 0; node < N; ++node, ++at) {
        copy_bytes(slice(input, levels_->rank(node, g) * block + begin, n), slice(packed, at * n, n));
      }
    }
    begin_stage(inside, size_ * n);
    inside.reduce_blocks(packed, sums, dtype);
    begin_stage(between, N * n);
    between.reduce_blocks(sums, slice(output, begin, n), dtype);
  });
}

// Rank g of a node gets the blocks of place g of every node, and hands them out.
void Communicator::levels_all_gather(ConstBytes input, Bytes output) {
  Communicator &inside = *levels_->inside, &between = *levels_->between;
  const int N = levels_->nodes(), G = levels_->places();
  const auto block = static_cast<int64_t>(input.size());
  const int64_t chunk = std::max<int64_t>(8, kPackedChunks * reduce_chunk_bytes_ / size_ / 8 * 8);
  for_each_chunk(block, chunk, [&](int64_t begin, int64_t n) {
    const Bytes packed = grown(levels_->leaving, size_ * n),
                mine = slice(packed, inside.rank() * N * n, N * n);
    begin_stage(between, n);
    between.do_all_gather(slice(input, begin, n), mine);
    begin_stage(inside, N * n);
    inside.do_all_gather(mine, packed);
    for (int g = 0, at = 0; g < G; ++g) {
      for (int node = 0; node < N; ++node, ++at) {
        copy_bytes(slice(ConstBytes(packed), at * n, n),
                   slice(output, levels_->rank(node, g) * block + begin, n));
      }
    }
  });
}

// All ranks decide alike. They know each other's blocks where all are equal; of others they tell each other
// the most that any of them has sent, at the first call, the second, the fourth, and so on.
bool Communicator::exchanges_by_nodes(const std::vector<int64_t>& send, bool even) {
  if (!levels_ || levels_->all_to_all == AllToAll::flat) return false;
  if (levels_->all_to_all == AllToAll::hierarchical) return true;
  if (even) return send[0] < levels_->small_block;
  levels_->most_sent = std::max(levels_->most_sent, std::accumulate(send.begin(), send.end(), int64_t{0}));
  if (std::has_single_bit(static_cast<uint64_t>(++levels_->calls))) {
    auto most = static_cast<double>(levels_->most_sent);
    do_all_reduce(std::as_writable_bytes(std::span(&most, 1)), DType::f64, ReduceOp::max);
    levels_->agreed_most = static_cast<int64_t>(most);
  }
  return levels_->agreed_most / size_ < levels_->small_block;
}

void Communicator::exchange_stage(Communicator& level, Traffic& traffic, ConstBytes input,
                                  const std::vector<int64_t>& send, Bytes output,
                                  const std::vector<int64_t>& receive) {
  for (int r = 0; r < level.size_; ++r) {
    const int64_t bytes = send[static_cast<size_t>(r)];
    if (r != level.rank_ && bytes > 0) traffic.messages++, traffic.bytes += bytes;
  }
  begin_stage(level, static_cast<int64_t>(input.size()));
  level.do_all_to_all_v(input, send, output, receive).wait();
}

// Rank g of a node gets what its peers have for the ranks of place g, and sends each of these its node's
// blocks in one message. Where blocks differ, peers first tell it their sizes, and its messages begin with
// them.
void Communicator::levels_all_to_all_v(ConstBytes input, const std::vector<int64_t>& send, Bytes output,
                                       const std::vector<int64_t>& receive) {
  Levels& l = *levels_;
  const int N = l.nodes(), G = l.places();
  const auto at = [N](int place, int node) { return static_cast<size_t>(place * N + node); };
  const auto rank_at = [&l](int place, int node) { return static_cast<size_t>(l.rank(node, place)); };
  const auto each = [N, G](const auto& body) {
    for (int g = 0; g < G; ++g) {
      for (int n = 0; n < N; ++n) body(g, n);
    }
  };
  const bool even = &send == &receive;

  each([&](int g, int n) { l.to_pass[at(g, n)] = send[rank_at(g, n)]; });
  if (even) {
    l.passed = l.to_pass;
  } else {
    exchange_stage(*l.inside, traffic_.inside, bytes_of(l.to_pass), l.count_bytes,
                   std::as_writable_bytes(std::span(l.passed)), l.count_bytes);
  }

  // Inside: blocks by (place, node).
  std::exclusive_scan(send.begin(), send.end(), l.send_at.begin(), int64_t{0});
  std::exclusive_scan(l.passed.begin(), l.passed.end(), l.passed_at.begin(), int64_t{0});
  const auto of_peer = [&](const std::vector<int64_t>& counts, int g) {
    return std::accumulate(counts.begin() + g * N, counts.begin() + (g + 1) * N, int64_t{0});
  };
  for (int g = 0; g < G; ++g) {
    l.inside_send[static_cast<size_t>(g)] = of_peer(l.to_pass, g);
    l.inside_receive[static_cast<size_t>(g)] = of_peer(l.passed, g);
  }
  Bytes leaving = grown(l.leaving, sum(l.inside_send)), arriving = grown(l.arriving, sum(l.inside_receive));
  int64_t end = 0;
  const auto append = [&](ConstBytes bytes) {
    copy_bytes(bytes, slice(leaving, end, static_cast<int64_t>(bytes.size())));
    end += static_cast<int64_t>(bytes.size());
  };
  each([&](int g, int n) { append(slice(input, l.send_at[rank_at(g, n)], send[rank_at(g, n)])); });
  exchange_stage(*l.inside, traffic_.inside, leaving, l.inside_send, arriving, l.inside_receive);

  // Between: for each node its sizes by place, then blocks by place.
  const int64_t header = even ? 0 : G * kCountBytes;
  for (int n = 0; n < N; ++n) {
    int64_t sent = header, received = header;
    for (int g = 0; g < G; ++g) sent += l.passed[at(g, n)], received += receive[rank_at(g, n)];
    l.between_send[static_cast<size_t>(n)] = sent;
    l.between_receive[static_cast<size_t>(n)] = received;
  }
  const Bytes brought = arriving;
  leaving = grown(l.leaving, sum(l.between_send)), end = 0;
  for (int n = 0; n < N; ++n) {
    for (int g = 0; g < G && !even; ++g) append(std::as_bytes(std::span(&l.passed[at(g, n)], 1)));
    for (int g = 0; g < G; ++g) append(slice(brought, l.passed_at[at(g, n)], l.passed[at(g, n)]));
  }
  arriving = grown(l.arriving, sum(l.between_receive));
  exchange_stage(*l.between, traffic_.between, leaving, l.between_send, arriving, l.between_receive);

  std::exclusive_scan(receive.begin(), receive.end(), l.receive_at.begin(), int64_t{0});
  int64_t begin = 0;
  for (int n = 0; n < N; ++n) {
    for (int g = 0; g < G && !even; ++g, begin += kCountBytes) {
      int64_t sent = 0;
      std::memcpy(&sent, arriving.data() + begin, sizeof sent);
      check(sent == receive[rank_at(g, n)], ErrorKind::communication,
            "{} expects {} bytes from rank {}, which sends {}", where(), receive[rank_at(g, n)],
            rank_at(g, n), sent);
    }
    for (int g = 0; g < G; ++g) {
      const int64_t bytes = receive[rank_at(g, n)];
      copy_bytes(slice(arriving, begin, bytes), slice(output, l.receive_at[rank_at(g, n)], bytes));
      begin += bytes;
    }
  }
}

}  // namespace ziggurat
