// The time of a training step on a cluster: the step's own list of work (WorkRecord), each item under its
// roof, one after another but for what the software hides.
#pragma once

#include <string>
#include <vector>

#include <ziggurat/plan/cluster.h>
#include <ziggurat/plan/parallel_plan.h>
#include <ziggurat/runtime/work_record.h>

namespace ziggurat {

// What one rank does in a step.
struct StepWork {
  int64_t micro_batches = 1;
  std::vector<WorkItem> first, later;  // a micro-batch: the first, which writes gradients, and any other
  std::vector<WorkItem> reduction;     // of gradients
  std::vector<WorkItem> update;        // norms, clipping, optimizer
  double samples = 0, tokens = 0;      // of the step, over all ranks
  double model_flops = 0;              // that the model needs for them (model::count), over all ranks
};

struct PhaseTime {
  std::string name;
  double seconds = 0;  // exposed
  double hidden = 0;   // behind other phases
  double flops = 0;    // done by a rank: more than the model's where work is done twice
};

struct StepTime {
  std::vector<PhaseTime> phases;
  double seconds = 0;
  double samples_per_second = 0, tokens_per_second = 0;
  double model_flops_per_second = 0;  // of one rank
  double share_of_peak = 0;           // of its data sheet
  double products_at_roof = 0;        // share of the step that its products alone would take, at their roofs
};

// The item as software with these habits does it, in the order of the work; of a dense model cut over
// software.tensor_parallel ranks, this rank's part and what it exchanges ("tp").
std::vector<WorkItem> as_done(const WorkItem& item, const SoftwareHabits& software);

// Seconds of one item, alone on its device or links. Of a collective: `axis` is where its ranks are.
//   kernels      max(flops / (peak x share(size)), bytes / memory bandwidth) + start, host_gap at least
//   all-reduce   2 (R-1)/R bytes, through the slower of the links inside a node and those of all its members
//                to other nodes (rings over all of them); 2 log2 R latencies (trees)
//   gather and scatter  half of that
//   all-to-all   each rank's bytes to others of its node and to other nodes, whichever takes longer, and a
//                latency for every peer
double seconds_of(const WorkItem& item, const ClusterConfig& cluster, const RankAxis& axis);

// Throws Error(config) if the cluster has fewer.
void check_ranks(const ClusterConfig& cluster, int ranks);

// `layout` is that of the job, with software.tensor_parallel as its tp: `work` then is of a job of dp ranks.
// Throws Error(config) as check_ranks() does.
StepTime time_of(const StepWork& work, const ClusterConfig& cluster, const ParallelPlan& layout);

}  // namespace ziggurat
