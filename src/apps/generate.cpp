// ziggurat generate --checkpoint DIR --prompt TEXT
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <fstream>
#include <iostream>
#include <iterator>
#include <memory>

#include <nlohmann/json.hpp>

#include "apps/commands.h"
#include "apps/machine.h"
#include "apps/sharing.h"
#include "apps/trained_model.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/config/config.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/data/utf8_text.h>
#include <ziggurat/infer/engine.h>
#include <ziggurat/infer/text_stream.h>
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

struct Prompt {
  std::string name;  // in errors
  std::string text;
  std::vector<int32_t> ids = {};
};

std::vector<Prompt> read_prompts(const GenerateArguments& arguments) {
  std::vector<Prompt> prompts;
  for (const std::string& text : arguments.prompts) {
    prompts.push_back({fmt::format("--prompt {}", prompts.size() + 1), text});
  }
  check(std::count(arguments.files.begin(), arguments.files.end(), "-") <= 1, ErrorKind::argument,
        "--file - twice: standard input is one text; write the other into a file");
  for (const std::string& path : arguments.files) {
    const auto all = [](std::istream& from) { return std::string(std::istreambuf_iterator<char>(from), {}); };
    if (path == "-") {
      prompts.push_back({"standard input", all(std::cin)});
    } else {
      std::ifstream file(path, std::ios::binary);
      check(file.is_open(), ErrorKind::data, "--file: {} cannot be opened; expected a text file", path);
      prompts.push_back({path, all(file)});
      check(!file.bad(), ErrorKind::data, "--file: {} cannot be read; expected a text file", path);
    }
  }
  check(!prompts.empty(), ErrorKind::argument,
        "nothing to continue: give a text by --prompt, or a file by --file (- for standard input)");
  return prompts;
}

// The ids that a prompt is to the model, at least one.
std::vector<int32_t> ids_of(const Prompt& prompt, const Tokenizer& tokenizer, int64_t context) {
  const std::optional<size_t> broken = first_invalid_utf8(prompt.text);
  check(!broken, ErrorKind::argument, "{}: byte {} (0x{:02x}) is no valid UTF-8; give the text in UTF-8",
        prompt.name, broken.value_or(0), static_cast<unsigned char>(prompt.text[broken.value_or(0)]));
  std::vector<int32_t> ids = tokenizer.encode(prompt.text);
  if (ids.empty()) {
    check(tokenizer.eod_id() >= 0, ErrorKind::argument,
          "{} has no tokens, and the tokenizer no end-of-document token to begin a text after; give a longer "
          "prompt",
          prompt.name);
    if (!prompt.text.empty()) {
      note(fmt::format("{} has no tokens; the model begins a new document", prompt.name));
    }
    ids.push_back(tokenizer.eod_id());
  }
  const auto tokens = static_cast<int64_t>(ids.size());
  if (tokens > context) {
    note(fmt::format("{} has {} tokens; the model sees the last {}, the length that it was trained with",
                     prompt.name, tokens, context));
  }
  return ids;
}

// A text that grows.
struct Text {
  const Prompt& prompt;
  int64_t sample;  // of its prompt
  infer::TextStream stream;
  std::string written = {};
  std::vector<int32_t> tokens = {};
  bool ended = false;
};

nlohmann::ordered_json json_of(const Text& text, bool stopped) {
  return {{"prompt", text.prompt.text},
          {"sample", text.sample},
          {"text", with_replacement_characters(text.written)},
          {"tokens", text.tokens},
          {"finish_reason", stopped ? "stop" : "length"}};
}

// Writes all texts side by side and shows them: a single one as it grows, several each when it and those
// before it have ended, so that their order is always the same.
class Generation {
 public:
  Generation(const GenerateArguments& arguments, const std::vector<Prompt>& prompts,
             const Tokenizer& tokenizer)
      : arguments_(arguments), end_(tokenizer.eod_id()) {
    for (const Prompt& prompt : prompts) {
      for (int64_t i = 0; i < arguments.samples; ++i) {
        texts_.push_back({prompt, i, {tokenizer, prompt.ids, arguments.stops}});
      }
    }
    streams_ = texts_.size() == 1 && !arguments.json;
  }

  void run(infer::Engine& engine) {
    if (streams_) show(texts_[0].prompt.text);
    for (size_t i = 0; i < texts_.size(); ++i) {
      engine.submit({.id = static_cast<int64_t>(i),
                     .prompt = texts_[i].prompt.ids,
                     .max_new_tokens = arguments_.max_new_tokens,
                     .stop_token = end_,
                     .sampling = arguments_.sampling,
                     .text = static_cast<int64_t>(i)});
    }
    const infer::TextEvents events{
        .token =
            [&](int64_t id, int32_t token, bool, const infer::Likelihood*) {
              if (!add(texts_[static_cast<size_t>(id)], token)) engine.cancel(id);
            },
        .end = [&](int64_t id, infer::EndReason reason) { end(texts_[static_cast<size_t>(id)], reason); }};
    while (!engine.idle()) engine.step(events);
  }

  int64_t tokens() const {
    int64_t tokens = 0;
    for (const Text& text : texts_) tokens += std::ssize(text.tokens);
    return tokens;
  }

 private:
  // Whether more are wanted.
  bool add(Text& text, int32_t token) {
    if (token == end_) return true;
    text.tokens.push_back(token);
    text.stream.add(token);
    take(text);
    return !text.stream.stopped();
  }

  void take(Text& text) {
    const std::string certain = text.stream.take();
    text.written += certain;
    if (streams_ && !certain.empty()) show(certain);
  }

  void end(Text& text, infer::EndReason reason) {
    text.stream.finish();
    take(text);
    text.ended = true;
    stopped_.resize(texts_.size());
    stopped_[static_cast<size_t>(&text - texts_.data())] = reason != infer::EndReason::length;
    if (streams_) return show("\n");
    for (; shown_ < texts_.size() && texts_[shown_].ended; ++shown_) show_whole(shown_);
  }

  void show_whole(size_t i) const {
    const Text& text = texts_[i];
    if (arguments_.json) {
      return show(json_of(text, stopped_[i]).dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) +
                  "\n");
    }
    show(fmt::format("--- {}\n{}{}\n", i + 1, text.prompt.text, text.written));
  }

  const GenerateArguments& arguments_;
  int32_t end_;
  std::vector<Text> texts_;
  std::vector<bool> stopped_;
  bool streams_ = false;
  size_t shown_ = 0;
};

// On each rank; the first one has the prompts and shows the texts.
void generate_on(MpiRuntime& mpi, const GenerateArguments& arguments) {
  Communicator& world = mpi.world();
  const model::InferenceLayout layout = layout_of(arguments.sharing);
  // Without the words of use_nodes(): standard output is for texts.
  world.use_nodes({.node = node_of(layout.ranks_per_node, mpi, world), .all_to_all = layout.all_to_all});
  CheckpointReader reader(arguments.checkpoint);
  if (arguments.average) reader.use_averages();
  train::RunConfig config;
  parse_config(config, reader.manifest().config, reader.path());
  const auto [tokenizer, path] = train::find_tokenizer(reader, config, arguments.tokenizer);
  const int64_t window = config.batch.sequence_length;
  const bool first = world.rank() == 0;
  std::vector<Prompt> prompts;
  if (first) {
    if (!tokenizer->remark().empty()) note(fmt::format("{}: {}", path.string(), tokenizer->remark()));
    prompts = read_prompts(arguments);
    for (Prompt& prompt : prompts) prompt.ids = ids_of(prompt, *tokenizer, window);
  }

  const LoadedModel loaded(
      reader, config, world,
      {.form = form_of(arguments.weights), .device = arguments.device, .layout = layout});
  constexpr int64_t kTogether = 64;  // more than most texts; a cache for more may be large
  infer::Engine engine(loaded.model(),
                       {.window = window,
                        .texts = kTogether,
                        .allowed = infer::allowed_tokens(config.model.vocab_size, tokenizer->eod_id(),
                                                         [&](int32_t id) { return tokenizer->is_text(id); })},
                       &world);
  if (!first) return engine.follow();

  const Timer timer;
  Generation generation(arguments, prompts, *tokenizer);
  generation.run(engine);
  engine.end();
  const double seconds = timer.seconds();
  fmt::print(stderr, "{} tokens in {:.2f} s, the prompts included: {:.1f} tokens/s\n", generation.tokens(),
             seconds, static_cast<double>(generation.tokens()) / seconds);
}

}  // namespace

void generate(const GenerateArguments& arguments) {
  on_ranks(ranks_of(arguments.sharing, arguments.threads, arguments.device),
           [&](MpiRuntime& mpi) { generate_on(mpi, arguments); });
}

}  // namespace ziggurat::apps
