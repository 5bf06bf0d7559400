#include "data_tools/commands.h"

#include <algorithm>
#include <iostream>
#include <map>
#include <memory>

#include "data_tools/bench.h"
#include "data_tools/convert.h"
#include "data_tools/inspect.h"
#include "data_tools/tokenize.h"
#include <ziggurat/comm/mpi.h>
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

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
  static const std::map<std::string, DocumentPer> kinds = {{"file", DocumentPer::file},
                                                           {"line", DocumentPer::line},
                                                           {"separator", DocumentPer::separator},
                                                           {"json", DocumentPer::json}};
  static const std::map<std::string, LineEnds> line_ends = {{"unix", LineEnds::lf}, {"keep", LineEnds::keep}};
  static const std::map<std::string, LoneSurrogates> surrogates = {{"replace", LoneSurrogates::replace},
                                                                   {"refuse", LoneSurrogates::refuse}};
  static const std::map<std::string, MissingText> missing = {{"refuse", MissingText::refuse},
                                                             {"skip", MissingText::skip}};
  command
      .add_option(
          "--input", text.inputs,
          "text files and folders (UTF-8, also gzip or zstd; folders are read recursively, and a file in "
          "them that is no text is an error); - is standard input")
      ->required();
  command
      .add_option("--document-per", text.document_per,
                  "what one document is: file, line, separator, or json (one object per line)")
      ->transform(CLI::CheckedTransformer(kinds));
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
      ->transform(CLI::CheckedTransformer(missing))
      ->default_str("refuse");
  command
      .add_option(
          "--lone-surrogates", text.lone_surrogates,
          "half a UTF-16 pair in a JSON text, as in \"\\ud83d\": replace by U+FFFD and count, or refuse")
      ->transform(CLI::CheckedTransformer(surrogates))
      ->default_str("replace");
  command
      .add_option("--newlines", text.line_ends,
                  "unix: CRLF and CR alone become LF; keep: they stay, and lines still end at LF only")
      ->transform(CLI::CheckedTransformer(line_ends))
      ->default_str("unix");
  command
      .add_option(
          "--allow-invalid-utf8", text.allow_invalid_utf8,
          "share of each file's bytes that may be no valid UTF-8 or NUL. They are counted and stay as they "
          "are, also under --nfc; a byte-level BPE makes tokens of them, SentencePiece U+FFFD or its unknown "
          "token")
      ->capture_default_str();
  command.add_flag("--nfc", text.nfc, "normalise to Unicode form C");
  command.add_option("--max-document-bytes", text.max_document_bytes, "a longer document is an error")
      ->capture_default_str();
}

// Shares the shards over the ranks that mpirun started, if it did.
void tokenize_on_ranks(const TokenizeOptions& options, int threads) {
  MpiRuntime mpi;
  Communicator& world = mpi.world();
  try {
    if (threads == 0 && world.size() > 1) threads = std::max(1, available_cores() / mpi.local_size());
    if (threads > 0) set_thread_count(threads);
    if (world.rank() == 0) prepare_shards(options);
    world.barrier();
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
      ->capture_default_str();
  command->add_option("--max-bytes", options->max_bytes, "read no more text than this; 0: all")
      ->capture_default_str();
  command->add_option("--output", options->output, "folder for tokenizer.json")->required();
  command->callback([options] { train_tokenizer(*options); });
}

void add_tokenize(CLI::App& data) {
  static const std::map<std::string, SplitBy> ways = {{"document", SplitBy::document},
                                                      {"text", SplitBy::text}};
  CLI::App* command =
      data.add_subcommand("tokenize", "turn text into HDF5 shards of token ids; resumes an interrupted run");
  auto options = std::make_shared<TokenizeOptions>();
  auto split = std::make_shared<std::vector<double>>(options->split.begin(), options->split.end());
  auto no_eod = std::make_shared<bool>(false);
  auto threads = std::make_shared<int>(0);
  add_text_options(*command, options->text);
  command
      ->add_option(
          "--tokenizer", options->tokenizer,
          "tokenizer.json, a SentencePiece .model, a folder with one or with GPT-2's files, or: bytes")
      ->required();
  command->add_option("--output", options->output, "folder for shards and manifests")->required();
  command->add_option("--source", options->source, "name of the corpus, first part of the file names")
      ->capture_default_str();
  command->add_option("--split", *split, "fractions for train,valid,test")
      ->delimiter(',')
      ->expected(1, 3)
      ->capture_default_str();
  command
      ->add_option("--split-by", options->split_by,
                   "document: whole documents by their hash; text: cut every document (for a single file)")
      ->transform(CLI::CheckedTransformer(ways));
  command
      ->add_option("--shard-bytes", options->shard_bytes,
                   "text of one shard; under mpirun every rank writes whole shards")
      ->capture_default_str();
  command->add_flag("--deduplicate", options->deduplicate, "leave out documents that came before");
  command->add_flag("--no-eod", *no_eod, "do not end documents with the end-of-document token");
  command->add_flag("--overwrite", options->overwrite,
                    "replace shards of the same source in the output folder");
  command
      ->add_option("--threads", *threads, "threads that encode, of each rank; 0: the cores there are, shared")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command->callback([options, split, no_eod, threads] {
    options->split = {0, 0, 0};
    std::copy(split->begin(), split->end(), options->split.begin());
    options->append_eod = !*no_eod;
    tokenize_on_ranks(*options, *threads);
  });
}

using ShardsCommand = void (*)(const std::filesystem::path&, const std::string&, std::ostream&);

void add_shards_command(CLI::App& data, const std::string& name, const std::string& help, ShardsCommand run) {
  CLI::App* command = data.add_subcommand(name, help);
  auto path = std::make_shared<std::string>();
  auto split = std::make_shared<std::string>("train");
  command->add_option("path", *path, "a manifest, a folder with one, or an .h5 file")->required();
  command->add_option("--split", *split, "which manifest of a folder")->capture_default_str();
  command->callback([path, split, run] { run(*path, *split, std::cout); });
}

void add_sample(CLI::App& data) {
  CLI::App* command = data.add_subcommand("sample", "print the text of some tokens");
  auto options = std::make_shared<SampleOptions>();
  command->add_option("path", options->path, "a manifest, a folder with one, or an .h5 file")->required();
  command->add_option("--split", options->split, "which manifest of a folder")->capture_default_str();
  command->add_option("--tokenizer", options->tokenizer, "default: the one beside the shards");
  command->add_option("--position", options->position, "first token")->capture_default_str();
  command->add_option("--count", options->count, "tokens")->capture_default_str();
  command->callback([options] {
    if (options->tokenizer.empty()) {
      options->tokenizer =
          std::filesystem::is_directory(options->path) ? options->path : options->path.parent_path();
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
      ->capture_default_str();
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
      ->check(CLI::IsMember({"shards", "megatron"}));
  command->add_option("--output", options->output, "folder for shards, or prefix of the .bin and .idx files")
      ->required();
  command->add_option("--source", options->source, "name of the corpus, for shards")->capture_default_str();
  command->add_option("--split", options->split, "of the shards written or read")->capture_default_str();
  command->add_option("--tokenizer", options->tokenizer, "the one that the tokens were made with");
  command->add_option("--vocab-size", options->vocab_size, "without --tokenizer: ids are below this");
  command->add_option("--eod-id", options->eod_id, "without --tokenizer: the id that ends documents");
  command->add_option("--shard-tokens", options->shard_tokens, "a shard ends after this many tokens")
      ->capture_default_str();
  command->callback(
      [options, to] { *to == "shards" ? convert_to_shards(*options) : convert_to_megatron(*options); });
}

void add_bench(CLI::App& data) {
  CLI::App* command = data.add_subcommand("bench", "how fast tokens come out of shards");
  auto options = std::make_shared<BenchOptions>();
  command->add_option("path", options->path, "a manifest, a folder with one, or an .h5 file")->required();
  command->add_option("--split", options->split, "which manifest of a folder")->capture_default_str();
  command->add_option("--sequence-length", options->sequence_length, "of a sample")->capture_default_str();
  command->add_option("--seconds", options->seconds, "of each measurement")->capture_default_str();
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
