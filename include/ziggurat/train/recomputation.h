// Is what a rank computes right? A step's gradients are computed twice and must have the same bits.
//
// The second time another rank takes the micro-batches, where one holds the same parameters, so that a
// machine that is wrong in the same way every time is found too. That needs machines of one kind, as the bits
// of a layout do anyway.
#pragma once

#include <string>
#include <vector>

#include <ziggurat/train/train_step.h>

namespace ziggurat::train {

struct Recomputed {
  std::string difference;  // which ranks' which tensor; empty: there is none
  bool lasting = false;    // it came again when both were computed once more
};

// In place of TrainStep::accumulate(). If all is well or the fault has passed, what has been accumulated was
// computed alike twice. Collective; the same answer on every rank.
Recomputed accumulate_twice(Training& training, TrainStep& step, const StepPlan& plan, double counted_tokens,
                            const TrainStep::ReadBatch& read, Stream& stream);

// By how many ranks micro-batches are passed on: experts of every layer must be the same there. 0: no rank
// could take them.
int shift_of_checks(const ParallelPlan& plan);

// Whom to suspect where rank r and rank (r - shift) of `size` disagree about the micro-batches of r, for each
// r of `disputed`: those who take part in the most of these.
std::vector<int> suspects(const std::vector<int>& disputed, int shift, int size);

}  // namespace ziggurat::train
