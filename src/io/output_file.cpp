#include <fcntl.h>

#include "io/system_calls.h"
#include <ziggurat/io/files.h>
#include <ziggurat/io/output_file.h>

namespace ziggurat {

OutputFile::OutputFile(const std::filesystem::path& path, ErrorKind kind, Place place)
    : path_(path), kind_(kind) {
  const int flags = O_WRONLY | O_CREAT | (place == Place::must_be_free ? O_EXCL : O_TRUNC);
  if (const int error = system_calls::open(path, flags, file_)) fail_errno(kind, "create", path, error);
}

void OutputFile::write(std::span<const std::byte> bytes) {
  if (const int error = system_calls::write_all(file_.get(), path_, bytes)) {
    fail_errno(kind_, "write", path_, error);
  }
}

void OutputFile::finish() {
  if (const int error = system_calls::sync(file_.get(), path_)) fail_errno(kind_, "fsync", path_, error);
  if (const int error = system_calls::close(file_, path_)) fail_errno(kind_, "close", path_, error);
}

}  // namespace ziggurat
