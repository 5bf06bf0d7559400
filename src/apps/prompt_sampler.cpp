#include "apps/prompt_sampler.h"

#include <algorithm>
#include <fstream>

#include <ziggurat/core/error.h>
#include <ziggurat/data/utf8_text.h>
#include <ziggurat/infer/generate.h>

namespace ziggurat::apps {

namespace {

constexpr int64_t kNewTokens = 64;
constexpr size_t kPrompts = 32;  // more would slow training, and nobody reads them

}  // namespace

PromptSampler::PromptSampler(const train::RunConfig& config) : config_(config) {
  const std::string& path = config.eval.prompts;
  check(!config.data.tokenizer.empty(), ErrorKind::config,
        "eval.prompts: texts need the run's tokenizer: name it in data.tokenizer");
  tokenizer_ = load_tokenizer(config.data.tokenizer);
  check(tokenizer_->vocab_size() <= config.model.vocab_size, ErrorKind::config,
        "data.tokenizer: {} has {} tokens, but model.vocab_size is {}", config.data.tokenizer,
        tokenizer_->vocab_size(), config.model.vocab_size);
  std::ifstream file(path);
  check(file.is_open(), ErrorKind::config,
        "eval.prompts: {} cannot be opened; expected a text file with a prompt on each line", path);
  for (std::string line; std::getline(file, line);) {
    if (line.empty()) continue;
    check(!first_invalid_utf8(line), ErrorKind::config, "eval.prompts: {}: line {} is no valid UTF-8", path,
          prompts_.size() + 1);
    ids_.push_back(tokenizer_->encode(line));
    check(!ids_.back().empty(), ErrorKind::config, "eval.prompts: {}: '{}' has no tokens; write a longer one",
          path, line);
    prompts_.push_back(std::move(line));
  }
  check(!prompts_.empty() && prompts_.size() <= kPrompts, ErrorKind::config,
        "eval.prompts: expected 1 to {} lines with a prompt, got {} in {}", kPrompts, prompts_.size(), path);
}

infer::Engine PromptSampler::engine_of(const model::Gpt& model) const {
  const int64_t window = config_.batch.sequence_length;
  int64_t tokens = 0;
  for (const std::vector<int32_t>& prompt : ids_) {
    tokens += infer::cache_tokens_for(1, std::min(window, std::ssize(prompt) + kNewTokens));
  }
  return {model,
          {.window = window,
           .cache_tokens = std::max(tokens, infer::cache_tokens_for(1, window)),
           .texts = static_cast<int64_t>(ids_.size()),
           .allowed = infer::allowed_tokens(config_.model.vocab_size, tokenizer_->eod_id(),
                                            [&](int32_t id) { return tokenizer_->is_text(id); }),
           .reproducible = config_.reproducible}};
}

int64_t PromptSampler::device_bytes(const model::Gpt& model) const {
  return engine_of(model).executor().device_bytes();
}

std::vector<train::Sample> PromptSampler::operator()(const model::Gpt& model) const {
  const int32_t end = tokenizer_->eod_id();
  infer::Engine engine = engine_of(model);
  // Every rank makes as many passes, whatever it draws: a text that ended goes on unseen.
  const auto texts = infer::generate(engine, ids_, {.max_new_tokens = kNewTokens});
  std::vector<train::Sample> samples;
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto detokenizer = tokenizer_->new_detokenizer();
    for (const int32_t id : ids_[i]) detokenizer->add(id);
    std::string text;
    for (const int32_t id : texts[i]) {
      if (id == end) break;
      text += detokenizer->add(id);
    }
    samples.push_back({prompts_[i], with_replacement_characters(text + detokenizer->finish())});
  }
  return samples;
}

}  // namespace ziggurat::apps
