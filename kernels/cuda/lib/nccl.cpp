// Collectives by NCCL (docs.nvidia.com/deeplearning/nccl/user-guide: api/comms, api/colls, api/p2p).
#include <array>
#include <cstring>
#include <exception>
#include <utility>

#include <kernels/cuda/device/launch.h>
#include <nccl.h>
#include <unistd.h>

#include <ziggurat/core/error.h>
#include <ziggurat/runtime/device_group.h>

namespace ziggurat {

namespace {

using kernels::check_cuda;
using kernels::queue_of;

void check_nccl(ncclResult_t result, ncclComm_t group, const char* function) {
  if (result == ncclSuccess) return;
  fail(ErrorKind::communication, "{}: {} ({}). NCCL_DEBUG=WARN tells more", function,
       ncclGetErrorString(result), ncclGetLastError(group));
}

ncclDataType_t nccl_type(DeviceGroup::Number type) {
  switch (type) {
    case DeviceGroup::Number::i32:
      return ncclInt32;
    case DeviceGroup::Number::f32:
      return ncclFloat32;
    case DeviceGroup::Number::f64:
      return ncclFloat64;
  }
  fail(ErrorKind::internal, "[nccl] a number of no type");
}

class NcclGroup final : public DeviceGroup {
 public:
  NcclGroup(const Id& id, int rank, int size) {
    ncclUniqueId unique;
    static_assert(sizeof unique == sizeof id);
    std::memcpy(&unique, id.data(), sizeof unique);
    check_nccl(ncclCommInitRank(&group_, size, unique, rank), nullptr, "ncclCommInitRank");
  }
  NcclGroup(const NcclGroup&) = delete;
  NcclGroup& operator=(const NcclGroup&) = delete;

  ~NcclGroup() override {
    // Leaving a group in order waits for all ranks: while an error unwinds, some may never come.
    if (std::uncaught_exceptions() > exceptions_at_start_) abort();
    if (group_ != nullptr) static_cast<void>(ncclCommDestroy(group_));
  }

  void broadcast(void* buffer, int64_t bytes, int root, Stream& stream) override {
    check_nccl(
        ncclBroadcast(buffer, buffer, static_cast<size_t>(bytes), ncclInt8, root, group_, queue_of(stream)),
        group_, "ncclBroadcast");
  }

  void all_reduce(void* buffer, int64_t count, Number type, Reduce op, Stream& stream) override {
    check_nccl(ncclAllReduce(buffer, buffer, static_cast<size_t>(count), nccl_type(type),
                             op == Reduce::sum ? ncclSum : ncclMax, group_, queue_of(stream)),
               group_, "ncclAllReduce");
  }

  void all_gather(const void* input, void* output, int64_t bytes, Stream& stream) override {
    check_nccl(ncclAllGather(input, output, static_cast<size_t>(bytes), ncclInt8, group_, queue_of(stream)),
               group_, "ncclAllGather");
  }

  void sum_scatter(const void* input, void* output, int64_t count, Number type, Stream& stream) override {
    check_nccl(ncclReduceScatter(input, output, static_cast<size_t>(count), nccl_type(type), ncclSum, group_,
                                 queue_of(stream)),
               group_, "ncclReduceScatter");
  }

  // A group of calls ends although one of them failed: the thread's next calls would else belong to it.
  void all_to_all(const void* input, std::span<const int64_t> send, void* output,
                  std::span<const int64_t> receive, Stream& stream) override {
    const auto* from = static_cast<const std::byte*>(input);
    auto* to = static_cast<std::byte*>(output);
    check_nccl(ncclGroupStart(), group_, "ncclGroupStart");
    ncclResult_t sent = ncclSuccess, received = ncclSuccess;
    for (int r = 0; r < static_cast<int>(send.size()); ++r) {
      const auto leaving = static_cast<size_t>(send[static_cast<size_t>(r)]);
      const auto arriving = static_cast<size_t>(receive[static_cast<size_t>(r)]);
      if (leaving > 0 && sent == ncclSuccess) {
        sent = ncclSend(from, leaving, ncclInt8, r, group_, queue_of(stream));
      }
      if (arriving > 0 && received == ncclSuccess) {
        received = ncclRecv(to, arriving, ncclInt8, r, group_, queue_of(stream));
      }
      from += leaving, to += arriving;
    }
    const ncclResult_t ended = ncclGroupEnd();
    check_nccl(sent, group_, "ncclSend");
    check_nccl(received, group_, "ncclRecv");
    check_nccl(ended, group_, "ncclGroupEnd");
  }

  std::string failure() override {
    if (group_ == nullptr) return "the group was given up";
    ncclResult_t result = ncclSuccess;
    check_nccl(ncclCommGetAsyncError(group_, &result), group_, "ncclCommGetAsyncError");
    if (result == ncclSuccess || result == ncclInProgress) return "";
    return fmt::format("{} ({}). NCCL_DEBUG=WARN tells more", ncclGetErrorString(result),
                       ncclGetLastError(group_));
  }

  void abort() noexcept override {
    if (group_ != nullptr) static_cast<void>(ncclCommAbort(std::exchange(group_, nullptr)));
  }

 private:
  ncclComm_t group_ = nullptr;
  int exceptions_at_start_ = std::uncaught_exceptions();
};

}  // namespace

std::string device_groups_missing() { return ""; }

std::string device_address() {
  int device = 0;
  std::array<char, 256> host{}, bus{};
  check_cuda(cudaGetDevice(&device), "asking for the chosen GPU");
  check_cuda(cudaDeviceGetPCIBusId(bus.data(), static_cast<int>(bus.size()), device),
             "asking where a GPU is");
  check(gethostname(host.data(), host.size() - 1) == 0, ErrorKind::device, "[nccl] this node has no name");
  return fmt::format("{} {}", host.data(), bus.data());
}

DeviceGroup::Id make_device_group_id() {
  ncclUniqueId unique;
  check_nccl(ncclGetUniqueId(&unique), nullptr, "ncclGetUniqueId");
  DeviceGroup::Id id;
  std::memcpy(id.data(), &unique, sizeof unique);
  return id;
}

std::unique_ptr<DeviceGroup> make_device_group(const DeviceGroup::Id& id, int rank, int size) {
  return std::make_unique<NcclGroup>(id, rank, size);
}

}  // namespace ziggurat
