#include <algorithm>
#include <cmath>
#include <string_view>
#include <utility>

#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/philox.h>
#include <ziggurat/data/blend.h>
#include <ziggurat/data/dataset.h>
#include <ziggurat/data/sample_source.h>

namespace ziggurat {

namespace {

constexpr char kSynthetic[] = "synthetic";
constexpr const char* kSplitNames[] = {"train", "valid", "test"};

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

struct NamedSource {
  std::string name, path;
  double weight;
};

std::vector<NamedSource> sources_of(const DataConfig& config, Split split) {
  std::vector<NamedSource> sources;
  for (const BlendSource& source : config.blend) {
    const std::string& path = path_of(source, split);
    if (!path.empty()) sources.push_back({source.name.empty() ? path : source.name, path, source.weight});
  }
  const std::string& single = path_of(config, split);
  if (sources.empty() && !single.empty()) sources.push_back({single, single, 1.0});
  return sources;
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

std::unique_ptr<SampleSource> open_blend(const std::vector<NamedSource>& sources, Split split,
                                         const DatasetOptions& options) {
  double sum = 0;
  for (const NamedSource& source : sources) sum += source.weight;
  // Weights given to five decimals may miss 1 by a little; more than that may be a slip.
  if (std::abs(sum - 1) > 1e-3) {
    warn("data.blend: the weights of the {} sources sum to {:.6g}, not 1; each is divided by the sum",
         to_string(split), sum);
  }
  const BlendRule rule = options.order == OrderKind::megatron ? BlendRule::greedy : BlendRule::even;
  std::vector<BlendedSamples::Source> opened;
  const TokenStream* first = nullptr;
  for (const NamedSource& source : sources) {
    DatasetOptions own = options;
    if (rule == BlendRule::greedy) {  // Megatron's allowance for the greedy rule running ahead
      own.samples = static_cast<int64_t>(
          std::ceil(static_cast<double>(options.samples) * (source.weight / sum) * 1.005));
    }
    auto dataset = std::make_unique<Dataset>(source.path, to_string(split), own);
    if (first != nullptr) check_same_tokenizer(sources[0], *first, source, dataset->stream());
    if (first == nullptr) first = &dataset->stream();
    opened.push_back({source.name, source.weight, std::move(dataset)});
  }
  auto blend =
      std::make_unique<BlendedSamples>(std::move(opened), options.sequence_length, rule, options.samples);
  info("{} is a blend of {} sources; {} samples of it are", to_string(split), sources.size(),
       options.samples);
  for (const std::string& line : blend->report(options.samples)) info("  {}", line);
  return blend;
}

std::unique_ptr<SampleSource> open_shards(const DataConfig& config, const std::vector<NamedSource>& sources,
                                          Split split, int64_t sequence_length, int64_t vocab_size,
                                          int64_t samples) {
  DatasetOptions options;
  options.sequence_length = sequence_length;
  options.vocab_size = vocab_size;
  options.seed = static_cast<uint64_t>(config.seed);
  options.samples = samples;
  options.order = split == Split::train ? config.order : OrderKind::keyed;
  options.shuffle = config.shuffle && split == Split::train;
  options.mask_eod_loss = config.mask_eod_loss;
  options.verify_below = config.verify_below;
  if (sources.size() == 1) return std::make_unique<Dataset>(sources[0].path, to_string(split), options);
  return open_blend(sources, split, options);
}

// The options that act on ends of documents need a token that marks them.
void check_has_eod(const DataConfig& config, Split split, const SampleSource& source) {
  const std::pair<const char*, bool> options[] = {{"mask_eod_loss", config.mask_eod_loss},
                                                  {"reset_positions", config.reset_positions},
                                                  {"reset_attention", config.reset_attention}};
  for (const auto& [name, wanted] : options) {
    check(!wanted || source.eod_id() >= 0, ErrorKind::config,
          "data.{}: the tokens of data.{} have no end-of-document token; set it to false, or tokenize with a "
          "tokenizer that has one (for files of other programs: `ziggurat data convert --eod-id`)",
          name, to_string(split));
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
  for (const Split split : {Split::train, Split::valid, Split::test}) {
    const bool blended = std::any_of(blend.begin(), blend.end(),
                                     [&](const BlendSource& s) { return !path_of(s, split).empty(); });
    if (blended && !path_of(*this, split).empty()) {
      problems.add(to_string(split), "expected either this path or paths in data.blend, got both");
    }
  }
  for (size_t i = 0; i < blend.size(); ++i) {
    if (blend[i].train.empty() && blend[i].valid.empty() && blend[i].test.empty()) {
      problems.add(fmt::format("blend.{}", i), "expected a path in train, valid or test, got none");
    }
  }
  if (order == OrderKind::megatron && !shuffle) {
    problems.add("shuffle", "order: megatron is a shuffled order; use order: keyed to read in order");
  }
}

std::unique_ptr<SampleSource> open_samples(const DataConfig& config, Split split, int64_t sequence_length,
                                           int64_t vocab_size, int64_t samples) {
  const std::vector<NamedSource> sources = sources_of(config, split);
  if (sources.empty()) return nullptr;
  std::unique_ptr<SampleSource> opened;
  if (sources.size() == 1 && sources[0].path == kSynthetic) {
    opened = std::make_unique<SyntheticSamples>(split, static_cast<uint64_t>(config.seed), sequence_length,
                                                vocab_size);
  } else {
    opened = open_shards(config, sources, split, sequence_length, vocab_size, samples);
  }
  check_has_eod(config, split, *opened);
  return opened;
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
