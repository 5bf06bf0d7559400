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

namespace ziggurat {
namespace {

std::atomic<int> handled = 0;

// SIGUSR1 to the thread that made it, again and again.
class Storm {
 public:
  Storm() {
    const SignalsElsewhere elsewhere;
    thread_ = std::thread([this, to = ::pthread_self()] {
      for (; !ends_; std::this_thread::sleep_for(std::chrono::microseconds(20))) ::pthread_kill(to, SIGUSR1);
    });
  }
  ~Storm() {
    ends_ = true;
    thread_.join();
  }
  Storm(const Storm&) = delete;
  Storm& operator=(const Storm&) = delete;

 private:
  std::atomic<bool> ends_ = false;
  std::thread thread_;
};

// The matrix library's code lets the stack pointer lie in its operands' copies: a frame of a handler there
// would go over the heap, which the next vectors find out.
void multiply(std::minstd_rand& random) {
  const auto any_size = [&] { return static_cast<int64_t>(1 + random() % 400); };
  const int64_t m = any_size(), n = any_size(), k = any_size();
  const std::vector<float> a(static_cast<size_t>(m * k), 1), b(static_cast<size_t>(k * n), 2);
  std::vector<float> c(static_cast<size_t>(m * n), 0);
  const bool ta = random() % 2 == 0, tb = random() % 2 == 0;
  kernels::gemm_on_this_thread<Device::cpu>(kernels::GemmArgs<float, float>{
      ta, tb, m, n, k, a.data(), ta ? m : k, b.data(), tb ? k : n, c.data(), n});
  const auto right = static_cast<float>(2 * k);
  if (!std::all_of(c.begin(), c.end(), [&](float x) { return x == right; })) ::_exit(1);
}

TEST(Signals, MayComeAtAnyPointOfAProduct) {
  EXPECT_EXIT(
      {
        handle_signal(SIGUSR1, [](int) { ++handled; });
        {
          const Storm storm;
          for (std::minstd_rand random; handled < 10000;) multiply(random);
        }
        ::_exit(0);
      },
      testing::ExitedWithCode(0), "");
}

TEST(Signals, ThreadsStartedElsewhereTakeNoneFromOutside) {
  EXPECT_EXIT(
      {
        static std::atomic<bool> by_main = false;
        static const pthread_t main_thread = ::pthread_self();
        handle_signal(SIGUSR1, [](int) {
          by_main = ::pthread_equal(::pthread_self(), main_thread) != 0;
          ++handled;
        });
        std::atomic<bool> ends = false;
        std::thread other;
        {
          const SignalsElsewhere elsewhere;
          other = std::thread([&] {
            ::kill(::getpid(), SIGUSR1);
            while (!ends) std::this_thread::yield();
          });
        }
        while (handled == 0) std::this_thread::yield();
        ends = true;
        other.join();
        ::_exit(by_main && handled == 1 ? 0 : 1);
      },
      testing::ExitedWithCode(0), "");
}

}  // namespace
}  // namespace ziggurat
