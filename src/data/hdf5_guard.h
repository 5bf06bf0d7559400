// HDF5 is no match for hostile files: some damaged headers make it read out of bounds. Nothing can be done
// for the process then, but it can end with an error that names the file.
#pragma once

#include <filesystem>
#include <string>

#include <hdf5.h>

namespace ziggurat {

// Lives during every call of the library. The library's error stack, printed to stderr otherwise, stays
// quiet: its reason goes into our own message. If the library crashes meanwhile on this thread, the process
// says so and ends with the exit code of ErrorKind::data.
class Hdf5Guard {
 public:
  explicit Hdf5Guard(const std::filesystem::path& file);  // which must outlive it
  explicit Hdf5Guard(std::filesystem::path&&) = delete;
  ~Hdf5Guard();
  Hdf5Guard(const Hdf5Guard&) = delete;
  Hdf5Guard& operator=(const Hdf5Guard&) = delete;

 private:
  H5E_auto2_t function_ = nullptr;
  void* data_ = nullptr;
  const char* outer_;
};

}  // namespace ziggurat
