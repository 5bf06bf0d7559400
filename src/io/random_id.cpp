#include <random>

#include <fmt/format.h>

#include <ziggurat/io/random_id.h>

namespace ziggurat {

std::string random_id() {
  std::random_device random;
  const unsigned high = random(), low = random();
  return fmt::format("{:08x}{:08x}", high, low);
}

}  // namespace ziggurat
