#include <regex>

#include <fmt/format.h>
#include <fmt/ranges.h>

#include "apps/kernel_cases/lab.h"
#include <ziggurat/runtime/backend.h>

namespace ziggurat::apps {

namespace {
// All of it is taken at once on Device::cuda.
int64_t room(Device device, CaseSize size, int64_t timed) {
  if (device == Device::cpu) return Arena::all_memory();
  return size == CaseSize::timed ? timed : int64_t{16} << 20;
}
}  // namespace

Lab::Lab(Device device, CaseSize size)
    : data_("kernel operands", room(device, size, int64_t{6} << 30), device),
      workspace_("kernel workspace", room(device, size, int64_t{1} << 30), device),
      stream_(device) {}

void Lab::put(const void* from, void* to, int64_t bytes) {
  backend(stream_.device()).copy(from, to, bytes, stream_);
  stream_.wait();
}

int32_t* Lab::scattered(int64_t n, int64_t limit) {
  return filled<int32_t>(n, [=](int64_t i) { return static_cast<int32_t>(i * 7919 % limit); });
}

kernels::RowGroups Lab::equal_shares(int64_t n, int64_t experts) {
  return {filled<int32_t>(experts + 1, [=](int64_t e) { return static_cast<int32_t>(e * (n / experts)); }),
          experts};
}

std::string shape_of(std::initializer_list<int64_t> sizes) {
  return fmt::format("{}", fmt::join(sizes, " x "));
}

const char* to_string(Floor::Kind kind) {
  switch (kind) {
    case Floor::Kind::products:
      return "products";
    case Floor::Kind::traffic:
      return "traffic";
    case Floor::Kind::reads:
      return "reads";
  }
  return "unknown";
}

std::vector<KernelCase> kernel_cases(Device device, CaseSize size, const std::string& filter) {
  std::vector<KernelCase> cases;
  add_products(cases, device, size);
  add_layers(cases, device, size);
  add_moe(cases, device, size);
  add_slabs(cases, device, size);
  try {
    const std::regex wanted(filter);
    std::erase_if(cases, [&](const KernelCase& k) {
      return !std::regex_search(fmt::format("{}/{}", k.name, to_string(k.dtype)), wanted);
    });
  } catch (const std::regex_error& error) {
    fail(ErrorKind::argument, "--filter '{}' is not a regular expression: {}", filter, error.what());
  }
  check(!cases.empty(), ErrorKind::argument,
        "--filter '{}': expected part of a kernel's name, e.g. 'norm.*/bf16'", filter);
  return cases;
}

}  // namespace ziggurat::apps
