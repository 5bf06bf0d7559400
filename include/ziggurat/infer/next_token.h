// What a row of logits says of the next token.
#pragma once

#include <cstdint>
#include <vector>

#include <ziggurat/tensor/tensor.h>

namespace ziggurat::infer {

struct NextToken {
  int32_t likeliest = 0;   // the first among equals
  double log_sum_exp = 0;  // over the vocabulary, without its padding
  // Of `token`, in nats; `logits` and `row` as this was made from.
  double log_probability(const Tensor& logits, size_t row, int32_t token) const;
};

// Of every row of logits [rows, padded vocab]. Throws Error(numeric) where one is not finite.
std::vector<NextToken> next_tokens(const Tensor& logits, int64_t vocabulary);

// The n likeliest tokens of a row, likeliest first; among equals the first.
std::vector<int32_t> likeliest_tokens(const Tensor& logits, size_t row, int64_t vocabulary, int64_t n);

double logit_at(const Tensor& logits, size_t row, int32_t token);

}  // namespace ziggurat::infer
