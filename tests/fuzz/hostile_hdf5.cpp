#include "hostile_hdf5.h"

#include <functional>
#include <vector>

#include <hdf5.h>

namespace ziggurat::fuzz {

namespace fs = std::filesystem;

namespace {

void write(const fs::path& path, const std::function<void(hid_t file)>& make) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  make(file);
  H5Fclose(file);
}

// The list /data of tokens, without any.
void make_data(hid_t file, const std::vector<hsize_t>& dims, hid_t options, hid_t type = H5T_STD_U16LE) {
  const hid_t space = H5Screate_simple(static_cast<int>(dims.size()), dims.data(), nullptr);
  H5Dclose(H5Dcreate2(file, "data", type, space, H5P_DEFAULT, options, H5P_DEFAULT));
  H5Sclose(space);
}

size_t as_it_is(unsigned, size_t, const unsigned*, size_t bytes, size_t*, void**) { return bytes; }

}  // namespace

void write_hostile_hdf5(const fs::path& folder) {
  fs::create_directories(folder);
  constexpr hsize_t kHuge = hsize_t{1} << 60, kChunk = 1024;
  write(folder / "huge.h5", [&](hid_t file) { make_data(file, {kHuge}, H5P_DEFAULT); });
  write(folder / "huge_chunked.h5", [&](hid_t file) {
    const hid_t options = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(options, 1, &kChunk), H5Pset_deflate(options, 9);
    make_data(file, {kHuge}, options);
    H5Pclose(options);
  });
  write(folder / "overflow.h5", [&](hid_t file) {
    const hid_t options = H5Pcreate(H5P_DATASET_CREATE);
    const hsize_t chunk[2] = {32, 32};
    H5Pset_chunk(options, 2, chunk);
    make_data(file, {hsize_t{1} << 33, hsize_t{1} << 33}, options);
    H5Pclose(options);
  });
  write(folder / "external_link.h5", [&](hid_t file) {
    H5Lcreate_external("/etc/hostname", "data", file, "data", H5P_DEFAULT, H5P_DEFAULT);
  });
  write(folder / "external_storage.h5", [&](hid_t file) {
    const hid_t options = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_external(options, "/etc/hostname", 0, 8);
    make_data(file, {4}, options);
    H5Pclose(options);
  });
  write(folder / "unknown_filter.h5", [&](hid_t file) {
    constexpr H5Z_filter_t kNobodys = 31999;
    const H5Z_class2_t filter = {H5Z_CLASS_T_VERS, kNobodys, 1, 1, "nobody's", nullptr, nullptr, as_it_is};
    H5Zregister(&filter);
    const hid_t options = H5Pcreate(H5P_DATASET_CREATE);
    H5Pset_chunk(options, 1, &kChunk), H5Pset_filter(options, kNobodys, 0, 0, nullptr);
    const hsize_t length = 2048;
    const std::vector<uint16_t> tokens(length, 7);
    const hid_t space = H5Screate_simple(1, &length, nullptr);
    const hid_t data = H5Dcreate2(file, "data", H5T_STD_U16LE, space, H5P_DEFAULT, options, H5P_DEFAULT);
    H5Dwrite(data, H5T_NATIVE_UINT16, H5S_ALL, H5S_ALL, H5P_DEFAULT, tokens.data());
    H5Dclose(data), H5Sclose(space), H5Pclose(options);
    H5Zunregister(kNobodys);
  });
  write(folder / "text_for_tokens.h5", [&](hid_t file) {
    const hid_t type = H5Tcopy(H5T_C_S1);
    H5Tset_size(type, H5T_VARIABLE);
    make_data(file, {4}, H5P_DEFAULT, type);
    H5Tclose(type);
  });
  write(folder / "soft_link.h5",
        [&](hid_t file) { H5Lcreate_soft("/data", file, "data", H5P_DEFAULT, H5P_DEFAULT); });
}

}  // namespace ziggurat::fuzz
