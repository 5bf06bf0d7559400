// Faults on purpose, to test how a run takes them. Nothing happens unless the environment asks for it:
//
//   ZIGGURAT_INJECT='SITE:FAULT[:key=value]...[;SITE:FAULT...]'
//
//   gradient:flip:rank=1:step=5:bit=30              one bit of one rank's gradient, once
//   gradient:flip:rank=1:step=5:times=2             and again when that step is computed again
//   gradient:scale:by=50:step=7                     all gradients of step 7, on every rank
//   weight:flip:rank=2:tensor=final_norm.weight     one bit of what that rank computes with
//   loss:nan:rank=1:step=3
//   step:delay:ms=200:rank=1:times=0                from then on at every step
//   save:kill:rank=0:step=4
//
// Values:   loss      of the rank's first micro-batch
//           gradient  of the rank's micro-batches, before those of all ranks are added
//           weight    as the model computes with it, at the beginning of a step
//           master    the exact one that updates change, at the beginning of a step
//   faults: nan, inf, flip (a bit), scale (by a factor; every element unless `element` names one)
// Moments:  init      the ranks know each other         step      at its beginning
//           compute   before each micro-batch           reduce    before gradients are added over ranks
//           update    before the optimizer's update     eval      before a validation
//           save      before a checkpoint is made       stage     its tensors are being copied
//           write     its files are being written       commit    before it counts
//           shutdown  all is done, MPI still runs
//   faults: delay, throw, bad_alloc, exit, abort, segfault, kill (SIGKILL), stop (SIGSTOP), usr1 (SIGUSR1)
// Keys:     rank      0, 1, ...; none: every rank
//           step      as progress lines count them: 1, 2, ...; none: any
//           times     how often, from that step on, on each rank; 0: always (default 1)
//           tensor    a parameter's global name; none: the first one, and all of them to be scaled
//           element   of the global tensor, counted row by row: in experts.up.weight [experts, ...] those of
//                     expert e begin at e times the rest; ranks that hold others are left alone (default: the
//                     first that the rank holds)
//           bit       to flip, 0 is the lowest (default 12)      by    a factor (default 50)
//           ms        of a delay (default 200)                   code  of exit (default 3)
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ziggurat {

enum class Site {
  loss,
  gradient,
  weight,
  master,
  init,
  step,
  compute,
  reduce,
  update,
  eval,
  save,
  stage,
  write,
  commit,
  shutdown
};

enum class FaultKind {
  nan,
  inf,
  flip,
  scale,
  delay,
  raise,
  bad_alloc,
  exit,
  abort,
  segfault,
  kill,
  stop,
  usr1
};

struct Fault {
  Site site = Site::step;
  FaultKind kind = FaultKind::delay;
  int64_t rank = -1;  // -1: every one
  int64_t step = 0;   // 0: any
  int64_t times = 1;  // 0: always
  std::string tensor;
  int64_t element = -1;
  int64_t bit = 12;
  double by = 50;
  int64_t ms = 200;
  int64_t code = 3;

  // One value of float, double or bf16 as the fault leaves it. Throws Error(config) for a bit that it lacks.
  template <class T>
  T spoiled(T value) const;
};

class Injection {
 public:
  Injection() = default;                        // of nothing
  explicit Injection(const std::string& text);  // throws Error(config) naming the mistake

  bool any() const { return !faults_.empty(); }

  // What is due at this site; it has then happened once more on this rank.
  std::vector<Fault> take(Site site, int rank, int64_t step);

 private:
  struct Planned {
    Fault fault;
    std::map<int, int64_t> taken;  // by rank
  };
  std::vector<Planned> faults_;
};

// Of this process: by ZIGGURAT_INJECT, read at the first call, or by the latest inject(). Ranks that are
// threads share it.
bool injecting();                      // anything at all
void inject(const std::string& text);  // for tests; "": nothing from now on
std::vector<Fault> due_faults(Site site, int rank, int64_t step);

// A moment of a run has come on this rank: what is due there happens. Costs a test of a flag where nothing
// is injected.
void reach(Site site, int rank, int64_t step);

}  // namespace ziggurat
