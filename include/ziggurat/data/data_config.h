#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include <ziggurat/config/fields.h>

namespace ziggurat {

// In which order the training samples are seen.
enum class OrderKind {
  keyed,     // a computed permutation of each epoch: no index, nothing to build (sample_order.h)
  megatron,  // the order of Megatron-LM's GPTDataset, bit for bit (megatron_order.h)
};
inline std::vector<EnumName> enum_names(OrderKind) {
  return {{OrderKind::keyed, "keyed"}, {OrderKind::megatron, "megatron"}};
}

// One source of a blend.
struct BlendSource {
  std::string name;
  double weight = 0;
  std::string train, valid, test;

  template <class V>
  void visit_fields(V& v) {
    v.field("name", name, "of the source, in reports and errors; empty: its path");
    v.field("weight", weight, "share of the samples; weights are divided by their sum", above(0.0),
            at_most(1e12));
    v.field("train", train, "training shards, as data.train");
    v.field("valid", valid, "validation shards; empty: the source takes no part in validation");
    v.field("test", test, "test shards; empty: the source takes no part in the test");
  }
};

// One way of UL2 to corrupt a sample.
struct Denoiser {
  double share = 1;
  int64_t span = 0;
  double rate = 0.5;

  template <class V>
  void visit_fields(V& v) {
    v.field("share", share, "of the samples; shares are divided by their sum", above(0.0), at_most(1e6));
    v.field("span", span,
            "mean length of the spans that are taken out; 0: the end of the sample is (prefix LM)",
            unit::tokens, at_least(0), at_most(1 << 24));
    v.field("rate", rate, "share of the tokens that is taken out and to be told", above(0.0), below(1.0));
  }
};

// Training by UL2, then by next tokens (data/ul2.h).
struct Ul2Config {
  int64_t until = 0;
  int64_t sentinels = 300;
  bool bidirectional = false;
  std::vector<Denoiser> mixture;

  bool enabled() const { return until > 0; }

  template <class V>
  void visit_fields(V& v) {
    v.field("until", until,
            "the first so many tokens of the run are trained by UL2, the others by next tokens; 0: none "
            "(OpenMoE: "
            "8B 780B, 34B 50B)",
            unit::tokens, at_least(0), at_most(1e18));
    v.field("sentinels", sentinels,
            "ids for spans: the last so many of model.vocab_size, which the tokenizer leaves free",
            at_least(1), at_most(1 << 20));
    v.field("bidirectional", bidirectional,
            "the tokens of a corrupted text see each other, also later ones; false: every token sees earlier "
            "ones "
            "only (OpenMoE)");
    v.field(
        "mixture", mixture,
        "ways to corrupt samples; empty: OpenMoE's, half prefix LM and 10 % each spans of 3 and 8 at rates "
        "0.15 and 0.5, and of 64 at 0.5");
  }
};
std::vector<Denoiser> denoisers_of(const Ul2Config& config);  // the mixture

// Section `data` of a config.
struct DataConfig {
  std::string train, valid, test;
  std::vector<BlendSource> blend;
  std::string tokenizer;
  int64_t seed = 1234;
  OrderKind order = OrderKind::keyed;
  bool shuffle = true;
  bool mask_eod_loss = false, reset_positions = false, reset_attention = false;
  Ul2Config ul2;
  int64_t verify_below = 1'000'000'000;

  template <class V>
  void visit_fields(V& v) {
    v.field("train", train,
            "training shards: a manifest (<source>-train.json), a folder with one, or an .h5 file");
    v.field("valid", valid, "validation shards; empty: no validation");
    v.field("test", test, "test shards; empty: no test at the end");
    v.field("blend", blend, "several sources by weight, instead of data.train");
    v.field(
        "tokenizer", tokenizer,
        "tokenizer.json, or a folder with one or with GPT-2's files; needed to generate and evaluate text");
    v.field("seed", seed, "decides the order of the training samples", at_least(0));
    v.field("order", order, "of the training samples; megatron: that of Megatron-LM, bit for bit");
    v.field("shuffle", shuffle, "see the training samples in a random order, a new one each epoch");
    v.field("mask_eod_loss", mask_eod_loss,
            "count no loss for predicting what follows an end-of-document token: losses are means over the "
            "tokens "
            "that count");
    v.field("reset_positions", reset_positions,
            "count positions from 0 again after each end-of-document token, where several documents share a "
            "sequence");
    v.field("reset_attention", reset_attention,
            "let a token attend to its own document only, up to and including its end-of-document token");
    v.field("ul2", ul2, "UL2's mixture of denoisers");
    v.field(
        "verify_below", verify_below,
        "check every checksum at the start if a split has at most this many tokens (about 1 s per billion); "
        "larger ones: `ziggurat data verify`",
        unit::tokens);
  }
  void validate(Problems& problems) const;
};

}  // namespace ziggurat
