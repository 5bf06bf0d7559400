// cuDNN's attention: one graph of one node. Its tensors are [batch, heads, length, head_dim] at any strides,
// so that qkv is read and its gradient written where it lies. Its "stats" are our log_sum_exp [B, H, T, 1].
#include <unordered_map>

#include <cudnn_frontend.h>
#include <kernels/cuda/device/launch.h>
#include <kernels/cuda/lib/attention_plan.h>

#include <ziggurat/core/error.h>

namespace ziggurat::kernels {

namespace {

namespace fe = cudnn_frontend;
using TensorPointer = std::shared_ptr<fe::graph::Tensor_attributes>;

void check_cudnn(cudnnStatus_t status, const char* what) {
  check(status == CUDNN_STATUS_SUCCESS, ErrorKind::device, "[cudnn] {}: {}", what,
        cudnnGetErrorString(status));
}

// The calling thread's, for the device that was current when it first asked.
cudnnHandle_t library() {
  struct Handle {
    Handle() { check_cudnn(cudnnCreate(&value), "starting"); }
    ~Handle() { cudnnDestroy(value); }
    Handle(const Handle&) = delete;
    Handle& operator=(const Handle&) = delete;
    cudnnHandle_t value = nullptr;
  };
  thread_local const Handle handle;
  return handle.value;
}

enum Which : int64_t { kQ = 1, kK, kV, kY, kStats, kDy, kDq, kDk, kDv };

// Where a tensor of a graph lies.
struct Place {
  std::vector<int64_t> dims, strides;
};
// Heads of [B T, width] rows, one beside the other.
Place heads_of(const AttentionShape& s, int64_t heads, int64_t width) {
  return {{s.batch, heads, s.length, s.head_dim}, {s.length * width, s.head_dim, width, 1}};
}
Place stats_of(const AttentionShape& s) {
  return {{s.batch, s.heads, s.length, 1}, {s.heads * s.length, s.length, 1, 1}};
}

TensorPointer input(fe::graph::Graph& graph, Which which, const Place& place, fe::DataType_t type) {
  return graph.tensor(fe::graph::Tensor_attributes()
                          .set_uid(which)
                          .set_dim(place.dims)
                          .set_stride(place.strides)
                          .set_data_type(type));
}
void output(const TensorPointer& tensor, Which which, const Place& place, fe::DataType_t type) {
  tensor->set_output(true).set_uid(which).set_dim(place.dims).set_stride(place.strides).set_data_type(type);
}

// A row sees no later key, and with a window of w only the w keys up to its own: cuDNN's band of the diagonal
// counts the row's own key too.
template <class Attributes>
Attributes masked(Attributes attributes, const AttentionSpec& spec) {
  attributes.set_causal_mask(true);
  if (spec.window > 0) attributes.set_diagonal_band_left_bound(static_cast<int>(spec.window));
  return attributes;
}

void describe(fe::graph::Graph& graph, const AttentionSpec& spec) {
  constexpr auto kBf16 = fe::DataType_t::BFLOAT16, kFloat = fe::DataType_t::FLOAT;
  const AttentionShape s = spec.shape();
  const Place q_heads = heads_of(s, s.heads, s.width()), k_heads = heads_of(s, s.kv_heads, s.width()),
              y_heads = heads_of(s, s.heads, s.heads * s.head_dim);
  graph.set_io_data_type(kBf16).set_intermediate_data_type(kFloat).set_compute_data_type(kFloat);
  const TensorPointer q = input(graph, kQ, q_heads, kBf16), k = input(graph, kK, k_heads, kBf16),
                      v = input(graph, kV, k_heads, kBf16);
  if (spec.pass == AttentionPass::forward) {
    const auto [y, stats] = graph.sdpa(q, k, v,
                                       masked(fe::graph::SDPA_attributes()
                                                  .set_name("attention")
                                                  .set_generate_stats(true)
                                                  .set_attn_scale(spec.scale),
                                              spec));
    output(y, kY, y_heads, kBf16);
    output(stats, kStats, stats_of(s), kFloat);
  } else {
    const TensorPointer y = input(graph, kY, y_heads, kBf16), dy = input(graph, kDy, y_heads, kBf16),
                        stats = input(graph, kStats, stats_of(s), kFloat);
    const auto [dq, dk, dv] = graph.sdpa_backward(q, k, v, y, dy, stats,
                                                  masked(fe::graph::SDPA_backward_attributes()
                                                             .set_name("attention gradient")
                                                             .set_attn_scale(spec.scale)
                                                             .set_deterministic_algorithm(true),
                                                         spec));
    output(dq, kDq, q_heads, kBf16);
    output(dk, kDk, k_heads, kBf16);
    output(dv, kDv, k_heads, kBf16);
  }
}

class CudnnAttention : public AttentionPlan {
 public:
  CudnnAttention(const AttentionSpec& spec, std::unique_ptr<fe::graph::Graph> graph, int64_t workspace_bytes)
      : spec_(spec), graph_(std::move(graph)), workspace_bytes_(workspace_bytes) {}

  int64_t workspace_bytes() const override { return workspace_bytes_; }

  void run(const AttentionAddresses& at, void* workspace, Stream& stream) override {
    const AttentionShape s = spec_.shape();
    auto* const qkv = const_cast<bf16*>(at.qkv);
    std::unordered_map<int64_t, void*> addresses = {
        {kQ, qkv}, {kK, qkv + s.k_column()}, {kV, qkv + s.v_column()}, {kY, at.y}, {kStats, at.log_sum_exp}};
    if (spec_.pass == AttentionPass::backward) {
      addresses.insert({{kDy, const_cast<bf16*>(at.dy)},
                        {kDq, at.dqkv},
                        {kDk, at.dqkv + s.k_column()},
                        {kDv, at.dqkv + s.v_column()}});
    }
    check_cudnn(cudnnSetStream(library(), queue_of(stream)), "choosing a stream");
    fe::error_t status = graph_->execute(library(), addresses, workspace);
    check(status.is_good(), ErrorKind::device, "[cudnn] attention: {}", status.get_message());
  }

 private:
  AttentionSpec spec_;
  std::unique_ptr<fe::graph::Graph> graph_;
  int64_t workspace_bytes_;
};

}  // namespace

std::unique_ptr<AttentionPlan> make_attention_plan(const AttentionSpec& spec) {
  auto graph = std::make_unique<fe::graph::Graph>();
  describe(*graph, spec);
  // What it cannot do for these sizes or this GPU it says here.
  int64_t workspace_bytes = 0;
  if (graph->build(library(), {fe::HeurMode_t::A}).is_bad() ||
      graph->get_workspace_size(workspace_bytes).is_bad()) {
    return nullptr;
  }
  if (workspace_bytes > most_attention_workspace(spec)) return nullptr;  // it would not be worth its memory
  return std::make_unique<CudnnAttention>(spec, std::move(graph), workspace_bytes);
}

std::string fault_of_description(const AttentionSpec& spec, int capability) {
  fe::graph::Graph graph;
  graph.set_sm_version(capability);
  describe(graph, spec);
  fe::error_t status = graph.validate();
  return status.is_good() ? "" : status.get_message();
}

// Sums of dq in f32, and as much again.
int64_t most_attention_workspace(const AttentionSpec& spec) {
  const AttentionShape s = spec.shape();
  return 8 * s.rows() * s.width() + (int64_t{1} << 20);
}

}  // namespace ziggurat::kernels
