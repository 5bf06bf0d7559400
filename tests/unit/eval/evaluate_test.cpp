// Metrics of a task, counted by hand from its scores; texts are bytes, so that every id is a character.
#include <algorithm>
#include <cmath>
#include <functional>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/bare_model.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/eval/evaluate.h>
#include <ziggurat/eval/report.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::eval {
namespace {

using test::BareModel;
using ziggurat::testing::error_of;

std::vector<int32_t> bytes(const std::string& text) {
  std::vector<int32_t> ids;
  for (const char c : text) ids.push_back(static_cast<uint8_t>(c));
  return ids;
}

class Evaluate : public ::testing::Test {
 protected:
  double log_likelihood(const std::string& context, const std::string& continuation) {
    return scorer.score(std::vector<TokenRequest>{{bytes(context), bytes(continuation)}})[0].log_likelihood;
  }
  std::string greedy(const std::string& context, int64_t tokens) {
    const auto never = [](size_t, std::span<const int32_t>) { return false; };
    return tokenizer->decode(
        scorer.generate(std::vector<std::vector<int32_t>>{bytes(context)}, tokens, never)[0]);
  }
  TaskResult run(const Task& task) { return evaluate(task, Form::current, *tokenizer, scorer); }

  OneThread one_thread;
  std::unique_ptr<Tokenizer> tokenizer = load_tokenizer("bytes");
  BareModel bare{test::tiny_model("350m_dense", {"model.vocab_size=257"}), DType::f32};
  Scorer scorer{bare.model, bare.world, {.length = 64, .batch_tokens = 64}};
};

TEST_F(Evaluate, LastWords) {
  Task task{.name = "words", .rule = Rule::last_word, .perplexity = "ppl"};
  task.documents = {{.context = "a b", .continuations = {" c"}},
                    {.context = "lamp", .continuations = {greedy("lamp", 3)}},
                    {.context = "", .continuations = {" d"}}};
  const TaskResult result = run(task);
  const double sums[] = {log_likelihood("a b", " c"), log_likelihood("lamp", greedy("lamp", 3)),
                         scorer.score(std::vector<TokenRequest>{{{256}, bytes(" d")}})[0].log_likelihood};
  const double mean = (sums[0] + sums[1] + sums[2]) / 3;
  double squares = 0;
  for (const double s : sums) squares += (s - mean) * (s - mean);
  ASSERT_EQ(result.metrics.size(), 2u);
  EXPECT_EQ(result.metrics[0].name, "ppl");
  EXPECT_NEAR(result.metrics[0].value, std::exp(-mean), 1e-9 * std::exp(-mean));
  EXPECT_NEAR(result.metrics[0].standard_error, std::exp(-mean) * std::sqrt(squares / 2 / 3),
              1e-9 * std::exp(-mean));
  EXPECT_FALSE(result.metrics[0].higher_is_better);
  EXPECT_EQ(result.metrics[1].name, "acc");
  EXPECT_DOUBLE_EQ(result.metrics[1].value, 1.0 / 3);
  EXPECT_DOUBLE_EQ(result.metrics[1].standard_error, std::sqrt((4.0 / 9 + 1.0 / 9 + 1.0 / 9) / 2 / 3));
  EXPECT_EQ(result.requests, 3);
  ASSERT_EQ(result.scores.size(), 3u);
  for (size_t i = 0; i < 3; ++i) EXPECT_EQ(result.scores[i].log_likelihood, sums[i]);
  EXPECT_FALSE(result.scores[0].greedy);
  EXPECT_TRUE(result.scores[1].greedy);
  const std::string lines = score_lines({{task, result}});
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 3);
  const auto first = nlohmann::json::parse(lines.substr(0, lines.find('\n')));
  EXPECT_EQ(first["task"], "words");
  EXPECT_EQ(first["continuation"], " c");
  EXPECT_EQ(first["log_likelihood"], sums[0]);
}

TEST_F(Evaluate, Choices) {
  // A model of random weights gives every token about the same: the shorter is likelier, the longer likelier
  // by length only if its characters are; é is two tokens, but one character.
  const std::vector<std::string> choices = {" a", " abcdefg", " \u00e9\u00e9\u00e9\u00e9"};
  const std::vector<double> characters = {1, 7, 4};
  size_t likeliest = 0, by_length = 0;
  std::vector<double> sums;
  for (size_t i = 0; i < choices.size(); ++i) {
    sums.push_back(log_likelihood("q", choices[i]));
    if (sums[i] > sums[likeliest]) likeliest = i;
    if (sums[i] / characters[i] > sums[by_length] / characters[by_length]) by_length = i;
  }
  ASSERT_NE(likeliest, by_length);
  Task task{.name = "choices", .rule = Rule::choice, .by_length = true};
  for (const size_t gold : {likeliest, by_length, likeliest, likeliest}) {
    task.documents.push_back({.context = "q", .continuations = choices, .gold = static_cast<int64_t>(gold)});
  }
  const TaskResult result = run(task);
  ASSERT_EQ(result.metrics.size(), 2u);
  EXPECT_DOUBLE_EQ(result.metrics[0].value, 0.75);
  EXPECT_EQ(result.metrics[1].name, "acc_norm");
  EXPECT_DOUBLE_EQ(result.metrics[1].value, 0.25);
}

TEST_F(Evaluate, AnyGreedyAnswer) {
  Task task{.name = "any", .rule = Rule::any_greedy, .accuracy = "exact_match"};
  const std::string right = greedy("q", 2);
  task.documents = {{.context = "q", .continuations = {" no", right}},
                    {.context = "q", .continuations = {" no"}}};
  const TaskResult result = run(task);
  EXPECT_EQ(result.metrics[0].name, "exact_match");
  EXPECT_DOUBLE_EQ(result.metrics[0].value, 0.5);
}

TEST_F(Evaluate, WrittenAnswers) {
  Task task{.name = "written", .rule = Rule::generated, .until = {"\n"}, .max_tokens = 4};
  const std::string written = greedy("q", 4);
  ASSERT_EQ(written.find('\n'), std::string::npos);
  task.documents = {{.context = "q", .answers = {"no", "." + written + "!"}},
                    {.context = "q", .answers = {"no"}}};
  EXPECT_DOUBLE_EQ(run(task).metrics[0].value, 0.5);
  task.until = {written.substr(2, 1)};  // ends sooner
  task.documents[0].answers = {written.substr(0, written.find(task.until[0]))};
  EXPECT_DOUBLE_EQ(run(task).metrics[0].value, 0.5);
}

// Of several tasks, or while a model trains, a task that cannot be asked is named before any time is spent.
TEST_F(Evaluate, WhatDoesNotFitIsKnownBefore) {
  Task task{.name = "long", .rule = Rule::last_word, .perplexity = "ppl"};
  task.documents = {{.context = std::string(100, 'a'), .continuations = {std::string(64, 'b')}}};
  EXPECT_NO_THROW(check_task(task, Form::current, *tokenizer, 64));
  EXPECT_NO_THROW(run(task));
  task.documents.push_back({.context = "a", .continuations = {std::string(65, 'b')}});
  for (const auto& ask : {std::function<void()>([&] { check_task(task, Form::v0, *tokenizer, 64); }),
                          std::function<void()>([&] { run(task); })}) {
    const std::string why = error_of(ErrorKind::data, ask);
    EXPECT_THAT(why, ::testing::HasSubstr("long: request 1 asks for the likelihood of 65 tokens"));
    EXPECT_THAT(why, ::testing::HasSubstr("--max-length"));
  }
  const Task written{.name = "w", .rule = Rule::generated, .documents = {{.context = std::string(99, 'a')}}};
  EXPECT_NO_THROW(check_task(written, Form::current, *tokenizer, 64));
}

TEST_F(Evaluate, EncodesAsTheFormsDo) {
  const auto encoder = tokenizer->new_encoder();
  const auto encoded = [&](const std::string& context, const std::string& continuation, Form form) {
    const TokenRequest r = encode_request(*encoder, 256, context, continuation, form);
    return std::pair(r.context, r.continuation);
  };
  EXPECT_EQ(encoded("ab", " c", Form::v0), std::pair(bytes("ab"), bytes(" c")));
  EXPECT_EQ(encoded("ab \n", "c", Form::v0), std::pair(bytes("ab \n"), bytes("c")));
  EXPECT_EQ(encoded("ab \n", "c", Form::current), std::pair(bytes("ab"), bytes(" \nc")));
  EXPECT_EQ(encoded("", "c", Form::current), std::pair(std::vector<int32_t>{256}, bytes("c")));
  error_of(ErrorKind::data, [&] { encode_request(*encoder, -1, "", "c", Form::v0); });
  error_of(ErrorKind::data, [&] { encode_request(*encoder, 256, "a", "", Form::v0); });
  error_of(ErrorKind::argument, [&] { run({.name = "none"}); });
}

TEST_F(Evaluate, ReportsAsLmEvalDoes) {
  Task task{.name = "piqa", .version = "1.0", .rule = Rule::choice, .by_length = true};
  task.documents = {{.context = "q", .continuations = {" a", " b"}, .gold = 1}};
  task.total_documents = 7;
  const std::vector<Evaluated> evaluated = {{task, run(task)}};
  const auto current = report({.model = "run", .weight_hash = "h"}, Form::current, evaluated);
  EXPECT_TRUE(current.at("results").at("piqa").at("acc,none").is_number());
  EXPECT_TRUE(current.at("results").at("piqa").at("acc_norm_stderr,none").is_null());  // of one document
  EXPECT_EQ(current.at("n-samples").at("piqa").at("original"), 7);
  EXPECT_EQ(current.at("n-samples").at("piqa").at("effective"), 1);
  EXPECT_EQ(current.at("versions").at("piqa"), 1.0);
  EXPECT_EQ(current.at("ziggurat").at("weight_hash"), "h");
  const auto v0 = report({}, Form::v0, evaluated);
  EXPECT_TRUE(v0.at("results").at("piqa").at("acc").is_number());
  EXPECT_THAT(table(evaluated), ::testing::HasSubstr("acc_norm"));
}

}  // namespace
}  // namespace ziggurat::eval
