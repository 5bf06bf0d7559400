// How handlers of signals are installed, and which threads they run in.
#pragma once

#include <csignal>

namespace ziggurat {

// Installs a handler that runs on a stack of its own, also in this thread: while a product of the matrix
// library computes, the stack pointer may lie in one of its buffers, and what the kernel writes below it for
// a handler would go over the heap. Calls that it interrupts are restarted. Returns what was there before.
// For the thread that does the work; others start under SignalsElsewhere.
struct sigaction handle_signal(int signal, void (*handler)(int));
struct sigaction handle_signal(int signal, void (*handler)(int, siginfo_t*, void*));

// Threads that are started while it lives leave signals from outside to the thread that was there before.
// Faults of their own are theirs.
class SignalsElsewhere {
 public:
  SignalsElsewhere();
  ~SignalsElsewhere();
  SignalsElsewhere(const SignalsElsewhere&) = delete;
  SignalsElsewhere& operator=(const SignalsElsewhere&) = delete;

 private:
  sigset_t before_{};
};

}  // namespace ziggurat
