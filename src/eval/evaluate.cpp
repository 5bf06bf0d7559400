#include <algorithm>
#include <cmath>
#include <limits>

#include "eval/batch_plan.h"
#include "eval/python_text.h"
#include <ziggurat/core/error.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/eval/evaluate.h>

namespace ziggurat::eval {

namespace {

double mean(const std::vector<double>& values) {
  double sum = 0;
  for (const double v : values) sum += v;
  return sum / static_cast<double>(values.size());
}

double standard_error(const std::vector<double>& values) {
  const auto n = static_cast<double>(values.size());
  if (n < 2) return std::numeric_limits<double>::quiet_NaN();
  const double centre = mean(values);
  double squares = 0;
  for (const double v : values) squares += (v - centre) * (v - centre);
  return std::sqrt(squares / (n - 1) / n);
}

Metric mean_metric(const std::string& name, const std::vector<double>& values) {
  return {name, mean(values), standard_error(values), true};
}

// exp of minus the mean log-likelihood of a document: not of a token.
Metric perplexity_metric(const std::string& name, const std::vector<double>& log_likelihoods) {
  const double perplexity = std::exp(-mean(log_likelihoods));
  return {name, perplexity, perplexity * standard_error(log_likelihoods), false};
}

// The first of the largest.
size_t argmax(std::span<const double> values) {
  return static_cast<size_t>(std::max_element(values.begin(), values.end()) - values.begin());
}

// Each continuation divided by its characters, without the space in front.
std::vector<double> by_length(std::span<const Score> scores, const Document& document) {
  std::vector<double> values;
  for (size_t i = 0; i < scores.size(); ++i) {
    std::string_view text = document.continuations[i];
    if (text.starts_with(' ')) text.remove_prefix(1);
    values.push_back(scores[i].log_likelihood / static_cast<double>(std::max<size_t>(1, code_points(text))));
  }
  return values;
}

std::vector<Metric> metrics_of(const Task& task, std::span<const Score> scores) {
  std::vector<double> right, right_by_length, log_likelihoods;
  size_t next = 0;
  for (const Document& document : task.documents) {
    const auto own = scores.subspan(next, document.continuations.size());
    next += own.size();
    if (task.rule == Rule::choice) {
      std::vector<double> sums;
      for (const Score& score : own) sums.push_back(score.log_likelihood);
      const auto gold = static_cast<size_t>(document.gold);
      right.push_back(argmax(sums) == gold);
      right_by_length.push_back(argmax(by_length(own, document)) == gold);
    } else {
      right.push_back(std::any_of(own.begin(), own.end(), [](const Score& s) { return s.greedy; }));
      log_likelihoods.push_back(own[0].log_likelihood);
    }
  }
  std::vector<Metric> metrics;
  if (task.rule == Rule::last_word) metrics.push_back(perplexity_metric(task.perplexity, log_likelihoods));
  metrics.push_back(mean_metric(task.accuracy, right));
  if (task.rule == Rule::choice && task.by_length)
    metrics.push_back(mean_metric("acc_norm", right_by_length));
  return metrics;
}

std::vector<TokenRequest> encode_requests(const Task& task, Form form, const Tokenizer& tokenizer) {
  const auto encoder = tokenizer.new_encoder();
  std::vector<TokenRequest> requests;
  for (const Document& document : task.documents) {
    for (const std::string& continuation : document.continuations) {
      requests.push_back(encode_request(*encoder, tokenizer.eod_id(), document.context, continuation, form));
    }
  }
  return requests;
}

TaskResult score_continuations(const Task& task, Form form, const Tokenizer& tokenizer, Scorer& scorer,
                               const Scorer::Progress& progress) {
  const std::vector<TokenRequest> requests = encode_requests(task, form, tokenizer);
  std::vector<Score> scores = scorer.score(requests, progress);
  return {metrics_of(task, scores), std::ssize(requests), 0, std::move(scores)};
}

// What the model wrote, up to the first of the texts that end it.
std::string written_text(const Task& task, const Tokenizer& tokenizer, std::span<const int32_t> ids) {
  while (!ids.empty() && ids.back() == tokenizer.eod_id()) ids = ids.first(ids.size() - 1);
  std::string text = tokenizer.decode(ids);
  for (const std::string& end : task.until) {
    if (!end.empty()) text = text.substr(0, text.find(end));
  }
  return text;
}

std::string comparable(std::string_view text) { return without_punctuation(lower(text)); }

std::vector<std::vector<int32_t>> encode_contexts(const Task& task, const Tokenizer& tokenizer) {
  const auto encoder = tokenizer.new_encoder();
  std::vector<std::vector<int32_t>> contexts(task.documents.size());
  for (size_t i = 0; i < contexts.size(); ++i) {
    encoder->encode(task.documents[i].context, contexts[i]);
    if (contexts[i].empty()) contexts[i].push_back(tokenizer.eod_id());
  }
  return contexts;
}

// lm-eval's number, and half of what a smaller model sees.
int64_t most_written(const Task& task, const Scorer& scorer) {
  return std::min(task.max_tokens, std::max<int64_t>(1, scorer.length() / 2));
}

TaskResult generate_answers(const Task& task, const Tokenizer& tokenizer, Scorer& scorer,
                            const Scorer::Progress& progress) {
  const std::vector<std::vector<int32_t>> contexts = encode_contexts(task, tokenizer);
  const auto ended = [&](size_t, std::span<const int32_t> ids) {
    if (ids.back() == tokenizer.eod_id()) return true;
    const std::string text = tokenizer.decode(ids);
    return std::any_of(task.until.begin(), task.until.end(), [&](const std::string& end) {
      return !end.empty() && text.find(end) != std::string::npos;
    });
  };
  const auto written = scorer.generate(contexts, most_written(task, scorer), ended, progress);
  std::vector<double> right;
  for (size_t i = 0; i < written.size(); ++i) {
    const std::string text = comparable(strip(written_text(task, tokenizer, written[i])));
    const std::vector<std::string>& answers = task.documents[i].answers;
    right.push_back(std::any_of(answers.begin(), answers.end(),
                                [&](const std::string& answer) { return comparable(answer) == text; }));
  }
  return {{mean_metric("exact_match", right)}, std::ssize(contexts), 0, {}};
}

}  // namespace

TokenRequest encode_request(Encoder& encoder, int32_t eod, const std::string& context,
                            const std::string& continuation, Form form) {
  TokenRequest request;
  if (context.empty()) {
    check(eod >= 0, ErrorKind::data,
          "a context is empty, and the tokenizer has no end-of-document token to stand for it");
    request.context = {eod};
    encoder.encode(continuation, request.continuation);
  } else if (form == Form::v0) {
    encoder.encode(context, request.context);
    encoder.encode(continuation, request.continuation);
  } else {
    encoder.encode(rstrip(context), request.context);
    encoder.encode(context + continuation, request.continuation);
    const size_t cut = std::min(request.context.size(), request.continuation.size());
    request.continuation.erase(request.continuation.begin(), request.continuation.begin() + int64_t(cut));
  }
  check(!request.context.empty() && !request.continuation.empty(), ErrorKind::data,
        "the continuation '{}' has no tokens of its own after '{}'", continuation,
        context.substr(context.size() - std::min<size_t>(context.size(), 40)));
  return request;
}

void check_task(const Task& task, Form form, const Tokenizer& tokenizer, int64_t length) {
  if (task.rule == Rule::generated) return;  // takes contexts of any length
  try {
    const std::vector<TokenRequest> requests = encode_requests(task, form, tokenizer);
    for (size_t i = 0; i < requests.size(); ++i) check_request(requests[i], i, length);
  } catch (const Error& e) {
    fail(e.kind(), "{}: {}", task.name, e.what());
  }
}

int64_t device_bytes(const Task& task, Form form, const Tokenizer& tokenizer, const Scorer& scorer) {
  if (task.rule != Rule::generated) return scorer.device_bytes(encode_requests(task, form, tokenizer));
  return scorer.device_bytes(encode_contexts(task, tokenizer), most_written(task, scorer));
}

TaskResult evaluate(const Task& task, Form form, const Tokenizer& tokenizer, Scorer& scorer,
                    const Scorer::Progress& progress) {
  check(!task.documents.empty(), ErrorKind::argument, "task {} has no documents", task.name);
  const Timer timer;
  TaskResult result;
  try {
    result = task.rule == Rule::generated ? generate_answers(task, tokenizer, scorer, progress)
                                          : score_continuations(task, form, tokenizer, scorer, progress);
  } catch (const Error& e) {
    fail(e.kind(), "{}: {}", task.name, e.what());
  }
  result.seconds = timer.seconds();
  return result;
}

}  // namespace ziggurat::eval
