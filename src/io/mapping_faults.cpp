#include <array>
#include <atomic>
#include <csignal>
#include <cstring>
#include <mutex>

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <ziggurat/core/error.h>
#include <ziggurat/core/signal_text.h>
#include <ziggurat/core/signals.h>
#include <ziggurat/io/mapping_faults.h>

namespace ziggurat {
namespace {

// A list that only grows, so that a signal handler may walk it at any time; entries are used again.
struct Mapping {
  std::atomic<const std::byte*> begin = nullptr;  // null: unused; set last
  size_t bytes = 0;
  std::array<char, 4096> path{};
  Mapping* next = nullptr;
};
std::atomic<Mapping*> first = nullptr;
std::mutex writers;

std::string heading;  // of the message, written when the handler is installed
struct sigaction others;

const Mapping* mapping_of(const void* address) {
  for (const Mapping* m = first.load(std::memory_order_acquire); m != nullptr; m = m->next) {
    const std::byte* begin = m->begin.load(std::memory_order_acquire);
    if (begin != nullptr && begin <= address && address < begin + m->bytes) return m;
  }
  return nullptr;
}

void on_fault(int signal, siginfo_t* info, void*) {
  const Mapping* mapping = info->si_code > 0 ? mapping_of(info->si_addr) : nullptr;
  if (mapping == nullptr) {  // what faulted does so again, now as ever
    ::sigaction(signal, &others, nullptr);
    if (info->si_code <= 0) ::raise(signal);  // sent by somebody
    return;
  }
  SignalText message;
  message << heading << mapping->path.data();
  struct stat now {};
  if (::stat(mapping->path.data(), &now) != 0) {
    message << " is gone from its file system";
  } else if (static_cast<size_t>(now.st_size) < mapping->bytes) {
    message << " was cut off while it was in use: it had " << static_cast<int64_t>(mapping->bytes)
            << " bytes, now it has " << static_cast<int64_t>(now.st_size);
  } else {
    message << " cannot be read any more: its disk or file system failed";
  }
  message
      << ". Files must stay as they are while a run uses them: make or copy this one again, then start the "
         "same command again\n";
  message.write(STDERR_FILENO);
  ::_exit(exit_code(ErrorKind::data));
}

}  // namespace

void watch_mapping(const void* begin, size_t bytes, const std::string& path) {
  const std::lock_guard lock(writers);
  Mapping* entry = first.load();
  while (entry != nullptr && entry->begin.load() != nullptr) entry = entry->next;
  if (entry == nullptr) {
    entry = new Mapping;  // lives as long as the process
    entry->next = first.load();
    first.store(entry, std::memory_order_release);
  }
  entry->bytes = bytes;
  entry->path.fill('\0');
  std::memcpy(entry->path.data(), path.data(), std::min(path.size(), entry->path.size() - 1));
  entry->begin.store(static_cast<const std::byte*>(begin), std::memory_order_release);
}

void forget_mapping(const void* begin) noexcept {
  const std::lock_guard lock(writers);
  for (Mapping* m = first.load(); m != nullptr; m = m->next) {
    if (m->begin.load() == begin) return m->begin.store(nullptr, std::memory_order_release);
  }
}

void report_mapping_faults(const std::string& who) {
  heading = fmt::format("ziggurat: {}{}data error:\n", who, who.empty() ? "" : ": ");
  others = handle_signal(SIGBUS, on_fault);
}

}  // namespace ziggurat
