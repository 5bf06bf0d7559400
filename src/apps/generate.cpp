// ziggurat generate --checkpoint DIR --prompt TEXT
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <memory>

#include "apps/commands.h"
#include "apps/on_ranks.h"
#include "apps/trained_model.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/data/utf8_text.h>
#include <ziggurat/infer/generate.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/run_tokenizer.h>

namespace ziggurat::apps {

namespace {

// At once, so that a text is seen as it grows. What is no UTF-8 would upset terminals and readers alike.
void show(std::string_view text) {
  const std::string readable = with_replacement_characters(text);
  const bool written = std::fwrite(readable.data(), 1, readable.size(), stdout) == readable.size();
  const int reason = written && std::fflush(stdout) == 0 ? 0 : errno;
  check(reason == 0, ErrorKind::internal, "the text cannot be written to standard output: {}",
        std::strerror(reason));
}

// Standard output is for texts.
void note(const std::string& what) { fmt::print(stderr, "ziggurat: {}\n", what); }

// The ids that a prompt is to the model, at least one.
std::vector<int32_t> read_prompt(const std::string& prompt, size_t number, const Tokenizer& tokenizer,
                                 int64_t context) {
  const std::optional<size_t> broken = first_invalid_utf8(prompt);
  check(!broken, ErrorKind::argument,
        "--prompt {}: byte {} (0x{:02x}) is no valid UTF-8; give the text in UTF-8", number,
        broken.value_or(0), static_cast<unsigned char>(prompt[broken.value_or(0)]));
  std::vector<int32_t> ids = tokenizer.encode(prompt);
  if (ids.empty()) {
    check(
        tokenizer.eod_id() >= 0, ErrorKind::argument,
        "--prompt {} has no tokens, and the tokenizer no end-of-document token to begin a text after; give a "
        "longer prompt",
        number);
    if (!prompt.empty()) {
      note(fmt::format("--prompt {} has no tokens; the model begins a new document", number));
    }
    ids.push_back(tokenizer.eod_id());
  }
  const auto tokens = static_cast<int64_t>(ids.size());
  if (tokens > context) {
    note(fmt::format(
        "--prompt {} has {} tokens; the model sees the last {}, the length that it was trained with", number,
        tokens, context));
  }
  return ids;
}

// Decodes what follows a prompt, as a part of the whole text.
std::unique_ptr<Detokenizer> after_prompt(const Tokenizer& tokenizer, const std::vector<int32_t>& prompt) {
  auto detokenizer = tokenizer.new_detokenizer();
  for (const int32_t id : prompt) detokenizer->add(id);
  return detokenizer;
}

}  // namespace

void generate(const GenerateArguments& arguments) {
  check_one_process("generate");
  CheckpointReader reader(arguments.checkpoint);
  if (arguments.average) reader.use_averages();
  train::RunConfig config;
  parse_config(config, reader.manifest().config, reader.path());
  const auto [tokenizer, path] = train::find_tokenizer(reader, config, arguments.tokenizer);
  if (!tokenizer->remark().empty()) note(fmt::format("{}: {}", path.string(), tokenizer->remark()));

  const auto samples = static_cast<size_t>(arguments.samples);
  std::vector<std::vector<int32_t>> prompts;  // each as often as it has samples
  for (size_t i = 0; i < arguments.prompts.size(); ++i) {
    prompts.insert(prompts.end(), samples,
                   read_prompt(arguments.prompts[i], i + 1, *tokenizer, config.batch.sequence_length));
  }
  infer::SamplingOptions options = arguments.sampling;
  options.stop_token = tokenizer->eod_id();
  options.allowed = infer::allowed_tokens(config.model.vocab_size, options.stop_token,
                                          [&](int32_t id) { return tokenizer->is_text(id); });

  use_threads(arguments.threads, "--threads");
  const auto self = make_self_communicator();
  const LoadedModel loaded(reader, config, *self);  // all experts in this process
  infer::Decoder decoder(loaded.model(), static_cast<int64_t>(prompts.size()), config.batch.sequence_length);

  // One text is shown while it grows, several one after the other.
  const bool one_text = prompts.size() == 1;
  const auto growing = after_prompt(*tokenizer, prompts[0]);
  if (one_text) show(arguments.prompts[0]);
  const Timer timer;
  const auto texts = infer::generate(decoder, prompts, options, [&](size_t, int32_t token) {
    if (one_text) show(growing->add(token));
  });
  const double seconds = timer.seconds();
  size_t tokens = 0;
  for (size_t i = 0; i < texts.size(); ++i) {
    tokens += texts[i].size();
    if (one_text) break;
    const auto detokenizer = after_prompt(*tokenizer, prompts[i]);
    std::string text;
    for (const int32_t id : texts[i]) text += detokenizer->add(id);
    show(fmt::format("--- {}\n{}{}{}\n", i + 1, arguments.prompts[i / samples], text, detokenizer->finish()));
  }
  if (one_text) show(growing->finish() + "\n");
  fmt::print(stderr, "{} tokens in {:.2f} s, the prompts included: {:.1f} tokens/s\n", tokens, seconds,
             static_cast<double>(tokens) / seconds);
}

}  // namespace ziggurat::apps
