#include "tests/support/golden_file.h"

#include <iterator>
#include <sstream>

#include "tests/support/op_test.h"
#include "tests/support/source_dir.h"
#include <ziggurat/core/error.h>

namespace ziggurat {

GoldenFile GoldenFile::committed(const std::string& stem) {
  return GoldenFile(test::source_dir() + "/tests/golden/data/" + stem + ".safetensors");
}

std::vector<std::string> GoldenFile::names(const std::string& prefix) const {
  std::vector<std::string> found;
  for (const auto& [name, entry] : file_.entries()) {
    if (name.starts_with(prefix)) found.push_back(name);
  }
  return found;
}

std::vector<double> GoldenFile::doubles(const std::string& name) const {
  const DType dtype = file_.entry(name).dtype.value();
  check(dtype == DType::f64 || dtype == DType::f32, ErrorKind::checkpoint,
        "[golden] {}: {} is {}, expected f64 or f32", file_.path(), name, to_string(dtype));
  return test::to_doubles(file_.tensor(name));
}

std::vector<int64_t> GoldenFile::ints(const std::string& name) const {
  const DType dtype = file_.entry(name).dtype.value();
  check(dtype == DType::i32, ErrorKind::checkpoint, "[golden] {}: {} is {}, expected i32", file_.path(), name,
        to_string(dtype));
  const Tensor t = file_.tensor(name);
  return {t.data<int32_t>(), t.data<int32_t>() + t.numel()};
}

const std::string& GoldenFile::text(const std::string& key) const {
  const auto it = file_.metadata().find(key);
  check(it != file_.metadata().end(), ErrorKind::checkpoint, "[golden] {}: no metadata {}", file_.path(),
        key);
  return it->second;
}

double GoldenFile::number(const std::string& key) const {
  std::istringstream in(text(key));
  double value = 0;
  check((in >> value) && (in >> std::ws).eof(), ErrorKind::checkpoint, "[golden] {}: {} = '{}' is no number",
        file_.path(), key, text(key));
  return value;
}

int64_t GoldenFile::whole(const std::string& key) const {
  const double value = number(key);
  const auto rounded = static_cast<int64_t>(value);
  check(static_cast<double>(rounded) == value, ErrorKind::checkpoint,
        "[golden] {}: {} = '{}' is no whole number", file_.path(), key, text(key));
  return rounded;
}

std::vector<std::string> GoldenFile::words(const std::string& key) const {
  std::istringstream in(text(key));
  return {std::istream_iterator<std::string>(in), {}};
}

namespace test {

std::vector<double> held(const nn::ParamEntry& entry, const std::vector<double>& whole) {
  const nn::ParamSpec& spec = entry.spec;
  check(static_cast<int64_t>(whole.size()) == spec.global_shape.numel(), ErrorKind::checkpoint,
        "[golden] {}: {} elements for shape {}", spec.name, whole.size(), spec.global_shape);
  if (spec.expert_parallel == 0) return whole;
  const int64_t row = spec.global_shape.numel() / spec.global_shape[0];
  return {whole.begin() + spec.row_begin * row, whole.begin() + spec.row_end * row};
}

void load_parameters(nn::ParamStore& store, const GoldenFile& file, const std::string& prefix,
                     const std::string& strip) {
  for (const nn::ParamEntry& entry : store.entries()) {
    const std::vector<double> values =
        held(entry, file.doubles(prefix + entry.spec.name.substr(strip.size())));
    const Tensor& value = entry.param.value;
    visit_float_dtype(value.dtype(), [&]<class T>() {
      for (size_t i = 0; i < values.size(); ++i) value.data<T>()[i] = static_cast<T>(values[i]);
    });
  }
  store.values_changed();
}

}  // namespace test
}  // namespace ziggurat
