#include <zstd.h>

#include "data/input_file.h"
#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

class ZstdDecoder final : public StreamDecoder {
 public:
  ZstdDecoder() : stream_(ZSTD_createDStream(), ZSTD_freeDStream) {
    // As `zstd --long=31` writes. The memory is taken only for frames that ask for it.
    ZSTD_DCtx_setParameter(stream_.get(), ZSTD_d_windowLogMax,
                           ZSTD_dParam_getBounds(ZSTD_d_windowLogMax).upperBound);
  }

  size_t decode(std::string_view& in, std::span<char> out, const std::string& name) override {
    ZSTD_inBuffer from{in.data(), in.size(), 0};
    ZSTD_outBuffer to{out.data(), out.size(), 0};
    const size_t result = ZSTD_decompressStream(stream_.get(), &to, &from);
    check(ZSTD_isError(result) == 0, ErrorKind::data,
          "{} is broken zstd data: {}; get it again, `zstd -t` tells whether it is whole", name,
          ZSTD_getErrorName(result));
    // Called again at the end of a frame without input, zstd says how much of the next header it wants.
    if (from.pos > 0 || to.pos > 0) at_end_ = result == 0;
    in.remove_prefix(from.pos);
    return to.pos;
  }
  bool at_end() const override { return at_end_; }
  // A frame, or one that is to be skipped.
  bool begins(std::string_view in) const override { return in[0] == '\x28' || (in[0] & 0xf0) == 0x50; }

 private:
  std::unique_ptr<ZSTD_DStream, size_t (*)(ZSTD_DStream*)> stream_;
  bool at_end_ = false;
};

}  // namespace

std::unique_ptr<StreamDecoder> new_zstd_decoder(const std::string&) {
  return std::make_unique<ZstdDecoder>();
}

}  // namespace ziggurat
