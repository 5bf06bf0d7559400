// Every option of every sub-command is held against its range while it is parsed.
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include <CLI/CLI.hpp>
#include <gtest/gtest.h>

#include "apps/command_line.h"
#include "data_tools/commands.h"
#include <ziggurat/core/error.h>

namespace ziggurat {
namespace {

std::string message_of(const std::vector<std::string>& words) {
  CLI::App app("ziggurat");
  apps::add_commands(app);
  add_data_commands(app);
  std::vector<const char*> argv = {"ziggurat"};
  for (const std::string& word : words) argv.push_back(word.c_str());
  try {
    app.parse(static_cast<int>(argv.size()), argv.data());
  } catch (const CLI::ParseError& error) {
    return error.what();
  }
  ADD_FAILURE() << "accepted: " << words.back();
  return "";
}

std::vector<std::string> words_of(const std::string& line) {
  std::istringstream in(line);
  return {std::istream_iterator<std::string>(in), std::istream_iterator<std::string>()};
}

struct BadOption {
  const char* command;  // with what it requires
  const char* option;
  std::vector<const char*> values;
};

const std::vector<BadOption> kBad = {
    {"generate --checkpoint c --prompt p", "--samples", {"0", "-1", "1.5", "x", "99999999999999999999"}},
    {"generate --checkpoint c --prompt p", "--tokens", {"-1", "x"}},
    {"generate --checkpoint c --prompt p", "--temperature", {"-1", "nan", "inf", "x", "1e400"}},
    {"generate --checkpoint c --prompt p", "--top-k", {"-1", "2.5"}},
    {"generate --checkpoint c --prompt p", "--top-p", {"0", "-0.5", "1.01", "nan"}},
    {"generate --checkpoint c --prompt p", "--seed", {"-1", "18446744073709551616"}},
    {"generate --checkpoint c --prompt p", "--threads", {"-2", "x", "99999999999"}},
    {"eval --tasks t", "--limit", {"0", "-1", "x"}},
    {"eval --tasks t", "--form", {"v1"}},
    {"eval --tasks t", "--precision", {"fp8"}},
    {"eval --tasks t", "--max-length", {"0"}},
    {"eval --tasks t", "--batch-tokens", {"0", "99999999999"}},
    {"eval --tasks t", "--threads", {"-2"}},
    {"serve --checkpoint c", "--port", {"-1", "65536", "x"}},
    {"serve --checkpoint c", "--max-length", {"0"}},
    {"plan c.yaml", "--ranks", {"0", "-4", "99999999999"}},
    {"bench roof", "--threads", {"-2"}},
    {"bench comm", "--threads", {"-2"}},
    {"bench kernels", "--threads", {"-2"}},
    {"bench step c.yaml", "--threads", {"-2"}},
    {"bench step c.yaml", "--steps", {"0", "-1"}},
    {"bench decode c.yaml", "--threads", {"-2"}},
    {"bench decode c.yaml", "--context", {"0"}},
    {"bench decode c.yaml", "--tokens", {"0"}},
    {"bench decode c.yaml", "--rounds", {"0"}},
    {"data train-tokenizer --input i --output o", "--vocab-size", {"0", "256", "-1", "99999999999"}},
    {"data train-tokenizer --input i --output o", "--max-bytes", {"-1", "1e6"}},
    {"data train-tokenizer --input i --output o", "--max-document-bytes", {"0", "-1"}},
    {"data train-tokenizer --input i --output o", "--document-per", {"page", "0"}},
    {"data tokenize --input i --output o --tokenizer t", "--threads", {"-2", "99999999999"}},
    {"data tokenize --input i --output o --tokenizer t", "--shard-bytes", {"0", "-1", "x"}},
    {"data tokenize --input i --output o --tokenizer t", "--split-by", {"words"}},
    {"data tokenize --input i --output o --tokenizer t", "--max-document-bytes", {"0"}},
    {"data sample p", "--position", {"-5", "x"}},
    {"data sample p", "--count", {"-1", "0"}},
    {"data sample p", "--split", {"tests", "../train"}},
    {"data inspect p", "--split", {"foo"}},
    {"data verify p", "--split", {"foo"}},
    {"data stats p", "--top", {"0", "-3"}},
    {"data convert p --output o --to shards", "--vocab-size", {"0", "-1"}},
    {"data convert p --output o --to shards", "--eod-id", {"-1"}},
    {"data convert p --output o --to shards", "--shard-tokens", {"0", "-1"}},
    {"data convert p --output o --to shards", "--split", {"a/b", "all"}},
    {"data convert p --output o", "--to", {"parquet"}},
    {"data bench p", "--seconds", {"0", "-1", "nan", "x"}},
    {"data bench p", "--sequence-length", {"0", "-1"}},
};

TEST(Options, AreRefusedOnOneLineWithWhatWasExpectedAndCame) {
  for (const BadOption& bad : kBad) {
    for (const std::string value : bad.values) {
      const std::string message =
          message_of(words_of(std::string(bad.command) + " " + bad.option + "=" + value));
      EXPECT_TRUE(message.starts_with(std::string(bad.option) + ": expected ")) << message;
      EXPECT_NE(message.find("got '" + value + "'"), std::string::npos) << message;
      EXPECT_LT(message.size(), 150u) << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    }
  }
}

TEST(Options, EmptyPathsAreRefused) {
  for (const char* line :
       {"data tokenize --input i --tokenizer t --output", "data tokenize --tokenizer t --output o --input",
        "data tokenize --input i --output o --tokenizer", "generate --prompt p --checkpoint"}) {
    std::vector<std::string> words = words_of(line);
    words.emplace_back();
    EXPECT_NE(message_of(words).find("expected something, got ''"), std::string::npos) << line;
  }
}

TEST(Options, SplitsAreFractionsOfSumOne) {
  for (const std::string split :
       {"0.5,0.4", "0.25,0.25,0.25,0.25", "nan,1", "1.5,-0.5", "a,b", "0.5,,0.5", ",0.5,0.5", "1,", "2"}) {
    CLI::App app("ziggurat");
    add_data_commands(app);
    try {
      app.parse("data tokenize --input nowhere --tokenizer bytes --output o --split=" + split);
      ADD_FAILURE() << "accepted: " << split;
    } catch (const Error& error) {
      EXPECT_EQ(error.kind(), ErrorKind::argument);
      EXPECT_TRUE(std::string(error.what()).starts_with("--split: expected one to three fractions"))
          << error.what();
    }
  }
}

}  // namespace
}  // namespace ziggurat
