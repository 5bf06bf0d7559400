#pragma once

#include <ziggurat/config/fields.h>

namespace ziggurat::watch {

struct WatchConfig {
  bool enabled = true;
  double timeout = 0;
  double long_phases = 1800;

  template <class V>
  void visit_fields(V& v) {
    v.field("enabled", enabled, "end the job when a rank is lost or makes no progress; false: for debuggers");
    v.field("timeout", timeout,
            "a rank that has made no progress for so long hangs, whatever it does; 0: in steps the larger of "
            "60s and five median steps, else long_phases",
            unit::seconds, at_least(0), at_most(1e9));
    v.field("long_phases", long_phases, "the same at the start, in loading, saving and evaluating",
            unit::seconds, above(0.0), at_most(1e9));
  }
};

}  // namespace ziggurat::watch
