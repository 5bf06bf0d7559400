// ziggurat plan CONFIG --serve CLUSTER: what a token of the model would take there, term by term.
#include <nlohmann/json.hpp>

#include "apps/sharing.h"
#include <ziggurat/config/config.h>
#include <ziggurat/infer/token_time.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::apps {

namespace {

using Json = nlohmann::ordered_json;

Json json_of(const infer::TokenTime& time) {
  Json terms = Json::array();
  for (const infer::TokenTerm& term : time.terms) {
    terms.push_back(
        {{"name", term.name}, {"seconds", term.seconds}, {"count", term.count}, {"bytes", term.bytes}});
  }
  return {{"seconds", time.seconds},
          {"tokens_per_second", time.tokens_per_second},
          {"memory", time.memory},
          {"terms", terms}};
}

}  // namespace

void plan_serve(const PlanArguments& arguments) {
  train::RunConfig config;
  load_config(config, arguments.config.path, arguments.config.overrides);
  ClusterConfig cluster;
  load_config(cluster, arguments.serving_cluster);
  const infer::TokenTimeOptions options{.ranks = arguments.ranks > 0 ? arguments.ranks : cluster.ranks(),
                                        .layout = layout_of({.parallel = arguments.parallel}),
                                        .texts = arguments.texts,
                                        .context = arguments.context};
  const infer::TokenTime time = infer::time_of_token(config.model, options, cluster);
  const bool fits = time.memory <= cluster.device.memory;
  if (arguments.json) {
    Json out = {{"cluster", cluster.name}, {"ranks", options.ranks}, {"fits", fits}};
    out.update(json_of(time));
    return fmt::print("{}\n", out.dump(2));
  }
  fmt::print("{} on {} ranks of {}: a token of {} texts a rank, {} tokens long\n", config.name, options.ranks,
             cluster.name, options.texts, options.context);
  fmt::print("  {:<26}{:>10}{:>8}{:>10}{:>12}\n", "a rank's", "ms", "share", "number", "MB");
  for (const infer::TokenTerm& term : time.terms) {
    fmt::print("  {:<26}{:>10.2f}{:>7.1f}%{:>10}{:>12.1f}\n", term.name, 1e3 * term.seconds,
               100 * term.seconds / time.seconds, term.count, term.bytes / 1e6);
  }
  fmt::print("  {:<26}{:>10.2f}\n", "token", 1e3 * time.seconds);
  fmt::print("{:.0f} tokens/s ({:.0f} a rank of {})\n", time.tokens_per_second,
             time.tokens_per_second / options.ranks, options.ranks);
  fmt::print("{} of a device's {}{}\n", format_bytes(time.memory), format_bytes(cluster.device.memory),
             fits ? "" : ": does not fit; share it over more ranks (--parallel, --ranks)");
}

}  // namespace ziggurat::apps
