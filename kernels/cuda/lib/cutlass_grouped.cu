// CUTLASS's grouped products for Hopper: blocks that stay take tile after tile of all groups, whose sizes and
// addresses they read from the device; one warp fetches operands by TMA, two groups of warps multiply by
// wgmma, in turn, so that one stores its tile while the other multiplies.
#include <cute/tensor.hpp>
#include <cutlass/epilogue/collective/collective_builder.hpp>
#include <cutlass/gemm/collective/collective_builder.hpp>
#include <cutlass/gemm/device/gemm_universal_adapter.h>
#include <cutlass/gemm/kernel/gemm_universal.hpp>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/lib/grouped_matmul.h>

namespace ziggurat::kernels {

namespace {

using cute::Int;
using Element = cutlass::bfloat16_t;
using Tile = cute::Shape<Int<128>, Int<128>, Int<64>>;
using Cluster = cute::Shape<Int<1>, Int<2>, Int<1>>;  // blocks beside each other read A once
using Mainloop = cutlass::gemm::KernelPtrArrayTmaWarpSpecializedPingpong;
using Epilogue = cutlass::epilogue::PtrArrayTmaWarpSpecializedPingpong;
constexpr int kAlignment = 16;  // bytes

using Rows = cutlass::layout::RowMajor;
using Columns = cutlass::layout::ColumnMajor;

// sums + bias of the column
namespace fusion = cutlass::epilogue::fusion;
constexpr auto kRound = cutlass::FloatRoundStyle::round_to_nearest;
using AddBias =
    fusion::Sm90EVT<fusion::Sm90Compute<cutlass::plus, Element, float, kRound>,
                    fusion::Sm90RowBroadcast<0, Tile, float*, float, cute::Stride<Int<0>, Int<1>, Int<0>>>,
                    fusion::Sm90AccFetch>;

template <GroupedPass>
struct Pass;
template <>
struct Pass<GroupedPass::forward> {
  using A = Rows;
  using B = Columns;
  using Result = Element;
  using Added = void;  // nothing is read of C
  using Fusion = AddBias;
};
template <>
struct Pass<GroupedPass::dx> {
  using A = Rows;
  using B = Rows;
  using Result = Element;
  using Added = Element;
  using Fusion = fusion::LinearCombination<Result, float>;
};
template <>
struct Pass<GroupedPass::dweight> {
  using A = Columns;
  using B = Rows;
  using Result = float;
  using Added = float;
  using Fusion = fusion::LinearCombination<Result, float>;
};

template <class P>
struct Kernel {
  static constexpr int kOfResult = kAlignment / static_cast<int>(sizeof(typename P::Result)),
                       kOfOperand = kAlignment / static_cast<int>(sizeof(Element));
  using Store = typename cutlass::epilogue::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Tile, Cluster,
      cutlass::epilogue::collective::EpilogueTileAuto, float, float, typename P::Added, Rows*, kOfResult,
      typename P::Result, Rows*, kOfResult, Epilogue, typename P::Fusion>::CollectiveOp;
  using Multiply = typename cutlass::gemm::collective::CollectiveBuilder<
      cutlass::arch::Sm90, cutlass::arch::OpClassTensorOp, Element, typename P::A*, kOfOperand, Element,
      typename P::B*, kOfOperand, float, Tile, Cluster,
      cutlass::gemm::collective::StageCountAutoCarveout<static_cast<int>(
          sizeof(typename Store::SharedStorage))>,
      Mainloop>::CollectiveOp;
  using Shape = cutlass::gemm::GroupProblemShape<cute::Shape<int, int, int>>;
  using Gemm = cutlass::gemm::device::GemmUniversalAdapter<
      cutlass::gemm::kernel::GemmUniversal<Shape, Multiply, Store>>;
};

void check_cutlass(cutlass::Status status, const char* what) {
  if (status != cutlass::Status::kSuccess) fail_cutlass(what, cutlassGetStatusString(status));
}

template <GroupedPass pass>
class CutlassGrouped : public GroupedPlan {
  using P = Pass<pass>;
  using Gemm = typename Kernel<P>::Gemm;
  using Arguments = typename Gemm::Arguments;

 public:
  explicit CutlassGrouped(const GroupedSpec& spec) : spec_(spec) {
    check_cuda(cudaGetDevice(&hardware_.device_id), "asking which GPU this is");
    check_cuda(
        cudaDeviceGetAttribute(&hardware_.sm_count, cudaDevAttrMultiProcessorCount, hardware_.device_id),
        "counting processors");
    workspace_bytes_ = static_cast<int64_t>(Gemm::get_workspace_size(arguments({})));
  }

  int64_t workspace_bytes() const override { return workspace_bytes_; }

  void run(const GroupedProducts& products, void* workspace, Stream& stream) override {
    const Arguments arguments = this->arguments(products);
    check_cutlass(Gemm::can_implement(arguments), "a grouped product");
    ++device_work().launches;
    check_cutlass(gemm_.initialize(arguments, workspace, queue_of(stream)), "preparing a grouped product");
    check_cutlass(gemm_.run(queue_of(stream)), "starting a grouped product");
  }

 private:
  // Distances between rows are all that is dynamic in the library's strides.
  template <class Stride>
  static Stride* strides(int64_t* distances) {
    static_assert(sizeof(Stride) == sizeof(int64_t));
    return reinterpret_cast<Stride*>(distances);
  }

  Arguments arguments(const GroupedProducts& p) const {
    using K = typename Gemm::GemmKernel;
    using Sizes = typename Kernel<P>::Shape::UnderlyingProblemShape;
    static_assert(sizeof(Sizes) == sizeof(GroupedProducts::Size));
    Arguments made{};
    made.mode = cutlass::gemm::GemmUniversalMode::kGrouped;
    made.problem_shape = {spec_.groups, reinterpret_cast<Sizes*>(p.sizes), nullptr};
    made.mainloop.ptr_A = reinterpret_cast<const Element**>(p.a);
    made.mainloop.dA = strides<typename K::InternalStrideA>(p.lda);
    made.mainloop.ptr_B = reinterpret_cast<const Element**>(p.b);
    made.mainloop.dB = strides<typename K::InternalStrideB>(p.ldb);
    made.epilogue.ptr_D = reinterpret_cast<typename P::Result**>(p.c);
    made.epilogue.dD = strides<typename K::InternalStrideD>(p.ldc);
    if constexpr (pass == GroupedPass::forward) {
      made.epilogue.thread = {{p.bias}, {}, {}};  // the bias, the sums, their addition
    } else {
      made.epilogue.thread.alpha = 1;
      made.epilogue.thread.beta = spec_.accumulate ? 1.0f : 0.0f;
      made.epilogue.ptr_C = const_cast<const typename P::Added**>(reinterpret_cast<typename P::Added**>(p.c));
      made.epilogue.dC = strides<typename K::InternalStrideC>(p.ldc);
    }
    made.hw_info = hardware_;
    return made;
  }

  GroupedSpec spec_;
  cutlass::KernelHardwareInfo hardware_;
  int64_t workspace_bytes_ = 0;
  Gemm gemm_;
};

bool is_hopper() {
  int device = 0, major = 0, minor = 0;
  check_cuda(cudaGetDevice(&device), "asking which GPU this is");
  check_cuda(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device),
             "asking what GPU this is");
  check_cuda(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device),
             "asking what GPU this is");
  return major == 9 && minor == 0;
}

template <GroupedPass pass>
std::unique_ptr<GroupedPlan> make_plan(const GroupedSpec& spec) {
  auto plan = std::make_unique<CutlassGrouped<pass>>(spec);
  if (plan->workspace_bytes() > most_grouped_workspace()) return nullptr;  // was not planned for
  return plan;
}

}  // namespace

std::unique_ptr<GroupedPlan> make_grouped_plan(const GroupedSpec& spec) {
  if (!is_hopper()) return nullptr;
  switch (spec.pass) {
    case GroupedPass::forward:
      return make_plan<GroupedPass::forward>(spec);
    case GroupedPass::dx:
      return make_plan<GroupedPass::dx>(spec);
    case GroupedPass::dweight:
      return make_plan<GroupedPass::dweight>(spec);
  }
  return nullptr;
}

// Some descriptors of 128 bytes for each of 132 processors, of which no GPU of its kind has more.
int64_t most_grouped_workspace() { return int64_t{1} << 20; }

}  // namespace ziggurat::kernels
