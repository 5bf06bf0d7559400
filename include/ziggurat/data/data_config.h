#pragma once

#include <cstdint>
#include <string>

#include <ziggurat/config/fields.h>

namespace ziggurat {

// Section `data` of a config.
struct DataConfig {
  std::string train, valid, test;
  std::string tokenizer;
  int64_t seed = 1234;
  bool shuffle = true;
  int64_t verify_below = 1'000'000'000;

  template <class V>
  void visit_fields(V& v) {
    v.field("train", train,
            "training shards: a manifest (<source>-train.json), a folder with one, or an .h5 file");
    v.field("valid", valid, "validation shards; empty: no validation");
    v.field("test", test, "test shards; empty: no test at the end");
    v.field(
        "tokenizer", tokenizer,
        "tokenizer.json, or a folder with one or with GPT-2's files; needed to generate and evaluate text");
    v.field("seed", seed, "decides the order of the training samples", at_least(0));
    v.field("shuffle", shuffle, "see the training samples in a random order, a new one each epoch");
    v.field(
        "verify_below", verify_below,
        "check every checksum at the start if a split has at most this many tokens (about 1 s per billion); "
        "larger ones: `ziggurat data verify`",
        unit::tokens);
  }
};

}  // namespace ziggurat
