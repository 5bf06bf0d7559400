// What the loss is made of, apart from what layers add to it.
#pragma once

#include <ziggurat/config/fields.h>

namespace ziggurat::objective {

struct ObjectiveConfig {
  double z_loss = 0;
  double label_smoothing = 0;

  template <class V>
  void visit_fields(V& v) {
    v.field("z_loss", z_loss,
            "coefficient of log(sum of exp(logits))^2 of every token in the loss, which keeps the vocabulary "
            "head's logits near zero (PaLM, section 5: 1e-4); 0: none",
            at_least(0), at_most(1e6));
    v.field("label_smoothing", label_smoothing,
            "share of every target that is spread evenly over the vocabulary (OpenMoE: none; its ColossalAI "
            "configuration 0.001)",
            at_least(0), below(1));
  }
};

}  // namespace ziggurat::objective
