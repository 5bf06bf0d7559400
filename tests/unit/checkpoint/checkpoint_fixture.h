// A small model's tensors, split by rows over any number of ranks, in a folder of its own.
#pragma once

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <unistd.h>

#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/comm/thread.h>
#include <ziggurat/core/philox.h>

namespace ziggurat::test {

namespace fs = std::filesystem;

struct ModelTensor {
  std::string name;
  DType dtype;
  Shape shape;
};

inline const std::vector<ModelTensor>& model() {
  static const std::vector<ModelTensor> tensors = {
      {"embedding.weight", DType::bf16, {13, 6}},   {"embedding.weight/m", DType::f32, {13, 6}},
      {"block.0.norm.weight", DType::f32, {5}},     {"block.1.experts.w1", DType::f64, {4, 3, 2}},
      {"block.1.counts", DType::i32, {1, 2, 1, 3}}, {"empty", DType::f32, {0, 4}}};
  return tensors;
}

// The byte at `index` of a global tensor: a function of name, place and step, so that a wrong row shows.
inline std::byte expected_byte(const std::string& name, int64_t index, int64_t step) {
  const auto mixed = hash_name(name) + static_cast<uint64_t>(index) * 0x9e3779b97f4a7c15ull +
                     static_cast<uint64_t>(step) * 31;
  return static_cast<std::byte>((mixed ^ (mixed >> 29)) >> 11);
}

// The slices of one rank, with their memory. Even rows first; how the rest is spread depends on the tensor,
// and small tensors leave some ranks without rows.
struct RankSlices {
  std::vector<std::unique_ptr<std::byte[]>> memory;
  std::vector<TensorSlice> slices;

  RankSlices(int rank, int ranks) {
    for (const ModelTensor& t : model()) {
      const int64_t begin = t.shape[0] * rank / ranks, end = t.shape[0] * (rank + 1) / ranks;
      if (begin == end && !(rank == 0 && t.shape[0] == 0)) continue;
      add(t, begin, end);
    }
  }
  void add(const ModelTensor& t, int64_t begin, int64_t end) { add(t, rows_of(t.shape, begin, end)); }
  void add(const ModelTensor& t, const Box& box) {
    const Shape& local = box.extent;
    memory.push_back(
        std::make_unique<std::byte[]>(static_cast<size_t>(local.numel() * size_of(t.dtype)) + 1));
    slices.push_back({t.name, t.shape, box, Tensor(memory.back().get(), t.dtype, local)});
  }
  // f(byte of the slice's memory, byte of the global tensor), for all.
  static void each_byte(const TensorSlice& s, const std::function<void(std::byte&, int64_t)>& f) {
    auto* byte = static_cast<std::byte*>(s.data.raw());
    const int64_t size = size_of(s.data.dtype());
    for (int64_t i = 0; i < s.data.numel(); ++i) {
      int64_t element = 0, rest = i, in_global = 1;
      for (int d = s.box.begin.rank() - 1; d >= 0; --d) {
        element += (s.box.begin[d] + rest % s.box.extent[d]) * in_global;
        rest /= s.box.extent[d], in_global *= s.global_shape[d];
      }
      for (int64_t b = 0; b < size; ++b) f(*byte++, element * size + b);
    }
  }
  void fill(int64_t step) {
    for (const TensorSlice& s : slices) {
      each_byte(s, [&](std::byte& byte, int64_t index) { byte = expected_byte(s.name, index, step); });
    }
  }
  bool holds(int64_t step) const {
    bool all = true;
    for (const TensorSlice& s : slices) {
      each_byte(s,
                [&](std::byte& byte, int64_t index) { all &= byte == expected_byte(s.name, index, step); });
    }
    return all;
  }
};

class CheckpointTest : public ::testing::Test {
 protected:
  CheckpointTest() {
    std::string pattern = (fs::temp_directory_path() / "ziggurat_checkpoint_XXXXXX").string();
    root_ = ::mkdtemp(pattern.data());
    dir_ = root_ + "/checkpoints";
  }
  ~CheckpointTest() override {
    std::error_code ignored;
    fs::remove_all(root_, ignored);
  }

  static CheckpointInfo info(int64_t step, int keep = 0) {
    CheckpointInfo i;
    i.run_id = "test-run";
    i.step = step;
    i.state = {{"cursor", step * 100}, {"seed", 1234}};
    i.config = "model: tiny\n";
    i.keep = keep;
    return i;
  }

  void save(int64_t step, int ranks, int keep = 0) const {
    run_on_threads(ranks, [&](Communicator& comm) {
      RankSlices mine(comm.rank(), ranks);
      mine.fill(step);
      save_checkpoint(dir_, info(step, keep), mine.slices, comm);
    });
  }

  // Reads everything in the given layout; true when every byte is that of `step`.
  static bool loads(const std::string& path, int64_t step, int ranks) {
    bool same = true;
    for (int rank = 0; rank < ranks; ++rank) {
      CheckpointReader reader(path);
      RankSlices mine(rank, ranks);
      for (const TensorSlice& s : mine.slices) reader.read(s);
      same = same && mine.holds(step);
    }
    return same;
  }

  std::string step_dir(int64_t step) const { return fmt::format("{}/step_{:08d}", dir_, step); }

  std::vector<std::string> entries() const {  // of dir_, hidden ones too
    std::vector<std::string> names;
    for (const auto& e : fs::directory_iterator(dir_)) names.push_back(e.path().filename().string());
    std::sort(names.begin(), names.end());
    return names;
  }

  std::string root_, dir_;
};

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}

inline void spit(const std::string& path, const std::string& bytes) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
}

// Runs f and returns the message of the Error(checkpoint) it throws; "" when it throws none.
template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), ErrorKind::checkpoint) << e.what();
    return e.what();
  }
  return "";
}

}  // namespace ziggurat::test
