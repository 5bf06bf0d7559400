// What a process says when it ends by a signal or by exit(): on stderr, in its flight log, where its peers
// find it, and in a file with its stack.
#pragma once

#include <string>

namespace ziggurat::watch {

// From now on, for src/apps, once, on the thread that does the work. `who`: "rank 1"; empty: there are no
// others. SIGSEGV, SIGILL, SIGFPE, SIGABRT and SIGBUS end the process as ever, after these words.
void say_last_words(const std::string& who);

// While it is true, exit() is an end that nobody expects, and is told too.
void report_exits(bool unexpected);

// Stacks go to this file from now on; empty: to stderr.
void write_stacks_to(const std::string& path);

// From now on SIGQUIT asks for a report of what this process is doing, and nothing else.
void listen_to_quit();
bool quit_asked();  // since the last call

// The stack of the thread that does the work; returns when it is written, or after `milliseconds`.
void write_stack(int milliseconds);

}  // namespace ziggurat::watch
