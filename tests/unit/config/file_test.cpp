// Files: includes, merging, and what can't be read.
#include <filesystem>
#include <fstream>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/unit/config/sample_config.h"

namespace ziggurat::config_test {
namespace {

using ::testing::HasSubstr;

class ConfigFile : public ::testing::Test {
 protected:
  ConfigFile() {
    std::string pattern = (std::filesystem::temp_directory_path() / "ziggurat_config_XXXXXX").string();
    folder_ = mkdtemp(pattern.data());
    std::filesystem::create_directory(folder_ + "/sub");
  }
  ~ConfigFile() override { std::filesystem::remove_all(folder_); }

  void write(const std::string& name, const std::string& text) {
    std::ofstream(folder_ + "/" + name, std::ios::binary) << text;
  }
  Train load(const std::string& name, const std::vector<std::string>& overrides = {}) {
    Train out;
    load_config(out, folder_ + "/" + name, overrides);
    return out;
  }
  // The message, with the temporary folder cut out of it.
  std::string problems(const std::string& name) {
    try {
      load(name);
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::config);
      std::string text = e.what();
      for (size_t at; (at = text.find(folder_ + "/")) != std::string::npos;)
        text.erase(at, folder_.size() + 1);
      return text;
    }
    return "no error";
  }

  std::string folder_;
};

TEST_F(ConfigFile, IncludesMergeKeyByKeyAndListsReplace) {
  write("base.yaml", "name: base\noptimizer: {lr: 1, adam: {beta1: 0.1, eps: 0.2}}\nsizes: [1, 2, 3]\n");
  write("sub/more.yaml", "include: ../base.yaml\noptimizer: {adam: {beta1: 0.3}}\ncompile: true\n");
  write("other.yaml", "optimizer: {lr: 7}\ntags: [x]\n");
  write("top.yaml", "include: [sub/more.yaml, other.yaml]\nname: top\nsizes: [8]\n");
  const Train t = load("top.yaml", {"optimizer.adam.eps=0.5"});
  EXPECT_EQ(t.name, "top");
  EXPECT_TRUE(t.compile);
  EXPECT_EQ(t.optimizer.lr, 7.0);
  EXPECT_EQ(t.optimizer.adam, (Adam{0.3, 0.5}));
  EXPECT_EQ(t.sizes, std::vector<int64_t>{8});
  EXPECT_EQ(t.tags, std::vector<std::string>{"x"});
}

TEST_F(ConfigFile, PlacesSurviveIncludes) {
  write("base.yaml", "name: base\noptimizer:\n  lr: slow\n  adam: {beta1: 2}\ncompile: what\n");
  write("top.yaml",
        "include: base.yaml\noptimizer:\n  adam:\n    beta1: 3\ncompile: true\nblocks: [{repeat: 0}]\n");
  EXPECT_EQ(problems("top.yaml"),
            "base.yaml:3:7: optimizer.lr: expected a number above 0, got 'slow' (it is not a number)\n"
            "top.yaml:4:12: optimizer.adam.beta1: expected a number at least 0 and below 1, got '3'\n"
            "top.yaml:6:19: blocks.0.repeat: expected a whole number at least 1, got '0'");
}

TEST_F(ConfigFile, TheSameFileMayBeIncludedTwiceButNeverFromItself) {
  write("base.yaml", "name: base\n");
  write("a.yaml", "include: base.yaml\n");
  write("b.yaml", "include: [base.yaml, a.yaml]\ncompile: true\n");
  EXPECT_EQ(load("b.yaml").name, "base");
  write("c.yaml", "include: sub/d.yaml\n");
  write("sub/d.yaml", "name: d\ninclude:\n  - ../c.yaml\n");
  EXPECT_EQ(problems("c.yaml"),
            "sub/d.yaml:3:5: include: expected no cycle, got c.yaml -> sub/d.yaml -> c.yaml");
  write("self.yaml", "include: self.yaml\n");
  EXPECT_EQ(problems("self.yaml"), "self.yaml:1:10: include: expected no cycle, got self.yaml -> self.yaml");
}

TEST_F(ConfigFile, IncludeBombsEnd) {
  for (int i = 0; i < 30; ++i) {
    const std::string next = std::to_string(i + 1) + ".yaml";
    write(std::to_string(i) + ".yaml", "include: [" + next + ", " + next + "]\n");
  }
  write("30.yaml", "name: x\n");
  EXPECT_THAT(problems("0.yaml"), HasSubstr("include: expected at most 100 files in all, got more"));
}

TEST_F(ConfigFile, IncludesMustBeReadableMaps) {
  write("map.yaml", "include: {a: 1}\n");
  EXPECT_EQ(problems("map.yaml"),
            "map.yaml:1:10: include: expected a path or a list of paths, got a map of keys");
  write("missing.yaml", "include: nowhere.yaml\nnam: typo\n");
  EXPECT_EQ(
      problems("missing.yaml"),
      "missing.yaml:1:10: include: expected a readable file, got 'nowhere.yaml': No such file or directory; "
      "a path counts from the folder of the file that includes it");
  write("list.yaml", "- a\n");
  write("of_list.yaml", "include: list.yaml\n");
  EXPECT_EQ(problems("of_list.yaml"), "list.yaml:1:1: expected a map of keys, got a list");
  write("nested.yaml", "optimizer: {include: base.yaml}\n");
  EXPECT_THAT(problems("nested.yaml"), HasSubstr("optimizer.include: expected a known key"));
}

TEST_F(ConfigFile, WhatIsNoConfigFile) {
  EXPECT_EQ(problems("nowhere.yaml"),
            "nowhere.yaml: expected a readable file, got: No such file or directory");
  EXPECT_EQ(problems("sub"), "sub: expected a readable file, got: a directory; name a YAML file in it");
  write("big.yaml", std::string(1'100'000, '#'));
  EXPECT_EQ(problems("big.yaml"), "big.yaml: expected a config of at most 1 MiB, got a larger one");
  EXPECT_EQ(problems("bik.yaml"),
            "bik.yaml: expected a readable file, got: No such file or directory; did you mean 'big.yaml'?");
  write("empty.yaml", "");
  EXPECT_EQ(load("empty.yaml"), Train{});
  // Endless, but only as much is read as a config may have.
  Train out;
  EXPECT_THROW(load_config(out, "/dev/zero"), Error);
}

}  // namespace
}  // namespace ziggurat::config_test
