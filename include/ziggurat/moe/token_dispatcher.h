// The seam behind which expert parallelism lives: rows to the rank that holds their expert, and back.
#pragma once

#include <cstdint>
#include <memory>
#include <span>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/ops/dispatch.h>
#include <ziggurat/ops/grouped_linear.h>

namespace ziggurat::moe {

// The rows that this rank's experts compute, sorted by expert, and how they came. Lives in the tape's memory.
struct ExpertRows {
  Var rows = {};  // [R', hidden]
  // i32: by local expert; on a strict stream by (local expert, source rank). See ops::grouped_linear.
  Tensor offsets = {};

  // Used by the exchange only.
  ops::Routing routing = {};                          // of the rows that are sent
  Var leaving = {}, arriving = {};                    // on their way from begin_dispatch() to end_dispatch()
  Tensor arrival_of_row = {};                         // i32 [R'] the inverse of row_of_arrival
  std::span<const int64_t> sent = {}, received = {};  // rows to and from each rank
  std::span<const int64_t> shared = {};  // that each rank of the expert-tensor-parallel group received
  Tensor row_of_arrival = {};            // i32 [R'] where the rows, as they arrived by source rank, were put
};

class TokenDispatcher {
 public:
  virtual ~TokenDispatcher() = default;
  // x [S, hidden] -> the rows of this rank's experts, in two parts: what is recorded between them goes on
  // beside the exchange. Collective over the expert-parallel group.
  virtual ExpertRows begin_dispatch(Tape& tape, Var x, const ops::Routing& routing) = 0;
  virtual void end_dispatch(Tape& tape, ExpertRows& rows) = 0;
  // y [S, hidden]: the weighted sum of what the experts made of each token's rows. `outputs` [R', hidden]
  // belongs to `dispatched.rows`. Collective.
  virtual Var combine(Tape& tape, Var outputs, const ExpertRows& dispatched, const ops::Routing& routing) = 0;
};

// Whether experts' whole capacity, so many places, is exchanged rather than what tokens have chosen: where at
// most half of it is empty.
bool fit_blocks(int64_t places, int64_t choices);

// Local for groups of one, else by all-to-all; rank r of `expert_parallel` holds experts [r, r + 1) * experts
// / size. The ranks of `expert_tensor` hold parts of the same ones: what one of them receives all of them
// compute, and what they make of it is summed. Tokens so cross to other ep places once, and are copied within
// the innermost group (arXiv 2201.05596, section 5.3). Groups must outlive the dispatcher.
std::unique_ptr<TokenDispatcher> make_token_dispatcher(Communicator& expert_parallel,
                                                       Communicator& expert_tensor, int64_t experts);

}  // namespace ziggurat::moe
