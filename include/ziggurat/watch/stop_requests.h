// Why a run should save and end before its goal. Every rank has requests of its own, ranks agree on the
// largest once a step, and so one rank's is enough.
#pragma once

namespace ziggurat::watch {

enum class StopRequest : int {
  none = 0,
  walltime = 1,   // the time of the job is nearly over
  stop_file = 2,  // somebody made <output>/STOP
  terminate = 3,  // SIGTERM or SIGINT
  user = 4,       // SIGUSR1
};
const char* to_string(StopRequest request);

// SIGUSR1, SIGTERM and SIGINT are requests from now on, kept until the loop asks for them; a second one
// changes nothing. Except that a second SIGINT ends a process without a launcher at once. For src/apps, once.
void listen_to_stop_signals(bool launched);

// For a rank that met the mistake that rank 0 tells: waits until the launcher, which rank 0 ends, ends it
// too; at most five seconds.
void leave_it_to_rank_0();

// The largest request that a signal has made so far.
StopRequest stop_asked_by_signal();

// Whether a signal has come since the last call: for the thread that wake_on_signal() wakes, which tells the
// user what comes of it.
bool terminate_to_tell();

// Signals are written to this eventfd too; -1: no more.
void wake_on_signals(int event_descriptor);
void wake_for_signal();  // what handlers of other signals call

}  // namespace ziggurat::watch
