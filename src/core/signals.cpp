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

void* wait_for_signals(void* taken) {
  ::pthread_sigmask(SIG_UNBLOCK, static_cast<sigset_t*>(taken), nullptr);
  for (;;) ::pause();
}

}  // namespace

void take_signals_elsewhere() {
  static sigset_t taken;
  ::sigemptyset(&taken);
  for (const int signal : {SIGUSR1, SIGTERM, SIGINT, SIGQUIT, SIGALRM}) ::sigaddset(&taken, signal);
  ::pthread_sigmask(SIG_BLOCK, &taken, nullptr);
  pthread_attr_t attributes;
  ::pthread_attr_init(&attributes);
  ::pthread_attr_setstacksize(&attributes, 2 * kStackBytes);
  ::pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
  pthread_t thread{};
  const int error = ::pthread_create(&thread, &attributes, wait_for_signals, &taken);
  ::pthread_attr_destroy(&attributes);
  // Without a thread to have they come as ever.
  if (error != 0) ::pthread_sigmask(SIG_UNBLOCK, &taken, nullptr);
}

struct sigaction handle_signal(int signal, void (*handler)(int)) {
  struct sigaction action {};
  action.sa_handler = handler;
  return install(signal, action);
}

struct sigaction handle_signal(int signal, void (*handler)(int, siginfo_t*, void*)) {
  struct sigaction action {};
  action.sa_sigaction = handler;
  action.sa_flags = SA_SIGINFO;
  return install(signal, action);
}

}  // namespace ziggurat
