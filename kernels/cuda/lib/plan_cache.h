// What libraries' plans have in common: they are made once for each product, and take scratch at multiples of
// an alignment of their own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>

#include <ziggurat/memory/arena.h>

namespace ziggurat::kernels {

// The calling thread's plan for `spec`, by make(spec), which may be null. It is kept: nothing is allocated
// once all products were seen. The thread starts anew after kMost different ones, as of texts of any length:
// training has some dozens.
template <size_t kMost, class Spec, class Plan>
Plan* plan_of(const Spec& spec, std::unique_ptr<Plan> (*make)(const Spec&)) {
  thread_local std::map<Spec, std::unique_ptr<Plan>> plans;
  auto found = plans.find(spec);
  if (found == plans.end()) {
    if (plans.size() == kMost) plans.clear();
    found = plans.emplace(spec, make(spec)).first;
  }
  return found->second.get();
}

inline constexpr int64_t kPlanWorkspaceAlignment = 256;  // bytes, of every library's

// Null for no bytes.
inline void* take_scratch(int64_t bytes, Arena& workspace) {
  if (bytes == 0) return nullptr;
  constexpr int64_t kAlign = kPlanWorkspaceAlignment;
  auto* const scratch = workspace.take_on_device<std::byte>(bytes + kAlign - Arena::kAlignment);
  return scratch + -reinterpret_cast<uintptr_t>(scratch) % static_cast<uintptr_t>(kAlign);
}

}  // namespace ziggurat::kernels
