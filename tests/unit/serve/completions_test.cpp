// Completions of a model of random weights whose tokens are bytes.
#include <chrono>
#include <cmath>
#include <future>
#include <optional>
#include <thread>
#include <utility>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "serve/backlog.h"
#include "tests/support/bare_model.h"
#include <ziggurat/infer/next_token.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/serve/completions.h>
#include <ziggurat/serve/server.h>

namespace ziggurat::serve {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

class Completions : public ::testing::Test {
 protected:
  Completions() { set_thread_count(1); }

  json answer(const json& body, int status = 200) {
    const Reply reply = api.answer("POST", "/v1/completions", body.dump());
    EXPECT_EQ(reply.status, status) << reply.body;
    return json::parse(reply.body);
  }

  // The events of a stream.
  std::vector<json> events(json body) {
    body["stream"] = true;
    const Reply reply = api.answer("POST", "/v1/completions", body.dump());
    EXPECT_EQ(reply.type, "text/event-stream");
    std::string all;
    reply.stream([&](std::string_view part) { return all += part, true; });
    std::vector<json> events;
    for (size_t begin = 0; begin < all.size();) {
      const size_t end = all.find("\n\n", begin);
      EXPECT_EQ(all.substr(begin, 6), "data: ");
      const std::string event = all.substr(begin + 6, end - begin - 6);
      if (event != "[DONE]") events.push_back(json::parse(event));
      begin = end + 2;
      EXPECT_EQ(event == "[DONE]", begin == all.size());
    }
    return events;
  }

  // Of every token after the first, by hand.
  std::vector<double> logprobs(const std::vector<int32_t>& tokens) {
    const std::vector<double> logits = bare.recomputed(tokens);
    std::vector<double> result;
    for (size_t i = 0; i + 1 < tokens.size(); ++i) {
      const double* row = logits.data() + static_cast<int64_t>(i) * bare.layout.padded_vocab();
      double sum = 0;
      for (int v = 0; v < 257; ++v) sum += std::exp(row[v]);
      result.push_back(row[tokens[i + 1]] - std::log(sum));
    }
    return result;
  }

  std::unique_ptr<Tokenizer> tokenizer = load_tokenizer("bytes");
  test::BareModel bare{test::tiny_model("pr_moe", {"model.vocab_size=257"}), DType::f32};
  Served served{.model = bare.model, .tokenizer = *tokenizer, .name = "tiny", .length = 64};
  Api api{served, {}};
};

TEST_F(Completions, AnswerInOpenAisForm) {
  const json reply = answer({{"model", "tiny"}, {"prompt", "lamp"}, {"max_tokens", 5}, {"temperature", 0}});
  EXPECT_EQ(reply.at("object"), "text_completion");
  EXPECT_EQ(reply.at("model"), "tiny");
  EXPECT_EQ(reply.at("choices").size(), 1u);
  EXPECT_EQ(reply.at("choices")[0].at("finish_reason"), "length");
  EXPECT_TRUE(reply.at("choices")[0].at("logprobs").is_null());
  EXPECT_EQ(reply.at("usage").at("prompt_tokens"), 4);
  EXPECT_EQ(reply.at("usage").at("completion_tokens"), 5);
  EXPECT_EQ(reply.at("usage").at("total_tokens"), 9);
}

// What lm-eval asks for: it sums token_logprobs[context:-1] and compares with the likeliest alternative.
TEST_F(Completions, EchoedLogprobsAreTheModels) {
  const std::vector<int32_t> prompt = {'l', 'a', 'm', 'p', 0xc3, 0xa9, 32};
  const json reply = answer({{"prompt", json::array({prompt, {1, 2, 3}})},
                             {"max_tokens", 1},
                             {"temperature", 0},
                             {"logprobs", 1},
                             {"echo", true}});
  ASSERT_EQ(reply.at("choices").size(), 2u);
  const json& choice = reply.at("choices")[0];
  const json& values = choice.at("logprobs").at("token_logprobs");
  ASSERT_EQ(values.size(), prompt.size() + 1);
  EXPECT_TRUE(values[0].is_null());
  EXPECT_TRUE(choice.at("logprobs").at("top_logprobs")[0].is_null());
  const std::vector<double> want = logprobs(prompt);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(values[i + 1].get<double>(), want[i], 1e-4);
  for (size_t i = 1; i < values.size(); ++i) {
    const json& top = choice.at("logprobs").at("top_logprobs")[i];
    double largest = -INFINITY;
    for (const auto& [text, value] : top.items()) largest = std::max(largest, value.get<double>());
    EXPECT_GE(largest, values[i].get<double>());
    EXPECT_LE(top.size(), 2u);
  }
  EXPECT_EQ(values.back(), choice.at("logprobs").at("top_logprobs").back().begin().value());  // it was greedy
  EXPECT_EQ(choice.at("logprobs").at("tokens")[4], "bytes:\\xc3");
  EXPECT_EQ(choice.at("logprobs").at("text_offset"), json({0, 1, 2, 3, 4, 4, 5, 6}));
  EXPECT_THAT(choice.at("text").get<std::string>(), ::testing::StartsWith("lampé "));
}

TEST_F(Completions, OnlyScoringWritesNothing) {
  const json reply = answer({{"prompt", "lamp"}, {"max_tokens", 0}, {"logprobs", 0}, {"echo", true}});
  EXPECT_EQ(reply.at("choices")[0].at("text"), "lamp");
  EXPECT_EQ(reply.at("choices")[0].at("logprobs").at("tokens").size(), 4u);
  EXPECT_EQ(reply.at("usage").at("completion_tokens"), 0);
}

TEST_F(Completions, SamplesAreAFunctionOfTheSeed) {
  const json body = {{"prompt", "a"}, {"max_tokens", 8}, {"n", 3}, {"seed", 7}, {"logprobs", 2}};
  const json first = answer(body), again = answer(body);
  EXPECT_EQ(first.at("choices"), again.at("choices"));
  EXPECT_NE(first.at("choices")[0].at("text"), first.at("choices")[1].at("text"));
  json other = body;
  other["seed"] = -8;
  EXPECT_NE(first.at("choices"), answer(other).at("choices"));
  json one = body;
  one["n"] = 1;
  EXPECT_EQ(answer(one).at("choices")[0], first.at("choices")[0]);
}

TEST_F(Completions, TextEndsBeforeAStop) {
  json body = {{"prompt", "ab"}, {"max_tokens", 12}, {"seed", 3}, {"logprobs", 0}};
  const std::string text = answer(body).at("choices")[0].at("text");
  ASSERT_GE(text.size(), 8u);
  // Characters may be longer than a byte: cut at one that is not.
  size_t at = 2;
  while (at + 2 < text.size() &&
         (static_cast<uint8_t>(text[at]) >= 0x80 || static_cast<uint8_t>(text[at + 1]) >= 0x80)) {
    ++at;
  }
  const std::string stop = text.substr(at, 2);
  ASSERT_TRUE(static_cast<uint8_t>(stop[0]) < 0x80 && static_cast<uint8_t>(stop[1]) < 0x80);
  body["stop"] = {"never in it", stop};
  const json choice = answer(body).at("choices")[0];
  EXPECT_EQ(choice.at("text"), text.substr(0, text.find(stop)));
  EXPECT_EQ(choice.at("finish_reason"), "stop");

  std::string streamed;
  for (const json& event : events(body)) streamed += event.at("choices")[0].at("text").get<std::string>();
  EXPECT_EQ(streamed, choice.at("text"));
}

TEST_F(Completions, StreamSaysTheSame) {
  const json body = {{"prompt", {"ab", "c"}},
                     {"max_tokens", 6},
                     {"n", 2},
                     {"seed", 5},
                     {"logprobs", 1},
                     {"echo", true},
                     {"stream_options", {{"include_usage", true}}}};
  const json whole = answer(body);
  std::vector<std::string> texts(4);
  std::vector<json> tokens(4, json::array()), reasons(4);
  json usage;
  for (const json& event : events(body)) {
    if (event.contains("usage")) usage = event.at("usage");
    for (const json& choice : event.at("choices")) {
      const size_t i = choice.at("index");
      texts[i] += choice.at("text").get<std::string>();
      for (const json& token : choice.at("logprobs").at("token_logprobs")) tokens[i].push_back(token);
      if (!choice.at("finish_reason").is_null()) reasons[i] = choice.at("finish_reason");
    }
  }
  for (size_t i = 0; i < 4; ++i) {
    EXPECT_EQ(texts[i], whole.at("choices")[i].at("text"));
    EXPECT_EQ(tokens[i], whole.at("choices")[i].at("logprobs").at("token_logprobs"));
    EXPECT_EQ(reasons[i], whole.at("choices")[i].at("finish_reason"));
  }
  EXPECT_EQ(usage, whole.at("usage"));
}

TEST_F(Completions, AClientThatGoesEndsTheWork) {
  const Reply reply = api.answer("POST", "/v1/completions",
                                 R"({"prompt": "a", "max_tokens": 60, "stream": true, "seed": 1})");
  int parts = 0;
  reply.stream([&](std::string_view) { return ++parts < 3; });
  EXPECT_LE(parts, 4);
  EXPECT_EQ(answer({{"prompt", "a"}, {"max_tokens", 1}}).at("choices").size(), 1u);
}

TEST_F(Completions, AClientThatLeavesBeforeItsAnswerEndsTheWork) {
  // Of many prompts, so that the model is at work when somebody asks for the first time.
  const json many = {
      {"prompt", std::vector<std::string>(256, "a")}, {"max_tokens", 60}, {"seed", 1}, {"n", 16}};
  int asked = 0;
  const Reply reply = api.answer("POST", "/v1/completions", many.dump(), [&] { return ++asked < 1; });
  EXPECT_EQ(reply.status, 499) << reply.body;
  EXPECT_GE(asked, 1);
  const std::string metrics = api.answer("GET", "/metrics", "").body;
  EXPECT_THAT(metrics, HasSubstr("ziggurat_requests_total{path=\"/v1/completions\",code=\"499\"} 1\n"));
  const size_t at = metrics.find("\nziggurat_completion_tokens_total ");
  EXPECT_LT(std::stoi(metrics.substr(metrics.find_last_of(' ', metrics.find('\n', at + 1)))), 256 * 16 * 60);
  EXPECT_EQ(answer({{"prompt", "a"}, {"max_tokens", 1}}).at("choices").size(), 1u);
}

// Where the model waited for a client, one that never reads would stop all others.
TEST_F(Completions, AClientThatDoesNotReadHoldsUpNobody) {
  const Reply reply = api.answer(
      "POST", "/v1/completions",
      R"({"prompt": "a", "max_tokens": 60, "stream": true, "seed": 1, "stop": [], "temperature": 1})");
  std::promise<void> reading, others_done;
  std::string all;
  std::thread slow([&] {
    bool first = true;
    reply.stream([&](std::string_view part) {
      if (std::exchange(first, false)) {
        reading.set_value();
        others_done.get_future().wait();
      }
      return all += part, true;
    });
  });
  reading.get_future().wait();
  auto other = std::async(std::launch::async, [&] { return answer({{"prompt", "a"}, {"max_tokens", 1}}); });
  const bool answered = other.wait_for(std::chrono::seconds(60)) == std::future_status::ready;
  others_done.set_value();
  slow.join();
  EXPECT_TRUE(answered);
  EXPECT_THAT(all, ::testing::EndsWith("data: [DONE]\n\n"));
}

// Some wait, more are told to come again.
TEST_F(Completions, TooManyRequestsAreToldWhenToComeAgain) {
  Api small(served, {.most_requests = 2});
  const std::string body =
      json{{"prompt", std::vector<std::string>(100, "a")}, {"max_tokens", 60}, {"stream", true}}.dump();
  const Reply first = small.answer("POST", "/v1/completions", body),
              second = small.answer("POST", "/v1/completions", body);
  const Reply third = small.answer("POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 1})");
  EXPECT_EQ(third.status, 429) << third.body;
  EXPECT_EQ(json::parse(third.body).at("error").at("code"), "overloaded");
  EXPECT_GE(third.retry_after, 1);
  EXPECT_EQ(small.answer("GET", "/health", "").status, 200);
  for (const Reply& reply : {first, second}) reply.stream([](std::string_view) { return true; });
  EXPECT_EQ(small.answer("POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 1})").status, 200);
}

TEST_F(Completions, ARequestHasSoMuchTime) {
  Api impatient(served, {.most_seconds = 1e-6});
  const Reply reply = impatient.answer("POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 60})");
  EXPECT_EQ(reply.status, 504) << reply.body;
  EXPECT_EQ(json::parse(reply.body).at("error").at("code"), "time_limit");
  std::string all;
  impatient.answer("POST", "/v1/completions", R"({"prompt": "a", "max_tokens": 60, "stream": true})")
      .stream([&](std::string_view part) { return all += part, true; });
  EXPECT_THAT(all, HasSubstr("time_limit"));
}

// What others ask for at the same time changes no text.
TEST_F(Completions, ManyAtOnceAreAnsweredAsAlone) {
  const auto body = [](int i) {
    return json{{"prompt", std::string(1 + static_cast<size_t>(i) * 7 % 30, static_cast<char>('a' + i % 5))},
                {"max_tokens", 5 + i % 20},
                {"seed", i % 3},
                {"n", 1 + i % 3},
                {"echo", i % 2 == 0},
                {"logprobs", i % 4 == 0 ? json(2) : json()}};
  };
  std::vector<json> alone;
  for (int i = 0; i < 12; ++i) alone.push_back(answer(body(i)).at("choices"));
  std::vector<std::future<json>> together;
  for (int i = 0; i < 12; ++i) {
    together.push_back(std::async(std::launch::async, [&, i] { return answer(body(i)).at("choices"); }));
  }
  for (size_t i = 0; i < 12; ++i) EXPECT_EQ(together[i].get(), alone[i]) << i;
}

TEST(Backlog, HoldsBackSoMuchAndNoMore) {
  Backlog backlog(10);
  std::optional<Backlog::End> end(backlog);
  EXPECT_TRUE(backlog.put("12345"));
  EXPECT_TRUE(backlog.put("67890"));
  EXPECT_EQ(backlog.take(), "1234567890");
  EXPECT_EQ(backlog.take(), "") << "nothing came for a while";
  EXPECT_TRUE(backlog.put("1234567890"));
  EXPECT_FALSE(backlog.put("x"));
  EXPECT_TRUE(backlog.too_slow());
  end.reset();
  EXPECT_EQ(backlog.take(), std::nullopt);
}

TEST(Backlog, TellsTheModelThatNobodyReads) {
  Backlog backlog(10);
  std::optional<Backlog::End> end(backlog);
  EXPECT_TRUE(backlog.put("12345"));
  backlog.leave();
  EXPECT_TRUE(backlog.gone());
  EXPECT_FALSE(backlog.put("1"));
  EXPECT_FALSE(backlog.too_slow());
  end.reset();
  EXPECT_EQ(backlog.take(), std::nullopt);
}

TEST_F(Completions, AnotherModelIsNotFound) {
  const json error = answer({{"model", "huge"}, {"prompt", "lamp"}, {"max_tokens", 1}}, 404).at("error");
  EXPECT_EQ(error.at("code"), "model_not_found");
  EXPECT_EQ(error.at("param"), "model");
  EXPECT_THAT(error.at("message").get<std::string>(), testing::AllOf(HasSubstr("huge"), HasSubstr("tiny")));
  answer({{"model", nullptr}, {"prompt", "lamp"}, {"max_tokens", 1}});
}

TEST_F(Completions, WhatNeverBecameARequestIsCounted) {
  EXPECT_EQ(api.refuse(413, "/v1/completions").status, 413);
  EXPECT_EQ(api.refuse(400, "/made/up").status, 400);
  answer({{"model", "huge"}, {"prompt", "lamp"}}, 404);
  const std::string metrics = api.answer("GET", "/metrics", "").body;
  for (const char* line : {"{path=\"/v1/completions\",code=\"413\"} 1", "{path=\"other\",code=\"400\"} 1",
                           "{path=\"/v1/completions\",code=\"404\"} 1"}) {
    EXPECT_THAT(metrics, HasSubstr(line));
  }
}

// A few megabytes of brackets, wherever they stand: texts, copies and comparisons of them would use up the
// stack.
TEST_F(Completions, NestingWithoutEndIsRefused) {
  constexpr size_t kLevels = 4'000'000;
  const std::string deep = std::string(kLevels, '[') + std::string(kLevels, ']');
  for (const char* field : {"prompt", "stop", "logit_bias", "model", "unknown"}) {
    const Reply reply = api.answer("POST", "/v1/completions", fmt::format("{{\"{}\": {}}}", field, deep));
    EXPECT_EQ(reply.status, 400);
    EXPECT_THAT(reply.body, HasSubstr("deeper than"));
  }
  EXPECT_EQ(api.answer("POST", "/tokenize", "{\"prompt\": " + deep + "}").status, 400);
}

TEST_F(Completions, MistakesAreToldAndSurvived) {
  const std::pair<json, const char*> mistakes[] = {
      {json::array(), "object"},
      {json::object(), "prompt"},
      {{{"prompt", nullptr}}, "prompt"},
      {{{"prompt", 5}}, "prompt"},
      {{{"prompt", json::array()}}, "prompt"},
      {{{"prompt", {1, "a"}}}, "prompt"},
      {{{"prompt", {"a", 1}}}, "prompt"},
      {{{"prompt", {{1}, json::array()}}}, "prompt"},
      {{{"prompt", {1.5}}}, "prompt"},
      {{{"prompt", {257}}}, "0 to 256"},
      {{{"prompt", {-1}}}, "0 to 256"},
      {{{"prompt", {18446744073709551615u}}}, "0 to 256"},
      {{{"prompt", std::vector<std::string>(300, "a")}}, "at most 256"},
      {{{"prompt", std::string(60, 'a')}, {"max_tokens", 5}}, "64 tokens"},
      {{{"prompt", "a"}, {"max_tokens", -1}}, "max_tokens"},
      {{{"prompt", "a"}, {"max_tokens", "5"}}, "max_tokens"},
      {{{"prompt", "a"}, {"max_tokens", 1e3}}, "max_tokens"},
      {{{"prompt", "a"}, {"temperature", 2.5}}, "temperature"},
      {{{"prompt", "a"}, {"temperature", true}}, "temperature"},
      {{{"prompt", "a"}, {"top_p", 0}}, "top_p"},
      {{{"prompt", "a"}, {"n", 0}}, "n:"},
      {{{"prompt", "a"}, {"n", 1000}}, "n:"},
      {{{"prompt", "a"}, {"best_of", 2}}, "best_of"},
      {{{"prompt", "a"}, {"logprobs", true}}, "logprobs"},
      {{{"prompt", "a"}, {"logprobs", 99}}, "logprobs"},
      {{{"prompt", "a"}, {"echo", 1}}, "echo"},
      {{{"prompt", "a"}, {"stream", "yes"}}, "stream"},
      {{{"prompt", "a"}, {"stop", {"a", 1}}}, "stop"},
      {{{"prompt", "a"}, {"stop", ""}}, "stop"},
      {{{"prompt", "a"}, {"seed", 1.5}}, "seed"},
      {{{"prompt", "a"}, {"model", 3}}, "model"},
      {{{"prompt", "a"}, {"suffix", "b"}}, "suffix"},
      {{{"prompt", "a"}, {"presence_penalty", 1}}, "presence_penalty"},
      {{{"prompt", "a"}, {"max_token", 1}}, "unknown field max_token"}};
  for (const auto& [body, named] : mistakes) {
    const json error = answer(body, 400).at("error");
    EXPECT_THAT(error.at("message").get<std::string>(), HasSubstr(named)) << body;
    EXPECT_EQ(error.at("type"), "invalid_request_error");
  }
  EXPECT_EQ(answer({{"prompt", std::string(60, 'a')}}, 400).at("error").at("code"),
            "context_length_exceeded");
  for (const char* body : {"", "{", "{\"prompt\": \"\xff\"}", "nonsense", "[1,"}) {
    EXPECT_EQ(api.answer("POST", "/v1/completions", body).status, 400) << body;
  }
  EXPECT_EQ(api.answer("POST", "/v1/completions", std::string(1'000'000, '[')).status, 400);
  EXPECT_EQ(answer({{"prompt", "a"}, {"max_tokens", 1}}).at("choices").size(), 1u);
}

TEST_F(Completions, OtherPaths) {
  const auto get = [&](const std::string& path) { return api.answer("GET", path, ""); };
  EXPECT_EQ(json::parse(get("/v1/models").body).at("data")[0].at("id"), "tiny");
  EXPECT_EQ(json::parse(get("/v1/models/tiny").body).at("max_model_len"), 64);
  EXPECT_EQ(get("/health").status, 200);
  EXPECT_EQ(get("/v1/models/other").status, 404);
  EXPECT_EQ(get("/").status, 404);
  EXPECT_EQ(get("/v1/completions").status, 405);
  EXPECT_EQ(api.answer("DELETE", "/health", "").status, 405);
  answer({{"prompt", "lamp"}, {"max_tokens", 2}, {"seed", 1}});
  EXPECT_THAT(get("/metrics").body,
              HasSubstr("ziggurat_requests_total{path=\"/v1/completions\",code=\"200\"} 1\n"));
  EXPECT_THAT(get("/metrics").body, HasSubstr("\nziggurat_prompt_tokens_total 4\n"));

  const auto post = [&](const std::string& path, const json& body) {
    return api.answer("POST", path, body.dump());
  };
  EXPECT_EQ(json::parse(post("/tokenize", {{"prompt", "ab"}}).body).at("tokens"), json({97, 98}));
  EXPECT_EQ(json::parse(post("/detokenize", {{"tokens", {97, 98}}}).body).at("prompt"), "ab");
  const std::string eos = json::parse(get("/tokenizer_info").body).at("eos_token");
  EXPECT_EQ(json::parse(post("/tokenize", {{"prompt", eos}}).body).at("tokens"), json({256}));
  EXPECT_EQ(post("/tokenize", {{"prompt", 1}}).status, 400);
  EXPECT_EQ(post("/detokenize", {{"tokens", {9999}}}).status, 400);
  EXPECT_EQ(post("/detokenize", {{"tokens", "a"}}).status, 400);
}

}  // namespace
}  // namespace ziggurat::serve
