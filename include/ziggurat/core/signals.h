// How handlers of signals are installed, and which thread they run in.
//
// The matrix library's code lets the stack pointer lie in its buffers, so that what the kernel writes below
// it for a handler goes over the heap. No handler may run on the stack of a thread that computes, and the
// library has threads of its own.
#pragma once

#include <csignal>

namespace ziggurat {

// For main(), before there is any other thread: SIGUSR1, SIGTERM, SIGINT, SIGQUIT and SIGALRM to this process
// come from now on to a thread that does nothing else. All others inherit that they don't take them.
void take_signals_elsewhere();

// Installs a handler; where this thread runs it, as for faults of its own, on another stack than the
// thread's. Calls that it interrupts are restarted. Returns what was there before.
struct sigaction handle_signal(int signal, void (*handler)(int));
struct sigaction handle_signal(int signal, void (*handler)(int, siginfo_t*, void*));

}  // namespace ziggurat
