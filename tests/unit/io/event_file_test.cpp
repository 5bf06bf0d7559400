// TensorBoard's own reader takes what is written here (scripts/parity/event_files.py wrote the golden file
// with its classes).
#include <fstream>
#include <iterator>

#include <gtest/gtest.h>

#include "tests/support/source_dir.h"
#include <ziggurat/io/event_file.h>

namespace ziggurat {
namespace {

std::string example() {
  constexpr double kTime = 1'700'000'000.25;
  const std::vector<NamedScalar> scalars = {{"train/loss", 3.25}, {"moe_imbalance/layer_03", 1.5}};
  const std::vector<NamedText> texts = {{"samples/1", "Once upon a time"}};
  return event_file_head(kTime) + event_of_start(kTime, 41) + event_of_scalars(kTime, 42, scalars) +
         event_of_scalars(kTime, 300'000, {{{"train/loss", -1e-3}}}) + event_of_texts(kTime, 42, texts);
}

TEST(EventFile, HasTheBytesThatTensorBoardReads) {
  const std::string path = test::source_dir() + "/tests/golden/data/events.out.tfevents.golden";
  std::ifstream file(path, std::ios::binary);
  const std::string golden{std::istreambuf_iterator<char>(file), {}};

  EXPECT_EQ(golden.size(), example().size());
  EXPECT_TRUE(golden == example()) << path;
}

// RFC 3720, B.4: 32 bytes of zeros have the CRC-32C 0x8a9136aa.
TEST(EventFile, MasksChecksums) {
  const uint32_t crc = 0x8a9136aa;
  EXPECT_EQ(masked_crc32c(std::string(32, '\0')), ((crc >> 15) | (crc << 17)) + 0xa282ead8u);
}

}  // namespace
}  // namespace ziggurat
