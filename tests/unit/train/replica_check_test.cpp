// Weights that must be equal on several ranks, and are not.
#include <mutex>

#include <gmock/gmock.h>

#include <ziggurat/comm/thread.h>
#include <ziggurat/train/replica_check.h>

namespace ziggurat::train {
namespace {

using testing::ElementsAre;

constexpr int64_t kExperts = 4;

// What rank 0 is told where `spoil` has been at every rank's store and state; all must be told the same.
struct Layout {
  int ranks = 4, ep = 2;
  bool shares = false;
  DType compute = DType::bf16;
};
std::string told(const Layout& layout,
                 const std::function<void(int rank, nn::ParamStore&, OptimizerState&)>& spoil) {
  std::vector<std::string> all(static_cast<size_t>(layout.ranks));
  run_on_threads(layout.ranks, [&](Communicator& world) {
    const ProcessGroups groups(world, ParallelPlan(layout.ranks, {layout.ep}));
    nn::ParamStore store({.compute = layout.compute});
    const int64_t held = kExperts / layout.ep, begin = held * groups.ep(layout.ep).rank();
    store.add({.name = "matrix", .global_shape = {5, 70}, .init = nn::Init::normal(1)});
    store.add({.name = "norm", .global_shape = {33}, .init = nn::Init::ones(), .matrix = false});
    store.add({.name = "experts",
               .global_shape = {kExperts, 9, 5},
               .init = nn::Init::normal(1),
               .row_begin = begin,
               .row_end = begin + held,
               .expert_parallel = layout.ep});
    if (layout.shares) store.shard(groups);
    store.finalize();
    OptimizerState state(store, groups, {[](const nn::ParamSpec&) {
                           return std::vector<MomentSpec>{{"m"}, {"v"}};
                         }});
    spoil(world.rank(), store, state);
    all[static_cast<size_t>(world.rank())] = first_disagreement(state, groups);
  });
  EXPECT_THAT(all, testing::Each(all[0]));
  return all[0];
}

// The lowest bit of one value.
void flip(const Tensor& tensor, int64_t element) {
  auto* bytes = static_cast<unsigned char*>(tensor.raw());
  bytes[element * size_of(tensor.dtype())] ^= 1;
}

TEST(ReplicaCheck, EqualReplicasAgreeHoweverTheyShare) {
  const auto nothing = [](int, nn::ParamStore&, OptimizerState&) {};
  for (const int ranks : {1, 2, 4}) {
    for (const DType compute : {DType::f32, DType::bf16}) {
      for (const bool shares : {false, true}) {
        EXPECT_EQ(told({ranks, std::min(2, ranks), shares, compute}, nothing), "");
      }
    }
  }
}

TEST(ReplicaCheck, NamesTheRankAndTheTensorOfOneBit) {
  for (const DType compute : {DType::f32, DType::bf16}) {
    EXPECT_EQ(told({4, 2, false, compute},
                   [](int rank, nn::ParamStore& store, OptimizerState&) {
                     if (rank == 2) flip(store.find("matrix").param.value, 349);
                     if (rank == 1) flip(store.find("norm").param.value, 0);
                   }),
              "matrix, weight: rank 2 differs from ranks 0, 1, 3");
  }
  EXPECT_EQ(told({4, 2, false, DType::bf16},
                 [](int rank, nn::ParamStore& store, OptimizerState& state) {
                   if (rank == 0) flip(state.master(store.find("matrix")), 7);
                 }),
            "matrix, master: rank 0 differs from ranks 1, 2, 3");
}

// Of four ranks that share experts in pairs, ranks 1 and 3 hold the same ones; there is no majority.
TEST(ReplicaCheck, ComparesExpertsAmongThoseWhoHoldThem) {
  EXPECT_EQ(told({4, 2, false, DType::f32},
                 [](int rank, nn::ParamStore& store, OptimizerState&) {
                   if (rank == 3) flip(store.find("experts").param.value, 89);
                 }),
            "experts, weight: ranks 1, 3 differ from each other");
  EXPECT_EQ(told({4, 4, false, DType::f32},
                 [](int rank, nn::ParamStore& store, OptimizerState&) {
                   if (rank == 3) flip(store.find("experts").param.value, 44);
                 }),
            "")
      << "nobody else holds it";
}

TEST(ReplicaCheck, TheMinorityIsOdd) {
  const auto odd = [](const std::vector<std::pair<int, std::string>>& answers) {
    return minority(answers).odd;
  };
  EXPECT_THAT(odd({{0, "a"}, {1, "a"}}), ElementsAre());
  EXPECT_THAT(odd({{0, "b"}, {1, "a"}, {2, "a"}}), ElementsAre(0));
  EXPECT_THAT(odd({{0, "c"}, {1, "a"}, {2, "a"}, {3, "b"}}), ElementsAre(0, 3));
  EXPECT_THAT(odd({{0, "a"}, {1, "b"}, {2, "a"}, {3, "b"}}), ElementsAre(0, 1, 2, 3));
}

}  // namespace
}  // namespace ziggurat::train
