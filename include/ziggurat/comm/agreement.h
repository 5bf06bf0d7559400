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
// Error become one of kind `others`; that no memory is left is one of kind device.
std::vector<std::string> agree(Communicator& comm, const std::function<std::string()>& work,
                               ErrorKind others = ErrorKind::internal);

// Collective. Runs `work` on rank 0; every rank gets its answer or throws its error.
std::string on_rank_0(Communicator& comm, const std::function<std::string()>& work,
                      ErrorKind others = ErrorKind::internal);

// Collective. Runs work(i) once for each i in [0, n), on rank i % size, one round after the other; returns
// the answers in the order of i. An error comes as from agree(), at the end of its round: no rank goes on for
// hours with what is lost already.
std::vector<std::string> share(Communicator& comm, size_t n, const std::function<std::string(size_t)>& work,
                               ErrorKind others = ErrorKind::internal);

// How far share() is, in any unit: as if every rank were as far in its part as this one.
class SharedProgress {
 public:
  using Tell = std::function<void(int64_t done, int64_t total)>;  // of all ranks
  // `sizes`: of work(0), work(1), ...; `tell` may be empty.
  SharedProgress(const Communicator& comm, std::span<const int64_t> sizes, Tell tell);
  void add(int64_t done);  // by this rank

 private:
  Tell tell_;
  int64_t total_ = 0, mine_ = 0, done_ = 0;
};

// A key and a value as messages show them. Keys are unique.
using NamedValue = std::pair<std::string, std::string>;

// Collective. Throws Error(config) on every rank, naming the differing keys with their values and ranks,
// unless the ranks give the same values. Sends 16 bytes where they do.
void check_same_on_all_ranks(Communicator& comm, std::span<const NamedValue> values);

}  // namespace ziggurat
