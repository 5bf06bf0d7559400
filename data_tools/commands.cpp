#include "data_tools/commands.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <optional>

#include <fmt/ranges.h>

#include "data_tools/bench.h"
#include "data_tools/convert.h"
#include "data_tools/inspect.h"
#include "data_tools/tokenize.h"
#include <ziggurat/comm/mpi.h>
#include <ziggurat/comm/program.h>
#include <ziggurat/config/option_values.h>
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

constexpr uint64_t kLargestInt = (uint64_t{1} << 31) - 1, kLargestId = kLargestInt - 1;

// CLI11 reads enums as their numbers.
template <class Enum>
std::string word(Enum value) {
  return std::to_string(static_cast<int>(value));
}

CLI::Option* add_output(CLI::App& command, std::filesystem::path& output, const std::string& help) {
  return command.add_option("--output", output, help)->required()->transform(not_empty());
}

void add_overwrite(CLI::App& command, bool& overwrite, const std::string& help) {
  command.add_flag("--overwrite", overwrite, help);
}

void add_split(CLI::App& command, std::string& split, const std::string& help) {
  command.add_option("--split", split, help)
      ->capture_default_str()
      ->transform(one_of(std::vector<std::string>(kSplitNames.begin(), kSplitNames.end())));
}

// \n, \t, \r, \0, \\ and \xHH as in C.
std::string unescaped(const std::string& text) {
  constexpr std::string_view kLetters = "ntr0\\", kMeanings("\n\t\r\0\\", 5);
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != '\\') {
      out += text[i];
      continue;
    }
    const char letter = ++i < text.size() ? text[i] : '\0';
    if (const size_t which = kLetters.find(letter); which != std::string_view::npos) {
      out += kMeanings[which];
      continue;
    }
    const std::string digits = letter == 'x' ? text.substr(i + 1, 2) : "";
    check(digits.size() == 2 && digits.find_first_not_of("0123456789abcdefABCDEF") == std::string::npos,
          ErrorKind::argument,
          "--separator: expected n, t, r, 0, x and two hexadecimal digits, or a backslash after a backslash, "
          "got "
          "'{}'; a backslash itself is written \\\\",
          text.substr(i));
    out += static_cast<char>(std::stoi(digits, nullptr, 16));
    i += 2;
  }
  return out;
}

void add_text_options(CLI::App& command, TextOptions& text) {
  static const auto kinds = one_of({{"file", word(DocumentPer::file)},
                                    {"line", word(DocumentPer::line)},
                                    {"separator", word(DocumentPer::separator)},
                                    {"json", word(DocumentPer::json)}});
  static const auto line_ends = one_of({{"unix", word(LineEnds::lf)}, {"keep", word(LineEnds::keep)}});
  static const auto surrogates =
      one_of({{"replace", word(LoneSurrogates::replace)}, {"refuse", word(LoneSurrogates::refuse)}});
  static const auto missing =
      one_of({{"refuse", word(MissingText::refuse)}, {"skip", word(MissingText::skip)}});
  command
      .add_option(
          "--input", text.inputs,
          "text files and folders (UTF-8, also gzip or zstd; folders are read recursively, and a file in "
          "them that is no text is an error); - is standard input")
      ->required()
      ->transform(not_empty());
  command
      .add_option("--document-per", text.document_per,
                  "what one document is: file, line, separator, or json (one object per line)")
      ->transform(kinds);
  command.add_option_function<std::string>(
      "--separator", [&text](const std::string& written) { text.separator = unescaped(written); },
      "text between documents, for --document-per separator; \\n, \\t, \\r, \\0, \\\\ and \\xHH mean what "
      "they do in C");
  command
      .add_option("--key", text.key,
                  "key of the text, for --document-per json; where an object has it twice, the last counts")
      ->capture_default_str();
  command
      .add_option("--missing-text", text.missing_text,
                  "a JSON object without a string under the key: refuse it, or skip and count it")
      ->transform(missing)
      ->default_str("refuse");
  command
      .add_option(
          "--lone-surrogates", text.lone_surrogates,
          "half a UTF-16 pair in a JSON text, as in \"\\ud83d\": replace by U+FFFD and count, or refuse")
      ->transform(surrogates)
      ->default_str("replace");
  command
      .add_option("--newlines", text.line_ends,
                  "unix: CRLF and CR alone become LF; keep: they stay, and lines still end at LF only")
      ->transform(line_ends)
      ->default_str("unix");
  command
      .add_option(
          "--allow-invalid-utf8", text.allow_invalid_utf8,
          "share of each file's bytes that may be no valid UTF-8 or NUL. They are counted and stay as they "
          "are, also under --nfc; a byte-level BPE makes tokens of them, SentencePiece U+FFFD or its unknown "
          "token")
      ->capture_default_str()
      ->transform(real_number(0, 1));
  command.add_flag("--nfc", text.nfc, "normalise to Unicode form C");
  command.add_option("--max-document-bytes", text.max_document_bytes, "a longer document is an error")
      ->capture_default_str()
      ->transform(whole_number(1));
}

bool on_any_rank(Communicator& world, bool here) {
  Stream stream;
  double there = here ? 1 : 0;
  world.all_reduce(Tensor(&there, DType::f64, {1}), ReduceOp::max, ReduceOrder::any, stream).wait();
  return there > 0;
}

// What the ranks of a job must have in common: the program, every option as it was given, and the folder.
std::vector<NamedValue> start_values(const CLI::App& command, const TokenizeOptions& options) {
  std::vector<NamedValue> values = {this_program()};
  for (const CLI::Option* option : command.get_options()) {
    values.emplace_back(option->get_name(), fmt::format("{}", fmt::join(option->results(), " ")));
  }
  values.emplace_back("the output folder", std::filesystem::absolute(options.output).lexically_normal());
  return values;
}

// Shares the shards over the ranks that mpirun started, if it did.
void tokenize_on_ranks(const TokenizeOptions& options, int threads, const CLI::App& command) {
  MpiRuntime mpi;
  Communicator& world = mpi.world();
  try {
    check_same_on_all_ranks(world, start_values(command, options));  // before anything can hang
    const std::string slow = choose_thread_count(threads, "--threads", mpi.local_size());
    if (!slow.empty() && world.rank() == 0) fmt::print(stderr, "ziggurat: {}\n", slow);
    std::optional<PreparedFolder> prepared;  // on rank 0
    if (world.rank() == 0) prepared = prepare_shards(options, world.size());
    if (on_any_rank(world, prepared && prepared->done)) return;
    const TokenizeSummary summary = write_shards(options, world.rank(), world.size());
    world.barrier();
    if (world.rank() == 0) finish_shards(options, summary);
    world.barrier();
  } catch (const Error& error) {
    if (world.size() == 1) throw;
    log_fatal(fmt::format("rank {} of {}: {} error: {}", world.rank(), world.size(), to_string(error.kind()),
                          error.what()));
    mpi.abort(exit_code(error.kind()));
  }
}

void add_train_tokenizer(CLI::App& data) {
  CLI::App* command = data.add_subcommand("train-tokenizer", "learn a byte-level BPE vocabulary from text");
  auto options = std::make_shared<TrainTokenizerOptions>();
  add_text_options(*command, options->text);
  command->add_option("--vocab-size", options->vocab_size, "tokens, with 256 bytes and <|endoftext|>")
      ->capture_default_str()
      ->transform(whole_number(257, 10'000'000));
  command->add_option("--max-bytes", options->max_bytes, "read no more text than this; 0: all")
      ->capture_default_str()
      ->transform(whole_number(0));
  add_output(*command, options->output, "folder for tokenizer.json");
  add_overwrite(*command, options->overwrite, "replace a tokenizer in the output folder");
  command->callback([options] { train_tokenizer(*options); });
}

// CLI11 would drop an empty part, and so give one split's share to another.
std::array<double, 3> split_fractions(const std::vector<std::string>& words) {
  const std::string all = fmt::format("{}", fmt::join(words, ","));
  std::array<double, 3> fractions = {};
  bool good = true;
  size_t begin = 0, count = 0;
  while (good && begin <= all.size()) {
    const size_t end = std::min(all.find(',', begin), all.size());
    const std::string part = all.substr(begin, end - begin);
    char* rest = nullptr;
    const double fraction = std::strtod(part.c_str(), &rest);
    good = count < fractions.size() && !part.empty() && *rest == '\0' && fraction >= 0 && fraction <= 1;
    if (good) fractions[count++] = fraction;
    begin = end + 1;
  }
  const double sum = fractions[0] + fractions[1] + fractions[2];
  check(good && std::abs(sum - 1) < 1e-6, ErrorKind::argument,
        "--split: expected one to three fractions, for train, valid and test, each from 0 to 1 and of sum 1 "
        "together, got {}{}",
        all, good ? fmt::format(" of sum {}", sum) : "");
  return fractions;
}

void add_tokenize(CLI::App& data) {
  static const auto ways = one_of({{"document", word(SplitBy::document)}, {"text", word(SplitBy::text)}});
  CLI::App* command =
      data.add_subcommand("tokenize", "turn text into HDF5 shards of token ids; resumes an interrupted run");
  auto options = std::make_shared<TokenizeOptions>();
  auto split = std::make_shared<std::vector<std::string>>();
  auto no_eod = std::make_shared<bool>(false);
  auto threads = std::make_shared<int>(0);
  add_text_options(*command, options->text);
  command
      ->add_option(
          "--tokenizer", options->tokenizer,
          "tokenizer.json, a SentencePiece .model, a folder with one or with GPT-2's files, or: bytes")
      ->required()
      ->transform(not_empty());
  add_output(*command, options->output, "folder for shards and manifests");
  command->add_option("--source", options->source, "name of the corpus, first part of the file names")
      ->capture_default_str();
  command->add_option("--split", *split, "fractions for train,valid,test")
      ->expected(1, CLI::detail::expected_max_vector_size)
      ->default_str(fmt::format("{}", fmt::join(options->split, ",")));
  command
      ->add_option("--split-by", options->split_by,
                   "document: whole documents by their hash; text: cut every document (for a single file)")
      ->transform(ways);
  command
      ->add_option("--shard-bytes", options->shard_bytes,
                   "text of one shard; under mpirun every rank writes whole shards")
      ->capture_default_str()
      ->transform(whole_number(1));
  command->add_flag("--deduplicate", options->deduplicate, "leave out documents that came before");
  command->add_flag("--no-eod", *no_eod, "do not end documents with the end-of-document token");
  add_overwrite(*command, options->overwrite,
                "replace shards of the same source in the output folder, when the new ones are complete");
  command
      ->add_option("--threads", *threads, "threads that encode, of each rank; 0: the cores there are, shared")
      ->transform(whole_number(0, kLargestInt))
      ->capture_default_str();
  command->callback([options, split, no_eod, threads, command] {
    if (!split->empty()) options->split = split_fractions(*split);
    options->append_eod = !*no_eod;
    tokenize_on_ranks(*options, *threads, *command);
  });
}

using ShardsCommand = void (*)(const std::filesystem::path&, const std::string&, std::ostream&);

void add_shards_command(CLI::App& data, const std::string& name, const std::string& help, ShardsCommand run) {
  CLI::App* command = data.add_subcommand(name, help);
  auto path = std::make_shared<std::string>();
  auto split = std::make_shared<std::string>("train");
  command->add_option("path", *path, "a manifest, a folder with one, or an .h5 file")->required();
  add_split(*command, *split, "which manifest of a folder");
  command->callback([path, split, run] { run(*path, *split, std::cout); });
}

void add_sample(CLI::App& data) {
  CLI::App* command = data.add_subcommand("sample", "print the text of some tokens");
  auto options = std::make_shared<SampleOptions>();
  command->add_option("path", options->path, "a manifest, a folder with one, or an .h5 file")->required();
  add_split(*command, options->split, "which manifest of a folder");
  command->add_option("--tokenizer", options->tokenizer, "default: the one beside the shards");
  command->add_option("--position", options->position, "first token")
      ->capture_default_str()
      ->transform(whole_number(0));
  command->add_option("--count", options->count, "tokens")->capture_default_str()->transform(whole_number(1));
  command->callback([options] {
    if (options->tokenizer.empty()) {
      std::error_code ignored;
      options->tokenizer =
          std::filesystem::is_directory(options->path, ignored) ? options->path : options->path.parent_path();
    }
    print_sample(*options, std::cout);
  });
}

void add_stats(CLI::App& data) {
  CLI::App* command = data.add_subcommand(
      "stats", "token histogram, entropy, and what a uniform guess and a unigram model would lose");
  auto options = std::make_shared<StatsOptions>();
  command->add_option("train", options->train, "training shards: a manifest or a folder")->required();
  command->add_option("valid", options->valid, "validation shards; default: the same folder, if it has any");
  command->add_option("--tokenizer", options->tokenizer,
                      "to show the texts of tokens; default: the one beside the shards, if there is one");
  command->add_option("--top", options->top, "show this many of the most frequent tokens")
      ->capture_default_str()
      ->transform(whole_number(1));
  command->callback([options] { print_stats(*options, std::cout); });
}

void add_convert(CLI::App& data) {
  CLI::App* command =
      data.add_subcommand("convert", "to and from Megatron's .bin/.idx, and from other HDF5 token files");
  auto options = std::make_shared<ConvertOptions>();
  auto to = std::make_shared<std::string>();
  command
      ->add_option("input", options->inputs,
                   "to shards: a Megatron prefix or HDF5 files with a list `data`; to megatron: shards")
      ->required();
  command->add_option("--to", *to, "shards or megatron")
      ->required()
      ->transform(one_of(std::vector<std::string>{"shards", "megatron"}));
  add_output(*command, options->output, "folder for shards, or prefix of the .bin and .idx files");
  command->add_option("--source", options->source, "name of the corpus, for shards")->capture_default_str();
  add_split(*command, options->split, "of the shards written or read");
  CLI::Option* tokenizer =
      command->add_option("--tokenizer", options->tokenizer, "the one that the tokens were made with")
          ->transform(not_empty());
  command->add_option("--vocab-size", options->vocab_size, "without --tokenizer: ids are below this")
      ->transform(whole_number(1, kLargestId + 1))
      ->excludes(tokenizer);
  command->add_option("--eod-id", options->eod_id, "without --tokenizer: the id that ends documents")
      ->transform(whole_number(0, kLargestId))
      ->excludes(tokenizer);
  command->add_option("--shard-tokens", options->shard_tokens, "a shard ends after this many tokens")
      ->capture_default_str()
      ->transform(whole_number(1));
  add_overwrite(*command, options->overwrite, "replace what is there, when the new files are complete");
  command->callback(
      [options, to] { *to == "shards" ? convert_to_shards(*options) : convert_to_megatron(*options); });
}

void add_bench(CLI::App& data) {
  CLI::App* command = data.add_subcommand("bench", "how fast tokens come out of shards");
  auto options = std::make_shared<BenchOptions>();
  command->add_option("path", options->path, "a manifest, a folder with one, or an .h5 file")->required();
  add_split(*command, options->split, "which manifest of a folder");
  command->add_option("--sequence-length", options->sequence_length, "of a sample")
      ->capture_default_str()
      ->transform(whole_number(1));
  command->add_option("--seconds", options->seconds, "of each measurement")
      ->capture_default_str()
      ->transform(real_number(0, 86400, /*above_least=*/true));
  command->callback([options] { bench_shards(*options, std::cout); });
}

}  // namespace

void add_data_commands(CLI::App& app) {
  CLI::App* data = app.add_subcommand("data", "text to tokenizer to HDF5 shards, and looking at them");
  data->require_subcommand(1);
  add_train_tokenizer(*data);
  add_tokenize(*data);
  add_shards_command(*data, "inspect", "attributes and sizes of shards", inspect_shards);
  add_shards_command(*data, "verify", "check every hash and checksum", verify_shards);
  add_sample(*data);
  add_stats(*data);
  add_convert(*data);
  add_bench(*data);
}

}  // namespace ziggurat
