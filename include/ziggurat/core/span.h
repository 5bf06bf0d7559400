// Where the time of a step goes, by name. A span costs a branch where nobody asked for a profile.
#pragma once

#include <cstdint>
#include <string>
#include <thread>
#include <vector>

#include <ziggurat/core/timer.h>

namespace ziggurat {

// Times of nested spans. It belongs to the thread that made it: spans on other threads are passed over, so
// that the units of work inside a parallel loop count as the kernel that spread them.
class Profile {
 public:
  struct Entry {
    std::string path;    // "cross_entropy/gemm"
    double seconds = 0;  // in the span itself, without the spans inside it
    int64_t calls = 0;
  };

  void enter(const char* name);  // `name` must outlive the profile
  void leave();
  void reset();  // forgets all times; only between spans
  bool mine() const { return std::this_thread::get_id() == owner_; }

  std::vector<Entry> entries() const;  // longest first

 private:
  struct Node {
    const char* name;
    int parent;  // -1: none
    double seconds = 0;
    int64_t calls = 0;
  };
  int find(const char* name);
  void charge();  // the time since the last event to the span under way

  std::thread::id owner_ = std::this_thread::get_id();
  std::vector<Node> nodes_;
  int current_ = -1;
  Timer since_;
};

class Span {
 public:
  Span(Profile* profile, const char* name) : profile_(profile) {
    if (profile_ == nullptr) return;
    if (!profile_->mine()) {
      profile_ = nullptr;
    } else {
      profile_->enter(name);
    }
  }
  ~Span() {
    if (profile_ != nullptr) profile_->leave();
  }
  Span(const Span&) = delete;
  Span& operator=(const Span&) = delete;

 private:
  Profile* profile_;
};

}  // namespace ziggurat
