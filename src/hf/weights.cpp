#include "hf/weights.h"

#include <ziggurat/checkpoint/safetensors.h>
#include <ziggurat/comm/agreement.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::hf {

namespace {

int64_t bytes_there(const FolderTensor& tensor, DType dtype) { return tensor.shape.numel() * size_of(dtype); }

// One tensor at a time, in memory that the next one takes over.
class TensorSource {
 public:
  TensorSource(CheckpointReader& checkpoint, const model::ModelConfig& config, DType dtype)
      : checkpoint_(checkpoint), ours_(parameters_of(config)), dtype_(dtype) {}

  Tensor read(const FolderTensor& tensor) {
    const int64_t n = tensor.shape.numel();
    converted_.assign(static_cast<size_t>(bytes_there(tensor, dtype_)), std::byte{0});
    const Tensor out(converted_.data(), dtype_, tensor.shape);
    if (tensor.ours.empty()) return out;
    const DType stored_dtype = checkpoint_.tensor(tensor.ours).dtype;
    stored_.resize(static_cast<size_t>(n * size_of(stored_dtype)));
    const Shape& global = ours_.at(tensor.ours);
    const Box rows = rows_of(global, tensor.row_begin, tensor.row_end);
    const Tensor stored(stored_.data(), stored_dtype, rows.extent);
    checkpoint_.read({tensor.ours, global, rows, stored});
    visit_float_dtype(stored_dtype, [&]<class From>() {
      visit_float_dtype(dtype_, [&]<class To>() { convert(stored.data<From>(), tensor, out.data<To>()); });
    });
    return out;
  }

 private:
  template <class From, class To>
  static void convert(const From* from, const FolderTensor& tensor, To* to) {
    const int64_t n = tensor.shape.numel();
    if (!tensor.transposed) {
      parallel_for_blocks(n, 65536, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) to[i] = To(from[i]);
      });
      return;
    }
    const int64_t rows = tensor.shape[0], cols = tensor.shape[1];  // of `to`
    parallel_for_blocks(rows, 16, [&](int64_t begin, int64_t end) {
      for (int64_t c = 0; c < cols; ++c) {
        for (int64_t r = begin; r < end; ++r) to[r * cols + c] = To(from[c * rows + r]);
      }
    });
  }

  CheckpointReader& checkpoint_;
  const std::map<std::string, Shape> ours_;
  DType dtype_;
  std::vector<std::byte> stored_, converted_;
};

}  // namespace

std::vector<Shard> plan_shards(std::span<const FolderTensor> tensors, DType dtype, int64_t most_bytes) {
  std::vector<Shard> shards;
  for (size_t i = 0; i < tensors.size(); ++i) {
    const int64_t bytes = bytes_there(tensors[i], dtype);
    if (shards.empty() || shards.back().bytes + bytes > most_bytes) shards.push_back({i, i, 0});
    shards.back().end = i + 1;
    shards.back().bytes += bytes;
  }
  return shards;
}

std::string shard_name(size_t shard, size_t shards) {
  if (shards == 1) return "model.safetensors";
  return fmt::format("model-{:05}-of-{:05}.safetensors", shard + 1, shards);
}

void check_tensors(const CheckpointReader& checkpoint, const model::ModelConfig& config,
                   std::span<const FolderTensor> tensors) {
  const std::map<std::string, Shape> ours = parameters_of(config);
  for (const FolderTensor& tensor : tensors) {
    if (tensor.ours.empty()) continue;
    const CheckpointReader::TensorInfo& stored = checkpoint.tensor(tensor.ours);
    check(stored.shape == ours.at(tensor.ours), ErrorKind::checkpoint,
          "{}: tensor '{}' is {}, its own config makes it {}: take another checkpoint of the run",
          checkpoint.path(), tensor.ours, stored.shape, ours.at(tensor.ours));
  }
}

std::vector<std::string> write_shards(CheckpointReader& checkpoint, const model::ModelConfig& config,
                                      std::span<const FolderTensor> tensors, std::span<const Shard> shards,
                                      DType dtype, const std::string& folder, Communicator& comm,
                                      const std::function<void(int64_t done, int64_t total)>& progress) {
  TensorSource source(checkpoint, config, dtype);
  std::vector<int64_t> bytes;
  for (const Shard& shard : shards) bytes.push_back(shard.bytes);
  SharedProgress shared(comm, bytes, progress);
  const auto write_shard = [&](size_t s) {
    const std::span<const FolderTensor> its =
        tensors.subspan(shards[s].begin, shards[s].end - shards[s].begin);
    std::vector<TensorHeader> headers;
    for (const FolderTensor& tensor : its) headers.push_back({tensor.name, dtype, tensor.shape});
    std::vector<std::string> hashes;
    const auto make = [&](size_t i, const WriteBytes& write) {
      const Tensor data = source.read(its[i]);
      hashes.push_back(content_hash(bytes_of(data)));
      write(bytes_of(data));
      shared.add(data.bytes());
    };
    write_safetensors(folder + "/" + shard_name(s, shards.size()), headers, make, {{"format", "pt"}});
    return nlohmann::json(hashes).dump();
  };
  std::vector<std::string> all;
  for (const std::string& answer : share(comm, shards.size(), write_shard)) {
    const auto hashes = nlohmann::json::parse(answer).get<std::vector<std::string>>();
    all.insert(all.end(), hashes.begin(), hashes.end());
  }
  return all;
}

std::string index_json(std::span<const FolderTensor> tensors, std::span<const Shard> shards) {
  int64_t bytes = 0;
  nlohmann::ordered_json files = nlohmann::ordered_json::object();
  for (size_t s = 0; s < shards.size(); ++s) {
    bytes += shards[s].bytes;
    for (size_t i = shards[s].begin; i < shards[s].end; ++i) {
      files.get_ref<nlohmann::ordered_json::object_t&>().push_back(
          {tensors[i].name, shard_name(s, shards.size())});
    }
  }
  const nlohmann::ordered_json index = {{"metadata", {{"total_size", bytes}}}, {"weight_map", files}};
  return index.dump(2) + "\n";
}

std::string weight_hash(std::span<const FolderTensor> tensors, DType dtype,
                        std::span<const std::string> data_hashes) {
  std::string listing;
  for (size_t i = 0; i < tensors.size(); ++i) {
    listing +=
        fmt::format("{} {} {} {}\n", tensors[i].name, to_string(dtype), tensors[i].shape, data_hashes[i]);
  }
  return content_hash(std::as_bytes(std::span(listing)));
}

}  // namespace ziggurat::hf
