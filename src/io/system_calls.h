// The system calls by which files are written: each goes on after a signal, and each may be made to fail by a
// test, which no environment variable or option can.
#pragma once

#include <atomic>
#include <cstddef>
#include <filesystem>
#include <functional>
#include <span>
#include <string_view>

#include <ziggurat/io/descriptor.h>

namespace ziggurat::system_calls {

struct Fault {
  int error = 0;              // errno that the call is to fail with; 0: none
  size_t most_bytes = ~0ull;  // that a write takes
};
// Asked before every call: "open", "write", "fsync", "close", "rename", "unlink", "mkdir". On any thread.
using FaultHook = std::function<Fault(std::string_view call, const std::filesystem::path& path)>;
inline std::atomic<const FaultHook*> fault_hook = nullptr;  // tests only

// Each returns 0 or errno.
int open(const std::filesystem::path& path, int flags, Descriptor& file);
int write_all(int fd, const std::filesystem::path& path, std::span<const std::byte> bytes);
// EINTR comes before anything was synced and may be tried again; any other error means that data is lost, and
// a second fsync would hide that.
int sync(int fd, const std::filesystem::path& path);
int close(Descriptor& file, const std::filesystem::path& path);
int rename(const std::filesystem::path& from, const std::filesystem::path& to);
int make_folder(const std::filesystem::path& path);
int remove_file(const std::filesystem::path& path);  // a file; one that is not there is removed
int remove_tree(const std::filesystem::path& path);  // what is below it first, one after the other

}  // namespace ziggurat::system_calls
