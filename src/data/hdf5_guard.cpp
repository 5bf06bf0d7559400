#include "data/hdf5_guard.h"

#include <array>
#include <csignal>
#include <cstring>

#include <unistd.h>

#include <ziggurat/core/error.h>
#include <ziggurat/core/signals.h>

namespace ziggurat {
namespace {

// State of the process, as signal handlers are: which file this thread's call is about, and what to do with
// crashes that are none of the library's.
thread_local const char* file_under_way = nullptr;
constexpr std::array<int, 4> kCrashes = {SIGSEGV, SIGBUS, SIGFPE, SIGABRT};
std::array<struct sigaction, kCrashes.size()> others;

void print(const char* text) {  // a signal handler may do no more than write
  if (::write(STDERR_FILENO, text, std::strlen(text)) < 0) return;
}

void on_crash(int signal, siginfo_t* info, void*) {
  if (file_under_way == nullptr) {
    for (size_t i = 0; i < kCrashes.size(); ++i) ::sigaction(kCrashes[i], &others[i], nullptr);
    const bool sent = info->si_code <= 0;  // else what crashed is done again, and now crashes as ever
    if (sent) ::raise(signal);
    return;
  }
  print("ziggurat: data error:\n");
  print(file_under_way);
  print(": the HDF5 library crashed on this file, so it is damaged; copy or tokenize it again\n");
  ::_exit(exit_code(ErrorKind::data));
}

bool prepare_library() {
  // At exit the library would close what is open, which is nothing, and complain about memory that it lost
  // itself on damaged files.
  H5dont_atexit();
  for (size_t i = 0; i < kCrashes.size(); ++i) others[i] = handle_signal(kCrashes[i], on_crash);
  return true;
}

}  // namespace

Hdf5Guard::Hdf5Guard(const std::filesystem::path& file) : outer_(file_under_way) {
  static const bool prepared = prepare_library();
  static_cast<void>(prepared);
  file_under_way = file.c_str();
  H5Eget_auto2(H5E_DEFAULT, &function_, &data_);
  H5Eset_auto2(H5E_DEFAULT, nullptr, nullptr);
}

Hdf5Guard::~Hdf5Guard() {
  H5Eset_auto2(H5E_DEFAULT, function_, data_);
  file_under_way = outer_;
}

}  // namespace ziggurat
