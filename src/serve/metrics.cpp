#include "serve/metrics.h"

#include <chrono>

#include <fmt/format.h>
#include <nlohmann/json.hpp>

#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>

namespace ziggurat::serve {

namespace {

// As the value of a label.
std::string escaped(const std::string& text) {
  std::string out;
  for (const char c : text) {
    if (c == '\\' || c == '"') out += '\\';
    out += c == '\n' ? std::string("\\n") : std::string(1, c);
  }
  return out;
}

void head(std::string& out, const char* name, const char* type, const char* help) {
  out += fmt::format("# HELP {0} {2}\n# TYPE {0} {1}\n", name, type, help);
}

template <class Value>
void add(std::string& out, const char* name, const char* type, const char* help, Value value) {
  head(out, name, type, help);
  out += fmt::format("{} {}\n", name, value);
}

void add_summary(std::string& out, const char* name, const char* help, double sum, int64_t count) {
  head(out, name, "summary", help);
  out += fmt::format("{0}_sum {1}\n{0}_count {2}\n", name, sum, count);
}

// Parts of a forward that have a name in /metrics; all spans inside them count.
constexpr const char* kPhases[] = {"attention", "gate", "all_to_all_1", "experts", "all_to_all_2", "combine"};

// The seconds of each phase, and of the rest.
std::map<std::string, double> phases(const std::vector<Profile::Entry>& spans) {
  std::map<std::string, double> seconds;
  for (const char* phase : kPhases) seconds[phase] = 0;
  for (const Profile::Entry& span : spans) {
    std::string phase = "other";
    for (size_t begin = 0; begin <= span.path.size();) {
      const size_t end = std::min(span.path.find('/', begin), span.path.size());
      const std::string name = span.path.substr(begin, end - begin);
      if (seconds.contains(name)) phase = name;  // the innermost
      begin = end + 1;
    }
    seconds[phase] += span.seconds;
  }
  return seconds;
}

}  // namespace

Metrics::Metrics(const std::string& log) : log_path_(log) {
  if (log.empty()) return;
  log_.open(log, std::ios::app);
  check(log_.is_open(), ErrorKind::argument, "--log: {} cannot be opened for appending", log);
}

void Metrics::count_request(const std::string& path, int status) {
  const std::lock_guard lock(mutex_);
  ++requests_[{path, status}];
}

void Metrics::count_completion(const std::string& id, int status, const Usage& usage,
                               const RequestTimes& times) {
  const std::lock_guard lock(mutex_);
  usage_.prompt_tokens += usage.prompt_tokens, usage_.completion_tokens += usage.completion_tokens;
  ++completions_;
  sums_.whole += times.whole, sums_.queued += times.queued;
  if (times.first_token > 0) sums_.first_token += times.first_token, ++with_tokens_;
  if (!log_.is_open()) return;
  const double now =
      std::chrono::duration<double>(std::chrono::system_clock::now().time_since_epoch()).count();
  const nlohmann::ordered_json line = {{"time", now},
                                       {"id", id},
                                       {"status", status},
                                       {"prompt_tokens", usage.prompt_tokens},
                                       {"completion_tokens", usage.completion_tokens},
                                       {"queued_seconds", times.queued},
                                       {"first_token_seconds", times.first_token},
                                       {"seconds", times.whole}};
  log_ << line.dump() << std::endl;  // whole lines, also when the process is killed
  if (log_) return;
  warn("the log of requests {} cannot be written any more", log_path_);
  log_.close();
}

std::string Metrics::text(const ModelState& state) const {
  std::string out;
  const std::lock_guard lock(mutex_);
  head(out, "ziggurat_requests_total", "counter", "Requests answered.");
  for (const auto& [key, count] : requests_) {
    out += fmt::format("ziggurat_requests_total{{path=\"{}\",code=\"{}\"}} {}\n", escaped(key.first),
                       key.second, count);
  }
  add(out, "ziggurat_prompt_tokens_total", "counter", "Tokens of prompts.", usage_.prompt_tokens);
  add(out, "ziggurat_completion_tokens_total", "counter", "Tokens written.", usage_.completion_tokens);
  add_summary(out, "ziggurat_completion_seconds", "From a request's arrival to the end of its last text.",
              sums_.whole, completions_);
  add_summary(out, "ziggurat_queue_seconds", "From a request's arrival until the engine had it.",
              sums_.queued, completions_);
  add_summary(out, "ziggurat_first_token_seconds", "From a request's arrival to its first token.",
              sums_.first_token, with_tokens_);
  add(out, "ziggurat_requests_waiting", "gauge", "Requests under way, those that wait included.",
      state.requests);
  add(out, "ziggurat_texts_running", "gauge", "Texts that are read or written.", state.counts.running);
  add(out, "ziggurat_texts_waiting", "gauge", "Texts that wait for room.", state.counts.waiting);
  add(out, "ziggurat_cache_blocks", "gauge", "Blocks of keys and values.", state.cache_blocks);
  add(out, "ziggurat_cache_blocks_held", "gauge", "Of them held by texts.", state.counts.blocks);
  add(out, "ziggurat_steps_total", "counter", "Forwards through the model.", state.counts.steps);
  add(out, "ziggurat_rows_total", "counter", "Tokens that they read.", state.counts.rows);
  add(out, "ziggurat_preempted_total", "counter", "Times that a text gave up its blocks.",
      state.counts.preempted);
  add(out, "ziggurat_shared_tokens_total", "counter", "Tokens of prompts that had been read already.",
      state.counts.shared_tokens);
  head(out, "ziggurat_phase_seconds_total", "counter", "Where the time of forwards went.");
  for (const auto& [phase, seconds] : phases(state.spans)) {
    out += fmt::format("ziggurat_phase_seconds_total{{phase=\"{}\"}} {}\n", phase, seconds);
  }
  return out;
}

}  // namespace ziggurat::serve
