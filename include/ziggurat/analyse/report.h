// The findings about routing as data, as tables for a terminal, and as one page of HTML that needs nothing
// else.
#pragma once

#include <functional>
#include <span>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

#include <ziggurat/analyse/findings.h>

namespace ziggurat::analyse {

struct Snapshot {
  std::string checkpoint;  // path
  int64_t step = 0;
  RoutedTokens routed;  // the same tokens in every snapshot
};

struct RoutingReport {
  std::string model;                 // its name
  std::vector<std::string> sources;  // names of the texts
  int64_t length = 0;                // of a sequence
  int64_t least = 10;                // tokens of a kind that is averaged over
  std::vector<Snapshot> snapshots;   // by step; the last one is described, the others are compared with it
  std::function<std::string(int32_t)> text_of;  // of a token id; empty: there is no tokenizer
};

// Keys and their meanings: README.md, "Looking into routers".
nlohmann::ordered_json to_json(const RoutingReport& report);
// A mean of nothing is null in JSON, here `none`.
std::string number_text(const nlohmann::ordered_json& value, int digits, const char* none);
std::string tables(const nlohmann::ordered_json& findings);
std::string routing_page(const nlohmann::ordered_json& findings);

}  // namespace ziggurat::analyse
