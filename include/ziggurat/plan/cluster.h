// A cluster's roofs, and how the software that trains on it spends them: what a step's time is computed from
// (plan/step_time.h). One YAML file each, configs/clusters/.
#pragma once

#include <string>
#include <vector>

#include <ziggurat/config/fields.h>

namespace ziggurat {

// A point of the curve of matrix products: at this size, the cube root of m n k, so much of the peak.
struct ProductEfficiency {
  double size = 0;
  double share = 0;

  template <class V>
  void visit_fields(V& v) {
    v.field("size", size, "cube root of m x n x k", above(0.0));
    v.field("share", share, "of peak_flops that such products reach", above(0.0), at_most(1.0));
  }
};

struct DeviceRoofs {
  double peak_flops = 0;
  double memory = 0;
  double memory_bandwidth = 0;
  double start = 0;
  double attention_forward = 0, attention_backward = 0;
  std::vector<ProductEfficiency> products;

  template <class V>
  void visit_fields(V& v) {
    v.field("peak_flops", peak_flops, "dense bf16 FLOP/s of a device, from its data sheet", unit::count,
            above(0.0));
    v.field("memory", memory, "bytes of a device that a run can take", above(0.0));
    v.field("memory_bandwidth", memory_bandwidth, "bytes/s that kernels reach, not the data sheet's",
            unit::count, above(0.0));
    v.field("start", start, "seconds from one kernel to the next, on the device", at_least(0.0), below(1.0));
    v.field("attention_forward", attention_forward, "share of peak_flops that fused attention reaches",
            above(0.0), at_most(1.0));
    v.field("attention_backward", attention_backward, "the same of its backward", above(0.0), at_most(1.0));
    v.field("products", products, "how matrix products come up to the peak, by ascending size", not_empty);
  }
  void validate(Problems& problems) const;

  // Of peak_flops: straight lines between the points, over the logarithm of the size; level outside them.
  double product_share(double size) const;
};

// Between two ranks: latency + bytes / bandwidth.
struct Link {
  double latency = 0;
  double bandwidth = 0;

  template <class V>
  void visit_fields(V& v) {
    v.field("latency", latency, "seconds of a message beside its bytes", at_least(0.0), below(1.0));
    v.field("bandwidth", bandwidth, "bytes/s of one rank, in each direction", unit::count, above(0.0));
  }
};

// What the software does beside the step that `ziggurat plan` counts: none of it is ours by default.
struct SoftwareHabits {
  bool dense_dispatch = false;
  bool attention_scores_in_memory = false;
  bool dropout_masks_in_memory = false;
  bool plain_loss = false;
  bool eager_update = false;
  bool bucket_copies = false;
  int tensor_parallel = 1;
  int gradient_bytes = 4;
  double exchange_share = 1;
  double host_gap = 0;
  bool hides_gradients = false;
  bool hides_exchange = false;

  template <class V>
  void visit_fields(V& v) {
    v.field("dense_dispatch", dense_dispatch,
            "tokens go to experts and back by products with one-hot masks [tokens, experts x capacity]");
    v.field(
        "attention_scores_in_memory", attention_scores_in_memory,
        "attention as products, softmax and dropout that keep all scores, not the causal half, in memory");
    v.field("dropout_masks_in_memory", dropout_masks_in_memory,
            "masks are written and read, one byte an element, instead of computed again");
    v.field("plain_loss", plain_loss, "the loss by one tensor operation after another, on logits in f32");
    v.field("eager_update", eager_update,
            "an update in passes: fp16 gradients are looked through, one parameter after another read by the "
            "host, cast, flattened, measured and clipped before AdamW, and weights are cast after it");
    v.field("bucket_copies", bucket_copies,
            "gradients are copied into a bucket, scaled there and copied back around their sum over ranks");
    v.field("tensor_parallel", tensor_parallel,
            "ranks that each matrix of a dense model is cut over, Megatron's way", at_least(1),
            at_most(1 << 16));
    v.field("gradient_bytes", gradient_bytes, "of a gradient's number between ranks", between(1, 8));
    v.field("exchange_share", exchange_share,
            "of the links' bandwidth and messages/s that its all-to-all between nodes reaches", above(0.0),
            at_most(1.0));
    v.field("host_gap", host_gap, "seconds in which the host queues a kernel: none takes less", at_least(0.0),
            below(1.0));
    v.field("hides_gradients", hides_gradients,
            "gradients are reduced behind the last micro-batch's backward");
    v.field("hides_exchange", hides_exchange,
            "tokens travel in two halves, one behind the experts' products of the other");
  }
};

struct ClusterConfig {
  std::string name;
  int nodes = 0, ranks_per_node = 0;
  DeviceRoofs device;
  Link inside, between;
  SoftwareHabits software;

  template <class V>
  void visit_fields(V& v) {
    v.field("name", name, "of the cluster", not_empty);
    v.field("nodes", nodes, "machines", at_least(1), at_most(1 << 20));
    v.field("ranks_per_node", ranks_per_node, "devices of a machine, a rank on each", at_least(1),
            at_most(1 << 10));
    v.field("device", device, "what one device does");
    v.field("inside", inside, "from rank to rank inside a node");
    v.field("between", between, "from rank to rank of two nodes, when all ranks send at once");
    v.field("software", software, "how the work is done, where not as Ziggurat does it");
  }
  int ranks() const { return nodes * ranks_per_node; }
};

}  // namespace ziggurat
