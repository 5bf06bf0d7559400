// ziggurat bench serve CONFIG: many requests at once, and how long each waits for its tokens.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <random>
#include <thread>

#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/on_ranks.h"
#include "apps/random_model.h"
#include <ziggurat/config/config.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/infer/engine.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::apps {

namespace {

struct Request {
  int64_t prompt = 0, tokens = 0;         // tokens
  double due = 0;                         // when it is asked, in seconds since the start
  double asked = 0, first = 0, done = 0;  // when these were
  double each() const { return tokens > 1 ? (done - first) / static_cast<double>(tokens - 1) : 0; }
};

// The same for the same arguments.
std::vector<Request> make_requests(const BenchServeArguments& a) {
  std::mt19937_64 random(1);
  const auto around = [&](int64_t mean) {
    return std::uniform_int_distribution<int64_t>(std::max<int64_t>(1, mean / 2), mean + mean / 2)(random);
  };
  std::vector<Request> requests(static_cast<size_t>(a.requests));
  double due = 0;
  for (Request& r : requests) {
    r.prompt = around(a.prompt), r.tokens = around(a.tokens);
    if (a.rate > 0) r.due = due += std::exponential_distribution(a.rate)(random);
  }
  return requests;
}

class Load {
 public:
  Load(infer::Engine& engine, const BenchServeArguments& arguments)
      : engine_(engine), arguments_(arguments), requests_(make_requests(arguments)) {}

  // In seconds.
  double run() {
    const infer::TextEvents events{.token =
                                       [this](int64_t id, int32_t, bool, const infer::Likelihood*) {
                                         Request& r = requests_[static_cast<size_t>(id)];
                                         if (r.first == 0) r.first = since_.seconds();
                                       },
                                   .end =
                                       [this](int64_t id, infer::EndReason) {
                                         requests_[static_cast<size_t>(id)].done = since_.seconds();
                                         --open_;
                                       }};
    since_.restart();
    while (next_ < requests_.size() || !engine_.idle()) {
      ask();
      if (engine_.idle()) {
        std::this_thread::sleep_for(std::chrono::microseconds(200));  // until the next one is due
      } else {
        engine_.step(events);
      }
    }
    return since_.seconds();
  }
  const std::vector<Request>& requests() const { return requests_; }

 private:
  void ask() {
    const double now = since_.seconds();
    while (next_ < requests_.size() &&
           (arguments_.rate > 0 ? requests_[next_].due <= now : open_ < arguments_.clients)) {
      Request& r = requests_[next_];
      r.asked = arguments_.rate > 0 ? r.due : now;
      infer::TextRequest text{.id = static_cast<int64_t>(next_), .max_new_tokens = r.tokens};
      for (int64_t i = 0; i < r.prompt; ++i) {
        const int64_t any = (static_cast<int64_t>(next_) * 104729 + i * 7919) % engine_.vocabulary();
        text.prompt.push_back(static_cast<int32_t>(any));
      }
      text.text = text.id;
      engine_.submit(std::move(text));
      ++next_, ++open_;
    }
  }

  infer::Engine& engine_;
  const BenchServeArguments& arguments_;
  std::vector<Request> requests_;
  Timer since_;
  size_t next_ = 0;
  int64_t open_ = 0;
};

struct Quantiles {
  double p50, p95, p99;
};
Quantiles quantiles(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  const auto at = [&](double share) {
    return values[static_cast<size_t>(share * static_cast<double>(values.size() - 1))];
  };
  return {at(0.5), at(0.95), at(0.99)};
}

void tell(const train::RunConfig& config, const BenchServeArguments& a, int ranks, double seconds,
          const std::vector<Request>& requests, const infer::SchedulerCounts& counts) {
  std::vector<double> first, each, whole;
  int64_t tokens = 0, read = 0, good = 0;
  for (const Request& r : requests) {
    first.push_back(r.first - r.asked), each.push_back(r.each()), whole.push_back(r.done - r.asked);
    tokens += r.tokens, read += r.prompt;
    good += r.first - r.asked <= a.most_first && r.each() <= a.most_token;
  }
  const Quantiles f = quantiles(first), e = quantiles(each), w = quantiles(whole);
  const double written = static_cast<double>(tokens) / seconds;
  if (a.json) {
    const auto json_of = [](const Quantiles& q) {
      return nlohmann::ordered_json{{"p50", q.p50}, {"p95", q.p95}, {"p99", q.p99}};
    };
    const nlohmann::ordered_json out = {
        {"name", config.name},
        {"ranks", ranks},
        {"threads", thread_count()},
        {"clients", a.rate > 0 ? 0 : a.clients},
        {"rate", a.rate},
        {"requests", a.requests},
        {"seconds", seconds},
        {"first_token_seconds", json_of(f)},
        {"seconds_per_token", json_of(e)},
        {"request_seconds", json_of(w)},
        {"tokens_per_second", written},
        {"prompt_tokens_per_second", static_cast<double>(read) / seconds},
        {"requests_per_second", static_cast<double>(a.requests) / seconds},
        {"good_requests_per_second", static_cast<double>(good) / seconds},
        {"rows_per_step", static_cast<double>(counts.rows) / static_cast<double>(counts.steps)},
        {"preempted", counts.preempted}};
    fmt::print("{}\n", out.dump(2));
    return;
  }
  fmt::print("{}: {} requests of {} + {} tokens on average, {}, {} ranks of {} threads\n", config.name,
             a.requests, a.prompt, a.tokens,
             a.rate > 0 ? fmt::format("{} a second", a.rate) : fmt::format("{} clients", a.clients), ranks,
             thread_count());
  const auto row = [](const char* name, const Quantiles& q) {
    fmt::print("  {:<22}{:10.1f} ms {:10.1f} ms {:10.1f} ms\n", name, 1e3 * q.p50, 1e3 * q.p95, 1e3 * q.p99);
  };
  fmt::print("  {:<22}{:>13} {:>13} {:>13}\n", "", "p50", "p95", "p99");
  row("first token", f);
  row("each later token", e);
  row("whole request", w);
  fmt::print("  {:<22}{:10.1f} tokens/s written, {:.1f} read\n", "throughput", written,
             static_cast<double>(read) / seconds);
  fmt::print("  {:<22}{:10.2f} requests/s of {:.2f} within {} s and {} s a token\n", "goodput",
             static_cast<double>(good) / seconds, static_cast<double>(a.requests) / seconds, a.most_first,
             a.most_token);
  fmt::print("  {:<22}{:10.1f} rows a step, {} preempted\n", "engine",
             static_cast<double>(counts.rows) / static_cast<double>(counts.steps), counts.preempted);
}

}  // namespace

void bench_serve(const BenchServeArguments& arguments) {
  train::RunConfig config;
  load_config(config, arguments.config.path, arguments.config.overrides);
  const Device device = arguments.device == Device::cpu ? config.device : arguments.device;
  on_ranks({.threads = arguments.threads, .device = device}, [&](MpiRuntime& mpi) {
    Communicator& world = mpi.world();
    const RandomModel random(config, world, arguments.weights, device);
    const int64_t longest = 3 * (arguments.prompt + arguments.tokens) / 2 + 2,
                  most = config.model.max_sequence;
    infer::Engine engine(random.model(), {.window = std::min(longest, most), .texts = arguments.texts},
                         &world);
    if (world.rank() != 0) return engine.follow();
    Load load(engine, arguments);
    const double seconds = load.run();
    engine.end();
    tell(config, arguments, world.size(), seconds, load.requests(), engine.counts());
  });
}

}  // namespace ziggurat::apps
