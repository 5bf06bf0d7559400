// A move-only owner of an HDF5 file and the few calls that shards need. HDF5 is used once per file; token
// reads go through a mapping of the file (see shard_reader.cpp), since the library serialises all its calls.
// Every error (data) names the file, the object and HDF5's own reason.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include <hdf5.h>

namespace ziggurat {

class Hdf5Handle {
 public:
  using Closer = herr_t (*)(hid_t);
  Hdf5Handle() = default;
  Hdf5Handle(hid_t id, Closer closer) : id_(id), closer_(closer) {}
  Hdf5Handle(Hdf5Handle&& other) noexcept : id_(other.id_), closer_(other.closer_) {
    other.id_ = H5I_INVALID_HID;
  }
  Hdf5Handle& operator=(Hdf5Handle&& other) noexcept;
  Hdf5Handle(const Hdf5Handle&) = delete;
  Hdf5Handle& operator=(const Hdf5Handle&) = delete;
  ~Hdf5Handle() { reset(); }

  hid_t get() const { return id_; }
  bool ok() const { return id_ >= 0; }
  herr_t reset();  // closes; negative if that failed

 private:
  hid_t id_ = H5I_INVALID_HID;
  Closer closer_ = nullptr;
};

class Hdf5File {
 public:
  Hdf5File(Hdf5File&&) noexcept = default;
  Hdf5File& operator=(Hdf5File&&) noexcept = default;
  ~Hdf5File();

  // Objects are aligned to 4 KiB and carry no time stamps: equal content gives equal bytes.
  static Hdf5File create(const std::filesystem::path& path);
  static Hdf5File open(const std::filesystem::path& path);          // to read
  static Hdf5File open_to_edit(const std::filesystem::path& path);  // attributes

  void write_attribute(const std::string& name, int64_t value);  // replaces
  void write_attribute(const std::string& name, const std::string& value);
  std::optional<int64_t> find_int(const std::string& name) const;  // nullopt: no such attribute on the root
  std::optional<std::string> find_string(const std::string& name) const;

  // Rank 1, contiguous, little endian; written whole. T: uint16_t, uint32_t or int64_t.
  template <class T>
  void write_dataset(const std::string& name, std::span<const T> values);

  struct Dataset {
    int64_t length = 0;
    int element_bytes = 0;
    bool little_endian_unsigned = false;
    int64_t file_offset = -1;  // of the first element if contiguous and allocated, else -1
  };
  bool has_dataset(const std::string& name) const;
  Dataset describe(const std::string& name) const;  // must be an integer dataset of rank 1
  // Elements [first, first + count), converted to T (int32_t, uint32_t or int64_t), of any layout.
  template <class T>
  void read_dataset(const std::string& name, int64_t first, int64_t count, T* out) const;

  // Reports what the destructor would have to swallow; a file that was created is written only here.
  void close();

 private:
  explicit Hdf5File(std::filesystem::path path) : path_(std::move(path)) {}
  // `cure` is for a file that is at fault itself; where the system failed, its own is told.
  [[noreturn]] void fail_at(const std::string& what, const std::string& cure = "") const;
  Hdf5Handle open_dataset(const std::string& name) const;
  // Values must lie in this file, and be packed only with filters that are there.
  void check_storage(const std::string& name, hid_t options) const;
  void check_size(const std::string& name, hid_t dataset, hid_t options, const Dataset& found) const;

  std::filesystem::path path_;
  bool in_memory_ = false;  // a new file, until close() writes it
  Hdf5Handle file_;
};

}  // namespace ziggurat
