#include <fstream>
#include <vector>

#include <xxhash.h>

#include <ziggurat/build_config.h>
#include <ziggurat/comm/program.h>

namespace ziggurat {

NamedValue this_program() {
  std::ifstream file("/proc/self/exe", std::ios::binary);
  XXH3_state_t* const state = XXH3_createState();
  XXH3_64bits_reset(state);
  std::vector<char> block(size_t{1} << 20);
  while (file) {
    file.read(block.data(), static_cast<std::streamsize>(block.size()));
    XXH3_64bits_update(state, block.data(), static_cast<size_t>(file.gcount()));
  }
  const XXH64_hash_t hash = XXH3_64bits_digest(state);
  XXH3_freeState(state);
  return {"the program", fmt::format("ziggurat {}, contents {:016x}", kVersion, hash)};
}

}  // namespace ziggurat
