#include <algorithm>

#include <zlib.h>

#include "data/input_file.h"
#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

class GzipDecoder final : public StreamDecoder {
 public:
  GzipDecoder() {
    constexpr int kLargestWindow = 15, kGzipHeader = 16;
    check(inflateInit2(&stream_, kLargestWindow + kGzipHeader) == Z_OK, ErrorKind::internal,
          "zlib does not start");
  }
  ~GzipDecoder() override { inflateEnd(&stream_); }
  GzipDecoder(const GzipDecoder&) = delete;
  GzipDecoder& operator=(const GzipDecoder&) = delete;

  size_t decode(std::string_view& in, std::span<char> out, const std::string& name) override {
    if (in.empty()) return 0;
    if (at_end_) inflateReset(&stream_);  // another member: gzip files may be joined
    at_end_ = false;
    constexpr size_t kMost = UINT32_MAX;
    stream_.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(in.data()));  // zlib does not write there
    stream_.avail_in = static_cast<uInt>(std::min(in.size(), kMost));
    stream_.next_out = reinterpret_cast<Bytef*>(out.data());
    stream_.avail_out = static_cast<uInt>(std::min(out.size(), kMost));
    const uInt had = stream_.avail_in, room = stream_.avail_out;
    const int result = inflate(&stream_, Z_NO_FLUSH);
    check(result == Z_OK || result == Z_STREAM_END || result == Z_BUF_ERROR, ErrorKind::data,
          "{} is broken gzip data: {}; get it again, `gzip -t` tells whether it is whole", name,
          stream_.msg == nullptr ? "no reason given" : stream_.msg);
    at_end_ = result == Z_STREAM_END;
    in.remove_prefix(had - stream_.avail_in);
    return room - stream_.avail_out;
  }
  bool at_end() const override { return at_end_; }
  bool begins(std::string_view in) const override { return in[0] == '\x1f'; }

 private:
  z_stream stream_{};
  bool at_end_ = false;
};

}  // namespace

std::unique_ptr<StreamDecoder> new_gzip_decoder(const std::string&) {
  return std::make_unique<GzipDecoder>();
}

}  // namespace ziggurat
