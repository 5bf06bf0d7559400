#include <cstring>
#include <vector>

#include <gmock/gmock.h>

#include "checkpoint_fixture.h"
#include <ziggurat/core/philox.h>

namespace ziggurat::test {
namespace {

using ::testing::HasSubstr;

class Safetensors : public CheckpointTest {
 protected:
  std::string path() const { return root_ + "/file.safetensors"; }

  void put(const std::string& header, size_t data_bytes) const {
    const uint64_t length = header.size();
    std::string bytes(8, '\0');
    std::memcpy(bytes.data(), &length, 8);
    spit(path(), bytes + header + std::string(data_bytes, 'x'));
  }
  std::string refused(const std::string& header, size_t data_bytes) const {
    put(header, data_bytes);
    return refusal([&] { SafetensorsFile file(path()); });
  }
};

std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                  const std::string& offsets) {
  return fmt::format(R"("{}":{{"dtype":"{}","shape":{},"data_offsets":{}}})", name, dtype, shape, offsets);
}

std::string object(const std::string& members) { return fmt::format("{{{}}}", members); }

TEST_F(Safetensors, RoundTripKeepsEveryBitAndAligns) {
  std::vector<bf16> odd = {bf16(1.0f), bf16(-2.0f), bf16(3.5f)};
  std::vector<float> nan = {0.0f, -0.0f, std::nanf("7"), 1e-42f};
  std::vector<double> wide = {1.0 / 3.0};
  std::vector<int32_t> whole = {INT32_MIN, -1, INT32_MAX};
  const std::vector<NamedTensor> tensors = {{"odd", Tensor(odd.data(), DType::bf16, {3, 1})},
                                            {"nan", Tensor(nan.data(), DType::f32, {2, 2})},
                                            {"none", Tensor(nullptr, DType::f32, {0, 7})},
                                            {"wide", Tensor(wide.data(), DType::f64, {})},
                                            {"whole \"\xc3\xa4", Tensor(whole.data(), DType::i32, {3})}};
  const WrittenFile written = write_safetensors(path(), tensors, {{"run", "r 1"}});
  const std::string bytes = slurp(path());
  EXPECT_EQ(written.bytes, static_cast<int64_t>(bytes.size()));
  EXPECT_EQ(written.hash, content_hash(std::as_bytes(std::span(bytes))));

  const SafetensorsFile file(path(), written);
  ASSERT_EQ(file.entries().size(), tensors.size());
  EXPECT_EQ(file.metadata().at("run"), "r 1");
  for (const NamedTensor& expected : tensors) {
    const Tensor found = file.tensor(expected.name);
    EXPECT_EQ(found.dtype(), expected.data.dtype());
    EXPECT_EQ(found.shape(), expected.data.shape());
    EXPECT_EQ(reinterpret_cast<uintptr_t>(found.raw()) % static_cast<uintptr_t>(size_of(found.dtype())), 0u);
    if (found.bytes() > 0) {
      EXPECT_EQ(std::memcmp(found.raw(), expected.data.raw(), static_cast<size_t>(found.bytes())), 0);
    }
  }
}

TEST_F(Safetensors, ReadsAHandWrittenFile) {
  put(object(entry("b", "F32", "[1]", "[4,8]") + "," + entry("a", "BF16", "[2,1]", "[0,4]")) + "   ", 8);
  const SafetensorsFile file(path());
  EXPECT_EQ(file.entry("a").shape, Shape({2, 1}));
  EXPECT_EQ(file.data("b").size(), 4u);
  EXPECT_EQ(file.data("a")[0], std::byte{'x'});
}

TEST_F(Safetensors, TheHashIsThePublishedXxh3) {
  // XXH3-128 of nothing with seed 0 (xxHash's own sanity vector).
  EXPECT_EQ(content_hash(std::span<const std::byte>()), "xxh3-128:99aa06d3014798d86001c324468d497f");
}

TEST_F(Safetensors, RefusesHostileHeaders) {
  struct Case {
    std::string header;
    size_t data_bytes;
    std::string message;
  };
  const std::string good = entry("a", "F32", "[2]", "[0,8]");
  const std::string nested(100000, '[');
  const std::vector<Case> cases = {
      // The product wraps to 4 in 64 bits.
      {object(entry("a", "F32", "[4194305,4194305,211106198978564]", "[0,16]")), 16, "overflows"},
      {object(entry("a", "F32", "[4611686018427387904]", "[0,0]")), 0, "overflows"},
      {object(entry("a", "F32", "[9223372036854775808]", "[0,0]")), 0, "whole number"},
      {object(entry("a", "F32", "[99999999999999999999999]", "[0,0]")), 0, "whole number"},
      {object(entry("a", "F32", "[-1]", "[0,4]")), 4, "whole number"},
      {object(entry("a", "F32", "[1.5]", "[0,4]")), 4, "whole number"},
      {object(entry("a", "F32", "[1,1,1,1,1]", "[0,4]")), 4, "at most 4 dims"},
      {object(entry("a", "F32", "2", "[0,8]")), 8, "list"},
      {object(entry("a", "F32", "[2]", "[8,0]")), 8, "outside"},
      {object(entry("a", "F32", "[2]", "[0,8,8]")), 8, "[begin, end]"},
      {object(entry("a", "F32", "[2]", "[-8,0]")), 8, "whole number"},
      {object(entry("a", "F32", "[2]", "[8,16]")), 8, "outside"},
      {object(entry("a", "F32", "[2]", "[0,18446744073709551615]")), 8, "whole number"},
      {object(entry("a", "F32", "[3]", "[0,8]")), 8, "needs 12 bytes"},
      {object(entry("a", "F64", "[2]", "[0,8]")), 8, "needs 16 bytes"},
      {object(entry("a", "F8_E4M3", "[8]", "[0,8]")), 8, "expected dtype"},
      {object(good + "," + entry("b", "F32", "[2]", "[4,12]")), 12, "overlaps"},
      {object(good + "," + entry("b", "F32", "[2]", "[0,8]")), 8, "overlaps"},
      {object(good + "," + entry("b", "F32", "[1]", "[12,16]")), 16, "hole"},
      {object(entry("a", "F32", "[1]", "[4,8]")), 8, "hole"},
      {object(good), 9, "belong to none"},
      {object(good), 7, "outside"},
      {"{}", 1, "belong to none"},
      {object(good + "," + good), 8, "duplicate name 'a'"},
      {R"({"a":{"dtype":"F32","dtype":"F64","shape":[1],"data_offsets":[0,4]}})", 4,
       "duplicate name 'dtype'"},
      {R"({"__metadata__":{"x":"1","x":"2"}})", 0, "duplicate name 'x'"},
      {R"({"__metadata__":{"x":1}})", 0, "expected a string"},
      {R"({"__metadata__":"x"})", 0, "object of strings"},
      {R"({"a":{"dtype":"F32","shape":[2]}})", 8, "exactly dtype"},
      {R"({"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}})", 8, "exactly dtype"},
      {R"({"a":[1,2,3]})", 8, "exactly dtype"},
      {R"({"a":{"dtype":1,"shape":[2],"data_offsets":[0,8]}})", 8, "expected a string"},
      {object(good).insert(0, " "), 8, "must start with"},
      {fmt::format("[{}]", object(good)), 8, "must start with"},
      {object(good).substr(0, good.size() + 1), 8, "not valid JSON"},
      {object(good) + "{}", 8, "not valid JSON"},
      {"{\"\xff\":1}", 8, "not valid JSON"},
      {object(std::string(1, '\0')), 8, "not valid JSON"},
      {"{\"a\":" + nested, 8, "nested deeper"},
      {"{\"a\":{\"dtype\":{\"x\":{}}}}", 8, "nested deeper"},
  };
  for (const Case& c : cases) {
    const std::string message = refused(c.header, c.data_bytes);
    EXPECT_THAT(message, HasSubstr(c.message)) << c.header.substr(0, 200);
    EXPECT_THAT(message, HasSubstr(path())) << c.header.substr(0, 200);
    EXPECT_THAT(message, HasSubstr("copy it again")) << c.header.substr(0, 200);
    EXPECT_LT(message.size(), 1000u);
  }
  EXPECT_EQ(refused(object(good), 8), "") << "the plain case must load, or nothing above means anything";
}

TEST_F(Safetensors, RefusesImpossibleHeaderLengths) {
  put("{}", 0);
  const std::string good = slurp(path());
  for (const uint64_t length : {uint64_t{3}, uint64_t{1} << 24, (uint64_t{1} << 24) + 1, uint64_t{1} << 63,
                                UINT64_MAX, UINT64_MAX - 7}) {
    std::string bytes = good;
    std::memcpy(bytes.data(), &length, 8);
    spit(path(), bytes);
    EXPECT_THAT(refusal([&] { SafetensorsFile file(path()); }), HasSubstr("header length"));
  }
  spit(path(), "version https://git-lfs.github.com/spec/v1\noid sha256:0123\nsize 9\n");
  EXPECT_THAT(refusal([&] { SafetensorsFile file(path()); }), HasSubstr("git lfs pull"));
  for (size_t n = 0; n < good.size(); ++n) {
    spit(path(), good.substr(0, n));
    EXPECT_NE(refusal([&] { SafetensorsFile file(path()); }), "") << n;
  }
}

TEST_F(Safetensors, RefusesWhatIsNotARegularFile) {
  put("{}", 0);
  fs::create_symlink(path(), root_ + "/link");
  EXPECT_NE(refusal([&] { SafetensorsFile file(root_ + "/link"); }), "");
  EXPECT_NE(refusal([&] { SafetensorsFile file(root_); }), "");
  EXPECT_THAT(refusal([&] { SafetensorsFile file(root_ + "/absent"); }), HasSubstr("No such file"));
}

TEST_F(Safetensors, MutatedFilesLoadConsistentlyOrAreRefused) {
  std::vector<float> values(24, 1.0f);
  const std::vector<NamedTensor> tensors = {{"first", Tensor(values.data(), DType::f32, {4, 3})},
                                            {"second", Tensor(values.data(), DType::bf16, {2, 2, 3})}};
  write_safetensors(path(), tensors, {{"k", "v"}});
  const std::string good = slurp(path());
  const Philox rng(11, Purpose::test);
  int refusals = 0;
  for (uint64_t trial = 0; trial < 3000; ++trial) {
    std::string bytes = good;
    for (uint64_t k = 0; k < 1 + trial % 3; ++k) {
      const Philox::Block r = rng.block(trial * 4 + k);
      bytes[r[0] % bytes.size()] = r[1] % 2 == 0 ? static_cast<char>(r[2]) : "0123456789[]{}\",:-"[r[2] % 18];
    }
    spit(path(), bytes);
    const std::string message = refusal([&] {
      const SafetensorsFile file(path());
      int64_t covered = 0;
      for (const auto& [name, e] : file.entries()) {
        covered += e.end - e.begin;
        EXPECT_EQ(e.shape.numel() * size_of(e.dtype.value()), e.end - e.begin);
        EXPECT_LE(e.end, static_cast<int64_t>(bytes.size()));
      }
      uint64_t header = 0;
      std::memcpy(&header, bytes.data(), 8);
      EXPECT_EQ(covered, static_cast<int64_t>(bytes.size() - 8 - header));
    });
    refusals += message.empty() ? 0 : 1;
  }
  EXPECT_GT(refusals, 1000);
}

TEST_F(Safetensors, MisalignedTensorsAreGivenAsBytesOnly) {
  std::string header = object(entry("a", "BF16", "[1]", "[0,2]") + "," + entry("b", "F64", "[1]", "[2,10]"));
  header.resize((header.size() + 7) / 8 * 8, ' ');  // the data begin at a multiple of 8
  put(header, 10);
  const SafetensorsFile file(path());
  EXPECT_EQ(file.tensor("a").numel(), 1);
  EXPECT_EQ(file.data("b").size(), 8u);
  EXPECT_THAT(refusal([&] { file.tensor("b"); }), HasSubstr("aligned"));
}

TEST_F(Safetensors, TheWriterRefusesMisuse) {
  float x = 0;
  const Tensor one(&x, DType::f32, {1});
  const auto kind = [&](const std::vector<NamedTensor>& tensors) {
    try {
      write_safetensors(path() + "2", tensors);
    } catch (const Error& e) {
      return e.kind();
    }
    return ErrorKind::config;
  };
  EXPECT_EQ(kind({{"a", one}, {"a", one}}), ErrorKind::internal);
  EXPECT_EQ(kind({{"__metadata__", one}}), ErrorKind::internal);
  EXPECT_EQ(kind({{"a", Tensor(&x, DType::f32, {1}, Device::meta)}}), ErrorKind::internal);
  EXPECT_FALSE(fs::exists(path() + "2")) << "a misuse is found before the file is touched";
  put("{}", 0);
  EXPECT_THAT(refusal([&] { write_safetensors(path(), {}); }), HasSubstr("File exists"));
}

}  // namespace
}  // namespace ziggurat::test
