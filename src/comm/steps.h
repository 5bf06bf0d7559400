// A function that gives way where it would have to wait, and goes on from there.
//
//   Steps send(...) {
//     while (!can_send()) co_await Steps::give_way();
//     ...
//   }
#pragma once

#include <coroutine>
#include <exception>
#include <utility>

namespace ziggurat::comm {

class Steps {
 public:
  struct promise_type {
    std::exception_ptr error;
    Steps get_return_object() { return Steps(std::coroutine_handle<promise_type>::from_promise(*this)); }
    std::suspend_always initial_suspend() noexcept { return {}; }
    std::suspend_always final_suspend() noexcept { return {}; }
    void return_void() {}
    void unhandled_exception() { error = std::current_exception(); }
  };
  static std::suspend_always give_way() { return {}; }

  Steps(Steps&& other) noexcept : handle_(std::exchange(other.handle_, {})) {}
  Steps& operator=(Steps&&) = delete;
  ~Steps() {
    if (handle_) handle_.destroy();
  }

  // On to where it gives way, or to its end. True: it is done. Throws what it threw.
  bool advance() {
    if (!handle_.done()) handle_.resume();
    if (handle_.promise().error) std::rethrow_exception(std::exchange(handle_.promise().error, nullptr));
    return handle_.done();
  }

 private:
  explicit Steps(std::coroutine_handle<promise_type> handle) : handle_(handle) {}
  std::coroutine_handle<promise_type> handle_;
};

}  // namespace ziggurat::comm
