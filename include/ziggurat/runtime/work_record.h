// What a step would do, kernel by kernel and collective by collective: noted where they are started, while a
// dry run (Device::meta) tells what memory they take. `ziggurat plan --simulate` makes a time of it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace ziggurat {

struct WorkItem {
  enum class Kind : uint8_t {
    product,    // `groups` products m x k by k x n; of unlike ones (experts) the mean
    attention,  // `groups` heads (of all sequences) over m positions, k wide, each position sees those before
    dispatch,   // rows of k numbers to or from experts: m tokens, n rows
    memory,     // a kernel bound by memory
    collective,  // among `ranks` ranks of the group `along`
  };
  Kind kind = Kind::memory;
  std::string name = {};  // of the op or collective: "linear", "all_reduce"
  bool backward = false;
  bool of_weight = false;  // a product for a weight's gradient: k are tokens
  int64_t groups = 1, m = 0, n = 0, k = 0;
  double flops = 0;
  double bytes = 0;  // read and written; of a collective, its input on this rank
  std::string along = {};
  int ranks = 1;

  bool operator==(const WorkItem&) const = default;
};

// While it lives, work that this thread starts on meta devices is noted in it.
class WorkRecord {
 public:
  WorkRecord() : outer_(std::exchange(current_, this)) {}
  ~WorkRecord() { current_ = outer_; }
  WorkRecord(const WorkRecord&) = delete;
  WorkRecord& operator=(const WorkRecord&) = delete;
  static WorkRecord* current() { return current_; }  // null: nobody asked

  void add(WorkItem item) { items_.push_back(std::move(item)); }
  const std::vector<WorkItem>& items() const { return items_; }
  std::vector<WorkItem> take() { return std::exchange(items_, {}); }  // those so far

 private:
  inline static thread_local WorkRecord* current_ = nullptr;
  WorkRecord* outer_;
  std::vector<WorkItem> items_;
};

}  // namespace ziggurat
