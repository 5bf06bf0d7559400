// Every rule about a config: refused by the key, warned of by the key, or, when it is all right, neither.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/source_dir.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/config/config.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/train/review.h>
#include <ziggurat/train/step_plan.h>

namespace ziggurat::train {
namespace {

using ::testing::Contains;
using ::testing::Field;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;
using ziggurat::testing::error_of;

using Overrides = std::vector<std::string>;

RunConfig load(const Overrides& overrides, const std::string& file = "tiny/pr_moe.yaml") {
  RunConfig config;
  load_config(config, test::source_dir() + "/configs/" + file, overrides);
  check_trainable(config);
  return config;
}

struct Case {
  Overrides overrides;
  std::string key;
};

TEST(Review, MistakesAreRefusedByKey) {
  const std::vector<Case> cases = {
      {{"data.train=\"\""}, "data.train"},
      {{"output=~/runs"}, "output"},
      {{"output=\"a\\0b\""}, "output"},
      {{"name=\"a\\nb\""}, "name"},
      {{"batch.sequence_length=65"}, "batch.sequence_length"},
      {{"batch.sequence_length=65", "model.positions=rope"}, "batch.sequence_length"},
      {{"batch.micro_batch=5"}, "batch.global_batch"},
      {{"reproducible=strict", "batch.lanes=3"}, "batch.lanes"},
      {{"reproducible=strict", "batch.lanes=16"}, "batch.lanes"},
      {{"reproducible=strict", "model.moe.balance_scope=global_batch"}, "model.moe.balance_scope"},
      {{"batch.rampup={start: 64, increment: 4, samples: 100}"}, "batch.rampup.start"},
      {{"batch.rampup={start: 8, increment: 5, samples: 100}"}, "batch.rampup.increment"},
      {{"batch.rampup={start: 6, increment: 2, samples: 100}"}, "batch.rampup.start"},
      {{"batch.rampup={start: 8, increment: 2, samples: 100}"}, "batch.rampup.increment"},
      {{"model.moe.top_k=3"}, "model.moe.top_k"},
      {{"model.moe.choice_noise=second_expert"}, "model.moe.choice_noise"},
      {{"data.mask_eod_loss=true"}, "data.mask_eod_loss"},
      {{"data.reset_attention=true"}, "data.reset_attention"},
      {{"data.train=x", "data.order=megatron", "data.seed=4294967296"}, "data.seed"},
      {{"data.train=\"\"", "data.blend=[{weight: 1e-9, train: a}, {weight: 10, train: b}]"},
       "data.blend.0.weight"},
      {{"optimizer.min_lr=1"}, "optimizer.min_lr"},
      {{"parallel.zero=3"}, "parallel.zero"},
      {{"parallel.zero=2", "guard.rerun_every=1"}, "guard.rerun_every"},
      {{"precision=fp64", "optimizer.moments=bf16"}, "optimizer.moments"},
      {{"optimizer.moments=fp8"}, "optimizer.moments"},
      {{"data.train=x", "data.order=megatron", "train.tokens=1e18"}, "train.tokens"},
      {{"data.train=x", "data.order=megatron", "guard.spike=rewind"}, "guard.spike"},
      {{"guard.spike_sigma=0"}, "guard.spike_sigma"},
  };
  for (const Case& c : cases) {
    EXPECT_THAT(error_of(ErrorKind::config, [&] { load(c.overrides); }), HasSubstr(c.key + ": "))
        << c.overrides[0];
  }
}

TEST(Review, HugeSizesAreRefusedByKeyAtOnce) {
  const std::string most = "9223372036854775807";
  Overrides keys = {"model.vocab_size",
                    "model.vocab_multiple",
                    "model.max_sequence",
                    "model.hidden",
                    "model.heads",
                    "model.kv_heads",
                    "model.head_dim",
                    "model.ffn_hidden",
                    "model.moe.top_k",
                    "model.moe.min_capacity",
                    "batch.sequence_length",
                    "batch.micro_batch",
                    "batch.global_batch",
                    "batch.rampup.start",
                    "batch.rampup.increment",
                    "batch.rampup.samples",
                    "batch.lanes",
                    "train.tokens",
                    "optimizer.warmup_tokens",
                    "optimizer.decay_tokens",
                    "optimizer.wsd_decay_tokens",
                    "eval.every",
                    "eval.sequences",
                    "checkpoint.every",
                    "checkpoint.keep",
                    "log.every",
                    "model.blocks.0.repeat",
                    "model.blocks.0.pattern.1.experts"};
  for (const std::string& key : keys) {
    const std::string message = error_of(ErrorKind::config, [&] { load({key + "=" + most}); });
    EXPECT_THAT(message, HasSubstr(key + ": expected")) << key;
  }
  // Each within its bounds, too much together.
  const std::vector<Case> products = {
      {{"model.vocab_size=100000000", "model.hidden=1048576", "model.vocab_multiple=1",
        "model.ffn_hidden=16777216",
        "model.blocks=[{repeat: 10000, pattern: [{ffn: moe, experts: 1048576}]}]"},
       "model.blocks"},
      {{"model.blocks=[{repeat: 10000, pattern: [{}, {}, {}, {}, {}, {}, {}, {}, {}, {}, {}]}]"},
       "model.blocks"},
      {{"batch.micro_batch=1048576", "batch.global_batch=1048576", "model.max_sequence=4096",
        "batch.sequence_length=4096"},
       "batch.micro_batch"},
      {{"batch.micro_batch=1048576", "batch.global_batch=1048576", "model.hidden=65536"},
       "batch.micro_batch"},
  };
  for (const Case& c : products) {
    EXPECT_THAT(error_of(ErrorKind::config, [&] { load(c.overrides); }), HasSubstr(c.key + ": expected"));
  }
}

// At its bounds a ramp-up has 16 million steps and more samples than anybody counts one by one.
TEST(Review, ALongRampUpIsCountedWithoutWalkingIt) {
  const RunConfig c = load({"batch.micro_batch=1", "batch.global_batch=16777216", "train.tokens=1e18",
                            "batch.rampup={start: 1, increment: 1, samples: 100B}"});
  EXPECT_GE(samples_of_run(c), int64_t{1'000'000'000'000'000'000} / 64);
  EXPECT_GT(total_steps(c), 0);
  EXPECT_NO_THROW(check_for_ranks(c, 1));
}

TEST(Review, ValuesThatFp32CannotHoldAreRefused) {
  const Overrides values = {"optimizer.eps=1e-50",
                            "optimizer.eps=1e-40",
                            "optimizer.lr=1e39",
                            "optimizer.min_lr=1e-50",
                            "optimizer.beta1=0.999999999999",
                            "optimizer.beta2=0.999999999999",
                            "optimizer.beta2=1e-60",
                            "optimizer.weight_decay=1e-50",
                            "optimizer.weight_decay=1e39",
                            "optimizer.clip_grad=1e-50",
                            "optimizer.clip_grad=1e200",
                            "model.norm_eps=1e-50",
                            "model.norm_eps=1e39",
                            "model.init_std=1e-50",
                            "model.init_std=1e39",
                            "model.dropout.hidden=0.999999999999",
                            "model.dropout.embedding=1e-50",
                            "model.moe.jitter=0.999999999999",
                            "model.moe.balance_coefficient=1e-50",
                            "model.moe.z_coefficient=1e39",
                            "model.moe.capacity_factor=1e-50"};
  for (const std::string& value : values) {
    const std::string key = value.substr(0, value.find('='));
    for (const char* precision : {"precision=fp32", "precision=bf16"}) {
      EXPECT_THAT(error_of(ErrorKind::config,
                           [&] {
                             load({value, precision});
                           }),
                  HasSubstr(key + ": computed in fp32"))
          << value;
    }
    // fp64 holds them, but rates and capacities go through fp32 there as well.
    const bool always = key.starts_with("model.dropout") || key == "model.moe.capacity_factor";
    if (always) {
      EXPECT_THAT(error_of(ErrorKind::config, [&] { load({value, "precision=fp64"}); }), HasSubstr(key));
    } else if (value != "optimizer.lr=1e39" && !value.ends_with("e39")) {
      EXPECT_NO_THROW(load({value, "precision=fp64"})) << value;
    }
  }
  EXPECT_THAT(error_of(ErrorKind::config, [&] { load({"optimizer.lr=3e38"}); }),
              HasSubstr("optimizer.lr: lr / (1 - beta1) is computed in fp32: expected at most 3.4e+37"));
  EXPECT_THAT(error_of(ErrorKind::config,
                       [&] {
                         load({"optimizer.lr=1e30", "optimizer.weight_decay=1e9"});
                       }),
              HasSubstr("optimizer.weight_decay: lr x weight_decay"));
  EXPECT_NO_THROW(load({"optimizer.eps=1e-30", "optimizer.beta2=0.9999999"}));
  EXPECT_THAT(error_of(ErrorKind::config, [&] { load({"optimizer.beta2=0.999999999999"}); }),
              HasSubstr("expected at most 0.99999994"));
}

// A rule about an option that the config does not use would only be in the way.
TEST(Review, NothingIsRefusedForAValueThatNobodyReads) {
  const std::vector<Overrides> fine = {
      {"optimizer.schedule=constant", "optimizer.lr=1e-4"},  // below the file's min_lr
      {"batch.lanes=3"},
      {"model.blocks=[{pattern: [{}]}]", "model.moe.top_k=50", "model.moe.choice_noise=rsample"},
      {"model.blocks=[{pattern: [{}]}]", "reproducible=strict", "model.moe.balance_scope=global_batch"},
      {"data.order=megatron", "data.shuffle=false", "guard.spike=rewind"},
      {"batch.rampup={increment: 7, samples: 3}"},
      {"optimizer.schedule=constant", "optimizer.decay_tokens=0"},
      {"optimizer.schedule=cosine", "optimizer.wsd_decay_tokens=1T"},
  };
  for (const Overrides& overrides : fine) EXPECT_NO_THROW(load(overrides)) << overrides[0];
}

TEST(Review, OptionsWithoutEffectAreNamed) {
  const Overrides dense = {"model.blocks=[{pattern: [{}]}]"};
  const auto dense_with = [&](const std::string& option) { return Overrides{dense[0], option}; };
  const std::vector<Case> cases = {
      {dense_with("model.moe.top_k=2"), "model.moe.top_k"},
      {dense_with("model.moe.drop=none"), "model.moe.drop"},
      {dense_with("parallel.all_to_all=flat"), "parallel.all_to_all"},
      {dense_with("model.moe.choice_noise=rsample"), "model.moe.choice_noise"},
      {{"model.blocks=[{pattern: [{ffn: moe, experts: 4}]}]", "model.moe.residual_mix=sum"},
       "model.moe.residual_mix"},
      {{"model.blocks=[{pattern: [{ffn: moe, experts: 4}]}]", "model.moe.residual_hidden=64"},
       "model.moe.residual_hidden"},
      {{"model.moe.residual_mix=sum", "model.moe.coefficient_bias=false"}, "model.moe.coefficient_bias"},
      {{"model.moe.drop=none", "model.moe.capacity_factor=2"}, "model.moe.capacity_factor"},
      {{"model.moe.drop=none", "model.moe.eval_capacity_factor=2"}, "model.moe.eval_capacity_factor"},
      {{"model.moe.drop=none", "model.moe.min_capacity=9"}, "model.moe.min_capacity"},
      {{"model.moe.slot_order=token_first"}, "model.moe.slot_order"},
      {{"model.moe.balance_count=all_choices"}, "model.moe.balance_count"},
      {{"model.moe.balance_coefficient=0", "model.moe.balance_scope=sequence"}, "model.moe.balance_scope"},
      {{"model.moe.renormalise=chosen"}, "model.moe.renormalise"},
      {{"model.moe.balance_scope=global_batch"}, "model.moe.balance_scope"},
      {{"model.moe.jitter=1e-9"}, "model.moe.jitter"},
      {{"model.rope_theta=500000"}, "model.rope_theta"},
      {{"optimizer.schedule=constant"}, "optimizer.min_lr"},
      {{"optimizer.schedule=constant"}, "optimizer.decay_tokens"},
      {{"optimizer.schedule=rsqrt"}, "optimizer.decay_tokens"},
      {{"optimizer.wsd_decay_tokens=1K"}, "optimizer.wsd_decay_tokens"},
      {{"train.tokens=100K", "optimizer.warmup_tokens=375M", "optimizer.decay_tokens=1B"},
       "optimizer.warmup_tokens"},
      {{"train.tokens=100K"}, "optimizer.decay_tokens"},
      {{"optimizer.weight_decay=1e-9"}, "optimizer.weight_decay"},
      {{"optimizer.weight_decay=1e6"}, "optimizer.weight_decay"},
      {{"batch.rampup.samples=100"}, "batch.rampup.samples"},
      {{"batch.rampup={start: 8, increment: 8, samples: 1M}"}, "batch.rampup.samples"},
      {{"batch.lanes=2"}, "batch.lanes"},
      {{"precision=fp32", "optimizer.masters=bf16"}, "optimizer.masters"},
      {{"train.graphs=off"}, "train.graphs"},
      {{"guard.spike_sigma=4"}, "guard.spike_sigma"},
      {{"guard.spike_window=64"}, "guard.spike_window"},
      {{"guard.skip_limit=3"}, "guard.skip_limit"},
      {{"data.order=megatron"}, "data.order"},
      {{"data.shuffle=false"}, "data.shuffle"},
      {{"data.tokenizer=bytes"}, "data.tokenizer"},
      {{"data.train=x", "data.shuffle=false", "data.seed=5"}, "data.seed"},
      {{"data.train=x.h5", "data.valid=x.h5"}, "data.valid"},
      {{"data.valid=\"\""}, "eval.sequences"},
      {{"data.valid=\"\""}, "eval.every"},
      {{"eval.sequences=0"}, "data.valid"},
      {{"checkpoint.every=500"}, "checkpoint.every"},
      {{"eval.every=500"}, "eval.every"},
      {{"log.every=500"}, "log.every"},
  };
  for (const Case& c : cases) {
    const std::vector<Warning> warnings = warnings_of(load(c.overrides));
    EXPECT_THAT(warnings, Contains(Field(&Warning::key, c.key))) << c.overrides[0];
    for (const Warning& w : warnings) {
      EXPECT_FALSE(w.value.empty() || w.why.empty() || w.cure.empty()) << to_string(w);
    }
  }
  EXPECT_THAT(warnings_of(load({"train.tokens=100K", "optimizer.warmup_tokens=375M",
                                "optimizer.decay_tokens=1B", "optimizer.lr=3e-4", "optimizer.min_lr=3e-5"})),
              Contains(Field(&Warning::why, HasSubstr("ends at 8e-08"))));
}

TEST(Review, SaysNothingOfWhatActs) {
  const std::vector<Overrides> fine = {
      {"model.moe.drop=position", "model.moe.top_k=2", "model.moe.slot_order=token_first",
       "model.moe.balance_count=all_choices", "model.moe.balance_scope=sequence"},
      {"model.moe.eval_capacity_factor=2", "model.moe.capacity_factor=1.5", "model.moe.min_capacity=8"},
      {"model.positions=rope", "model.rope_theta=500000"},
      {"optimizer.schedule=wsd", "optimizer.wsd_decay_tokens=20K"},
      {"optimizer.weight_decay=0"},
      {"batch.rampup={start: 8, increment: 8, samples: 1K}"},
      {"reproducible=strict", "batch.lanes=2"},
      {"data.valid=\"\"", "eval={every: 0, sequences: 0}"},
      {"data.train=x", "data.valid=x", "data.order=megatron", "data.seed=7", "data.tokenizer=bytes"},
  };
  for (const Overrides& overrides : fine) {
    for (const Warning& w : warnings_of(load(overrides)))
      ADD_FAILURE() << overrides[0] << ": " << to_string(w);
  }
}

}  // namespace
}  // namespace ziggurat::train
