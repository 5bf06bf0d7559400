// ziggurat --version. The libraries are asked themselves: the ones that run need not be those of the build.
#include "apps/version.h"

#include <H5public.h>
#include <dnnl.h>
#include <fmt/format.h>
#include <mpi.h>

#include <ziggurat/build_config.h>
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/core/cpu.h>
#include <ziggurat/data/shard_format.h>
#include <ziggurat/runtime/gpus.h>
#include <ziggurat/train/config_version.h>

namespace ziggurat::apps {

namespace {

std::string hdf5_library() {
  unsigned major = 0, minor = 0, release = 0;
  H5get_libversion(&major, &minor, &release);
  return fmt::format("{}.{}.{}", major, minor, release);
}

std::string onednn_library() {
  const dnnl_version_t& version = *dnnl_version();
  return fmt::format("{}.{}.{}", version.major, version.minor, version.patch);
}

// As the level that they make up, and what goes beyond: "x86-64-v4 avx512vnni avx512bf16".
std::string level_and_more(CpuFeatures features) {
  const int level = x86_64_level(features);
  std::string text = level == 1 ? "x86-64" : fmt::format("x86-64-v{}", level);
  int bit = 0;
#define ZIGGURAT_ADD_IF_BEYOND(macro, name, its_level)              \
  if (its_level > level && (features >> bit & 1)) text += " " name; \
  ++bit;
  ZIGGURAT_CPU_FEATURES(ZIGGURAT_ADD_IF_BEYOND)
  return text;
}

std::string this_cpu() {
  char name[64];
  name_of_this_cpu(name, sizeof(name));
  return name;
}

}  // namespace

std::string mpi_library() {
  char text[MPI_MAX_LIBRARY_VERSION_STRING];
  int length = 0;
  MPI_Get_library_version(text, &length);  // may be called before MPI starts
  const std::string all(text, static_cast<size_t>(length));
  return all.substr(0, all.find_first_of(",\n"));
}

std::string version_text(const std::string& revision) {
  const std::string absent = ZIGGURAT_ABSENT_LIBRARIES;
  std::string text = fmt::format("ziggurat {} ({}{})\n", kVersion, kBuildType,
                                 revision.empty() ? "" : ", revision " + revision);
  const auto line = [&](const char* what, const std::string& is) {
    text += fmt::format("{:<10}{}\n", what, is);
  };
  line("compiler", ZIGGURAT_COMPILER);
  line("built for", fmt::format("-march={}: {}", kBuiltForMarch, level_and_more(kBuiltForFeatures)));
  line("this CPU", fmt::format("{}: {}", this_cpu(), level_and_more(features_of_this_cpu())));
  line("MPI", mpi_library());
  line("HDF5", hdf5_library());
  line("oneDNN", onednn_library());
  const std::string gpus = built_for_gpus();
  line("CUDA", gpus.empty() ? "none" : fmt::format("built in: {}, for {}", gpu_libraries(), gpus));
  line("optional",
       fmt::format("{}{}", ZIGGURAT_FOUND_LIBRARIES, absent.empty() ? "" : "; without " + absent));
  line("formats", fmt::format("reads checkpoints {} to {} and writes {}; token shards {}, configs {}",
                              Manifest::kOldestFormatVersion, Manifest::kFormatVersion,
                              Manifest::kFormatVersion, kShardVersion, train::kConfigVersion));
  text.pop_back();
  return text;
}

}  // namespace ziggurat::apps
