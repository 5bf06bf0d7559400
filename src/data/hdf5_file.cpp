#include "data/hdf5_file.h"

#include <algorithm>
#include <cerrno>
#include <cstdlib>

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data/hdf5_guard.h"
#include <ziggurat/core/error.h>
#include <ziggurat/io/files.h>
#include <ziggurat/io/read_only_file.h>

namespace ziggurat {
namespace {

// The innermost entry of the error stack says most ("truncated file: ...", "file signature not found").
std::string last_reason() {
  std::string reason = "no reason given";
  H5Ewalk2(
      H5E_DEFAULT, H5E_WALK_UPWARD,
      [](unsigned depth, const H5E_error2_t* error, void* out) -> herr_t {
        if (depth == 0 && error->desc) *static_cast<std::string*>(out) = error->desc;
        return 0;
      },
      &reason);
  return reason;
}

// The system's error number where HDF5 says that a call to the system failed ("..., errno = 5, ..."), else 0.
int system_error_in(const std::string& reason) {
  constexpr std::string_view kMark = "errno = ";
  const size_t at = reason.find(kMark);
  return at == std::string::npos ? 0 : std::atoi(reason.c_str() + at + kMark.size());
}

// Before HDF5 is asked, which would take a file that cannot be read for a damaged one.
void check_readable(const std::filesystem::path& path) {
  const ReadOnlyFile file(path);
  char first = 0;
  const ssize_t n = ::pread(file.descriptor(), &first, 1, 0);
  if (n < 0) fail_errno(ErrorKind::data, "read", path, errno);
  check(n > 0, ErrorKind::data, "{} is empty (0 bytes); copy or tokenize it again", path.string());
}

// Without HDF5's locks: nobody writes a shard once it has its name, so a reader needs none, and they fail on
// many network file systems.
Hdf5Handle open_file(const std::filesystem::path& path, unsigned flags) {
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_file_locking(access.get(), /*use_file_locking=*/0, /*ignore_when_disabled=*/1);
  return Hdf5Handle(H5Fopen(path.c_str(), flags, access.get()), H5Fclose);
}

template <class T>
hid_t memory_type() {
  if constexpr (std::is_same_v<T, uint16_t>) return H5T_NATIVE_UINT16;
  if constexpr (std::is_same_v<T, uint32_t>) return H5T_NATIVE_UINT32;
  if constexpr (std::is_same_v<T, int32_t>) return H5T_NATIVE_INT32;
  if constexpr (std::is_same_v<T, int64_t>) return H5T_NATIVE_INT64;
}

template <class T>
hid_t file_type() {
  if constexpr (std::is_same_v<T, uint16_t>) return H5T_STD_U16LE;
  if constexpr (std::is_same_v<T, uint32_t>) return H5T_STD_U32LE;
  if constexpr (std::is_same_v<T, int64_t>) return H5T_STD_I64LE;
}

}  // namespace

Hdf5Handle& Hdf5Handle::operator=(Hdf5Handle&& other) noexcept {
  reset();
  id_ = other.id_, closer_ = other.closer_;
  other.id_ = H5I_INVALID_HID;
  return *this;
}

herr_t Hdf5Handle::reset() {
  const hid_t id = id_;
  id_ = H5I_INVALID_HID;
  return id >= 0 ? closer_(id) : 0;
}

Hdf5File::~Hdf5File() {
  const Hdf5Guard guard(path_);
  file_.reset();
}

void Hdf5File::fail_at(const std::string& what, const std::string& cure) const {
  const std::string reason = last_reason();
  const int error_number = system_error_in(reason);
  // HDF5 files carry a mark while a program writes them, of which HDF5 says that `h5clear` removes it.
  const bool being_written = reason.find("h5clear") != std::string::npos;
  const std::string mended = error_number != 0 ? reason_of(error_number)
                             : being_written
                                 ? "a program is writing it, or was killed while it did: wait for it, or run "
                                   "`h5clear -s` on the file"
                                 : cure;
  fail(ErrorKind::data, "{}: {}{}{} (HDF5: {})", path_.string(), what, mended.empty() ? "" : "; ", mended,
       reason);
}

Hdf5File Hdf5File::create(const std::filesystem::path& path) {
  const Hdf5Guard guard(path);
  Hdf5File file(path);
  const Hdf5Handle access(H5Pcreate(H5P_FILE_ACCESS), H5Pclose);
  H5Pset_alignment(access.get(), 1, 4096);
  // The file is built in memory and written by close(): after a failed write to a full disk, HDF5 itself
  // would crash when the process ends.
  constexpr size_t kGrowBytes = size_t{16} << 20;
  H5Pset_fapl_core(access.get(), kGrowBytes, /*backing_store=*/0);
  file.in_memory_ = true;
  file.file_ = Hdf5Handle(H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, access.get()), H5Fclose);
  if (!file.file_.ok()) file.fail_at("cannot create the file", "is the folder writable?");
  return file;
}

Hdf5File Hdf5File::open(const std::filesystem::path& path) {
  const Hdf5Guard guard(path);
  Hdf5File file(path);
  check_readable(path);
  file.file_ = open_file(path, H5F_ACC_RDONLY);
  if (!file.file_.ok())
    file.fail_at("cannot open as HDF5", "it is truncated or no shard: copy or tokenize it again");
  return file;
}

Hdf5File Hdf5File::open_to_edit(const std::filesystem::path& path) {
  const Hdf5Guard guard(path);
  Hdf5File file(path);
  file.file_ = open_file(path, H5F_ACC_RDWR);
  if (!file.file_.ok()) file.fail_at("cannot open the file for writing", "is it writable?");
  return file;
}

void Hdf5File::write_attribute(const std::string& name, int64_t value) {
  const Hdf5Guard guard(path_);
  if (H5Aexists(file_.get(), name.c_str()) > 0) H5Adelete(file_.get(), name.c_str());
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Hdf5Handle attribute(
      H5Acreate2(file_.get(), name.c_str(), H5T_STD_I64LE, space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  if (!attribute.ok() || H5Awrite(attribute.get(), H5T_NATIVE_INT64, &value) < 0) {
    fail_at("cannot write attribute " + name);
  }
}

void Hdf5File::write_attribute(const std::string& name, const std::string& value) {
  const Hdf5Guard guard(path_);
  if (H5Aexists(file_.get(), name.c_str()) > 0) H5Adelete(file_.get(), name.c_str());
  const Hdf5Handle space(H5Screate(H5S_SCALAR), H5Sclose);
  const Hdf5Handle type(H5Tcopy(H5T_C_S1), H5Tclose);
  H5Tset_size(type.get(), value.size() + 1);
  H5Tset_cset(type.get(), H5T_CSET_UTF8);
  const Hdf5Handle attribute(
      H5Acreate2(file_.get(), name.c_str(), type.get(), space.get(), H5P_DEFAULT, H5P_DEFAULT), H5Aclose);
  if (!attribute.ok() || H5Awrite(attribute.get(), type.get(), value.c_str()) < 0) {
    fail_at("cannot write attribute " + name);
  }
}

std::optional<int64_t> Hdf5File::find_int(const std::string& name) const {
  const Hdf5Guard guard(path_);
  if (H5Aexists(file_.get(), name.c_str()) <= 0) return std::nullopt;
  const Hdf5Handle attribute(H5Aopen(file_.get(), name.c_str(), H5P_DEFAULT), H5Aclose);
  const Hdf5Handle space(H5Aget_space(attribute.get()), H5Sclose);
  int64_t value = 0;
  if (H5Sget_simple_extent_npoints(space.get()) != 1 ||
      H5Aread(attribute.get(), H5T_NATIVE_INT64, &value) < 0) {
    fail_at("attribute " + name + " is no single integer");
  }
  return value;
}

std::optional<std::string> Hdf5File::find_string(const std::string& name) const {
  const Hdf5Guard guard(path_);
  if (H5Aexists(file_.get(), name.c_str()) <= 0) return std::nullopt;
  const Hdf5Handle attribute(H5Aopen(file_.get(), name.c_str(), H5P_DEFAULT), H5Aclose);
  const Hdf5Handle type(H5Aget_type(attribute.get()), H5Tclose);
  const Hdf5Handle space(H5Aget_space(attribute.get()), H5Sclose);
  if (H5Tget_class(type.get()) != H5T_STRING || H5Sget_simple_extent_npoints(space.get()) != 1) {
    fail_at("attribute " + name + " is no single string");
  }
  if (H5Tis_variable_str(type.get()) > 0) {  // as h5py writes them
    char* text = nullptr;
    if (H5Aread(attribute.get(), type.get(), &text) < 0) fail_at("cannot read attribute " + name);
    std::string value = text ? text : "";
    H5free_memory(text);
    return value;
  }
  constexpr size_t kLongest = 1 << 20;  // far above any text of ours; a damaged header may say anything
  if (H5Tget_size(type.get()) > kLongest) fail_at("attribute " + name + " is too long");
  std::string value(H5Tget_size(type.get()), '\0');
  if (H5Aread(attribute.get(), type.get(), value.data()) < 0) fail_at("cannot read attribute " + name);
  value.resize(value.find('\0') == std::string::npos ? value.size() : value.find('\0'));
  return value;
}

template <class T>
void Hdf5File::write_dataset(const std::string& name, std::span<const T> values) {
  const Hdf5Guard guard(path_);
  const hsize_t length = values.size();
  const Hdf5Handle space(H5Screate_simple(1, &length, nullptr), H5Sclose);
  const Hdf5Handle options(H5Pcreate(H5P_DATASET_CREATE), H5Pclose);
  H5Pset_layout(options.get(), H5D_CONTIGUOUS);
  H5Pset_alloc_time(options.get(), H5D_ALLOC_TIME_EARLY);
  H5Pset_fill_time(options.get(), H5D_FILL_TIME_NEVER);
  H5Pset_obj_track_times(options.get(), false);
  const Hdf5Handle dataset(H5Dcreate2(file_.get(), name.c_str(), file_type<T>(), space.get(), H5P_DEFAULT,
                                      options.get(), H5P_DEFAULT),
                           H5Dclose);
  if (!dataset.ok() || (length > 0 && H5Dwrite(dataset.get(), memory_type<T>(), H5S_ALL, H5S_ALL, H5P_DEFAULT,
                                               values.data()) < 0)) {
    fail_at("cannot write " + name, "is the disk full?");
  }
}
template void Hdf5File::write_dataset<uint16_t>(const std::string&, std::span<const uint16_t>);
template void Hdf5File::write_dataset<uint32_t>(const std::string&, std::span<const uint32_t>);
template void Hdf5File::write_dataset<int64_t>(const std::string&, std::span<const int64_t>);

bool Hdf5File::has_dataset(const std::string& name) const {
  const Hdf5Guard guard(path_);
  return H5Lexists(file_.get(), name.c_str(), H5P_DEFAULT) > 0;
}

Hdf5Handle Hdf5File::open_dataset(const std::string& name) const {
  // A link may name another file, which must not be opened on the word of this one.
  H5L_info_t link;
  if (H5Lget_info(file_.get(), name.c_str(), &link, H5P_DEFAULT) >= 0) {
    check(link.type == H5L_TYPE_HARD, ErrorKind::data,
          "{}: {} is a link to somewhere else; make a file that holds the tokens itself with `h5repack` or "
          "`h5copy`",
          path_.string(), name);
  }
  Hdf5Handle dataset(H5Dopen2(file_.get(), name.c_str(), H5P_DEFAULT), H5Dclose);
  if (!dataset.ok()) fail_at("has no dataset " + name);
  return dataset;
}

void Hdf5File::check_storage(const std::string& name, hid_t options) const {
  const H5D_layout_t layout = H5Pget_layout(options);
  const bool own = layout == H5D_CONTIGUOUS || layout == H5D_CHUNKED || layout == H5D_COMPACT;
  check(own && H5Pget_external_count(options) == 0, ErrorKind::data,
        "{}: {} keeps its values in other files; make a file that holds them itself with `h5repack -l CONTI`",
        path_.string(), name);
  for (int i = 0, n = H5Pget_nfilters(options); i < n; ++i) {
    unsigned flags = 0, config = 0;
    size_t values = 0;
    char filter_name[64] = "";
    const H5Z_filter_t filter = H5Pget_filter2(options, static_cast<unsigned>(i), &flags, &values, nullptr,
                                               sizeof(filter_name), filter_name, &config);
    check(
        filter >= 0 && H5Zfilter_avail(filter) > 0, ErrorKind::data,
        "{}: {} is packed with filter {} ({}), which this HDF5 library does not have; unpack it where it was "
        "made: `h5repack -f NONE`",
        path_.string(), name, filter, filter_name);
  }
}

void Hdf5File::check_size(const std::string& name, hid_t dataset, hid_t options, const Dataset& found) const {
  // Before anything is allocated: a damaged header may declare any length. Deflate packs at most 1032 : 1.
  const auto stored = static_cast<uint64_t>(H5Dget_storage_size(dataset));
  std::error_code no_size;
  const auto file_bytes = static_cast<uint64_t>(std::filesystem::file_size(path_, no_size));
  const bool chunked = H5Pget_layout(options) == H5D_CHUNKED;
  const uint64_t most = chunked ? 1100 * stored + (uint64_t{1} << 20) : stored;
  const bool plausible =
      found.length >= 0 && found.element_bytes >= 1 && found.element_bytes <= 8 && !no_size &&
      stored <= file_bytes &&
      static_cast<uint64_t>(found.length) <= most / static_cast<uint64_t>(found.element_bytes);
  check(
      plausible, ErrorKind::data,
      "{}: {} declares {} elements of {} bytes, but the file stores {} bytes of them in {}; it is cut off or "
      "damaged: copy or tokenize it again",
      path_.string(), name, found.length, found.element_bytes, stored, file_bytes);
}

Hdf5File::Dataset Hdf5File::describe(const std::string& name) const {
  const Hdf5Guard guard(path_);
  const Hdf5Handle dataset = open_dataset(name);
  const Hdf5Handle space(H5Dget_space(dataset.get()), H5Sclose);
  const Hdf5Handle type(H5Dget_type(dataset.get()), H5Tclose);
  const Hdf5Handle options(H5Dget_create_plist(dataset.get()), H5Pclose);
  const int rank = H5Sget_simple_extent_ndims(space.get());
  if (rank != 1 || H5Tget_class(type.get()) != H5T_INTEGER) {
    fail(ErrorKind::data, "{}: {} must be a list of integers of rank 1, but has rank {}", path_.string(),
         name, rank);
  }
  check_storage(name, options.get());
  Dataset result;
  result.length = static_cast<int64_t>(H5Sget_simple_extent_npoints(space.get()));
  result.element_bytes = static_cast<int>(H5Tget_size(type.get()));
  result.little_endian_unsigned =
      H5Tget_sign(type.get()) == H5T_SGN_NONE && H5Tget_order(type.get()) == H5T_ORDER_LE;
  check_size(name, dataset.get(), options.get(), result);
  if (H5Pget_layout(options.get()) == H5D_CONTIGUOUS) {
    const haddr_t offset = H5Dget_offset(dataset.get());
    if (offset != HADDR_UNDEF) result.file_offset = static_cast<int64_t>(offset);
  }
  return result;
}

template <class T>
void Hdf5File::read_dataset(const std::string& name, int64_t first, int64_t count, T* out) const {
  if (count == 0) return;
  const Hdf5Guard guard(path_);
  const Hdf5Handle dataset = open_dataset(name);
  const Hdf5Handle file_space(H5Dget_space(dataset.get()), H5Sclose);
  const auto start = static_cast<hsize_t>(first), length = static_cast<hsize_t>(count);
  const Hdf5Handle memory_space(H5Screate_simple(1, &length, nullptr), H5Sclose);
  if (H5Sselect_hyperslab(file_space.get(), H5S_SELECT_SET, &start, nullptr, &length, nullptr) < 0 ||
      H5Dread(dataset.get(), memory_type<T>(), memory_space.get(), file_space.get(), H5P_DEFAULT, out) < 0) {
    fail_at("cannot read " + name, "the file is damaged: copy or tokenize it again");
  }
}
template void Hdf5File::read_dataset<int32_t>(const std::string&, int64_t, int64_t, int32_t*) const;
template void Hdf5File::read_dataset<uint32_t>(const std::string&, int64_t, int64_t, uint32_t*) const;
template void Hdf5File::read_dataset<int64_t>(const std::string&, int64_t, int64_t, int64_t*) const;

void Hdf5File::close() {
  const Hdf5Guard guard(path_);
  if (!in_memory_) {
    if (file_.reset() < 0) fail_at("cannot write the file to its end", "is the disk full?");
    return;
  }
  H5Fflush(file_.get(), H5F_SCOPE_LOCAL);
  const ssize_t bytes = H5Fget_file_image(file_.get(), nullptr, 0);
  std::string image(static_cast<size_t>(std::max<ssize_t>(bytes, 0)), '\0');
  if (bytes <= 0 || H5Fget_file_image(file_.get(), image.data(), image.size()) != bytes) {
    fail_at("cannot build the file in memory");
  }
  file_.reset();
  write_file(path_, image);
}

}  // namespace ziggurat
