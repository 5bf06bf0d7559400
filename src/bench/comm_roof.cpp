#include <algorithm>
#include <cstring>
#include <functional>
#include <numeric>

#include <ziggurat/bench/comm_roof.h>
#include <ziggurat/core/timer.h>

namespace ziggurat::bench {

namespace {

constexpr int kFewestTries = 3, kMostTries = 200;
constexpr double kSecondsPerSize = 0.4;  // of tries, once the fewest are done

struct Bench {
  const char* name;
  double moved;  // of a message of one byte on many ranks: bytes that a rank must get
  std::function<void(Communicator&, const Tensor&, const Tensor&)> run;
};

Tensor block_of(const Tensor& t, const Communicator& c) {
  const int64_t n = t.numel() / c.size();
  return t.rows(c.rank() * n, (c.rank() + 1) * n);
}

std::vector<Bench> benches(Stream& stream) {
  return {{"all_reduce", 2,
           [&](Communicator& c, const Tensor& x, const Tensor&) {
             c.all_reduce(x, ReduceOp::sum, ReduceOrder::any, stream).wait();
           }},
          {"reduce_scatter", 1,
           [&](Communicator& c, const Tensor& x, const Tensor& y) {
             c.reduce_scatter(x, block_of(y, c), ReduceOrder::any, stream).wait();
           }},
          {"all_gather", 1,
           [&](Communicator& c, const Tensor& x, const Tensor& y) {
             c.all_gather(block_of(x, c), y, stream).wait();
           }},
          {"all_to_all", 1,
           [&](Communicator& c, const Tensor& x, const Tensor& y) { c.all_to_all(x, y, stream).wait(); }}};
}

int64_t messages(const Communicator& c) { return c.traffic().inside.messages + c.traffic().between.messages; }

}  // namespace

std::vector<CollectiveTime> measure_collectives(Communicator& ours, Communicator* by_nodes, Communicator& mpi,
                                                const std::vector<int64_t>& message_bytes) {
  check(ours.size() >= 2, ErrorKind::config, "collectives need peers: start this by `mpirun -n 2` or more");
  Stream stream;
  std::vector<CollectiveTime> times;
  double spent = 0;
  const auto seconds_of = [&](const auto& body) {
    ours.barrier();
    const Timer timer;
    body();
    double seconds = timer.seconds();
    ours.all_reduce(Tensor(&seconds, DType::f64, {1}), ReduceOp::max, ReduceOrder::any, stream).wait();
    spent += seconds;
    return seconds;
  };
  for (const Bench& bench : benches(stream)) {
    for (const int64_t bytes : message_bytes) {
      const int64_t n = bytes / 4 / ours.size() * ours.size();
      std::vector<float> in(static_cast<size_t>(n), 0.0f), out(static_cast<size_t>(n), 0.0f);
      const Tensor x(in.data(), DType::f32, {n}), y(out.data(), DType::f32, {n});
      const double share = bench.moved * static_cast<double>(ours.size() - 1) / ours.size();
      const auto copied = static_cast<size_t>(share * static_cast<double>(x.bytes()));
      CollectiveTime best{.name = bench.name, .bytes = bytes, .ours = 1e9, .mpi = 1e9, .copy = 1e9};
      best.messages = -messages(ours);
      bench.run(ours, x, y);
      best.messages += messages(ours);
      if (by_nodes != nullptr) {
        best.by_nodes = 1e9, best.messages_by_nodes = -messages(*by_nodes);
        bench.run(*by_nodes, x, y);
        best.messages_by_nodes += messages(*by_nodes);
      }
      spent = 0;  // the same on every rank, and so is the number of tries
      for (int i = 0; i < kFewestTries || (i < kMostTries && spent < kSecondsPerSize); ++i) {
        best.ours = std::min(best.ours, seconds_of([&] { bench.run(ours, x, y); }));
        if (by_nodes != nullptr) {
          best.by_nodes = std::min(best.by_nodes, seconds_of([&] { bench.run(*by_nodes, x, y); }));
        }
        best.mpi = std::min(best.mpi, seconds_of([&] { bench.run(mpi, x, y); }));
        best.copy = std::min(best.copy, seconds_of([&] {
                               for (size_t at = 0; at < copied;) {
                                 const size_t piece = std::min(copied - at, in.size() * sizeof(float));
                                 std::memcpy(out.data(), in.data(), piece);
                                 at += piece;
                               }
                             }));
      }
      times.push_back(best);
    }
  }
  return times;
}

}  // namespace ziggurat::bench
