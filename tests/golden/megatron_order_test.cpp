// Megatron's sample order against numpy and against its published rule (scripts/golden/make_data_goldens.py).
#include "src/data/megatron_order.h"

#include <numeric>

#include "src/data/numpy_random.h"
#include "tests/support/golden_file.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/data/blend.h>

namespace ziggurat {
namespace {

const GoldenFile& golden() {
  static const GoldenFile file = GoldenFile::committed("megatron_order");
  return file;
}

TEST(NumpyRandom, DrawsAndShufflesLikeNumpy) {
  for (const std::string& seed : golden().words("seeds")) {
    NumpyRandomState random(static_cast<uint32_t>(std::stoul(seed)));
    for (const int64_t draw : golden().ints("mt19937." + seed)) {
      ASSERT_EQ(random.next(), static_cast<uint32_t>(draw)) << "seed " << seed;
    }
    for (const std::string n : {"10", "1000"}) {
      const std::vector<int64_t> expected = golden().ints("shuffle." + seed + "." + n);
      std::vector<int64_t> values(expected.size());
      std::iota(values.begin(), values.end(), 0);
      NumpyRandomState(static_cast<uint32_t>(std::stoul(seed))).shuffle(std::span(values));
      EXPECT_EQ(values, expected) << "seed " << seed;
    }
  }
}

TEST(MegatronOrder, IsThePublishedRule) {
  for (const std::string& name : golden().words("cases")) {
    SCOPED_TRACE(name);
    const auto number = [&](const char* key) {
      return static_cast<int64_t>(golden().number(name + "." + key));
    };
    std::vector<int64_t> starts = {0};
    for (const int64_t size : golden().ints(name + ".sizes")) starts.push_back(starts.back() + size);
    const int64_t S = number("length");
    const MegatronOrder order(starts, S, number("samples"), static_cast<uint64_t>(number("seed")));
    EXPECT_EQ(order.epochs(), number("epochs"));
    EXPECT_EQ(order.last_epoch_apart(), number("apart") == 1);
    const auto& documents = order.document_index();
    EXPECT_EQ(std::vector<int64_t>(documents.begin(), documents.end()), golden().ints(name + ".documents"));
    const auto& shuffle = order.shuffle_index();
    EXPECT_EQ(std::vector<int64_t>(shuffle.begin(), shuffle.end()), golden().ints(name + ".order"));
    std::vector<int64_t> tokens;  // a token's value is its position
    for (int64_t i = 0; i < order.samples(); ++i) {
      order.for_each_part(i, [&](int64_t first, int64_t count) {
        for (int64_t t = 0; t < count; ++t) tokens.push_back(first + t);
      });
      ASSERT_EQ(static_cast<int64_t>(tokens.size()), (i + 1) * (S + 1));
    }
    EXPECT_EQ(tokens, golden().ints(name + ".tokens"));
  }
}

TEST(MegatronOrder, RefusesWhatItCannotLayOut) {
  const auto order = [](std::vector<int64_t> starts, int64_t length, int64_t samples) {
    return MegatronOrder(std::move(starts), length, samples, 1);
  };
  testing::error_of(ErrorKind::argument, [&] { order({0, 1}, 4, 1); });
  testing::error_of(ErrorKind::argument, [&] { order({0, 9}, 0, 1); });
  testing::error_of(ErrorKind::argument, [&] { order({0, 9}, 4, 0); });
  testing::error_of(ErrorKind::data, [&] { order({0, 9}, 1, int64_t{1} << 33); });
}

TEST(MegatronBlend, IsTheGreedyRule) {
  for (const std::string& name : golden().words("blends")) {
    const std::vector<int64_t> expected = golden().ints("blend." + name + ".sources");
    const auto n = static_cast<int64_t>(expected.size());
    const BlendOrder order(golden().doubles("blend." + name + ".weights"), BlendRule::greedy, n);
    std::vector<int64_t> drawn(order.weights().size(), 0);
    for (int64_t i = 0; i < n; ++i) {
      const BlendOrder::Pick pick = order.at(i);
      ASSERT_EQ(static_cast<int64_t>(pick.source), expected[static_cast<size_t>(i)]) << name << " " << i;
      ASSERT_EQ(pick.sample, drawn[pick.source]++);
    }
    testing::error_of(ErrorKind::data, [&] { order.at(n); });
  }
}

}  // namespace
}  // namespace ziggurat
