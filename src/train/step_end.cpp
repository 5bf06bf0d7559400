#include <algorithm>
#include <array>

#include <ziggurat/train/step_end.h>

namespace ziggurat::train {

StepEnd tell_step_end(Communicator& world, const RankAtStepEnd& mine) {
  constexpr int64_t kNumbers = 7;
  std::array<double, kNumbers> numbers = {static_cast<double>(mine.memory_bytes),
                                          mine.made_folder_again ? 1.0 : 0.0,
                                          static_cast<double>(mine.stop),
                                          mine.time.computed,
                                          mine.time.without_core,
                                          mine.lag.unwritten,
                                          mine.lag.uncommitted};
  std::vector<double> all(static_cast<size_t>(world.size() * kNumbers));
  Stream stream;
  world
      .all_gather(Tensor(numbers.data(), DType::f64, {1, kNumbers}),
                  Tensor(all.data(), DType::f64, {world.size(), kNumbers}), stream)
      .wait();
  StepEnd end;
  for (auto rank = all.begin(); rank != all.end(); rank += kNumbers) {
    end.memory_bytes = std::max(end.memory_bytes, static_cast<int64_t>(rank[0]));
    end.made_folder_again |= rank[1] > 0;
    end.stop = std::max(end.stop, static_cast<watch::StopRequest>(static_cast<int>(rank[2])));
    end.times.push_back({rank[3], rank[4]});
    end.lag.unwritten = std::max(end.lag.unwritten, rank[5]);
    end.lag.uncommitted = std::max(end.lag.uncommitted, rank[6]);
  }
  return end;
}

}  // namespace ziggurat::train
