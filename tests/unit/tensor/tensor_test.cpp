#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <ziggurat/runtime/kernel_support.h>
#include <ziggurat/tensor/tensor.h>

namespace ziggurat {
namespace {

TEST(DType, SizesNamesAndAccumulation) {
  EXPECT_EQ(size_of(DType::bf16), 2);
  EXPECT_EQ(size_of(DType::f32), 4);
  EXPECT_EQ(size_of(DType::i32), 4);
  EXPECT_EQ(size_of(DType::f64), 8);
  EXPECT_STREQ(to_string(DType::bf16), "bf16");
  EXPECT_EQ(accum_dtype(DType::bf16), DType::f32);
  EXPECT_EQ(accum_dtype(DType::f32), DType::f32);
  EXPECT_EQ(accum_dtype(DType::f64), DType::f64);
  EXPECT_EQ(dtype_of<int32_t>(), DType::i32);
}

TEST(Shape, CountsComparesAndPrints) {
  EXPECT_EQ(Shape{}.numel(), 1);
  EXPECT_EQ((Shape{2, 3, 4}).numel(), 24);
  EXPECT_EQ((Shape{2, 0, 4}).numel(), 0);
  EXPECT_EQ((Shape{2, 3}), (Shape{2, 3}));
  EXPECT_NE((Shape{2, 3}), (Shape{3, 2}));
  EXPECT_NE((Shape{2}), (Shape{2, 1}));
  EXPECT_EQ((Shape{2, 3}).str(), "[2, 3]");
  EXPECT_EQ(Shape{}.str(), "[]");
  EXPECT_EQ(fmt::format("{}", Shape{5}), "[5]");
}

TEST(ShapeMisuse, NegativeDimsAndHighRanksAreRefused) {
  EXPECT_THROW((Shape{2, -1}), Error);
  EXPECT_THROW((Shape{1, 1, 1, 1, 1}), Error);
  EXPECT_NO_THROW((Shape{1, 1, 1, 1}));
}

struct EveryDtype : OnCpu {
  static constexpr const char* kName = "every_dtype";
};

class TensorTest : public testing::Test {
 protected:
  Arena arena_{"test", 1 << 16};
};

TEST_F(TensorTest, AllocatesFillsAndCopies) {
  const Tensor a = allocate(arena_, DType::i32, {2, 3});
  const Tensor b = allocate(arena_, DType::i32, {6});
  EXPECT_EQ(a.bytes(), 24);
  for (int32_t i = 0; i < 6; ++i) a.data<int32_t>()[i] = i;
  copy(a, b);
  for (int32_t i = 0; i < 6; ++i) EXPECT_EQ(b.data<int32_t>()[i], i);
  fill_zero(a);
  for (int32_t i = 0; i < 6; ++i) EXPECT_EQ(a.data<int32_t>()[i], 0);
  EXPECT_FALSE(Tensor());
  EXPECT_TRUE(allocate(arena_, DType::f32, {0}));  // empty, but somewhere
}

TEST_F(TensorTest, ViewsShareMemory) {
  const Tensor a = allocate(arena_, DType::f32, {2, 6});
  const Tensor b = a.reshape({3, 2, 2});
  EXPECT_EQ(a.raw(), b.raw());
  EXPECT_EQ(b.shape(), (Shape{3, 2, 2}));
}

TEST_F(TensorTest, RowsOfEveryRank) {
  for (const Shape shape : {Shape{4}, Shape{4, 3}, Shape{4, 3, 2}, Shape{4, 3, 2, 5}}) {
    const Tensor t = allocate(arena_, DType::bf16, shape);
    const int64_t row = shape.numel() / 4;
    const Tensor middle = t.rows(1, 3);
    EXPECT_EQ(middle.data<bf16>(), t.data<bf16>() + row) << shape.str();
    EXPECT_EQ(middle.dim(0), 2);
    EXPECT_EQ(middle.numel(), 2 * row);
    EXPECT_EQ(middle.rank(), shape.rank());
    EXPECT_EQ(t.rows(4, 4).numel(), 0);
  }
  EXPECT_EQ(allocate(arena_, DType::f32, {0, 3}).rows(0, 0).shape(), (Shape{0, 3}));
}

TEST_F(TensorTest, MetaTensorsAreNeverTouched) {
  Arena meta("meta", int64_t{1} << 40, Device::meta);
  const Tensor a = allocate(meta, DType::f32, {1 << 20, 1 << 10});
  const Tensor b = allocate(meta, DType::f32, {1 << 20, 1 << 10});
  fill_zero(a);
  copy(a, b);
  int kernels = 0;
  visit_kernels<EveryDtype>(
      a, [&]<Device D, class T>() {  // a kernel takes its memory, and its loops are left out
        ++kernels;
        for (const int64_t n : {1, 1000}) {
          parallel_for(n, [](int64_t) { FAIL(); });
          parallel_for_blocks(n, 10, [](int64_t, int64_t) { FAIL(); });
        }
        on_every_thread([] { FAIL(); });
      });
  EXPECT_EQ(kernels, 1);
  EXPECT_FALSE(DryRun::on());
  EXPECT_EQ(a.device(), Device::meta);
  EXPECT_EQ(a.rows(0, 1).device(), Device::meta);
}

TEST_F(TensorTest, DispatchesOnDtype) {
  const auto dispatched = [&](DType dtype) {
    DType seen = DType::i32;
    visit_kernels<EveryDtype>(allocate(arena_, dtype, {1}),
                              [&]<Device D, class T>() { seen = dtype_of<T>(); });
    return seen;
  };
  for (const DType dtype : {DType::f32, DType::bf16, DType::f64}) EXPECT_EQ(dispatched(dtype), dtype);
  EXPECT_THROW(dispatched(DType::i32), Error);
}

TEST_F(TensorTest, AForeignDeviceIsRefused) {
  const Tensor t(this, DType::f32, {1}, Device::cuda);
  if (kHasCuda) GTEST_SKIP() << "this build knows the device";
  const auto kernel = []<Device D, class T>() {};
  EXPECT_THROW(visit_kernels<EveryDtype>(t, kernel), Error);
}

struct NoBf16 : OnCpu {
  static constexpr const char* kName = "no_bf16";
  using Cpu = Dtypes<float, double>;
};

TEST_F(TensorTest, AMissingKernelIsNamed) {
  const auto kernel = []<Device D, class T>() {};
  EXPECT_NO_THROW((visit_kernels<EveryDtype, NoBf16>(allocate(arena_, DType::f32, {1}), kernel)));
  try {
    visit_kernels<EveryDtype, NoBf16>(allocate(arena_, DType::bf16, {1}), kernel);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.kind(), ErrorKind::device);
    EXPECT_THAT(error.what(), ::testing::HasSubstr("[no_bf16] no kernel for bf16 on cpu"));
  }
}

TEST_F(TensorTest, MisuseIsRefused) {
  const Tensor t = allocate(arena_, DType::f32, {2, 3});
  EXPECT_THROW(t.data<double>(), Error);
  EXPECT_THROW(t.reshape({5}), Error);
  EXPECT_THROW(t.rows(-1, 1), Error);
  EXPECT_THROW(t.rows(1, 3), Error);
  EXPECT_THROW(t.rows(2, 1), Error);
  EXPECT_THROW(t.reshape({6}).rows(0, 7), Error);
  EXPECT_THROW(Tensor(t.raw(), DType::f32, {}).rows(0, 1), Error);  // a scalar has no rows
  EXPECT_THROW(copy(t, allocate(arena_, DType::bf16, {2, 3})), Error);
  EXPECT_THROW(copy(t, allocate(arena_, DType::f32, {2, 2})), Error);
}

}  // namespace
}  // namespace ziggurat
