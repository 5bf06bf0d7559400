// How a run takes numbers that cannot be right.
#pragma once

#include <cstdint>
#include <vector>

#include <ziggurat/config/fields.h>

namespace ziggurat::train {

enum class OnNonFinite { stop, skip };
inline std::vector<EnumName> enum_names(OnNonFinite) {
  return {{OnNonFinite::stop, "stop"}, {OnNonFinite::skip, "skip"}};
}

enum class OnSpike { off, skip, rewind };
inline std::vector<EnumName> enum_names(OnSpike) {
  return {{OnSpike::off, "off"}, {OnSpike::skip, "skip"}, {OnSpike::rewind, "rewind"}};
}

struct GuardConfig {
  OnNonFinite non_finite = OnNonFinite::stop;
  OnSpike spike = OnSpike::off;
  double spike_sigma = 6;
  int64_t spike_window = 128;
  int64_t skip_limit = 10;
  int64_t replica_check_every = 100;
  int64_t rerun_every = 0;

  template <class V>
  void visit_fields(V& v) {
    v.field(
        "non_finite", non_finite,
        "a loss or gradient that is infinite or no number: stop (exit 77), or skip that update on all ranks");
    v.field(
        "spike", spike,
        "a loss or gradient norm far above those before: off; skip that update on all ranks; rewind to the "
        "newest checkpoint and go on with the samples after the spike");
    v.field("spike_sigma", spike_sigma, "how far: standard deviations above the mean", above(0.0));
    v.field("spike_window", spike_window, "of so many updates before; judged from half of them on",
            at_least(2), at_most(1e6));
    v.field("skip_limit", skip_limit,
            "so many skipped updates in a row, or rewinds to one checkpoint, end the run (exit 77)",
            at_least(1), at_most(1e6));
    v.field(
        "replica_check_every", replica_check_every,
        "steps between comparisons of weights that must be equal on several ranks (exit 77), besides that "
        "before every checkpoint; 0: only that",
        unit::steps, at_least(0), at_most(1e15));
    v.field(
        "rerun_every", rerun_every,
        "steps between gradients that are computed again, on another rank where one holds the same experts, "
        "to find faulty machines (exit 77); 0: none",
        unit::steps, at_least(0), at_most(1e15));
  }
};

}  // namespace ziggurat::train
