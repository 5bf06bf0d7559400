// A program with Ziggurat's check of the CPU, built for one that there is not (CMakeLists.txt): it must end
// before the first of its own instructions, those of its static objects included.
#include <cstdio>

namespace {

struct Speaks {
  Speaks() { std::puts("a static object was made"); }
} speaks;

}  // namespace

int main() { std::puts("main was reached"); }
