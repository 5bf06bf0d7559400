#include <cerrno>
#include <cstring>

#include <ziggurat/io/files.h>

namespace ziggurat {

void fail_errno(ErrorKind kind, std::string_view what, const std::filesystem::path& path, int error_number) {
  const bool no_room = error_number == ENOSPC || error_number == EDQUOT || error_number == EFBIG;
  fail(kind, "cannot {} {}: {}{}", what, path.string(), reason_of(error_number),
       no_room && kind == ErrorKind::checkpoint ? ", or keep fewer checkpoints with checkpoint.keep" : "");
}

std::string reason_of(int error_number) {
  const std::string reason = fmt::format("{} (errno {})", std::strerror(error_number), error_number);
  switch (error_number) {
    case ENOENT:
    case ENOTDIR:
      return reason + "; is the path right, and the disk mounted?";
    case EACCES:
    case EPERM:
      return reason + "; its owner, or whoever runs this machine, must give you access (see `ls -l`, `id`)";
    case EISDIR:
      return reason + "; name a file in it";
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
      return reason + "; make room or raise the limit (`ulimit -f`, quota), or choose another folder";
    case ELOOP:
      return reason + "; it is a link where a file must be: put the file itself there";
    case EMFILE:
    case ENFILE:
      return reason + "; too many files are open: raise `ulimit -n`";
    case ENOMEM:
      return reason + "; too little memory is left: raise `ulimit -v` or the job's limit";
    case EAGAIN:
    case ENOLCK:
      return reason +
             "; another program holds a lock on it, or its file system cannot lock: end that program, or "
             "set HDF5_USE_FILE_LOCKING=FALSE where nobody writes it";
    case EIO:
    case ESTALE:
    case ENXIO:
    case ENODEV:
    case EREMOTEIO:
    case ENOTCONN:
    case ETIMEDOUT:
    case EHOSTDOWN:
    case EHOSTUNREACH:
    case ENETDOWN:
    case ENETUNREACH:
    case ECONNREFUSED:
    case ECONNRESET:
      return reason +
             "; its disk or network file system fails: try again, then ask whoever runs the storage "
             "(the kernel's log says more)";
    default:
      return reason;
  }
}

}  // namespace ziggurat
