// Damaged files: whatever bytes they hold, the readers either work or throw an Error. Run under the
// sanitizers these tests find reads and writes out of bounds.
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/core/philox.h>
#include <ziggurat/data/bpe_trainer.h>
#include <ziggurat/data/tokenizer.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

// Changes, inserts, removes or repeats a few bytes, or cuts the end off.
std::string mutate(std::string bytes, uint64_t seed) {
  const Philox random(seed, Purpose::test);
  const uint32_t changes = 1 + random.bits(0) % 4;
  for (uint32_t i = 0; i < changes && !bytes.empty(); ++i) {
    const size_t at = random.bits(4 * i + 1) % bytes.size(), n = 1 + random.bits(4 * i + 2) % 16;
    const auto value = static_cast<char>(random.bits(4 * i + 3));
    switch (random.bits(4 * i + 4) % 5) {
      case 0:
        bytes[at] = value;
        break;
      case 1:
        bytes.insert(at, 1, value);
        break;
      case 2:
        bytes.erase(at, n);
        break;
      case 3:
        bytes.insert(at, bytes.substr(at, n));
        break;
      default:
        bytes.resize(at);
        break;
    }
  }
  return bytes;
}

// Runs `read` on `count` mutations; at least one in a hundred must be refused, or nothing was tested.
template <class Read>
void expect_no_crash(const std::filesystem::path& file, const std::string& good, uint64_t count,
                     const Read& read) {
  uint64_t refused = 0;
  for (uint64_t seed = 0; seed < count; ++seed) {
    write_text(file, mutate(good, seed));
    try {
      read();
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, count / 100);
}

TEST(Mutations, TokenizerFiles) {
  const TempDir dir;
  BpeTrainer trainer;
  trainer.add_text("the cat and the other cat that sat there");
  BpeTokenizer(trainer.train(262)).save(dir.path());
  const std::string good = read_text(dir / "tokenizer.json");
  expect_no_crash(dir / "bad.json", good, 500, [&] {
    const auto tokenizer = load_tokenizer(dir / "bad.json");
    const auto ids = tokenizer->encode("the cat \xff sat");
    (void)tokenizer->decode(ids);
  });
}

TEST(Mutations, Shards) {
  const TempDir dir;
  const ShardManifest manifest = counting_shards(dir.path(), {100});
  const std::string good = read_text(dir / manifest.shards[0].file);
  expect_no_crash(dir / "bad.h5", good, 1500, [&] {
    const ShardReader shard(dir / "bad.h5");
    std::vector<int32_t> tokens(static_cast<size_t>(std::min<int64_t>(shard.size(), 1 << 16)));
    shard.read(0, static_cast<int64_t>(tokens.size()), tokens.data());
    shard.verify();
  });
}

}  // namespace
}  // namespace ziggurat
