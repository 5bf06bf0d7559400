// The emulated device's library of grouped products: plain loops, offered only while a test asks for them, as
// a GPU of another kind than Hopper has none.
#pragma once

namespace ziggurat::emulation {

class GroupedLibrary {
 public:
  GroupedLibrary() { offered_ = true; }
  ~GroupedLibrary() { offered_ = false; }
  GroupedLibrary(const GroupedLibrary&) = delete;
  GroupedLibrary& operator=(const GroupedLibrary&) = delete;
  static bool offered() { return offered_; }

 private:
  inline static bool offered_ = false;
};

}  // namespace ziggurat::emulation
