// A small config with every kind of field, for the tests of this room.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include <ziggurat/config/config.h>
#include <ziggurat/core/error.h>

namespace ziggurat::config_test {

enum class Ffn { dense, moe, residual_moe };
inline std::vector<EnumName> enum_names(Ffn) {
  return {{Ffn::dense, "dense"}, {Ffn::moe, "moe"}, {Ffn::residual_moe, "residual_moe"}};
}

struct Adam {
  double beta1 = 0.9;
  double eps = 1e-8;
  bool operator==(const Adam&) const = default;
  template <class V>
  void visit_fields(V& v) {
    v.field("beta1", beta1, "decay of the first moment", at_least(0.0), below(1.0));
    v.field("eps", eps, "added to the root of the second moment", above(0.0));
  }
};

struct Optimizer {
  double lr = 3e-4;
  int64_t warmup_tokens = 375'000'000;
  int64_t decay_tokens = 260'000'000'000;
  Adam adam;
  bool operator==(const Optimizer&) const = default;
  template <class V>
  void visit_fields(V& v) {
    v.field("lr", lr, "peak learning rate", above(0.0));
    v.field("warmup_tokens", warmup_tokens, "linear warm-up", unit::tokens, at_least(0));
    v.field("decay_tokens", decay_tokens, "end of the cosine", unit::tokens, at_least(1));
    v.field("adam", adam, "moments");
  }
  void validate(Problems& problems) const {
    if (warmup_tokens >= decay_tokens) problems.add("warmup_tokens", "must be below decay_tokens");
  }
};

struct Block {
  Ffn ffn = Ffn::dense;
  int repeat = 1;
  std::optional<int64_t> experts;
  bool operator==(const Block&) const = default;
  template <class V>
  void visit_fields(V& v) {
    v.field("ffn", ffn, "feed-forward kind");
    v.field("repeat", repeat, "how many such layers", at_least(1));
    v.field("experts", experts, "experts per layer", at_least(1));
  }
  void validate(Problems& problems) const {
    if (ffn != Ffn::dense && !experts)
      problems.add("experts", "expected a number of experts for a moe layer, got null");
  }
};

struct Train {
  std::string name = "run";
  bool compile = false;
  Optimizer optimizer;
  std::vector<Block> blocks = {Block{}, Block{Ffn::moe, 2, 8}};
  std::vector<int64_t> sizes = {1, 2};
  std::vector<std::string> tags;
  std::optional<std::string> note;
  int64_t cache = int64_t{2} << 30;
  int64_t save_every = 5400;
  double timeout = 0.5;
  bool operator==(const Train&) const = default;
  template <class V>
  void visit_fields(V& v) {
    v.field("name", name, "name of the run", not_empty);
    v.field("compile", compile, "fuse kernels");
    v.field("optimizer", optimizer, "how weights move");
    v.field("blocks", blocks, "layers, from the bottom");
    v.field("sizes", sizes, "expert-parallel sizes", between(1, 64));
    v.field("tags", tags, "free words");
    v.field("note", note, "free text");
    v.field("cache", cache, "page cache", unit::bytes);
    v.field("save_every", save_every, "time between checkpoints", unit::seconds);
    v.field("timeout", timeout, "of a collective", unit::seconds, above(0.0));
  }
};

// The message of the Error(config) that reading `yaml` throws; "no error" when it doesn't.
template <class T = Train>
std::string problems_of(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  T out;
  try {
    parse_config(out, yaml, "c.yaml", overrides);
  } catch (const Error& e) {
    return e.kind() == ErrorKind::config ? e.what() : std::string("wrong kind: ") + e.what();
  }
  return "no error";
}

inline Train parse(const std::string& yaml, const std::vector<std::string>& overrides = {}) {
  Train out;
  parse_config(out, yaml, "c.yaml", overrides);
  return out;
}

}  // namespace ziggurat::config_test
