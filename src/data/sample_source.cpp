#include <algorithm>
#include <cmath>
#include <filesystem>
#include <limits>
#include <string_view>
#include <utility>

#include "data/source_checks.h"
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/data/blend.h>
#include <ziggurat/data/dataset.h>
#include <ziggurat/data/sample_source.h>
#include <ziggurat/data/ul2.h>
#include <ziggurat/data/vocabulary.h>

namespace ziggurat {

namespace {

constexpr char kSynthetic[] = "synthetic";
constexpr const char* kSplitNames[] = {"train", "valid", "test"};
constexpr Split kSplits[] = {Split::train, Split::valid, Split::test};

template <class Paths>
const std::string& path_of(const Paths& paths, Split split) {
  return split == Split::train ? paths.train : split == Split::valid ? paths.valid : paths.test;
}

// One line of a fingerprint and what follows it.
std::string_view take_line(std::string_view& text) {
  const std::string_view line = text.substr(0, text.find('\n'));
  text.remove_prefix(std::min(text.size(), line.size() + 1));
  return line;
}

// One path of a split, and the key that names it.
struct NamedSource {
  std::string key, name, path;
  double weight;
};

std::vector<NamedSource> sources_of(const DataConfig& config, Split split) {
  std::vector<NamedSource> sources;
  for (size_t i = 0; i < config.blend.size(); ++i) {
    const BlendSource& source = config.blend[i];
    const std::string& path = path_of(source, split);
    if (path.empty()) continue;
    sources.push_back({fmt::format("data.blend.{}.{}", i, to_string(split)),
                       source.name.empty() ? path : source.name, path, source.weight});
  }
  const std::string& single = path_of(config, split);
  if (sources.empty() && !single.empty()) {
    sources.push_back({fmt::format("data.{}", to_string(split)), single, single, 1.0});
  }
  return sources;
}

bool is_synthetic(const std::vector<NamedSource>& sources) {
  return sources.size() == 1 && sources[0].path == kSynthetic;
}

double weight_of(const std::vector<NamedSource>& sources) {
  double sum = 0;
  for (const NamedSource& source : sources) sum += source.weight;
  return sum;
}

// Token 17 must mean the same in every source.
void check_same_tokenizer(const NamedSource& a, const TokenStream& first, const NamedSource& b,
                          const TokenStream& second) {
  check(first.tokenizer_sha256() == second.tokenizer_sha256() && first.vocab_size() == second.vocab_size() &&
            first.eod_id() == second.eod_id(),
        ErrorKind::data,
        "data.blend: {} was made with another tokenizer ({:.12}, {} tokens, end of document {}) than {} "
        "({:.12}, {} tokens, end of document {}); tokenize all sources with one tokenizer",
        b.name, second.tokenizer_sha256(), second.vocab_size(), second.eod_id(), a.name,
        first.tokenizer_sha256(), first.vocab_size(), first.eod_id());
}

std::vector<std::unique_ptr<Dataset>> open_datasets(const DataConfig& config,
                                                    const std::vector<NamedSource>& sources, Split split,
                                                    const DatasetOptions& options) {
  const double sum = weight_of(sources);
  std::vector<std::unique_ptr<Dataset>> opened;
  for (const NamedSource& source : sources) {
    DatasetOptions own = options;
    if (sources.size() > 1 && options.order == OrderKind::megatron) {
      // Megatron's allowance for the greedy rule running ahead
      own.samples = static_cast<int64_t>(
          std::ceil(static_cast<double>(options.samples) * (source.weight / sum) * 1.005));
    }
    opened.push_back(std::make_unique<Dataset>(source.path, to_string(split), own));
    const TokenStream& stream = opened.back()->stream();
    check_same_tokenizer(sources[0], opened.front()->stream(), source, stream);
    check_documents_end(config, source.key, stream);
  }
  return opened;
}

std::unique_ptr<SampleSource> blend_of(const std::vector<NamedSource>& sources,
                                       std::vector<std::unique_ptr<Dataset>> datasets, Split split,
                                       const DatasetOptions& options) {
  const double sum = weight_of(sources);
  // Weights given to five decimals may miss 1 by a little; more than that may be a slip.
  if (std::abs(sum - 1) > 1e-3) {
    warn("data.blend: the weights of the {} sources sum to {:.6g}, not 1; each is divided by the sum",
         to_string(split), sum);
  }
  std::vector<BlendedSamples::Source> parts;
  for (size_t i = 0; i < sources.size(); ++i) {
    parts.push_back({sources[i].name, sources[i].weight, std::move(datasets[i])});
  }
  const BlendRule rule = options.order == OrderKind::megatron ? BlendRule::greedy : BlendRule::even;
  auto blend =
      std::make_unique<BlendedSamples>(std::move(parts), options.sequence_length, rule, options.samples);
  info("{} is a blend of {} sources; {} samples of it are", to_string(split), sources.size(),
       options.samples);
  for (const std::string& line : blend->report(options.samples)) info("  {}", line);
  return blend;
}

// Ids of the model that are no text.
int64_t sentinels_of(const DataConfig& config) { return config.ul2.enabled() ? config.ul2.sentinels : 0; }

DatasetOptions dataset_options(const DataConfig& config, Split split, int64_t sequence_length,
                               int64_t vocab_size, int64_t samples) {
  DatasetOptions options;
  options.sequence_length = sequence_length;
  options.sentinels = sentinels_of(config);
  options.vocab_size = vocab_size - options.sentinels;
  options.seed = static_cast<uint64_t>(config.seed);
  options.samples = samples;
  options.order = split == Split::train ? config.order : OrderKind::keyed;
  options.shuffle = config.shuffle && split == Split::train;
  options.mask_eod_loss = config.mask_eod_loss;
  options.verify_below = config.verify_below;
  return options;
}

Vocabulary tokenizer_of(const DataConfig& config) {
  try {
    Vocabulary vocabulary = vocabulary_of(*load_tokenizer(config.tokenizer), config.tokenizer);
    vocabulary.owner = "data.tokenizer: " + vocabulary.owner;
    return vocabulary;
  } catch (const Error& error) {
    fail(ErrorKind::data,
         "data.tokenizer: {}; name the tokenizer that made the shards, or set data.tokenizer=\"\" to train "
         "without one",
         error.what());
  }
}

}  // namespace

const char* to_string(Split split) { return kSplitNames[static_cast<int>(split)]; }

std::optional<std::string> first_difference(const std::string& before, const std::string& now) {
  std::string_view a = before, b = now;
  while (!a.empty() || !b.empty()) {
    const std::string_view line_a = take_line(a), line_b = take_line(b);
    if (line_a == line_b) continue;
    if (line_a.empty()) return fmt::format("nothing -> {}", line_b);
    if (line_b.empty()) return fmt::format("{} -> nothing", line_a);
    const size_t key = line_a.find(": ");
    const bool same_key = key != line_a.npos && line_b.substr(0, key + 2) == line_a.substr(0, key + 2);
    return fmt::format("{} -> {}", line_a, same_key ? line_b.substr(key + 2) : line_b);
  }
  return std::nullopt;
}

void DataConfig::validate(Problems& problems) const {
  const bool megatron = order == OrderKind::megatron && !is_synthetic(*this, Split::train);
  for (const Split split : kSplits) {
    const bool blended = std::any_of(blend.begin(), blend.end(),
                                     [&](const BlendSource& s) { return !path_of(s, split).empty(); });
    if (blended && !path_of(*this, split).empty()) {
      problems.add(to_string(split), "expected either this path or paths in data.blend, got both");
    }
    if (is_synthetic(*this, split)) {
      for (const char* option : options_on_documents(*this)) {
        problems.add(option, fmt::format("data.{}: the synthetic language has no end-of-document token; "
                                         "expected false, got true",
                                         to_string(split)));
      }
    }
    const std::vector<NamedSource> sources = sources_of(*this, split);
    for (const NamedSource& source : sources) {
      const double share = source.weight / weight_of(sources);
      if (share * 0x1p32 < 1 && !(megatron && split == Split::train)) {
        const std::string of_data = source.key.substr(sizeof("data"));  // blend.N.train
        problems.add(
            of_data.substr(0, of_data.rfind('.')) + ".weight",
            fmt::format("{:.3g} of the whole of {} is below the least share, 2^-32; leave the source out",
                        share, to_string(split)));
      }
    }
  }
  for (size_t i = 0; i < blend.size(); ++i) {
    if (blend[i].train.empty() && blend[i].valid.empty() && blend[i].test.empty()) {
      problems.add(fmt::format("blend.{}", i), "expected a path in train, valid or test, got none");
    }
  }
  if (ul2.enabled()) {
    for (const char* option : options_on_documents(*this)) {
      problems.add(
          option,
          "a text that UL2 corrupted goes on in its answers, behind ends of documents: set it to false, "
          "or leave out data.ul2");
    }
  }
  if (megatron && !shuffle) {
    problems.add("shuffle", "order: megatron is a shuffled order; use order: keyed to read in order");
  }
  if (megatron && seed > std::numeric_limits<uint32_t>::max()) {
    problems.add("seed", fmt::format("order: megatron takes seeds of 32 bits, got {}", seed));
  }
}

void SampleSource::load_prefixes(int64_t, int64_t count, int32_t* lengths) const {
  std::fill_n(lengths, count, 0);
}

namespace {

// As it is, whatever is then made of it.
std::unique_ptr<SampleSource> open_text(const DataConfig& config, Split split, int64_t sequence_length,
                                        int64_t vocab_size, int64_t samples) {
  const std::vector<NamedSource> sources = sources_of(config, split);
  if (sources.empty()) return nullptr;
  if (is_synthetic(sources)) {
    check_has_eod(config, sources[0].key, -1);
    return std::make_unique<SyntheticSamples>(split, static_cast<uint64_t>(config.seed), sequence_length,
                                              vocab_size - sentinels_of(config));
  }
  const DatasetOptions options = dataset_options(config, split, sequence_length, vocab_size, samples);
  std::vector<std::unique_ptr<Dataset>> datasets = open_datasets(config, sources, split, options);
  if (datasets.size() == 1) return std::move(datasets[0]);
  return blend_of(sources, std::move(datasets), split, options);
}

}  // namespace

std::unique_ptr<SampleSource> open_samples(const DataConfig& config, Split split, int64_t sequence_length,
                                           int64_t vocab_size, int64_t samples) {
  auto text = open_text(config, split, sequence_length, vocab_size, samples);
  if (text == nullptr || split != Split::train || !config.ul2.enabled()) return text;
  return std::make_unique<Ul2Samples>(std::move(text), config.ul2, static_cast<uint64_t>(config.seed),
                                      sequence_length, vocab_size);
}

std::string check_samples(const DataConfig& config, Split split, int64_t sequence_length,
                          int64_t vocab_size) {
  const std::vector<NamedSource> sources = sources_of(config, split);
  if (sources.empty() || is_synthetic(sources)) return "";
  DatasetOptions options = dataset_options(config, split, sequence_length, vocab_size, 1);
  const bool needs_documents = options.order == OrderKind::megatron;
  options.order = OrderKind::keyed;
  options.verify_below = -1;
  const auto datasets = open_datasets(config, sources, split, options);
  for (const auto& dataset : datasets) {
    if (needs_documents) dataset->stream().document_starts();
  }
  return datasets.front()->tokenizer_sha256();
}

bool is_synthetic(const DataConfig& config, Split split) { return is_synthetic(sources_of(config, split)); }

bool has_data(const DataConfig& config, Split split) { return !sources_of(config, split).empty(); }

void check_tokenizer(const DataConfig& config, int64_t model_vocab_size) {
  std::vector<std::pair<NamedSource, Split>> shards;
  for (const Split split : kSplits) {
    const std::vector<NamedSource> sources = sources_of(config, split);
    if (is_synthetic(sources)) continue;
    for (const NamedSource& source : sources) shards.push_back({source, split});
  }
  if (config.tokenizer.empty() || shards.empty()) return;
  const Vocabulary tokenizer = tokenizer_of(config);
  check_fit(tokenizer,
            {.owner = "the model (model.vocab_size)", .size = model_vocab_size, .has_spare_ids = true},
            fmt::format("set model.vocab_size to at least {}, or name the tokenizer of this model",
                        tokenizer.size));
  for (const auto& [source, split] : shards) {
    Vocabulary made = vocabulary_of(read_manifest(source.path, to_string(split)), source.path);
    made.owner = fmt::format("{}: {}", source.key, made.owner);
    check_fit(tokenizer, made,
              "name the tokenizer that made the shards, or tokenize the text again with this one");
  }
}

PresentData present_data(const DataConfig& config) {
  PresentData present{config, {}};
  const auto look = [&](const std::string& key, std::string& path, const char* word) {
    std::error_code unknown;
    if (path.empty() || path == word || std::filesystem::exists(path, unknown)) return;
    present.missing.push_back(fmt::format("{}: {}", key, path));
    path.clear();
  };
  DataConfig& data = present.config;
  look("data.train", data.train, kSynthetic);
  look("data.valid", data.valid, kSynthetic);
  look("data.test", data.test, kSynthetic);
  for (size_t i = 0; i < data.blend.size(); ++i) {
    const std::string key = fmt::format("data.blend.{}.", i);
    look(key + "train", data.blend[i].train, kSynthetic);
    look(key + "valid", data.blend[i].valid, kSynthetic);
    look(key + "test", data.blend[i].test, kSynthetic);
  }
  look("data.tokenizer", data.tokenizer, "bytes");
  return present;
}

SyntheticSamples::SyntheticSamples(Split split, uint64_t seed, int64_t sequence_length, int64_t vocab_size)
    : split_(split), seed_(seed), sequence_length_(sequence_length), vocab_size_(vocab_size) {}

// Never repeats within a training run; a validation reads the first samples of another split.
int64_t SyntheticSamples::samples_per_epoch() const { return int64_t{1} << 40; }

void SyntheticSamples::load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const {
  const auto vocab = static_cast<uint64_t>(vocab_size_);
  for (int64_t i = 0; i < count; ++i) {
    const Philox rng(seed_, Purpose::sample_order, static_cast<uint64_t>(split_),
                     static_cast<uint64_t>(first + i));
    uint64_t token = rng.block(0)[0] % vocab;
    for (int64_t t = 0; t < sequence_length_; ++t) {
      tokens[i * sequence_length_ + t] = static_cast<int32_t>(token);
      const Philox::Block noise = rng.block(static_cast<uint64_t>(t) + 1);
      token = noise[0] % 4 != 0 ? (5 * token + 3) % vocab : noise[1] % vocab;
      targets[i * sequence_length_ + t] = static_cast<int32_t>(token);
    }
  }
}

std::string SyntheticSamples::fingerprint() const {
  return fmt::format("{}: {}, seed {}, sequence length {}, vocabulary {}\n", kSynthetic, to_string(split_),
                     seed_, sequence_length_, vocab_size_);
}

double synthetic_entropy(int64_t vocab_size) {
  const auto v = static_cast<double>(vocab_size);
  const double rule = 0.75 + 0.25 / v, other = 0.25 / v;
  return -rule * std::log(rule) - (v - 1) * other * std::log(other);
}

}  // namespace ziggurat
