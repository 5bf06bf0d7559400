#pragma once

#include <cstdint>
#include <span>

#include <ziggurat/autograd/tape.h>
#include <ziggurat/comm/communicator.h>

namespace ziggurat::ops {

// Sends send_rows[r] rows of x [sum(send_rows), C], in rank order, to rank r; y [sum(recv_rows), C] are the
// rows received, in rank order. Both spans have one entry per rank and lie in the tape's arena. Backward is
// the reverse exchange, so every rank of the group must run it, also with zero rows: it does as long as y is
// used on every rank. On a group of one, y is x.
Var all_to_all_rows(Tape& tape, Var x, Communicator& group, std::span<const int64_t> send_rows,
                    std::span<const int64_t> recv_rows);

// The same in two parts; what is recorded between them, forward and backward, goes on beside the exchange.
// The first returns rows that are still arriving, for the second alone; x is used by nothing else. Both are
// given the same counts and the same Work, which outlives the tape's micro-batch.
Var begin_all_to_all_rows(Tape& tape, Var x, Communicator& group, std::span<const int64_t> send_rows,
                          std::span<const int64_t> recv_rows, Work& under_way);
Var end_all_to_all_rows(Tape& tape, Var x, Var arriving, Communicator& group,
                        std::span<const int64_t> send_rows, std::span<const int64_t> recv_rows,
                        Work& under_way);

}  // namespace ziggurat::ops
