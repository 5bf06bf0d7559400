// Small helpers of the data tests.
#pragma once

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <numeric>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include <ziggurat/core/error.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/data/manifest.h>
#include <ziggurat/data/shard.h>

namespace ziggurat::testing {

// An empty folder that goes away with its owner.
class TempDir {
 public:
  TempDir() {
    std::string name = (std::filesystem::temp_directory_path() / "ziggurat_test_XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) throw std::runtime_error("cannot make a temporary folder");
    path_ = name;
  }
  ~TempDir() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::filesystem::path operator/(const std::string& name) const { return path_ / name; }
  const std::filesystem::path& path() const { return path_; }

 private:
  std::filesystem::path path_;
};

inline void write_text(const std::filesystem::path& file, const std::string& text) {
  std::filesystem::create_directories(file.parent_path());
  std::ofstream(file, std::ios::binary) << text;
}

inline std::string read_text(const std::filesystem::path& file) {
  std::ifstream in(file, std::ios::binary);
  return std::string((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
}

inline void flip_bit(const std::filesystem::path& file, int64_t byte) {
  std::fstream stream(file, std::ios::in | std::ios::out | std::ios::binary);
  stream.seekg(byte);
  const auto value = static_cast<char>(stream.get() ^ 1);
  stream.seekp(byte);
  stream.put(value);
}

// Runs `body` and returns the message of the Error of this kind that it throws; fails the test otherwise.
template <class Body>
std::string error_of(ErrorKind kind, const Body& body) {
  try {
    body();
  } catch (const Error& e) {
    EXPECT_EQ(e.kind(), kind) << e.what();
    return e.what();
  }
  ADD_FAILURE() << "expected an error of kind " << to_string(kind);
  return "";
}

// Shards whose tokens are 0, 1, 2, ... across all of them, so a wrong token tells where it came from.
inline ShardManifest counting_shards(const std::filesystem::path& folder, const std::vector<int64_t>& sizes,
                                     int64_t vocab_size = 50000, const std::string& split = "train") {
  ShardInfo common;
  common.vocab_size = vocab_size, common.eod_id = 7, common.tokenizer = "test",
  common.tokenizer_sha256 = "abc";
  common.source = "counting", common.split = split;
  ShardBuilder builder(common);
  ShardManifest manifest;
  manifest.folder = folder, manifest.source = "counting", manifest.split = split, manifest.tokenizer = "test";
  manifest.tokenizer_sha256 = "abc", manifest.vocab_size = vocab_size, manifest.eod_id = 7;
  int32_t next = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    std::vector<int32_t> ids(static_cast<size_t>(sizes[i]));
    std::iota(ids.begin(), ids.end(), next);
    next += static_cast<int32_t>(sizes[i]);
    builder.append(ids);
    const auto count = static_cast<int64_t>(sizes.size());
    const auto file = folder / shard_name("counting", split, static_cast<int64_t>(i), count);
    const ShardInfo info = builder.write(folder / "shard.tmp");
    finish_shard(folder / "shard.tmp", file, count);
    manifest.shards.push_back(describe_shard(file, info));
  }
  write_manifest(manifest);
  return manifest;
}

// A shard of 300 random documents of `length_of(document)` tokens below 61, the last of which, 0, ends it.
template <class Length>
void write_documents(const std::filesystem::path& file, const Length& length_of) {
  ShardInfo info;
  info.vocab_size = 61, info.eod_id = 0;
  ShardBuilder builder(info);
  const Philox rng(5, Purpose::test);
  uint64_t draw = 0;
  for (int64_t document = 0; document < 300; ++document) {
    std::vector<int32_t> ids(static_cast<size_t>(length_of(document) - 1));
    for (int32_t& id : ids) id = static_cast<int32_t>(1 + rng.bits(draw++) % 60);
    ids.push_back(0);
    builder.append(ids);
  }
  builder.write(file);
}

}  // namespace ziggurat::testing
