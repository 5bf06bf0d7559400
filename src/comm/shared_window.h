// Memory that the ranks of an MPI group share, if they are all on one node.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <vector>

#include <mpi.h>

namespace ziggurat::comm {

class SharedWindow {
 public:
  // `bytes` of zeros for every rank of `comm`; nothing if they are on several nodes, or if the node has no
  // room. Collective.
  static std::unique_ptr<SharedWindow> create(MPI_Comm comm, int64_t bytes);
  ~SharedWindow();  // collective; does nothing while an error unwinds: the peers may never come
  SharedWindow(const SharedWindow&) = delete;
  SharedWindow& operator=(const SharedWindow&) = delete;

  // Where this rank sees the memory of each rank; 64-byte aligned.
  const std::vector<std::byte*>& segments() const { return segments_; }

 private:
  explicit SharedWindow(MPI_Win window, int ranks);

  MPI_Win window_;
  std::vector<std::byte*> segments_;
};

}  // namespace ziggurat::comm
