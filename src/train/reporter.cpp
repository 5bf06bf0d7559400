#include <cmath>

#include <nlohmann/json.hpp>

#include <ziggurat/config/units.h>
#include <ziggurat/core/log.h>
#include <ziggurat/optim/clip_groups.h>
#include <ziggurat/train/reporter.h>
#include <ziggurat/train/teacher.h>

namespace ziggurat::train {

Reporter::Reporter(const RunConfig& config, const Training& training, RunFolder& folder)
    : config_(config),
      training_(training),
      folder_(folder),
      flops_per_token_(model::count(config.model, config.batch.sequence_length).flops_per_token) {}

void Reporter::set_roof(double flops_per_second) {
  roof_ = flops_per_second;
  info("{:.0f} GFLOP/s GEMM roof of {} ranks", roof_ / 1e9, training_.groups.world().size());
}

StepRecord Reporter::record(const StepPlan& plan, const StepResult& result, int64_t total_steps,
                            double seconds, double data_seconds) {
  StepRecord r;
  r.loss = result.loss;
  r.auxiliary_loss = result.auxiliary_loss();
  const auto& parts = training_.objective->parts();
  for (size_t i = 0; i < parts.size(); ++i) r.losses.emplace_back(parts[i].name, result.parts[i]);
  r.settings = training_.objective->settings();
  r.grad_norm = result.grad_norm;
  for (size_t i = 0; i < result.group_norms.size(); ++i)
    r.grad_norms.emplace_back(name_of_clip_group(config_.optimizer, i), result.group_norms[i]);
  r.step = training_.cursor.step;
  r.total_steps = total_steps;
  r.samples = training_.cursor.samples;
  r.tokens = r.samples * config_.batch.sequence_length;
  r.total_tokens = config_.train.tokens;
  r.lr = plan.lr;
  r.step_seconds = seconds;
  r.data_seconds = data_seconds;
  r.tokens_per_second = static_cast<double>(plan.tokens) / seconds;
  r.flops_per_second = r.tokens_per_second * (flops_per_token_ + teacher_flops(training_, config_));
  if (roof_ > 0) r.roof_fraction = r.flops_per_second / roof_;
  seconds_per_step_ = seconds_per_step_ == 0 ? seconds : 0.9 * seconds_per_step_ + 0.1 * seconds;
  r.eta_seconds = seconds_per_step_ * static_cast<double>(total_steps - r.step);
  return r;
}

void Reporter::tell(const StepRecord& r) {
  folder_.write(to_json(r));
  if (r.step % config_.log.every == 0 || r.step == r.total_steps || r.step == 1) {
    info("{}", progress_line(r, config_.log.exact));
  }
}

void Reporter::tell(const Validation& v, Split split, const char* what) {
  if (v.tokens == 0) return;
  const std::string loss =
      config_.log.exact ? fmt::format("{:.6f} ({:a})", v.loss, v.loss) : fmt::format("{:.4f}", v.loss);
  info("validation {}: loss {} | perplexity {:.2f} | accuracy {:.1f}% | {} tokens", what, loss,
       std::exp(v.loss), 100 * v.accuracy, v.tokens);
  const nlohmann::ordered_json j = {{"kind", "validation"},
                                    {"split", to_string(split)},
                                    {"step", training_.cursor.step},
                                    {"loss", v.loss},
                                    {"loss_hex", fmt::format("{:a}", v.loss)},
                                    {"accuracy", v.accuracy},
                                    {"tokens", v.tokens},
                                    {"sequences", v.sequences}};
  folder_.write(j.dump());
}

void Reporter::tell(const std::vector<NamedScore>& scores) {
  const int64_t step = training_.cursor.step;
  nlohmann::ordered_json j = {{"kind", "tasks"}, {"step", step}};
  for (const NamedScore& score : scores) {
    info("step {}: {} {:.4f}", step, score.name, score.value);
    j["scores"][score.name] = score.value;
  }
  folder_.write(j.dump());
}

void Reporter::tell(const SaveOutcome& save) {
  nlohmann::ordered_json j = {{"kind", "checkpoint"},
                              {"step", save.step},
                              {"saved", save.error.empty()},
                              {"bytes", save.bytes},
                              {"stall_seconds", save.stall_seconds},
                              {"write_seconds", save.write_seconds}};
  const double rate = static_cast<double>(save.bytes) / save.write_seconds;
  if (save.error.empty()) {
    j["bytes_per_second"] = rate;
    info("checkpoint of step {} saved: {} in {}, {}/s; training waited {} for it", save.step,
         format_bytes(static_cast<double>(save.bytes)), format_duration(save.write_seconds),
         format_bytes(rate), format_duration(save.stall_seconds));
  } else {
    j["error"] = save.error;
    warn("the checkpoint of step {} could not be saved: {}. Older ones are as they were{}", save.step,
         save.error, config_.checkpoint.on_failure == OnSaveFailure::stop ? "" : "; training goes on");
  }
  folder_.write(j.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace));
}

void Reporter::tell(const std::vector<Sample>& samples) {
  for (size_t i = 0; i < samples.size(); ++i) {
    const Sample& sample = samples[i];
    const nlohmann::ordered_json j = {{"kind", "sample"},
                                      {"step", training_.cursor.step},
                                      {"prompt_number", i + 1},
                                      {"prompt", sample.prompt},
                                      {"text", sample.text}};
    info("sample {}: {}", i + 1, nlohmann::json(sample.prompt + sample.text).dump());  // on one line
    folder_.write(j.dump());
  }
}

void Reporter::tell(const watch::SlowRanks::Verdict& v) {
  const int64_t step = training_.cursor.step;
  const std::string times = fmt::format("computes {:.3f} s a step, most ranks {:.3f} s (score {:.2f})",
                                        v.seconds, v.usual, v.score());
  if (v.slow) {
    warn("step {}: rank {} is slow and holds up the others: it {}; {}", step, v.rank, times,
         v.shares_core ? "something else computes on its core: end that, or give each rank cores of its own"
                       : "look at what else runs on its node, at its clock rate and its disk");
  } else {
    info("step {}: rank {} is slow no more: it {}", step, v.rank, times);
  }
  const nlohmann::ordered_json j = {{"kind", "slow_rank"},      {"step", step},
                                    {"rank", v.rank},           {"slow", v.slow},
                                    {"score", v.score()},       {"seconds", v.seconds},
                                    {"usual_seconds", v.usual}, {"shares_core", v.shares_core}};
  folder_.write(j.dump());
}

void Reporter::tell_stop(watch::StopRequest why) {
  const int64_t step = training_.cursor.step;
  folder_.write(fmt::format(R"({{"kind":"stop","step":{},"why":"{}"}})", step, watch::to_string(why)));
  folder_.sync();
  const char* next = "the same command goes on";
  if (why == watch::StopRequest::stop_file) next = "remove that file, and the same command goes on";
  if (why == watch::StopRequest::terminate) {
    next = "the same command goes on. SIGUSR1 asks for the same, and launchers leave the time for it";
  }
  info("stopped by {}: step {} is saved; {}", watch::to_string(why), step, next);
}

// Of the first step that is done otherwise, so that a run which starts again before it forgets it with that
// step.
void Reporter::tell_rewind(int64_t from_step, const IndexRange& skipped, const std::string& why) {
  const int64_t step = training_.cursor.step;
  warn("step {}: {}. Back to step {}, and on without samples {} to {}", from_step, why, step, skipped.begin,
       skipped.end - 1);
  const nlohmann::ordered_json j = {{"kind", "rewind"},
                                    {"step", step + 1},
                                    {"from_step", from_step},
                                    {"skipped_samples", {skipped.begin, skipped.end}},
                                    {"reason", why}};
  folder_.write(j.dump());
}

void Reporter::tell_end() {
  folder_.write(fmt::format(R"({{"kind":"end","step":{}}})", training_.cursor.step));
  folder_.sync();
}

}  // namespace ziggurat::train
