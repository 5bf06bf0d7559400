// What the loss is made of, apart from what layers add to it.
#pragma once

#include <ziggurat/config/fields.h>

namespace ziggurat::objective {

struct ObjectiveConfig {
  double z_loss = 0;

  template <class V>
  void visit_fields(V& v) {
    v.field("z_loss", z_loss,
            "coefficient of log(sum of exp(logits))^2 of every token in the loss, which keeps the vocabulary "
            "head's logits near zero (PaLM, section 5: 1e-4); 0: none",
            at_least(0), at_most(1e6));
  }
};

}  // namespace ziggurat::objective
