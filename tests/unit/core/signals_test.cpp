#include <algorithm>
#include <atomic>
#include <chrono>
#include <random>
#include <thread>
#include <vector>

#include <gtest/gtest.h>
#include <pthread.h>
#include <unistd.h>

#include <ziggurat/core/signals.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

std::atomic<int> handled = 0;

// SIGUSR1 to this process, again and again.
class Storm {
 public:
  ~Storm() {
    ends_ = true;
    thread_.join();
  }

 private:
  std::atomic<bool> ends_ = false;
  std::thread thread_{[this] {
    for (; !ends_; std::this_thread::sleep_for(std::chrono::microseconds(10))) ::kill(::getpid(), SIGUSR1);
  }};
};

// The matrix library's code lets the stack pointer lie in its operands' copies: a frame of a handler there
// would go over the heap, which the next vectors find out.
void multiply(std::minstd_rand& random, Arena& workspace, Stream& stream) {
  const auto any_size = [&] { return static_cast<int64_t>(1 + random() % 400); };
  const int64_t m = any_size(), n = any_size(), k = any_size();
  const bool ta = random() % 2 == 0, tb = random() % 2 == 0;
  const std::vector<float> a(static_cast<size_t>(m * k), 1), b(static_cast<size_t>(k * n), 2);
  std::vector<float> c(static_cast<size_t>(m * n), 0);
  const kernels::GemmArgs<float, float> product{ta,         tb,       m,          n,        k, a.data(),
                                                ta ? m : k, b.data(), tb ? k : n, c.data(), n};
  kernels::gemm<Device::cpu>(product, workspace, stream);
  const auto right = static_cast<float>(2 * k);
  if (!std::all_of(c.begin(), c.end(), [&](float x) { return x == right; })) ::_exit(1);
}

// In processes of their own, which have no other threads yet.
TEST(Signals, MayComeAtAnyPointOfAProduct) {
  for (const int threads : {1, 2}) {
    EXPECT_EXIT(
        {
          take_signals_elsewhere();
          handle_signal(SIGUSR1, [](int) { ++handled; });
          assume_thread_count(threads);
          {
            Arena workspace("workspace", int64_t{1} << 26);
            Stream stream;
            const Storm storm;
            for (std::minstd_rand random; handled < 4000;) multiply(random, workspace, stream);
          }
          ::_exit(0);
        },
        testing::ExitedWithCode(0), "")
        << threads << " threads";
  }
}

TEST(Signals, FaultsAreHandledOnAnotherStackThanTheThreads) {
  EXPECT_EXIT(
      {
        static std::atomic<const char*> in_handler = nullptr;
        handle_signal(SIGFPE, [](int) {
          const char local = 0;
          in_handler = &local;
        });
        const char local = 0;
        ::raise(SIGFPE);
        const auto distance =
            reinterpret_cast<intptr_t>(&local) - reinterpret_cast<intptr_t>(in_handler.load());
        ::_exit(in_handler != nullptr && std::abs(distance) > 1 << 20 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST(Signals, ComeToAThreadOfTheirOwn) {
  EXPECT_EXIT(
      {
        static std::atomic<bool> elsewhere = false;
        static const pthread_t here = ::pthread_self();
        take_signals_elsewhere();
        handle_signal(SIGTERM, [](int) {
          elsewhere = ::pthread_equal(::pthread_self(), here) == 0;
          ++handled;
        });
        ::kill(::getpid(), SIGTERM);
        while (handled == 0) std::this_thread::yield();
        ::_exit(elsewhere ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

TEST(Signals, EndAProcessThatDoesNotHandleThem) {
  EXPECT_EXIT(
      {
        take_signals_elsewhere();
        ::kill(::getpid(), SIGTERM);
        for (;;) ::pause();
      },
      testing::KilledBySignal(SIGTERM), "");
}

}  // namespace
}  // namespace ziggurat
