// Ranks as threads that can exchange texts: all that a checkpoint asks of a communicator.
#pragma once

#include <barrier>
#include <exception>
#include <functional>
#include <thread>

#include <ziggurat/comm/communicator.h>

namespace ziggurat::test {

struct TextBoard {
  explicit TextBoard(int n) : texts(static_cast<size_t>(n)), meet(n) {}
  std::vector<std::string> texts;
  std::barrier<> meet;
};

class TextRank : public Communicator {
 public:
  TextRank(TextBoard& board, int rank) : board_(board), rank_(rank) {}
  int rank() const override { return rank_; }
  int size() const override { return static_cast<int>(board_.texts.size()); }
  void barrier() override { board_.meet.arrive_and_wait(); }
  std::vector<std::string> all_gather_text(const std::string& text) override {
    board_.texts[static_cast<size_t>(rank_)] = text;
    barrier();
    auto all = board_.texts;
    barrier();
    return all;
  }
  std::unique_ptr<Communicator> split(int, int, const std::string&) override { no(); }
  Work broadcast(const Tensor&, int, Stream&) override { no(); }
  Work all_reduce(const Tensor&, ReduceOp, ReduceOrder, Stream&) override { no(); }
  Work all_gather(const Tensor&, const Tensor&, Stream&) override { no(); }
  Work reduce_scatter(const Tensor&, const Tensor&, ReduceOrder, Stream&) override { no(); }
  Work all_to_all(const Tensor&, const Tensor&, Stream&) override { no(); }
  Work all_to_all_v(const Tensor&, std::span<const int64_t>, const Tensor&, std::span<const int64_t>,
                    Stream&) override {
    no();
  }

 private:
  [[noreturn]] static void no() { fail(ErrorKind::internal, "texts only"); }
  TextBoard& board_;
  int rank_;
};

inline std::unique_ptr<Communicator> make_self_communicator() {
  static TextBoard board(1);
  return std::make_unique<TextRank>(board, 0);
}

inline void run_on_threads(int ranks, const std::function<void(Communicator&)>& body) {
  TextBoard board(ranks);
  std::vector<std::exception_ptr> errors(static_cast<size_t>(ranks));
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      TextRank comm(board, r);
      try {
        body(comm);
      } catch (...) {
        errors[static_cast<size_t>(r)] = std::current_exception();
      }
    });
  }
  for (auto& t : threads) t.join();
  for (auto& e : errors) {
    if (e) std::rethrow_exception(e);
  }
}

}  // namespace ziggurat::test
