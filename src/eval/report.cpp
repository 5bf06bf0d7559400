#include <cmath>

#include <ziggurat/core/error.h>
#include <ziggurat/eval/report.h>

namespace ziggurat::eval {

namespace {

using nlohmann::ordered_json;

ordered_json number_or_null(double value) {
  return std::isfinite(value) ? ordered_json(value) : ordered_json();
}

// lm-eval writes versions as numbers.
ordered_json version_of(const Task& task) {
  const ordered_json number = ordered_json::parse(task.version, nullptr, /*allow_exceptions=*/false);
  return number.is_number() ? number : ordered_json(task.version);
}

std::string key(const Task& task, Form form, const std::string& metric) {
  if (form == Form::v0) return metric;
  return metric + (task.rule == Rule::generated ? ",remove_whitespace" : ",none");
}

}  // namespace

ordered_json report(const Subject& subject, Form form, const std::vector<Evaluated>& evaluated) {
  ordered_json results, versions, shots, better, samples, own;
  for (const auto& [task, result] : evaluated) {
    ordered_json& row = results[task.name];
    if (form == Form::current) row["alias"] = task.name;
    for (const Metric& metric : result.metrics) {
      row[key(task, form, metric.name)] = number_or_null(metric.value);
      row[key(task, form, metric.name + "_stderr")] = number_or_null(metric.standard_error);
      better[task.name][metric.name] = metric.higher_is_better;
    }
    versions[task.name] = version_of(task);
    shots[task.name] = 0;
    const auto documents = std::ssize(task.documents);
    samples[task.name] = {{"original", task.total_documents}, {"effective", documents}};
    const std::string hash = request_hash(task);
    own[task.name] = {{"requests", result.requests}, {"request_hash", hash}, {"seconds", result.seconds}};
    if (!task.recorded_hash.empty() && documents == task.total_documents) {
      own[task.name]["request_hash_is_lm_evals"] = hash == task.recorded_hash;
    }
  }
  ordered_json root;
  root["results"] = results;
  if (form == Form::current) root["group_subtasks"] = ordered_json::object();
  root["versions"] = versions;
  if (form == Form::current) {
    root["n-shot"] = shots;
    root["higher_is_better"] = better;
    root["n-samples"] = samples;
  }
  root["config"] = {{"model", "ziggurat"},
                    {"model_args", "checkpoint=" + subject.model},
                    {"model_dtype", subject.precision},
                    {"num_fewshot", 0},
                    {"limit", subject.limit > 0 ? ordered_json(subject.limit) : ordered_json()}};
  root["ziggurat"] = {{"form", form == Form::v0 ? "v0" : "current"},
                      {"weight_hash", subject.weight_hash},
                      {"step", subject.step},
                      {"tokenizer_sha256", subject.tokenizer},
                      {"max_length", subject.length},
                      {"tasks", own}};
  return root;
}

std::string score_lines(const std::vector<Evaluated>& evaluated) {
  std::string lines;
  for (const auto& [task, result] : evaluated) {
    if (result.scores.empty()) continue;
    auto score = result.scores.begin();
    for (size_t d = 0; d < task.documents.size(); ++d) {
      for (const std::string& continuation : task.documents[d].continuations) {
        const ordered_json line = {{"task", task.name},
                                   {"document", d},
                                   {"continuation", continuation},
                                   {"log_likelihood", number_or_null(score->log_likelihood)},
                                   {"greedy", score->greedy}};
        lines += line.dump(-1, ' ', false, ordered_json::error_handler_t::replace) + "\n";  // of any bytes
        ++score;
      }
    }
  }
  return lines;
}

std::string table(const std::vector<Evaluated>& evaluated) {
  std::string lines =
      fmt::format("{:<20} {:>9}  {:<12} {:>10}   {}\n", "task", "documents", "metric", "value", "stderr");
  for (const auto& [task, result] : evaluated) {
    for (const Metric& metric : result.metrics) {
      lines += fmt::format("{:<20} {:>9}  {:<12} {:>10.4f} ± {:.4f}\n", task.name, task.documents.size(),
                           metric.name, metric.value, metric.standard_error);
    }
  }
  return lines;
}

}  // namespace ziggurat::eval
