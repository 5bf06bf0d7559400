// Compiled as everything else, and nothing but data: what the compiler says it may use.
#include <ziggurat/core/cpu.h>

namespace ziggurat {

namespace {

// The compiler defines its macros as 1; the text of one that it does not define is its own name.
#define ZIGGURAT_TEXT(macro) #macro
#define ZIGGURAT_IS_ONE(macro, name, level) ZIGGURAT_TEXT(macro)[0] == '1',
constexpr bool kAllowed[] = {ZIGGURAT_CPU_FEATURES(ZIGGURAT_IS_ONE)};

constexpr CpuFeatures allowed_features() {
  CpuFeatures set = 0;
  for (size_t i = 0; i < sizeof(kAllowed); ++i) set |= CpuFeatures{kAllowed[i]} << i;
  return set;
}

}  // namespace

constinit const CpuFeatures kBuiltForFeatures = allowed_features();
constinit const char kBuiltForMarch[] = ZIGGURAT_MARCH;

}  // namespace ziggurat
