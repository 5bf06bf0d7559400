#include <vector>

#include <fmt/format.h>
#include <xxhash.h>

#include <ziggurat/io/content_hash.h>
#include <ziggurat/io/read_only_file.h>

namespace ziggurat {

namespace {

std::string hex_of(XXH128_hash_t hash) { return fmt::format("{:016x}{:016x}", hash.high64, hash.low64); }

constexpr const char* kName = "xxh3-128:";

}  // namespace

struct Hasher::State {
  XXH3_state_t* xxh = XXH3_createState();
  ~State() { XXH3_freeState(xxh); }
};

Hasher::Hasher() : state_(std::make_unique<State>()) {
  check(state_->xxh != nullptr && XXH3_128bits_reset(state_->xxh) == XXH_OK, ErrorKind::internal,
        "[hash] no state");
}

Hasher::~Hasher() = default;

void Hasher::update(std::span<const std::byte> bytes) {
  XXH3_128bits_update(state_->xxh, bytes.data(), bytes.size());
  bytes_ += std::ssize(bytes);
}

std::string Hasher::hex() const { return hex_of(XXH3_128bits_digest(state_->xxh)); }

std::string content_hash(std::span<const std::byte> bytes) {
  return kName + hex_of(XXH3_128bits(bytes.data(), bytes.size()));
}

std::string content_hash(const Hasher& hasher) { return kName + hasher.hex(); }

std::string hex_hash_of_file(const std::filesystem::path& path, ErrorKind kind) {
  const ReadOnlyFile file(path, kind);
  const int64_t size = file.identity().bytes;
  Hasher hasher;
  std::vector<std::byte> block(size_t{1} << 20);
  for (int64_t at = 0; at < size; at += std::ssize(block)) {
    const auto piece = std::span(block).first(static_cast<size_t>(std::min(std::ssize(block), size - at)));
    file.read(at, piece);
    hasher.update(piece);
  }
  return hasher.hex();
}

}  // namespace ziggurat
