// Maximal update parametrisation (Yang et al. 2022, arXiv 2203.03466, tables 3 and 8): initial values and
// learning rates by the width m = hidden / mup_base_hidden, so that activations and their changes keep their
// size however wide the model is, and what was tuned at the base width serves at any.
//
//                                                                     learning rate of
//   parameter                                     initial values   Adam, Lion   Adafactor   Muon adamw, shape
//   matrices of attention, MLPs and experts       m^-1/2           m^-1         m^-1/2      m^-1/2, 1
//   router, coefficients of the residual mix      m^-1             m^-1         1           as Adam
//   head                                          m^-1             m^-1         1           as Adam
//   tied head: final norm, instead of a factor    m^-1             m^-1         1           as Adam
//   embeddings, norms, biases                     1                1            1           as Adam
//
// What an update does to activations goes by its spectral norm, which is to keep sqrt(outputs / inputs)
// (Yang, Simon and Bernstein 2023, arXiv 2310.17813, condition 1). Elements of Adam's and Lion's have the
// size of lr. Adafactor's are relative to the parameter's, which is smaller already (Everett et al. 2024,
// arXiv 2407.05872, table 1); as long as it is above optimizer.adafactor.least_scale. Muon's are orthogonal:
// with scale shape they are what the condition asks for, with scale adamw sqrt(m) times as long.
//
// The factor 1 / m of a tied head's logits is the final norm's: that is the same, and the model stays one
// that other programs know. Inner widths are to grow as hidden does, and heads in number: or in width, from
// mup_base_head_dim, and then scores are scaled by 1 / head_dim (definition 4.1). How many experts there are
// is no width. Weight decay takes the same share of a weight in a step at every width.
#pragma once

#include <ziggurat/model/model_config.h>
#include <ziggurat/nn/param_store.h>

namespace ziggurat::model {

struct WidthRule {
  double init = 1, lr = 1;  // lr: of Adam
};
WidthRule width_rule(const ModelConfig& config, const nn::ParamSpec& spec);

// To all of the model's parameters, before the store is finalized.
void apply_width_rules(const ModelConfig& config, nn::ParamStore& store);

}  // namespace ziggurat::model
