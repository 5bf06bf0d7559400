// This file alone is compiled for the oldest x86-64 (CMakeLists.txt). It uses no function that a header
// defines: the linker might take the copy that another file's compiler made for a newer CPU.
#include <cpuid.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <ziggurat/core/cpu.h>

namespace ziggurat {

namespace {

struct Feature {
  const char* name;
  int level;
};
#define ZIGGURAT_NAME_AND_LEVEL(macro, name, level) {name, level},
constexpr Feature kFeatures[] = {ZIGGURAT_CPU_FEATURES(ZIGGURAT_NAME_AND_LEVEL)};
constexpr int kCount = sizeof(kFeatures) / sizeof(kFeatures[0]);
static_assert(kCount <= 64);

constexpr const char* kMarchOfLevel[] = {"", "x86-64", "x86-64-v2", "x86-64-v3", "x86-64-v4"};

// snprintf at the end of what is there.
template <class... Args>
void append(char* text, size_t size, const char* format, Args... args) {
  const size_t used = strlen(text);
  snprintf(text + used, size - used, format, args...);
}

// The first of all constructors: 101 is the earliest that programs may ask for. Libraries' own ran before;
// these are the system's.
__attribute__((constructor(101))) void refuse_another_cpu() {
  char cpu[64], node[256] = "", text[2048];
  name_of_this_cpu(cpu, sizeof(cpu));
  gethostname(node, sizeof(node) - 1);
  char where[sizeof(cpu) + sizeof(node) + 8];
  snprintf(where, sizeof(where), "%s, of %s", cpu, node);
  explain_missing_features(kBuiltForFeatures, features_of_this_cpu(), where, text, sizeof(text));
  if (text[0] == '\0') return;
  constexpr int kDeviceError = 1;  // exit_code(ErrorKind::device), which may be compiled for that other CPU
  dprintf(STDERR_FILENO, "ziggurat: device error:\n%s\n", text);
  _exit(kDeviceError);
}

}  // namespace

CpuFeatures features_of_this_cpu() {
  __builtin_cpu_init();
  CpuFeatures set = 0;
  int i = 0;
#define ZIGGURAT_ADD_IF_PRESENT(macro, name, level)             \
  if (__builtin_cpu_supports(name)) set |= CpuFeatures{1} << i; \
  ++i;
  ZIGGURAT_CPU_FEATURES(ZIGGURAT_ADD_IF_PRESENT)
  return set;
}

int x86_64_level(CpuFeatures features) {
  int level = 4;
  for (int i = 0; i < kCount; ++i) {
    const bool missing = (features >> i & 1) == 0;
    if (missing && kFeatures[i].level <= level) level = kFeatures[i].level - 1;
  }
  return level;
}

void explain_missing_features(CpuFeatures built_for, CpuFeatures here, const char* cpu, char* text,
                              size_t size) {
  text[0] = '\0';
  const CpuFeatures missing = built_for & ~here;
  if (missing == 0) return;
  append(text, size, "this program was built for another CPU (-march=%s) than %s, which lacks",
         kBuiltForMarch, cpu);
  for (int i = 0; i < kCount; ++i) {
    if (missing >> i & 1) append(text, size, " %s", kFeatures[i].name);
  }
  append(text, size,
         ". Build it with -DZIGGURAT_MARCH=%s, which every CPU of this level runs, or on this machine with "
         "-DZIGGURAT_MARCH=native",
         kMarchOfLevel[x86_64_level(here)]);
}

void name_of_this_cpu(char* text, size_t size) {
  constexpr unsigned kFirst = 0x80000002, kLast = 0x80000004;
  char brand[(kLast - kFirst + 1) * 16 + 1] = "";
  for (unsigned leaf = kFirst; leaf <= kLast; ++leaf) {
    unsigned registers[4] = {};
    if (!__get_cpuid(leaf, &registers[0], &registers[1], &registers[2], &registers[3])) break;
    memcpy(brand + (leaf - kFirst) * 16, registers, sizeof(registers));
  }
  const char* begin = brand + strspn(brand, " ");
  size_t length = strlen(begin);
  while (length > 0 && begin[length - 1] == ' ') --length;
  snprintf(text, size, "%.*s", static_cast<int>(length), length > 0 ? begin : "");
}

}  // namespace ziggurat
