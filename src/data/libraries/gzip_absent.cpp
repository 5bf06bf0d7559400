#include "data/input_file.h"
#include <ziggurat/core/error.h>

namespace ziggurat {

std::unique_ptr<StreamDecoder> new_gzip_decoder(const std::string& name) {
  fail(ErrorKind::data,
       "{} is compressed with gzip, which this build cannot read; install zlib1g-dev and build again, or "
       "unpack "
       "it first",
       name);
}

}  // namespace ziggurat
