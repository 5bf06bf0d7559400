// ziggurat analyse routing --checkpoint DIR ... --data DIR ... [--output FOLDER]
#include <algorithm>
#include <filesystem>
#include <memory>

#include "apps/commands.h"
#include "apps/on_ranks.h"
#include "apps/trained_model.h"
#include <ziggurat/analyse/report.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/amounts.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/io/files.h>
#include <ziggurat/model/same_model.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/run_tokenizer.h>

namespace ziggurat::apps {

namespace {

// A checkpoint opened, and the config that it is looked at with.
struct Opened {
  std::unique_ptr<CheckpointReader> reader;
  train::RunConfig config;
};

Opened open(const std::string& path, bool average) {
  Opened opened{std::make_unique<CheckpointReader>(path), {}};
  if (average) opened.reader->use_averages();
  parse_config(opened.config, opened.reader->manifest().config, opened.reader->path());
  opened.config = analyse::without_noise(opened.config);
  check(opened.config.model.has_experts(), ErrorKind::argument,
        "--checkpoint: {} holds a model without experts, which routes nothing; name one with moe or "
        "residual_moe "
        "layers",
        opened.reader->path());
  return opened;
}

std::vector<Opened> open_all(const std::vector<std::string>& paths, bool average) {
  std::vector<Opened> all;
  for (const std::string& path : paths) all.push_back(open(path, average));
  std::stable_sort(all.begin(), all.end(), [](const Opened& a, const Opened& b) {
    return a.reader->manifest().step < b.reader->manifest().step;
  });
  for (const Opened& one : all) {
    const auto differences = model::model_differences(all.back().config.model, one.config.model);
    check(differences.empty(), ErrorKind::argument,
          "--checkpoint: {} and {} are not of one model: {} is {} and {}; name checkpoints of one run",
          all.back().reader->path(), one.reader->path(), differences.empty() ? "" : differences[0].key,
          differences.empty() ? "" : differences[0].before, differences.empty() ? "" : differences[0].after);
  }
  return all;
}

std::unique_ptr<SampleSource> open_text(const train::RunConfig& config, const std::string& path) {
  DataConfig data;
  data.valid = path;
  data.ul2 = config.data.ul2;  // whose sentinels are no text
  return open_samples(data, Split::valid, config.batch.sequence_length, config.model.vocab_size, 0);
}

// Null where there is none, as for a synthetic language: then ids stand for themselves.
std::unique_ptr<Tokenizer> tokenizer_of(const CheckpointReader& checkpoint, const train::RunConfig& config,
                                        const std::string& named) {
  try {
    return train::find_tokenizer(checkpoint, config, named).tokenizer;
  } catch (const Error& error) {
    if (!named.empty()) throw;
    fmt::print(stderr, "Tokens are told by their ids: {}\n", error.what());
    return nullptr;
  }
}

// An id may be part of a character: what is no UTF-8 becomes U+FFFD.
std::string valid_text(const std::string& bytes) {
  const auto replace = nlohmann::json::error_handler_t::replace;
  return nlohmann::json::parse(nlohmann::json(bytes).dump(-1, ' ', false, replace)).get<std::string>();
}

}  // namespace

void analyse_routing(const AnalyseArguments& arguments) {
  check_one_process("analyse");
  std::vector<Opened> opened = open_all(arguments.checkpoints, arguments.average);
  const Opened& last = opened.back();
  std::vector<std::unique_ptr<SampleSource>> texts;
  for (const std::string& path : arguments.data) texts.push_back(open_text(last.config, path));
  set_thread_count(available_cores());
  const auto self = make_self_communicator();

  analyse::RoutingReport report;
  report.model = last.config.model.name.empty() ? last.config.name : last.config.model.name;
  report.sources = arguments.data;
  report.length = last.config.batch.sequence_length;
  report.least = arguments.least;
  const auto sequences_of = [&](const SampleSource& text) {
    return std::min(arguments.sequences, text.samples_per_epoch());
  };
  int64_t total = 0, done = 0;
  for (const auto& text : texts) total += static_cast<int64_t>(opened.size()) * sequences_of(*text);
  Progress progress("analyse", "sequences", total);
  for (const Opened& one : opened) {
    LoadedModel loaded(*one.reader, one.config, *self);
    analyse::Snapshot snapshot{one.reader->path(), one.reader->manifest().step, {}};
    for (size_t i = 0; i < texts.size(); ++i) {
      const int64_t sequences = sequences_of(*texts[i]);
      analyse::add_routed(loaded.model(), one.config, *texts[i], sequences, static_cast<int32_t>(i),
                          snapshot.routed, [&](int64_t here) { progress.update(done + here); });
      done += sequences;
    }
    report.snapshots.push_back(std::move(snapshot));
  }
  progress.finish(total);
  const std::unique_ptr<Tokenizer> tokenizer = tokenizer_of(*last.reader, last.config, arguments.tokenizer);
  if (tokenizer != nullptr) {
    report.text_of = [&tokenizer](int32_t id) { return valid_text(tokenizer->decode({&id, 1})); };
  }

  const nlohmann::ordered_json findings = analyse::to_json(report);
  fmt::print("{}", analyse::tables(findings));
  std::filesystem::create_directories(arguments.output);
  const std::string base = arguments.output + "/routing";
  replace_file(base + ".json", findings.dump(1) + "\n");
  replace_file(base + ".html", analyse::routing_page(findings));
  fmt::print("\n{}.json, {}.html\n", base, base);
}

}  // namespace ziggurat::apps
