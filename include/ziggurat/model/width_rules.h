// Maximal update parametrisation (Yang et al. 2022, arXiv 2203.03466, tables 3 and 8) for Adam and Lion:
// initial values and learning rates by the width m = hidden / mup_base_hidden, so that activations and their
// changes keep their size however wide the model is, and what was tuned at the base width serves at any.
//
//   parameter                                        initial values   learning rate
//   matrices of attention, MLPs and experts          m^-1/2           m^-1
//   router, coefficients of the residual mix         m^-1             m^-1
//   head                                             m^-1             m^-1
//   tied head: final norm, instead of a factor       m^-1             m^-1
//   embeddings, norms, biases                        1                1
//
// The factor 1 / m of a tied head's logits is the final norm's: under Adam and Lion that is the same, and the
// model stays one that other programs know. Inner widths are to grow as hidden does, heads in number; of
// wider heads scores want 1 / head_dim (model.attention_scale). How many experts there are is no width.
// Weight decay takes the same share of a weight in a step at every width.
#pragma once

#include <ziggurat/model/model_config.h>
#include <ziggurat/nn/param_store.h>

namespace ziggurat::model {

struct WidthRule {
  double init = 1, lr = 1;
};
WidthRule width_rule(const ModelConfig& config, const nn::ParamSpec& spec);

// To all of the model's parameters, before the store is finalized.
void apply_width_rules(const ModelConfig& config, nn::ParamStore& store);

}  // namespace ziggurat::model
