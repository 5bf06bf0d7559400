#include <algorithm>
#include <cmath>
#include <set>

#include <ziggurat/checkpoint/compare.h>

namespace ziggurat {

namespace {

constexpr int64_t kPiece = int64_t{1} << 20;  // elements

std::vector<double> values_of(CheckpointReader& from, const std::string& name, const Box& box) {
  const CheckpointReader::TensorInfo& info = from.tensor(name);
  std::vector<std::byte> bytes(static_cast<size_t>(box.numel() * size_of(info.dtype)));
  from.read({name, info.shape, box, Tensor(bytes.data(), info.dtype, box.extent)});
  std::vector<double> values(static_cast<size_t>(box.numel()));
  if (info.dtype == DType::i32) {
    const auto* stored = reinterpret_cast<const int32_t*>(bytes.data());
    std::copy(stored, stored + values.size(), values.begin());
    return values;
  }
  visit_float_dtype(info.dtype, [&]<class T>() {
    const auto* stored = reinterpret_cast<const T*>(bytes.data());
    std::transform(stored, stored + values.size(), values.begin(),
                   [](T x) { return static_cast<double>(x); });
  });
  return values;
}

void compare_values(CheckpointReader& a, CheckpointReader& b, TensorDifference& found) {
  const Shape& shape = a.tensor(found.name).shape;
  double squares = 0, squares_of_a = 0;
  for_each_piece(rows_of(shape, 0, shape[0]), kPiece, [&](const Box& box) {
    const std::vector<double> in_a = values_of(a, found.name, box), in_b = values_of(b, found.name, box);
    for (size_t i = 0; i < in_a.size(); ++i) {
      squares_of_a += in_a[i] * in_a[i];
      const bool same = in_a[i] == in_b[i] || (std::isnan(in_a[i]) && std::isnan(in_b[i]));
      if (same) continue;
      const double difference = std::abs(in_a[i] - in_b[i]);
      ++found.different;
      squares += difference * difference;
      if (!(difference <= found.largest)) found.largest = difference;
    }
  });
  found.elements = shape.numel();
  found.relative = squares == 0 ? 0 : std::sqrt(squares / squares_of_a);
}

}  // namespace

void for_each_piece(const Box& box, int64_t elements, const std::function<void(const Box&)>& f) {
  if (box.numel() == 0) return;
  const int64_t rows = std::max<int64_t>(1, elements / (box.numel() / box.extent[0]));
  for (int64_t row = 0; row < box.extent[0]; row += rows) {
    f({with(box.begin, 0, box.begin[0] + row), with(box.extent, 0, std::min(rows, box.extent[0] - row))});
  }
}

std::vector<TensorDifference> compare(CheckpointReader& a, CheckpointReader& b,
                                      const std::function<void(int64_t, int64_t)>& progress) {
  const std::vector<std::string> of_a = a.names(), of_b = b.names();
  const std::set<std::string> in_a(of_a.begin(), of_a.end()), in_b(of_b.begin(), of_b.end());
  std::set<std::string> all = in_a;
  all.insert(in_b.begin(), in_b.end());
  int64_t total = 0, done = 0;
  for (const std::string& name : in_a) total += a.tensor(name).shape.numel();

  std::vector<TensorDifference> result;
  for (const std::string& name : all) {
    TensorDifference& found = result.emplace_back();
    found.name = name;
    if (!in_a.contains(name) || !in_b.contains(name)) {
      found.note = in_a.contains(name) ? "only in the first" : "only in the second";
    } else if (a.tensor(name).shape != b.tensor(name).shape) {
      found.note = fmt::format("{} and {}", a.tensor(name).shape, b.tensor(name).shape);
    } else {
      compare_values(a, b, found);
    }
    if (in_a.contains(name)) done += a.tensor(name).shape.numel();
    if (progress) progress(done, total);
  }
  return result;
}

}  // namespace ziggurat
