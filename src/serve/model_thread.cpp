#include "serve/model_thread.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <exception>
#include <future>

#include <fmt/format.h>

#include <ziggurat/core/log.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::serve {

infer::EngineOptions engine_options(const Served& served) {
  return {.window = served.length,
          .cache_tokens = served.cache_tokens,
          .texts = served.texts,
          .allowed = infer::allowed_tokens(served.model.config().vocab_size, served.tokenizer.eod_id(),
                                           [&](int32_t id) { return served.tokenizer.is_text(id); })};
}

ModelThread::ModelThread(const Served& served, const ModelThreadOptions& options)
    : served_(served), options_(options) {
  std::promise<void> ready;
  thread_ = std::thread([&] {
    std::unique_ptr<infer::Engine> engine;
    Profile profile;
    try {
      set_thread_count(options_.threads);
      engine = std::make_unique<infer::Engine>(served_.model, engine_options(served_), served_.world);
      engine->executor().set_profile(&profile);
      ready.set_value();
    } catch (...) {
      ready.set_exception(std::current_exception());
      return;
    }
    try {
      loop(*engine, profile);
      engine->end();
    } catch (const std::exception& error) {
      options_.on_lost(error);
    }
  });
  try {
    ready.get_future().get();
  } catch (...) {
    thread_.join();
    throw;
  }
}

ModelThread::~ModelThread() {
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

std::shared_ptr<ModelThread::Job> ModelThread::begin(std::unique_ptr<Completion> completion,
                                                     std::shared_ptr<Backlog> backlog) {
  auto job = std::make_shared<Job>();
  job->completion_ = std::move(completion);
  job->backlog_ = std::move(backlog);
  const std::lock_guard lock(mutex_);
  if (state_.requests >= options_.most_requests) {
    throw ApiError(429, "too many requests wait already: try again later", {}, "overloaded",
                   seconds_until_room());
  }
  job->end_.emplace(*job->backlog_);
  ++state_.requests;
  incoming_.push_back(job);
  changed_.notify_all();
  return job;
}

// A guess: as long as requests took, shared by those at work. With mutex_.
int64_t ModelThread::seconds_until_room() const {
  const double each =
      ended_requests_ == 0 ? 1.0 : seconds_of_requests_ / static_cast<double>(ended_requests_);
  return std::clamp<int64_t>(static_cast<int64_t>(std::ceil(each)), 1, 60);
}

ModelState ModelThread::state() const {
  const std::lock_guard lock(mutex_);
  return state_;
}

void ModelThread::loop(infer::Engine& engine, Profile& profile) {
  constexpr double kBetweenLooks = 0.1;  // seconds
  constexpr auto kBetweenTouches = std::chrono::milliseconds(500);
  Timer since_look;
  while (true) {
    {
      std::unique_lock lock(mutex_);
      if (jobs_.empty() || since_look.seconds() > kBetweenLooks) {
        state_.counts = engine.counts();
        state_.cache_blocks = engine.executor().options().blocks;
        state_.spans = profile.entries();
        since_look.restart();
      }
      const auto something = [&] { return ending_ || !incoming_.empty() || !jobs_.empty(); };
      while (!changed_.wait_for(lock, kBetweenTouches, something)) {
        lock.unlock();
        engine.keep_in_touch();
        lock.lock();
      }
      if (incoming_.empty() && jobs_.empty()) return;
      for (std::shared_ptr<Job>& job : incoming_) {
        job->times_.queued = job->since_.seconds();
        jobs_.push_back(std::move(job));
        submit(engine, *jobs_.back());
      }
      incoming_.clear();
    }
    look_after(engine);
    step(engine);
    const auto ended =
        std::stable_partition(jobs_.begin(), jobs_.end(), [](const auto& job) { return job->open_ > 0; });
    std::for_each(ended, jobs_.end(), [this](const auto& job) { finish(*job); });
    jobs_.erase(ended, jobs_.end());
  }
}

void ModelThread::submit(infer::Engine& engine, Job& job) {
  job.first_id_ = next_id_;
  try {
    for (infer::TextRequest& text : job.completion_->texts(next_id_)) {
      engine.submit(std::move(text));
      choices_[next_id_++] = {&job, job.open_++};
      ++job.count_;
    }
  } catch (...) {
    give_up(engine, job, std::current_exception());
  }
}

// Who left, and who has had his time.
void ModelThread::look_after(infer::Engine& engine) {
  for (const std::shared_ptr<Job>& job : jobs_) {
    if (job->given_up_) continue;
    if (job->backlog_->gone()) {
      give_up(engine, *job, nullptr);
    } else if (options_.most_seconds > 0 && job->since_.seconds() > options_.most_seconds) {
      give_up(engine, *job,
              std::make_exception_ptr(ApiError(
                  504, fmt::format("not done within {} seconds, the server's limit", options_.most_seconds),
                  {}, "time_limit")));
    }
  }
}

void ModelThread::step(infer::Engine& engine) {
  const infer::TextEvents events{
      .token =
          [&](int64_t id, int32_t token, bool of_prompt, const infer::Likelihood* likelihood) {
            const auto [job, choice] = choices_.at(id);
            if (!of_prompt && job->times_.first_token == 0) job->times_.first_token = job->since_.seconds();
            if (!job->completion_->add_token(choice, token, of_prompt, likelihood)) engine.cancel(id);
          },
      .end =
          [&](int64_t id, infer::EndReason) {
            const auto [job, choice] = choices_.at(id);
            choices_.erase(id);
            if (!job->given_up_) job->completion_->end(choice);
            --job->open_;
          }};
  try {
    engine.step(events);
  } catch (const std::exception& error) {                              // of the model, so of everybody
    if (served_.world != nullptr && served_.world->size() > 1) throw;  // the others may be in a collective
    warn("a step failed: {}", error.what());
    for (const std::shared_ptr<Job>& job : jobs_) give_up(engine, *job, std::current_exception());
    engine.step(events);  // lets them end: none is left to be read
  }
}

void ModelThread::give_up(infer::Engine& engine, Job& job, std::exception_ptr why) {
  if (job.given_up_) return;
  job.given_up_ = true;
  job.error_ = std::move(why);
  for (size_t i = 0; i < job.count_; ++i) engine.cancel(job.first_id_ + static_cast<int64_t>(i));
}

void ModelThread::finish(Job& job) {
  job.times_.whole = job.since_.seconds();
  const std::lock_guard lock(mutex_);
  --state_.requests;
  seconds_of_requests_ += job.times_.whole;
  ++ended_requests_;
  job.end_.reset();
}

}  // namespace ziggurat::serve
