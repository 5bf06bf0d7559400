#include "comm/shared_window.h"

#include <algorithm>
#include <cstring>
#include <exception>

namespace ziggurat::comm {

namespace {

constexpr uintptr_t kAlignment = 64;  // bytes; a cache line

std::byte* aligned(void* p) {
  return reinterpret_cast<std::byte*>((reinterpret_cast<uintptr_t>(p) + kAlignment - 1) / kAlignment *
                                      kAlignment);
}

bool on_one_node(MPI_Comm comm) {
  MPI_Comm node = MPI_COMM_NULL;
  if (MPI_Comm_split_type(comm, MPI_COMM_TYPE_SHARED, 0, MPI_INFO_NULL, &node) != MPI_SUCCESS) return false;
  int all = 0, here = 0;
  MPI_Comm_size(comm, &all);
  MPI_Comm_size(node, &here);
  MPI_Comm_free(&node);
  return here == all;
}

// A rank without a window must not leave its peers waiting in one.
bool everywhere(MPI_Comm comm, bool here) {
  int all = here ? 1 : 0;
  return MPI_Allreduce(MPI_IN_PLACE, &all, 1, MPI_INT, MPI_MIN, comm) == MPI_SUCCESS && all == 1;
}

}  // namespace

std::unique_ptr<SharedWindow> SharedWindow::create(MPI_Comm comm, int64_t bytes) {
  if (!everywhere(comm, on_one_node(comm))) return nullptr;
  // Whole pages a rank, so that segments lie equally against cache lines in every process.
  constexpr int64_t kPage = 4096;
  const int64_t size = (bytes + static_cast<int64_t>(kAlignment) + kPage - 1) / kPage * kPage;
  MPI_Win handle = MPI_WIN_NULL;
  void* mine = nullptr;
  const bool allocated = MPI_Win_allocate_shared(size, 1, MPI_INFO_NULL, comm, &mine, &handle) == MPI_SUCCESS;
  if (!everywhere(comm, allocated)) return nullptr;
  int ranks = 0;
  MPI_Comm_size(comm, &ranks);
  std::unique_ptr<SharedWindow> window(new SharedWindow(handle, ranks));
  int rank = 0;
  MPI_Comm_rank(comm, &rank);
  std::memset(window->segments_[static_cast<size_t>(rank)], 0, static_cast<size_t>(bytes));
  return everywhere(comm, true) ? std::move(window) : nullptr;  // all are zeroed before the first is used
}

SharedWindow::SharedWindow(MPI_Win window, int ranks) : window_(window) {
  for (int r = 0; r < ranks; ++r) {
    MPI_Aint size = 0;
    int unit = 0;
    void* base = nullptr;
    MPI_Win_shared_query(window_, r, &size, &unit, &base);
    segments_.push_back(aligned(base));
  }
}

SharedWindow::~SharedWindow() {
  int finalized = 0;
  MPI_Finalized(&finalized);
  if (finalized == 0 && std::uncaught_exceptions() == 0) MPI_Win_free(&window_);
}

}  // namespace ziggurat::comm
