// Simulated steps of whole models: that the noted work is the model's, and what the paper measured.
#include <algorithm>
#include <numeric>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/source_dir.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/config/config.h>
#include <ziggurat/train/layout_search.h>
#include <ziggurat/train/record_step.h>

namespace ziggurat::train {
namespace {

using Kind = WorkItem::Kind;
using ::testing::AllOf;
using ::testing::HasSubstr;
using ziggurat::testing::error_of;

RunConfig run(const std::string& name, std::vector<std::string> overrides = {}) {
  RunConfig config;
  load_config(config, test::source_dir() + "/configs/" + name + ".yaml", overrides);
  return config;
}

ClusterConfig cluster(const std::string& name, std::vector<std::string> overrides = {}) {
  ClusterConfig config;
  load_config(config, test::source_dir() + "/configs/clusters/" + name + ".yaml", overrides);
  return config;
}

double flops(const std::vector<WorkItem>& items) {
  return std::accumulate(items.begin(), items.end(), 0.0,
                         [](double sum, const WorkItem& i) { return sum + i.flops; });
}

TEST(RecordStep, NotesTheFlopsThatTheModelCounts) {
  for (const char* name : {"published/350m_dense", "published/1.3b_dense"}) {
    const RunConfig config = run(name, {"train.recompute=false", "batch.rampup={}"});
    const StepWork work = record_step(config, 1);
    const double tokens = static_cast<double>(config.batch.micro_batch * config.batch.sequence_length);
    const double counted = tokens * model::count(config.model, config.batch.sequence_length).flops_per_token;
    // The count takes 12 L T h a token for attention; here it is the causal half, and 7 products instead
    // of 6.
    double attention = 0;
    for (const WorkItem& item : work.first) attention += item.kind == Kind::attention ? item.flops : 0;
    const double h = static_cast<double>(config.model.hidden),
                 t = static_cast<double>(config.batch.sequence_length);
    const double layers = static_cast<double>(config.model.layer_count());
    EXPECT_DOUBLE_EQ(attention, 7 * layers * tokens * t * h);
    // Biases, norms and positions count as 6 FLOPs there; they are no products.
    EXPECT_NEAR(flops(work.first) - attention, counted - 12 * layers * tokens * t * h, 0.005 * counted);
    EXPECT_EQ(flops(work.first), flops(work.later));
    EXPECT_EQ(work.micro_batches, config.batch.global_batch / config.batch.micro_batch);
  }
}

TEST(RecordStep, RecomputeRunsTheBlocksOnceMore) {
  const double once = flops(record_step(run("tiny/pr_moe", {"train.recompute=false"}), 1).first),
               twice = flops(record_step(run("tiny/pr_moe", {"train.recompute=true"}), 1).first);
  EXPECT_GT(twice, 1.15 * once);
  EXPECT_LT(twice, 4.0 / 3 * once);
}

TEST(RecordStep, NotesCollectivesWithTheirGroupAndBytes) {
  const RunConfig config = run("published/1.3b_moe128", {"train.recompute=false"});
  const StepWork work = record_step(config, 128);
  int64_t exchanges = 0;
  for (const WorkItem& item : work.first) {
    if (item.kind != Kind::collective || item.name != "all_to_all_v") continue;
    ++exchanges;
    EXPECT_EQ(item.along, "ep128");
    EXPECT_EQ(item.ranks, 128);
    EXPECT_EQ(item.bytes, 4 * 2048 * 2048 * 2);  // capacity factor 1: as many rows as tokens, bf16
  }
  EXPECT_EQ(exchanges, 12 * 4);  // there and back, forward and backward
  // Gradients of all but experts, f32; an expert is on one rank, and its group has nothing to add up.
  double reduced = 0;
  for (const WorkItem& item : work.reduction) {
    EXPECT_EQ(item.ranks, 128);
    reduced += item.bytes;
  }
  EXPECT_GT(work.reduction.size(), 2U);  // matrices and the rest, in buckets
  const auto counts = model::count(config.model, 2048);
  EXPECT_EQ(reduced, 4.0 * static_cast<double>(counts.parameters - counts.expert_parameters));
}

TEST(Simulation, MoreRanksAndFasterRoofsAreNeverSlower) {
  const RunConfig config = run("published/350m_moe128", {"batch.micro_batch=1"});
  const auto seconds = [&](int ranks, std::vector<std::string> overrides) {
    return simulate_step(config, ranks, cluster("a100_256", std::move(overrides))).seconds;
  };
  EXPECT_LT(seconds(256, {}), seconds(128, {}));
  EXPECT_LT(seconds(128, {}), seconds(64, {}));
  for (const char* faster :
       {"device.peak_flops=400e12", "device.memory_bandwidth=2e12", "inside.latency=0",
        "between.bandwidth=50e9", "between.latency=1e-6", "software.hides_gradients=true",
        "software.hides_exchange=true", "software.gradient_bytes=2"}) {
    EXPECT_LE(seconds(128, {faster}), seconds(128, {})) << faster;
  }
  for (const char* slower : {"software.dense_dispatch=true", "software.attention_scores_in_memory=true",
                             "software.dropout_masks_in_memory=true", "software.plain_loss=true",
                             "software.exchange_share=0.5", "software.host_gap=1e-4"}) {
    // Without latencies: dense dispatch saves the exchange of counts.
    EXPECT_GT(seconds(128, {"between.latency=0", slower}), seconds(128, {"between.latency=0"})) << slower;
  }
}

TEST(Simulation, SearchFindsWhatFitsFirst) {
  const RunConfig config = run("published/350m_moe128");
  const std::vector<Layout> layouts = search_layouts(config, cluster("h100_64"), 64);
  ASSERT_FALSE(layouts.empty());
  EXPECT_TRUE(layouts.front().fits);
  EXPECT_FALSE(layouts.back().fits);  // 13 G parameters whole on a rank
  for (size_t i = 1; i < layouts.size(); ++i) {
    EXPECT_GE(layouts[i - 1].fits, layouts[i].fits);
    if (layouts[i - 1].fits == layouts[i].fits) {
      EXPECT_GE(layouts[i - 1].time.samples_per_second, layouts[i].time.samples_per_second);
    }
  }
  const Layout& best = layouts.front();
  EXPECT_EQ(best.time.seconds,
            simulate_step(with_layout(config, best), best.ranks, cluster("h100_64")).seconds);
}

TEST(Simulation, TensorParallelismIsForDenseModels) {
  try {
    simulate_step(run("published/350m_moe128"), 128, cluster("a100_128_megatron_tp8"));
    FAIL() << "expected an Error";
  } catch (const Error& error) {
    EXPECT_THAT(error.what(), AllOf(HasSubstr("software.tensor_parallel"), HasSubstr("set it to 1")));
  }
}

TEST(Simulation, SearchesFromTheGivenRanksDown) {
  const RunConfig config = run("published/350m_moe128");
  int most = 0;
  for (const Layout& layout : search_layouts(config, cluster("a100_128"), 64)) {
    most = std::max(most, layout.ranks);
    EXPECT_EQ(config.batch.global_batch % (layout.ranks / layout.tensor * layout.micro_batch), 0);
  }
  EXPECT_EQ(most, 64);
}

TEST(Simulation, SearchTellsWhyThereIsNothingToSearch) {
  const auto message = [](const char* name, int ranks, std::vector<std::string> overrides) {
    return error_of(ErrorKind::config,
                    [&] { search_layouts(run(name), cluster("a100_128", std::move(overrides)), ranks); });
  };
  EXPECT_THAT(message("published/350m_dense", 24, {}),
              AllOf(HasSubstr("batch.global_batch: 256 sequences cannot be shared by 24 ranks"),
                    HasSubstr("a multiple of 24")));
  EXPECT_THAT(message("published/350m_dense", 256, {}), HasSubstr("give --ranks 128 or fewer"));
  // Cut over 8 ranks it would fit, but nothing here plans that.
  EXPECT_THAT(message("published/6.7b_dense", 128, {"software.tensor_parallel=8"}),
              AllOf(HasSubstr("software.tensor_parallel: 8"), HasSubstr("leave out --search")));
}

// 19.5 TFLOP/s of an A100, not 312.
TEST(Simulation, ProductsAreThoseOfTheClustersRoof) {
  EXPECT_THAT(
      error_of(
          ErrorKind::config,
          [] { simulate_step(run("published/350m_dense", {"precision=fp32"}), 64, cluster("a100_128")); }),
      HasSubstr("give precision=bf16"));
}

// Megatron-LM on DGX A100 of 80 GB and HDR (arXiv 2104.04473, table 1): TFLOP/s a GPU by its own count, with
// recompute, of models without pipeline stages. Their micro-batches are not told: 4 here.
TEST(Simulation, MegatronsThroughputWithTensorParallelism) {
  struct Row {
    int64_t layers, hidden, heads;
    int tp, ranks;
    int64_t batch;
    double tflops;
  };
  for (const Row& r : {Row{24, 2304, 24, 1, 32, 512, 137},
                       {30, 3072, 32, 2, 64, 512, 138},
                       {36, 4096, 32, 4, 128, 512, 142},
                       {40, 6144, 48, 8, 256, 1024, 135}}) {
    const RunConfig config =
        run("published/1.3b_dense",
            {fmt::format("model.hidden={}", r.hidden), fmt::format("model.heads={}", r.heads),
             fmt::format("model.blocks=[{{repeat: {}, pattern: [{{ffn: dense}}]}}]", r.layers),
             "batch.rampup={}", "batch.micro_batch=4", fmt::format("batch.global_batch={}", r.batch)});
    const ClusterConfig dgx = cluster(
        "a100_256", {"device.memory_bandwidth=1.8e12",  // 2.04e12 on the data sheet
                     "software.attention_scores_in_memory=true", "software.dropout_masks_in_memory=true",
                     fmt::format("software.tensor_parallel={}", r.tp)});
    const StepTime time = simulate_step(config, r.ranks, dgx);
    const double s = 2048, l = static_cast<double>(r.layers), h = static_cast<double>(r.hidden), v = 51200;
    const double flops =
        96 * static_cast<double>(r.batch) * s * l * h * h * (1 + s / (6 * h) + v / (16 * l * h));
    EXPECT_NEAR(flops / time.seconds / r.ranks / 1e12, r.tflops, 0.15 * r.tflops) << "tp " << r.tp;
  }
}

// Table 3 of the DeepSpeed-MoE paper (arXiv 2201.05596), samples/s on 128 A100: 372 and 70. Named habits of
// its software explain three quarters of what the first takes longer than the same layout without them, to 15
// %. Of the second, with the matrices cut over the ranks of a node, they explain little: the simulation,
// which meets Megatron's figures above, has no name for the other half of its step.
TEST(Simulation, ThePapersThroughputIsBelowWhatItsNamedHabitsAllow) {
  const auto samples = [](const char* model, const char* on) {
    return simulate_step(run(model), 128, cluster(on)).samples_per_second;
  };
  const double moe = samples("published/1.3b_moe128", "a100_128_deepspeed");
  EXPECT_NEAR(moe, 372, 0.16 * 372);
  EXPECT_LT(moe, 0.8 * samples("published/1.3b_moe128", "a100_128"));
  EXPECT_GT(samples("published/6.7b_dense", "a100_128_megatron_tp8"), 70);
}

}  // namespace
}  // namespace ziggurat::train
