// What all ranks of a job must have in common: one outcome, one set of values.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/core/error.h>

namespace ziggurat {

// Collective. Runs `work` on every rank and returns the ranks' answers in rank order. When it threw on some
// rank, every rank throws the error of the lowest such rank, which the message names; exceptions that are no
// Error become one of kind `others`.
std::vector<std::string> agree(Communicator& comm, const std::function<std::string()>& work,
                               ErrorKind others = ErrorKind::internal);

// Collective. Runs `work` on rank 0; every rank gets its answer or throws its error.
std::string on_rank_0(Communicator& comm, const std::function<std::string()>& work,
                      ErrorKind others = ErrorKind::internal);

// A key and a value as messages show them. Keys are unique.
using NamedValue = std::pair<std::string, std::string>;

// Collective. Throws Error(config) on every rank, naming the differing keys with their values and ranks,
// unless the ranks give the same values. Sends 16 bytes where they do.
void check_same_on_all_ranks(Communicator& comm, std::span<const NamedValue> values);

}  // namespace ziggurat
