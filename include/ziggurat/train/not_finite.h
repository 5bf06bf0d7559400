// Why is a step not finite?
#pragma once

#include <string>

#include <ziggurat/train/train_step.h>

namespace ziggurat::train {

// Of a step whose loss or gradient is not finite, and which therefore left weights alone: what is not, and,
// from weights and by computing the micro-batches once more and looking inside, where it began. The latter
// costs a step. Collective; the same answer on every rank.
std::string explain_not_finite(Training& training, TrainStep& step, const StepPlan& plan,
                               double counted_tokens, const TrainStep::ReadBatch& read,
                               const StepResult& result, Executor& executor);

}  // namespace ziggurat::train
