// Names of this program's functions and shared variables, from its own symbol table.
#pragma once

#include <cstdint>
#include <string>

namespace ziggurat::emulation {

// "swiglu_forward<float>" of a function's address: without namespaces and parameters.
std::string kernel_name(const void* function);

// A `__shared__` variable: begin and size of the one that holds `offset` within this program's thread-local
// storage.
struct SharedVariable {
  uintptr_t offset = 0;
  size_t bytes = 0;  // 0: none there
  std::string name;
};
const SharedVariable& shared_variable(uintptr_t offset);

// The calling thread's copy of this program's thread-local storage.
struct Range {
  uintptr_t begin = 0, bytes = 0;
  bool holds(uintptr_t address) const { return address - begin < bytes; }
};
Range thread_local_storage();
// The program itself: its code, constants and global variables.
Range program();

}  // namespace ziggurat::emulation
