// Where a tokenizer, shards and a model meet, an id must mean the same on both sides.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>

#include <ziggurat/data/manifest.h>
#include <ziggurat/data/tokenizer.h>

namespace ziggurat {

// What one side knows about its ids.
struct Vocabulary {
  std::string owner{};         // as messages name it, e.g. "the tokenizer run/tokenizer"
  std::string fingerprint{};   // Tokenizer::fingerprint(), or how it begins; empty: not recorded
  int64_t size = 0;            // ids are below it; 0: not recorded
  bool has_spare_ids = false;  // a model's, which may be larger than its tokenizer's
  int64_t eod_id = -1;         // ends every document; -1: not recorded
};

Vocabulary vocabulary_of(const Tokenizer& tokenizer, const std::filesystem::path& path);
Vocabulary vocabulary_of(const ShardManifest& shards, const std::filesystem::path& path);

// How two sides differ, naming both; nullopt if they fit. They fit if they come from one tokenizer and, where
// that is not recorded on both sides, their sizes and ends of documents are equal; a side with spare ids must
// be as large as the other at least.
std::optional<std::string> misfit(const Vocabulary& a, const Vocabulary& b);

// Error (data) saying the misfit and the cure.
void check_fit(const Vocabulary& a, const Vocabulary& b, const std::string& cure);

}  // namespace ziggurat
