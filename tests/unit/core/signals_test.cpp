#include <algorithm>
#include <atomic>
#include <chrono>
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

// The matrix library keeps its operands where the stack pointer lies: a frame of a handler there would go over
// the heap, which the next vectors find out.
void multiply(int64_t n) {
  const std::vector<float> a(static_cast<size_t>(n * n), 1), b(static_cast<size_t>(n * n), 2);
  std::vector<float> c(static_cast<size_t>(n * n), 0);
  Arena workspace("workspace", Arena::kUnlimited);
  Stream stream;
  kernels::gemm<Device::cpu>(
      kernels::GemmArgs<float, float>{false, true, n, n, n, a.data(), n, b.data(), n, c.data(), n}, workspace,
      stream);
  const auto right = static_cast<float>(2 * n);
  if (!std::all_of(c.begin(), c.end(), [&](float x) { return x == right; })) ::_exit(1);
}

TEST(Signals, MayComeAtAnyPointOfAProduct) {
  EXPECT_EXIT(
      {
        handle_signal(SIGUSR1, [](int) { ++handled; });
        {
          const Storm storm;
          while (handled < 20000) multiply(64 + handled % 200);
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
