// The arithmetic of simulated steps against cases computed by hand.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ziggurat/config/config.h>
#include <ziggurat/core/error.h>
#include <ziggurat/plan/step_time.h>

namespace ziggurat {
namespace {

using Kind = WorkItem::Kind;
using testing::AllOf;
using testing::HasSubstr;

// Round numbers: 1e12 FLOP/s, 1e11 bytes/s, 2 nodes of 4, 1e10 bytes/s inside and 1e9 between them.
ClusterConfig cluster() {
  ClusterConfig c;
  c.name = "toy";
  c.nodes = 2, c.ranks_per_node = 4;
  c.device = {.peak_flops = 1e12,
              .memory = 1e9,
              .memory_bandwidth = 1e11,
              .start = 1e-6,
              .attention_forward = 0.5,
              .attention_backward = 0.25,
              .products = {{100, 0.25}, {1000, 0.5}, {10000, 1.0}}};
  c.inside = {.latency = 1e-6, .bandwidth = 1e10};
  c.between = {.latency = 1e-5, .bandwidth = 1e9};
  return c;
}

WorkItem product(int64_t groups, int64_t m, int64_t n, int64_t k, double bytes = 0) {
  return {.kind = Kind::product,
          .name = "linear",
          .groups = groups,
          .m = m,
          .n = n,
          .k = k,
          .flops = 2.0 * static_cast<double>(groups * m * n * k),
          .bytes = bytes};
}

WorkItem collective(const char* name, double bytes) {
  return {.kind = Kind::collective, .name = name, .bytes = bytes, .along = "dp"};
}

TEST(StepTime, ProductsComeUpToThePeakWithTheirSize) {
  const DeviceRoofs device = cluster().device;
  EXPECT_DOUBLE_EQ(device.product_share(10), 0.25);
  EXPECT_DOUBLE_EQ(device.product_share(100), 0.25);
  EXPECT_DOUBLE_EQ(device.product_share(std::sqrt(1e5)), 0.375);  // half-way to 1000, of a factor of ten
  EXPECT_DOUBLE_EQ(device.product_share(1e5), 1.0);
}

TEST(StepTime, AKernelTakesTheLongerOfItsTwoRoofs) {
  const ClusterConfig c = cluster();
  EXPECT_DOUBLE_EQ(seconds_of(product(1, 1000, 1000, 1000), c, {}), 2e9 / 0.5e12 + 1e-6);
  EXPECT_DOUBLE_EQ(seconds_of(product(3, 1000, 1000, 1000), c, {}), 6e9 / 0.5e12 + 1e-6);
  EXPECT_DOUBLE_EQ(seconds_of(product(1, 1000, 1000, 1000, 1e9), c, {}), 1e9 / 1e11 + 1e-6);
  EXPECT_DOUBLE_EQ(seconds_of({.name = "norm", .bytes = 1e8}, c, {}), 1e-3 + 1e-6);
  WorkItem attention{.kind = Kind::attention, .name = "attention", .flops = 1e9};
  EXPECT_DOUBLE_EQ(seconds_of(attention, c, {}), 1e9 / 0.5e12 + 1e-6);
  attention.backward = true;
  EXPECT_DOUBLE_EQ(seconds_of(attention, c, {}), 1e9 / 0.25e12 + 1e-6);
}

TEST(StepTime, NoKernelIsFasterThanTheHost) {
  ClusterConfig c = cluster();
  c.software.host_gap = 1e-4;
  EXPECT_DOUBLE_EQ(seconds_of({.name = "norm", .bytes = 8}, c, {}), 1e-4);
}

TEST(StepTime, CollectivesGoThroughTheirSlowestLinks) {
  const ClusterConfig c = cluster();
  const RankAxis node{"tp", 4, 1}, all{"dp", 8, 1}, apart{"dp", 2, 4};
  // 4 ranks of a node: 3/4 of the bytes twice, 2 log2(4) latencies
  EXPECT_DOUBLE_EQ(seconds_of(collective("all_reduce", 1e9), c, node), 2 * 0.75e9 / 1e10 + 4e-6);
  // all 8: each node's 4 ranks share the way to the other one
  EXPECT_DOUBLE_EQ(seconds_of(collective("all_reduce", 1e9), c, all), 2 * 0.875e9 / 4e9 + 6e-5);
  // one rank of each node
  EXPECT_DOUBLE_EQ(seconds_of(collective("all_reduce", 1e9), c, apart), 2 * 0.5e9 / 1e9 + 2e-5);
  EXPECT_DOUBLE_EQ(seconds_of(collective("reduce_scatter", 1e9), c, apart), 0.5e9 / 1e9 + 1e-5);
  EXPECT_DOUBLE_EQ(seconds_of(collective("all_gather", 0.5e9), c, apart), 0.5e9 / 1e9 + 1e-5);
  // to 3 peers in the node, or of 8 ranks to 4 in the other node
  EXPECT_DOUBLE_EQ(seconds_of(collective("all_to_all", 4e9), c, node), 3e9 / 1e10 + 3e-6);
  EXPECT_DOUBLE_EQ(seconds_of(collective("all_to_all_v", 8e9), c, all), 4e9 / 1e9 + 4e-5);
  EXPECT_EQ(seconds_of(collective("all_reduce", 1e9), c, {"dp", 1, 1}), 0);
}

TEST(StepTime, PhasesAddUpAndWhatIsHiddenIsNotCounted) {
  StepWork work;
  work.micro_batches = 3;
  const WorkItem backward{.name = "norm", .backward = true, .bytes = 1e9};  // 10 ms
  work.first = {product(1, 1000, 1000, 1000), backward};
  work.later = {product(1, 1000, 1000, 1000), backward, collective("all_to_all", 8e7)};
  work.reduction = {collective("all_reduce", 1e8)};
  work.update = {{.name = "adamw", .bytes = 2e9}};
  work.samples = 12, work.tokens = 48, work.model_flops = 8e9;
  ClusterConfig c = cluster();
  c.device.start = 0, c.inside.latency = 0, c.between.latency = 0;
  const ParallelPlan layout(8, {});
  const auto phase = [](const StepTime& time, const std::string& name) {
    for (const PhaseTime& p : time.phases) {
      if (p.name == name) return p;
    }
    return PhaseTime{};
  };

  const StepTime exposed = time_of(work, c, layout);
  EXPECT_DOUBLE_EQ(phase(exposed, "products").seconds, 3 * 4e-3);
  EXPECT_DOUBLE_EQ(phase(exposed, "memory-bound kernels").seconds, 3 * 10e-3);
  EXPECT_DOUBLE_EQ(phase(exposed, "all-to-all").seconds, 2 * 40e-3);
  EXPECT_DOUBLE_EQ(phase(exposed, "gradient reduction").seconds, 2 * 0.875e8 / 4e9);
  EXPECT_DOUBLE_EQ(phase(exposed, "optimizer").seconds, 20e-3);
  EXPECT_NEAR(exposed.seconds, 0.012 + 0.03 + 0.08 + 0.04375 + 0.02, 1e-12);
  EXPECT_DOUBLE_EQ(exposed.samples_per_second, 12 / exposed.seconds);
  EXPECT_DOUBLE_EQ(exposed.tokens_per_second, 48 / exposed.seconds);
  EXPECT_DOUBLE_EQ(exposed.model_flops_per_second, 1e9 / exposed.seconds);
  EXPECT_DOUBLE_EQ(exposed.share_of_peak, 1e-3 / exposed.seconds);

  c.software.gradient_bytes = 2;
  EXPECT_DOUBLE_EQ(phase(time_of(work, c, layout), "gradient reduction").seconds, 0.875e8 / 4e9);
  c.software.hides_gradients = true;  // behind the 10 ms of one backward
  const StepTime hidden = time_of(work, c, layout);
  EXPECT_DOUBLE_EQ(phase(hidden, "gradient reduction").hidden, 10e-3);
  EXPECT_DOUBLE_EQ(phase(hidden, "gradient reduction").seconds, 0.875e8 / 4e9 - 10e-3);
}

TEST(StepTime, TokensTravelBehindExpertsAtMostByHalf) {
  StepWork work;
  WorkItem experts = product(1, 1000, 1000, 1000);
  experts.name = "grouped_linear";
  work.first = {experts, collective("all_to_all", 2e6)};  // 4 ms, and 1 ms to the other node's half
  ClusterConfig c = cluster();
  c.device.start = 0, c.inside.latency = 0, c.between.latency = 0;
  c.software.hides_exchange = true;
  const StepTime time = time_of(work, c, ParallelPlan(8, {}));
  EXPECT_DOUBLE_EQ(time.seconds, 4e-3 + 0.5e-3);
}

TEST(StepTime, DenseDispatchIsProductsWithMasks) {
  // 8 tokens to 2 experts of 4 slots, width 16: 5 products of 2 x 8 x 8 x 16 in all, and passes over masks
  double flops = 0, bytes = 0;
  for (const bool backward : {false, true}) {
    for (const char* name : {"gather_tokens", "combine"}) {
      const WorkItem item{
          .kind = Kind::dispatch, .name = name, .backward = backward, .m = 8, .n = 8, .k = 16};
      EXPECT_EQ(as_done(item, {}), std::vector<WorkItem>{item});
      for (const WorkItem& part : as_done(item, {.dense_dispatch = true})) {
        flops += part.flops;
        if (part.kind == Kind::memory) bytes += part.bytes;
      }
    }
  }
  EXPECT_EQ(flops, 5 * 2.0 * 8 * 8 * 16);
  // Masks; the gate's input and its gradient, cast and added; what experts made, copied together and apart.
  EXPECT_EQ(bytes, 64 * (4 + 5 + 3 + 6 + 6 + 8) + 8 * 16 * (6 + 6 + 6 + 2 * 4));
}

TEST(StepTime, AttentionInMemoryComputesBothHalves) {
  WorkItem item{.kind = Kind::attention,
                .name = "attention",
                .groups = 2,
                .m = 8,
                .k = 4,
                .flops = 2.0 * 2 * 8 * 8 * 4};
  double flops = 0;
  for (const WorkItem& part : as_done(item, {.attention_scores_in_memory = true})) flops += part.flops;
  EXPECT_EQ(flops, 2 * item.flops);
}

TEST(StepTime, OtherHabitsOfSoftware) {
  const WorkItem softmax{.name = "softmax", .bytes = 6};
  EXPECT_DOUBLE_EQ(as_done(softmax, {.plain_loss = true})[0].bytes, 52);
  // 3 tensors of 10 numbers in bf16, and a mask; in backward 2
  const WorkItem dropout{.name = "dropout_add", .bytes = 60};
  EXPECT_DOUBLE_EQ(as_done(dropout, {.dropout_masks_in_memory = true})[0].bytes, 70);
  const WorkItem gradient{.name = "dropout_add", .backward = true, .bytes = 40};
  EXPECT_DOUBLE_EQ(as_done(gradient, {.dropout_masks_in_memory = true})[0].bytes, 50);
  const WorkItem adamw{.name = "adamw", .bytes = 30}, norm{.name = "sum_of_squares", .bytes = 4};
  double update = 0;
  for (const WorkItem& part : as_done(adamw, {.eager_update = true})) update += part.bytes;
  EXPECT_DOUBLE_EQ(update, 70);
  EXPECT_TRUE(as_done(norm, {.eager_update = true}).empty());  // one of those passes
  ClusterConfig c = cluster();
  c.software.bucket_copies = true, c.software.gradient_bytes = 2, c.device.start = 0;
  StepWork reduces;
  reduces.reduction = {collective("all_reduce", 4e9)}, reduces.samples = 1;
  const double moved = 6 * 2e9 / c.device.memory_bandwidth,
               with = time_of(reduces, c, ParallelPlan(8, {})).seconds;
  c.software.bucket_copies = false;
  EXPECT_NEAR(with - time_of(reduces, c, ParallelPlan(8, {})).seconds, moved, 1e-9);
  c.software.exchange_share = 0.5;
  EXPECT_DOUBLE_EQ(seconds_of(collective("all_to_all_v", 8e9), c, {"dp", 8, 1}), 2 * (4e9 / 1e9 + 4e-5));
}

// Megatron's MLP on 4 ranks: up is cut by outputs, down by inputs and summed; in backward the other way
// round.
TEST(StepTime, MatricesAreCutOverTensorParallelRanks) {
  const SoftwareHabits software{.tensor_parallel = 4};
  const auto parts = [&](bool backward, bool of_weight, int64_t m, int64_t n, int64_t k) {
    WorkItem item = product(1, m, n, k);
    item.backward = backward, item.of_weight = of_weight;
    return as_done(item, software);
  };
  const std::vector<WorkItem> up = parts(false, false, 100, 64, 16), down = parts(false, false, 100, 16, 64);
  ASSERT_EQ(up.size(), 1U);
  EXPECT_EQ(up[0].n, 16);
  ASSERT_EQ(down.size(), 2U);
  EXPECT_EQ(down[0].k, 16);
  EXPECT_EQ(down[1].along, "tp");
  EXPECT_EQ(down[1].bytes, 2 * 100 * 16);
  EXPECT_DOUBLE_EQ(up[0].flops, 2.0 * 100 * 64 * 16 / 4);
  const std::vector<WorkItem> d_up = parts(true, false, 100, 16, 64),
                              d_down = parts(true, false, 100, 64, 16);
  ASSERT_EQ(d_up.size(), 2U);
  EXPECT_EQ(d_up[0].k, 16);
  EXPECT_EQ(d_up[1].bytes, 2 * 100 * 16);
  ASSERT_EQ(d_down.size(), 1U);
  EXPECT_EQ(d_down[0].n, 16);
  EXPECT_EQ(parts(true, true, 64, 16, 100)[0].m, 16);
  EXPECT_EQ(parts(true, true, 16, 64, 100)[0].n, 16);
}

TEST(StepTime, MoreRanksThanTheClusterHasNameTheCure) {
  try {
    time_of({}, cluster(), ParallelPlan(16, {}));
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::config);
    EXPECT_THAT(error.what(),
                AllOf(HasSubstr("16 ranks are more than toy has"), HasSubstr("give --ranks 8")));
  }
}

TEST(Cluster, MistakesAreToldAllAtOnceWithTheirPlace) {
  ClusterConfig c;
  try {
    parse_config(c,
                 "name: x\n"
                 "nodes: 0\n"
                 "device:\n"
                 "  peak_flop: 1e12\n"
                 "  memory_bandwidth: 0\n"
                 "  products: [{size: 100, share: 0.5}, {size: 50, share: 0.6}]\n"
                 "inside: {bandwidth: 0}\n",
                 "c.yaml");
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::config);
    EXPECT_THAT(error.what(), AllOf(HasSubstr("c.yaml:2:8: nodes"), HasSubstr("did you mean 'peak_flops'?"),
                                    HasSubstr("c.yaml:5:21: device.memory_bandwidth: expected"),
                                    HasSubstr("c.yaml:7:21: inside.bandwidth")));
  }
  const ClusterConfig good = cluster();
  EXPECT_NO_THROW(check_config(good));
  ClusterConfig unordered = good;
  unordered.device.products = {{100, 0.5}, {50, 0.6}};
  EXPECT_THROW(check_config(unordered), Error);
  ClusterConfig missing;
  EXPECT_THROW(parse_config(missing, "name: x\n"), Error);
}

}  // namespace
}  // namespace ziggurat
