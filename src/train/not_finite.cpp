#include <algorithm>
#include <cmath>

#include <ziggurat/train/finite.h>
#include <ziggurat/train/not_finite.h>

namespace ziggurat::train {

namespace {

// What one rank has to tell; the smallest text over ranks is the first.
std::string first_of_ranks(const std::string& mine, Communicator& world) {
  std::string first;
  for (const std::string& found : world.all_gather_text(mine)) {
    if (!found.empty() && (first.empty() || found < first)) first = found;
  }
  return first.substr(std::min(first.size(), first.find(' ') + 1));  // without its place
}

// "gradient of NAME, expert 3, element 17"
std::string name_element(const nn::ParamEntry& entry, int64_t element) {
  const nn::ParamSpec& spec = entry.spec;
  const int64_t place = entry.first + element;
  if (spec.expert_parallel == 0) return fmt::format("{}, element {}", spec.name, place);
  const int64_t of_expert = spec.global_shape.numel() / spec.global_shape[0];
  return fmt::format("{}, expert {}, element {}", spec.name, place / of_expert, place % of_expert);
}

class Search {
 public:
  Search(Training& training, Executor& executor) : training_(training), executor_(executor) {}

  // Backward comes to the last parameters first. `owned`: only of what is this rank's after the reduction.
  std::string in_gradients(bool owned) {
    executor_.stream.wait();
    const auto& entries = training_.store.entries();
    for (size_t i = entries.size(); i-- > 0;) {
      const nn::ParamEntry& entry = entries[i];
      const nn::ParamStore& store = training_.store;
      const IndexRange range = owned ? store.owned(entry) : store.kept(entry);
      const int64_t at =
          first_not_finite(owned ? store.owned_gradient(entry) : store.kept_gradient(entry), pieces_);
      if (at >= 0) {
        return fmt::format("{:06d} the gradient of {}", entries.size() - i,
                           name_element(entry, range.begin + at));
      }
    }
    return "";
  }

  // Once more, with a look at the output of every block and at the gradients after every micro-batch.
  std::string inside(TrainStep& step, const StepPlan& plan, double counted_tokens,
                     const TrainStep::ReadBatch& read) {
    std::string found, in_forward;
    const auto layers = static_cast<int64_t>(training_.model.config().layers().size());
    training_.model.observe([&](int64_t layer, const Tensor& output) {
      if (!found.empty() || !in_forward.empty()) return;
      executor_.stream.wait();
      if (first_not_finite(output, pieces_) < 0) return;
      in_forward = fmt::format("{:06d} the output of {}", layer + 1,
                               layer < 0         ? "the embedding"
                               : layer == layers ? "the final norm"
                                                 : fmt::format("block {}", layer));
    });
    step.accumulate_alone(plan, counted_tokens, read, 0, [&](int64_t micro_batch) {
      if (!found.empty()) return;
      training_.store.settle_gradients(executor_.stream);
      std::string what = in_forward;
      if (what.empty()) what = in_gradients(false);
      if (!what.empty()) {
        found = fmt::format("{:06d}_{} in micro-batch {} on rank {}", micro_batch, what, micro_batch,
                            training_.groups.world().rank());
      }
    });
    training_.model.observe({});
    return found;
  }

 private:
  Training& training_;
  Executor& executor_;
  HostPieces pieces_;
};

}  // namespace

std::string explain_not_finite(Training& training, TrainStep& step, const StepPlan& plan,
                               double counted_tokens, const TrainStep::ReadBatch& read,
                               const StepResult& result, Executor& executor) {
  Communicator& world = training.groups.world();
  Search search(training, executor);
  std::string what;
  const auto bad = std::find_if(result.losses.begin(), result.losses.end(),
                                [](double loss) { return !std::isfinite(loss); });
  if (bad != result.losses.end()) {
    const int64_t micro_batch = (bad - result.losses.begin()) / training.objective->part_count();
    what = fmt::format("the loss of micro-batch {} on rank {} is not finite", micro_batch,
                       micro_batch / plan.micro_batches_per_rank);
  } else {
    const std::string gradient = first_of_ranks(search.in_gradients(true), world);
    what = fmt::format("{} is not finite", gradient.empty() ? "the norm of the gradient" : gradient);
  }
  const std::string weight = first_not_finite(training.optimizer.state(), world);
  if (!weight.empty()) return fmt::format("{}, and neither is {}", what, weight);
  const std::string inside = first_of_ranks(search.inside(step, plan, counted_tokens, read), world);
  step.finish(plan, counted_tokens, StepLimits::no_update());  // the gradient of the step, as after any other
  if (!inside.empty()) return fmt::format("{}; it begins with {}", what, inside);
  return what + "; computed again all is finite: a fault of a machine that has passed";
}

}  // namespace ziggurat::train
