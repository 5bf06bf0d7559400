// Checkpoints compared, and written anew.
#include <filesystem>

#include <gmock/gmock.h>

#include "tests/support/source_dir.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/checkpoint/compare.h>
#include <ziggurat/train/convert.h>

namespace ziggurat::train {
namespace {

using ::testing::HasSubstr;
using ziggurat::testing::error_of;
using ziggurat::testing::TempDir;

std::string golden(int format) {
  return fmt::format("{}/tests/golden/data/checkpoints/format_{}", test::source_dir(), format);
}

int64_t bytes_of(const CheckpointReader& checkpoint) {
  int64_t bytes = 0;
  for (const FileRecord& file : checkpoint.manifest().files) bytes += file.bytes;
  return bytes;
}

TEST(Compare, FindsNothingBetweenFormatsOfOneState) {
  CheckpointReader a(golden(1)), b(golden(3));
  const std::vector<TensorDifference> found = compare(a, b);
  EXPECT_EQ(found.size(), a.names().size());
  for (const TensorDifference& d : found) {
    EXPECT_EQ(d.different, 0) << d.name;
    EXPECT_EQ(d.note, "") << d.name;
    EXPECT_EQ(d.elements, a.tensor(d.name).shape.numel()) << d.name;
  }
}

TEST(Compare, SaysHowFarTensorsAreApart) {
  const TempDir dir;
  const auto alone = make_self_communicator();
  float a[6] = {1, 2, 3, 4, 5, 6}, b[6] = {1, 2, 3.5f, 4, 5, 6}, c[3] = {};
  const auto save = [&](const std::string& name, float* values, const char* second, int64_t n) {
    const TensorSlice slices[] = {{"w", {3, 2}, rows_of({3, 2}, 0, 3), Tensor(values, DType::f32, {3, 2})},
                                  {second, {n}, rows_of({n}, 0, n), Tensor(c, DType::f32, {n})}};
    save_checkpoint(dir / name, {}, slices, *alone);
    return CheckpointReader((dir / name).string());
  };
  CheckpointReader first = save("a", a, "x", 3), other = save("b", b, "y", 3), shorter = save("c", a, "x", 2);
  const std::vector<TensorDifference> found = compare(first, other);
  ASSERT_EQ(found.size(), 3u);
  EXPECT_EQ(found[0].different, 1);
  EXPECT_EQ(found[0].largest, 0.5);
  EXPECT_NEAR(found[0].relative, 0.5 / std::sqrt(91), 1e-9);
  EXPECT_EQ(found[1].note, "only in the first");
  EXPECT_EQ(found[2].note, "only in the second");
  EXPECT_EQ(compare(first, shorter)[1].note, "[3] and [2]");
}

TEST(Compare, CutsBoxesIntoPieces) {
  int64_t rows = 0;
  for_each_piece({{2, 0}, {5, 3}}, 6, [&](const Box& piece) {
    EXPECT_EQ(piece.begin[0], 2 + rows);
    EXPECT_EQ(piece.extent[1], 3);
    EXPECT_LE(piece.numel(), 6);
    rows += piece.extent[0];
  });
  EXPECT_EQ(rows, 5);
}

TEST(Convert, OldFormatsToTheCurrentOne) {
  for (const int format : {1, 2, 3}) {
    const TempDir dir;
    CheckpointReader from(golden(format));
    convert_checkpoint(from, dir / "out", {});
    CheckpointReader made((dir / "out").string());
    EXPECT_EQ(made.manifest().format_version, Manifest::kFormatVersion);
    EXPECT_EQ(made.manifest().state, from.manifest().state);
    EXPECT_EQ(made.manifest().config, from.manifest().config);
    for (const TensorDifference& d : compare(from, made)) EXPECT_EQ(d.different, 0) << d.name;
    EXPECT_THAT(error_of(ErrorKind::argument, [&] { convert_checkpoint(from, dir / "out", {}); }),
                HasSubstr("is there already"));
  }
}

TEST(Convert, MomentsBecomeSmallerOrNothing) {
  const TempDir dir;
  CheckpointReader from(golden(3));
  convert_checkpoint(from, dir / "halved", {.moments = DType::bf16});
  CheckpointReader halved((dir / "halved").string());
  for (const TensorDifference& d : compare(from, halved)) {
    const bool moment = d.name.starts_with("adam.");
    EXPECT_EQ(halved.tensor(d.name).dtype, moment ? DType::bf16 : DType::f32) << d.name;
    EXPECT_LE(d.relative, moment ? 0x1p-8 : 0) << d.name;
  }
  convert_checkpoint(from, dir / "bare", {.weights_only = true});
  CheckpointReader bare((dir / "bare").string());
  EXPECT_LT(bytes_of(bare), bytes_of(from) / 2);
  for (const TensorDifference& d : compare(from, bare)) {
    if (d.name.starts_with("adam.")) continue;
    EXPECT_EQ(d.different, 0) << d.name;
  }
}

}  // namespace
}  // namespace ziggurat::train
