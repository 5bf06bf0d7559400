// Where two checkpoints differ.
#pragma once

#include <string>
#include <vector>

#include <ziggurat/checkpoint/checkpoint.h>

namespace ziggurat {

struct TensorDifference {
  std::string name;
  int64_t elements = 0, different = 0;
  double largest = 0;   // |a - b|; not a number where one is
  double relative = 0;  // L2 norm of a - b by that of a
  std::string note;     // why elements were not compared: only in one of both, another shape
};

// Every tensor of either, in the order of names. Reads a piece at a time, verified as ever.
std::vector<TensorDifference> compare(CheckpointReader& a, CheckpointReader& b,
                                      const std::function<void(int64_t done, int64_t total)>& progress = {});

// `box` cut along its rows (or, where they are long, row by row) into pieces of about so many elements.
void for_each_piece(const Box& box, int64_t elements, const std::function<void(const Box& piece)>& f);

}  // namespace ziggurat
