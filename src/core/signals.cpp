#include <initializer_list>

#include <pthread.h>
#include <unistd.h>

#include <ziggurat/core/signals.h>

namespace ziggurat {

namespace {

// Several frames of the kernel, each with all registers of the CPU (AMX: 11 KiB), and a stack trace.
constexpr size_t kStackBytes = 1 << 17;

void use_own_stack() {
  stack_t now{};
  if (::sigaltstack(nullptr, &now) == 0 && (now.ss_flags & SS_DISABLE) == 0) return;
  // Never given back: a handler may run until the thread ends.
  const stack_t stack = {.ss_sp = new char[kStackBytes], .ss_flags = 0, .ss_size = kStackBytes};
  ::sigaltstack(&stack, nullptr);
}

struct sigaction install(int signal, struct sigaction action) {
  use_own_stack();
  action.sa_flags |= SA_RESTART | SA_ONSTACK;
  struct sigaction before {};
  ::sigaction(signal, &action, &before);
  return before;
}

}  // namespace

struct sigaction handle_signal(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  // Not held back by its own handler: the kernel would hand it to a thread of the matrix library meanwhile.
  action.sa_flags = SA_NODEFER;
  return install(signal, action);
}

struct sigaction handle_signal(int signal, void (*handler)(int, siginfo_t*, void*)) {
  struct sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO;
  return install(signal, action);
}

SignalsElsewhere::SignalsElsewhere() {
  sigset_t from_outside;
  ::sigfillset(&from_outside);
  for (const int fault : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT, SIGTRAP})
    ::sigdelset(&from_outside, fault);
  ::pthread_sigmask(SIG_BLOCK, &from_outside, &before_);
}

SignalsElsewhere::~SignalsElsewhere() { ::pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

}  // namespace ziggurat
