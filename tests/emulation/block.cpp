#include "tests/emulation/block.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <memory>
#include <numeric>

#include <boost/context/detail/fcontext.hpp>
#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include "tests/emulation/device_memory.h"

namespace ziggurat::emulation {

namespace {

namespace context = boost::context::detail;

constexpr int kMaxThreads = 1024, kBarriers = 16;
constexpr size_t kStack = 128 * 1024, kGuard = 4096;  // of a fiber

// What a thread waits for.
struct Wait {
  enum Kind { nothing, barrier, exchange } kind = nothing;
  const char* name = "";
  Site site{};
  int barrier_id = 0, barrier_threads = 0;
  uint32_t mask = 0;
  Combine combine = nullptr;
  uint64_t value = 0, argument = 0, result = 0;
};

struct AsyncCopy {
  void* to;
  const void* from;
  size_t bytes, zeros;
  size_t group;  // of its thread's, in the order of their commits
};

struct Thread {
  enum State { unstarted, ready, waiting, done } state = unstarted;
  int fiber = -1;
  Wait wait;
  std::vector<AsyncCopy> copies;  // under way
  size_t groups = 0;              // committed
};

struct Barrier {
  int arrived = 0, threads = 0, predicates = 0;
  int first = -1;  // thread that came first
};

class Block;
thread_local Block* running = nullptr;  // the block that this thread of the host runs

class Block {
 public:
  Block();
  ~Block() { munmap(reinterpret_cast<void*>(stacks_), kMaxThreads * kStack); }
  Block(const Block&) = delete;
  Block& operator=(const Block&) = delete;

  void run_grid(const Launch& launch, Random& random, KernelCounts& counts, const std::vector<Range>& pinned);

  // Called on fibers.
  int rank() const { return current_; }
  Index thread() const;
  Index index() const { return index_; }
  const Launch& launch() const { return *launch_; }
  int barrier(const Wait& wait, bool predicate);
  uint64_t exchange(const Wait& wait);
  void access(uintptr_t address, size_t bytes, Access kind, uintptr_t site) {
    accesses_.access(current_, address, bytes, kind, site);
  }
  void begin_copy(void* to, const void* from, size_t bytes, size_t zeros) {
    of(current_).copies.push_back({to, from, bytes, zeros, of(current_).groups});
  }
  void commit_copies() { ++of(current_).groups; }
  void finish_copies(size_t groups);
  std::string describe_fault() const;
  // `stack`, or where that has overflowed the middle of the same one: its frames are not needed again.
  uintptr_t usable_stack(uintptr_t stack) const {
    const uintptr_t offset = (stack - stacks_) % kStack;
    return offset < kStack / 2 ? stack - offset + kStack / 2 : stack;
  }

  // What kernels call runs in here: their loads and stores are seen, the emulator's own are not. An exception
  // ends the block at once; device code is not unwound, as it would not be on a GPU.
  template <class F>
  auto emulate(const F& f) {
    in_kernel = false;
    try {
      const auto result = f();
      in_kernel = true;
      return result;
    } catch (...) {
      error_ = std::current_exception();
    }
    leave();
  }

  uintptr_t fault = 0;     // address that a fault of memory came from
  bool on_fiber = false;   // rather than in the scheduler
  bool in_kernel = false;  // rather than in the emulator

 private:
  static void fiber_main(context::transfer_t from);
  void run_block();
  void run_threads(int fiber);
  void suspend();
  [[noreturn]] void leave();
  void resume(int fiber);
  void complete(int warp, const Wait& wait);
  void release(int thread);
  [[noreturn]] void fail(int thread, const std::string& what) const;
  [[noreturn]] void fail_stuck() const;
  std::string describe(int thread) const;
  int next_unstarted();
  Thread& of(int thread) { return threads_[static_cast<size_t>(thread)]; }
  const Thread& of(int thread) const { return threads_[static_cast<size_t>(thread)]; }

  uintptr_t stacks_ = 0;
  std::vector<context::fcontext_t> fibers_;  // where each goes on; null: to be made
  std::vector<int> idle_;                    // fibers without a thread
  context::fcontext_t scheduler_ = nullptr;
  std::exception_ptr error_;

  const Launch* launch_ = nullptr;
  Index index_;
  int count_ = 0;  // threads of the block
  std::vector<Thread> threads_ = std::vector<Thread>(kMaxThreads);
  std::vector<int> order_;  // in which they start
  size_t started_ = 0;
  std::vector<int> ready_;
  Barrier barriers_[kBarriers];
  int current_ = -1;
  Accesses accesses_;
};

Block::Block() : fibers_(kMaxThreads), idle_(kMaxThreads) {
  void* stacks =
      mmap(nullptr, kMaxThreads * kStack, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (stacks == MAP_FAILED)
    throw std::runtime_error("the emulated device needs 128 MiB of addresses: ulimit -v");
  stacks_ = reinterpret_cast<uintptr_t>(stacks);
  std::iota(idle_.rbegin(), idle_.rend(), 0);
  ready_.reserve(kMaxThreads);
  order_.reserve(kMaxThreads);
}

Index Block::thread() const {
  const Index& size = launch_->block;
  const auto at = static_cast<unsigned>(current_);
  return {at % size.x, at / size.x % size.y, at / size.x / size.y};
}

// A fiber runs threads that have not started until one of them waits; that one then owns it until its end.
void Block::fiber_main(context::transfer_t from) {
  Block& block = *running;
  block.scheduler_ = from.fctx;
  const int fiber = static_cast<int>(reinterpret_cast<intptr_t>(from.data));
  for (;;) {
    block.run_threads(fiber);
    block.idle_.push_back(fiber);
    from = context::jump_fcontext(block.scheduler_, nullptr);
    block.scheduler_ = from.fctx;
  }
}

void Block::run_threads(int fiber) {
  for (int thread = next_unstarted(); thread >= 0; thread = next_unstarted()) {
    current_ = thread;
    of(thread).fiber = fiber;
    in_kernel = true;
    launch_->call(launch_->kernel, launch_->arguments);
    in_kernel = false;
    of(current_).state = Thread::done;
  }
}

int Block::next_unstarted() { return started_ < order_.size() ? order_[started_++] : -1; }

void Block::suspend() {
  Thread& thread = of(current_);
  thread.state = Thread::waiting;
  const context::transfer_t from = context::jump_fcontext(scheduler_, nullptr);
  scheduler_ = from.fctx;
}

void Block::resume(int fiber) {
  auto& at = fibers_[static_cast<size_t>(fiber)];
  if (at == nullptr) {
    const uintptr_t stack = stacks_ + static_cast<size_t>(fiber) * kStack;
    if (mprotect(reinterpret_cast<void*>(stack + kGuard), kStack - kGuard, PROT_READ | PROT_WRITE) != 0) {
      throw std::runtime_error("no memory for the stack of an emulated thread");
    }
    at = context::make_fcontext(reinterpret_cast<void*>(stack + kStack), kStack - kGuard, fiber_main);
  }
  on_fiber = true;
  const context::transfer_t from =
      context::jump_fcontext(at, reinterpret_cast<void*>(static_cast<intptr_t>(fiber)));
  on_fiber = in_kernel = false;
  fibers_[static_cast<size_t>(fiber)] = from.fctx;
}

void Block::run_grid(const Launch& launch, Random& random, KernelCounts& counts,
                     const std::vector<Range>& pinned) {
  launch_ = &launch;
  count_ = static_cast<int>(launch.block.x * launch.block.y * launch.block.z);
  accesses_.pinned = pinned;
  accesses_.begin_grid(counts, {reinterpret_cast<uintptr_t>(launch.arguments), launch.arguments_bytes},
                       {stacks_, kMaxThreads * kStack}, launch.dynamic_shared_bytes);
  const int64_t blocks = int64_t{launch.grid.x} * launch.grid.y * launch.grid.z;
  // Blocks in an order of their own: from a random one on, in steps that reach each once.
  int64_t step = 1 + static_cast<int64_t>(random() % static_cast<uint64_t>(blocks));
  while (std::gcd(step, blocks) != 1) ++step;
  int64_t at = static_cast<int64_t>(random() % static_cast<uint64_t>(blocks));
  running = this;
  struct Leave {
    ~Leave() { running = nullptr; }
  } leave;
  for (int64_t i = 0; i < blocks; ++i, at = (at + step) % blocks) {
    index_ = {static_cast<unsigned>(at % launch.grid.x),
              static_cast<unsigned>(at / launch.grid.x % launch.grid.y),
              static_cast<unsigned>(at / launch.grid.x / launch.grid.y)};
    // Threads too: rotated and turned round within the block.
    order_.resize(static_cast<size_t>(count_));
    std::iota(order_.begin(), order_.end(), 0);
    const uint64_t draw = random();
    std::rotate(order_.begin(), order_.begin() + static_cast<int64_t>((draw >> 1) % order_.size()),
                order_.end());
    if (draw & 1) std::reverse(order_.begin(), order_.end());
    run_block();
  }
}

void Block::run_block() {
  for (int t = 0; t < count_; ++t) of(t) = {};
  for (Barrier& barrier : barriers_) barrier = {};
  started_ = 0;
  ready_.clear();
  error_ = nullptr;
  fault = 0;
  accesses_.begin_block(count_);
  while (error_ == nullptr) {
    if (!ready_.empty()) {
      current_ = ready_.back();
      ready_.pop_back();
      resume(of(current_).fiber);
    } else if (started_ < order_.size()) {
      const int fiber = idle_.back();
      idle_.pop_back();
      resume(fiber);
    } else {
      break;
    }
  }
  const bool all_done = std::all_of(threads_.begin(), threads_.begin() + count_,
                                    [](const Thread& t) { return t.state == Thread::done; });
  if (all_done && error_ == nullptr) return accesses_.end_block();
  // Threads that wait will never go on: their fibers start anew.
  std::fill(fibers_.begin(), fibers_.end(), nullptr);
  idle_.resize(kMaxThreads);
  std::iota(idle_.rbegin(), idle_.rend(), 0);
  if (error_ == nullptr) fail_stuck();
  try {
    std::rethrow_exception(error_);
  } catch (const std::exception& e) {
    fail(current_, e.what());
  }
}

// The fiber never goes on, and the scheduler ends the block.
void Block::leave() {
  context::jump_fcontext(scheduler_, nullptr);
  std::abort();
}

std::string Block::describe_fault() const {
  if (fault - stacks_ < kMaxThreads * kStack)
    return fmt::format("needs more than {} bytes of stack", kStack - kGuard);
  return "touches " + DeviceMemory::instance().describe(fault);
}

void Block::finish_copies(size_t groups) {
  Thread& thread = of(current_);
  // Where a thread's copies come from and go to: all of them one load and one store of its program.
  static const char sites[2] = {};
  const auto first_left = std::find_if(thread.copies.begin(), thread.copies.end(),
                                       [&](const AsyncCopy& c) { return c.group + groups >= thread.groups; });
  for (auto copy = thread.copies.begin(); copy != first_left; ++copy) {
    const size_t read = copy->bytes - copy->zeros;
    if (read > 0) {
      access(reinterpret_cast<uintptr_t>(copy->from), read, Access::load,
             reinterpret_cast<uintptr_t>(&sites[0]));
    }
    access(reinterpret_cast<uintptr_t>(copy->to), copy->bytes, Access::store,
           reinterpret_cast<uintptr_t>(&sites[1]));
    std::memcpy(copy->to, copy->from, read);
    std::memset(static_cast<char*>(copy->to) + read, 0, copy->zeros);
  }
  thread.copies.erase(thread.copies.begin(), first_left);
}

int Block::barrier(const Wait& wait, bool predicate) {
  Thread& thread = of(current_);
  const int id = wait.barrier_id;
  if (id < 0 || id >= kBarriers)
    throw KernelError(fmt::format("{}: barrier {}, there are 16", wait.name, id));
  Barrier& barrier = barriers_[id];
  const bool whole_block = wait.barrier_threads == 0;
  const int threads = whole_block ? count_ : wait.barrier_threads;
  if (!whole_block && (threads % 32 != 0 || threads > count_)) {
    throw KernelError(
        fmt::format("{}: {} threads, must be warps of a block of {}", wait.name, threads, count_));
  }
  if (barrier.arrived == 0) barrier = {0, threads, 0, current_};
  const Wait& first = of(barrier.first).wait;
  if (barrier.arrived > 0 && (barrier.threads != threads || std::strcmp(first.name, wait.name) != 0 ||
                              (whole_block && first.site.line != wait.site.line))) {
    throw KernelError(fmt::format("mismatched barriers: {} at {}:{} for {} threads, but {}", wait.name,
                                  wait.site.file, wait.site.line, threads, describe(barrier.first)));
  }
  thread.wait = wait;
  thread.wait.kind = Wait::barrier;
  barrier.predicates += predicate ? 1 : 0;
  if (++barrier.arrived < threads) {
    suspend();
  } else {
    accesses_.block_barrier();
    for (int t = 0; t < count_; ++t) {
      Thread& other = of(t);
      if (other.state != Thread::waiting && t != current_) continue;
      if (other.wait.kind != Wait::barrier || other.wait.barrier_id != id) continue;
      other.wait.result = static_cast<uint64_t>(barrier.predicates);
      release(t);
    }
    barrier.arrived = 0;
  }
  return static_cast<int>(of(current_).wait.result);
}

uint64_t Block::exchange(const Wait& wait) {
  const int warp = current_ / 32, lane = current_ % 32;
  if ((wait.mask >> lane & 1u) == 0) {
    throw KernelError(fmt::format("{} at {}:{}: lane {} is not in its own mask {:#x}", wait.name,
                                  wait.site.file, wait.site.line, lane, wait.mask));
  }
  Thread& thread = of(current_);
  thread.wait = wait;
  thread.wait.kind = Wait::exchange;
  // A last warp that is not full has no threads for the other lanes.
  const int present = std::min(32, count_ - warp * 32);
  if (present < 32) thread.wait.mask &= (1u << present) - 1;
  const uint32_t mask = thread.wait.mask;
  for (int other = 0; other < 32; ++other) {
    if ((mask >> other & 1u) == 0 || other == lane) continue;
    const Thread& peer = of(warp * 32 + other);
    const Wait& theirs = peer.wait;
    if (peer.state == Thread::done) {
      throw KernelError(fmt::format("{} at {}:{} for lanes {:#x}: lane {} has left the kernel", wait.name,
                                    wait.site.file, wait.site.line, mask, other));
    }
    const bool same = theirs.kind == Wait::exchange && theirs.mask == mask &&
                      theirs.combine == wait.combine &&
                      (wait.combine == nullptr || theirs.site.line == wait.site.line);
    if (peer.state != Thread::waiting || !same) {
      suspend();
      return of(current_).wait.result;
    }
  }
  complete(warp, thread.wait);
  return thread.wait.result;
}

void Block::complete(int warp, const Wait& wait) {
  uint64_t values[32] = {};
  for (int lane = 0; lane < 32; ++lane) {
    if (wait.mask >> lane & 1u) values[lane] = of(warp * 32 + lane).wait.value;
  }
  if (wait.combine == nullptr) accesses_.warp_barrier(warp);
  for (int lane = 0; lane < 32; ++lane) {
    if ((wait.mask >> lane & 1u) == 0) continue;
    const int t = warp * 32 + lane;
    Thread& thread = of(t);
    if (wait.combine != nullptr)
      thread.wait.result = wait.combine(values, wait.mask, lane, thread.wait.argument);
    release(t);
  }
}

void Block::release(int thread) {
  if (thread == current_) return;
  of(thread).state = Thread::ready;
  ready_.push_back(thread);
}

std::string Block::describe(int t) const {
  const Thread& thread = of(t);
  if (thread.state == Thread::done) return fmt::format("thread {} has left the kernel", t);
  const Wait& wait = thread.wait;
  return fmt::format("thread {} waits in {} at {}:{}{}", t, wait.name, wait.site.file, wait.site.line,
                     wait.kind == Wait::exchange ? fmt::format(" for lanes {:#x}", wait.mask) : "");
}

void Block::fail(int thread, const std::string& what) const {
  throw KernelError(fmt::format("{}, block ({}, {}, {}), thread {}: {}", launch_->name, index_.x, index_.y,
                                index_.z, thread, what));
}

// Nobody can go on: name a thread that waits, and one that it does not meet.
void Block::fail_stuck() const {
  int waiting = 0;
  while (of(waiting).state != Thread::waiting) ++waiting;
  const Wait& wait = of(waiting).wait;
  for (int t = 0; t < count_; ++t) {
    const Thread& other = of(t);
    if (other.state == Thread::waiting && other.wait.kind == wait.kind &&
        other.wait.site.line == wait.site.line && other.wait.mask == wait.mask &&
        other.wait.barrier_id == wait.barrier_id) {
      continue;
    }
    if (wait.kind == Wait::exchange && (t / 32 != waiting / 32 || (wait.mask >> (t % 32) & 1u) == 0))
      continue;
    fail(waiting,
         fmt::format("{}: {}; {}",
                     wait.kind == Wait::barrier ? "mismatched barriers" : "divergent warp primitives",
                     describe(waiting), describe(t)));
  }
  fail(waiting, fmt::format("waits for threads that the block does not have: {}", describe(waiting)));
}

// Faults
// -------------------------------------------------------------------------------------------------------------

// Where a thread of a kernel goes on after a fault.
void leave_after_fault() {
  running->emulate([]() -> bool { throw KernelError(running->describe_fault()); });
}

void write_all(const char* text) {
  if (write(STDERR_FILENO, text, std::strlen(text)) < 0) return;
}

struct sigaction earlier_handler;

// Allocates nothing, and calls nothing that is not safe in a handler.
void on_fault(int signal, siginfo_t* info, void* machine) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  if (running != nullptr && running->on_fiber) {
    running->fault = address;
    // The thread goes on in leave_after_fault, below what its stack holds.
    auto& registers = static_cast<ucontext_t*>(machine)->uc_mcontext.gregs;
    const uintptr_t stack = running->usable_stack(static_cast<uintptr_t>(registers[REG_RSP]));
    registers[REG_RSP] = static_cast<greg_t>(((stack - 256) & ~uintptr_t{15}) - 8);
    registers[REG_RIP] = reinterpret_cast<greg_t>(&leave_after_fault);
    return;
  }
  if (DeviceMemory::instance().holds(address)) {
    write_all("the host touched memory of the emulated device: copy it with cudaMemcpyAsync and wait\n");
  }
  if (earlier_handler.sa_flags & SA_SIGINFO) return earlier_handler.sa_sigaction(signal, info, machine);
  sigaction(signal, &earlier_handler, nullptr);  // the access is tried again, and faults there
}

// A fiber may have overflowed its stack: handlers run on another, one for each thread that runs kernels.
class SignalStack {
 public:
  SignalStack() {
    stack_t stack{};
    stack.ss_sp = memory_.get();
    stack.ss_size = kBytes;
    sigaltstack(&stack, &earlier_);
  }
  ~SignalStack() { sigaltstack(&earlier_, nullptr); }
  SignalStack(const SignalStack&) = delete;
  SignalStack& operator=(const SignalStack&) = delete;

 private:
  static constexpr size_t kBytes = 64 * 1024;
  std::unique_ptr<char[]> memory_{new char[kBytes]};
  stack_t earlier_{};
};

}  // namespace

void run_kernel(const Launch& launch, Random& random, KernelCounts& counts,
                const std::vector<Range>& pinned) {
  static Block* block = new Block;  // one kernel runs at a time; never destroyed, as device memory
  thread_local SignalStack signal_stack;
  block->run_grid(launch, random, counts, pinned);
}

void catch_memory_faults() {
  static const bool once = [] {
    DeviceMemory::instance();  // before a handler asks for it
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO | SA_ONSTACK;
    return sigaction(SIGSEGV, &action, &earlier_handler) == 0;
  }();
  (void)once;
}

// The device language
// ------------------------------------------------------------------------------------------------

Index thread_index() { return running->thread(); }
Index block_index() { return running->index(); }
Index block_size() { return running->launch().block; }
Index grid_size() { return running->launch().grid; }
int thread_rank() { return running->rank(); }

int block_barrier(int id, int threads, bool predicate, const char* name, Site site) {
  Wait wait;
  wait.name = name;
  wait.site = site;
  wait.barrier_id = id;
  wait.barrier_threads = threads;
  return running->emulate([&] { return running->barrier(wait, predicate); });
}

uint64_t warp_exchange(uint32_t mask, Combine combine, uint64_t value, uint64_t argument, const char* name,
                       Site site) {
  Wait wait;
  wait.name = name;
  wait.site = site;
  wait.mask = mask;
  wait.combine = combine;
  wait.value = value;
  wait.argument = argument;
  return running->emulate([&] { return running->exchange(wait); });
}

void see_access(uintptr_t address, size_t bytes, Access kind, const void* site) {
  if (running == nullptr || !running->in_kernel) return;  // code of the host
  running->emulate([&] {
    running->access(address, bytes, kind, reinterpret_cast<uintptr_t>(site));
    return true;
  });
}

void see_bad_index(int64_t index, Site site) {
  if (running == nullptr || !running->in_kernel) return;
  running->emulate([&]() -> bool {
    throw KernelError(
        fmt::format("index {} of an array, which is out of bounds at {}:{}", index, site.file, site.line));
  });
}

void async_copy(void* to, const void* from, size_t bytes, size_t zeros, Site site) {
  running->emulate([&] {
    if ((bytes != 4 && bytes != 8 && bytes != 16) || (zeros != 0 && zeros != bytes)) {
      throw KernelError(
          fmt::format("__pipeline_memcpy_async of {} bytes, {} of them zero, at {}:{}: only 4, 8 "
                      "or 16 bytes, all or none of them zero, are known here",
                      bytes, zeros, site.file, site.line));
    }
    running->begin_copy(to, from, bytes, zeros);
    return true;
  });
}

void async_commit() { running->commit_copies(); }

void async_wait(size_t groups) {
  running->emulate([&] {
    running->finish_copies(groups);
    return true;
  });
}

void atomic_access(const volatile void* address, size_t bytes) {
  see_access(reinterpret_cast<uintptr_t>(address), bytes, Access::atomic, __builtin_return_address(0));
}

void device_failure(const char* what, Site site) {
  running->emulate(
      [&]() -> bool { throw KernelError(fmt::format("{} at {}:{}", what, site.file, site.line)); });
  std::abort();  // not reached
}

}  // namespace ziggurat::emulation
