#include "apps/version.h"

#include <H5public.h>
#include <dnnl_version.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <mpi.h>

#include <ziggurat/build_config.h>
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/core/cpu.h>
#include <ziggurat/data/shard_format.h>
#include <ziggurat/runtime/gpus.h>

namespace ziggurat::apps {
namespace {

using testing::ContainsRegex;
using testing::HasSubstr;
using testing::Not;

TEST(Version, NamesTheBuildAndWhatItRunsWith) {
  const std::string text = version_text("0123456789ab-dirty");
  EXPECT_THAT(text, testing::StartsWith(std::string("ziggurat ") + kVersion + " ("));
  EXPECT_THAT(text, HasSubstr("revision 0123456789ab-dirty"));
  EXPECT_THAT(text, HasSubstr(std::string("-march=") + kBuiltForMarch));
  EXPECT_THAT(text, HasSubstr("\nthis CPU"));
  // On the machine of the build, the libraries that run are those that it was compiled with.
  EXPECT_THAT(text, ContainsRegex("\nHDF5 +" + std::to_string(H5_VERS_MAJOR) + "\\." +
                                  std::to_string(H5_VERS_MINOR)));
  EXPECT_THAT(text, ContainsRegex("\noneDNN +" + std::to_string(DNNL_VERSION_MAJOR) + "\\."));
#ifdef OPEN_MPI
  EXPECT_THAT(text, HasSubstr("Open MPI v" + std::to_string(OMPI_MAJOR_VERSION) + "."));
#endif
  EXPECT_THAT(text, ContainsRegex(built_for_gpus().empty() ? "\nCUDA +none" : "\nCUDA +built in"));
  EXPECT_EQ(text.find("\n\n"), std::string::npos);
  EXPECT_NE(text.back(), '\n');
}

TEST(Version, SaysWhichOptionalLibrariesAreThere) {
  const std::string text = version_text("");
  const std::string line =
      text.substr(text.find("\noptional"), text.find("\nformats") - text.find("\noptional"));
  const std::string present = line.substr(0, line.find(" without "));
  EXPECT_EQ(present.find("gzip") != std::string::npos, kHasGzip);
  EXPECT_EQ(present.find("zstd") != std::string::npos, kHasZstd);
  EXPECT_EQ(present.find("nfc") != std::string::npos, kHasNfc);
  EXPECT_EQ(present.find("sentencepiece") != std::string::npos, kHasSentencePiece);
  EXPECT_THAT(text, Not(HasSubstr("revision")));
}

TEST(Version, SaysWhichFormatsItReads) {
  EXPECT_THAT(version_text(""), HasSubstr("reads checkpoints 1 to 3 and writes 3; token shards " +
                                          std::to_string(kShardVersion) + ", configs "));
}

}  // namespace
}  // namespace ziggurat::apps
