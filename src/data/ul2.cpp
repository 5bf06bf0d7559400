#include <algorithm>
#include <cmath>
#include <vector>

#include <ziggurat/core/error.h>
#include <ziggurat/data/ul2.h>

namespace ziggurat {

namespace {

int64_t rounded(double x) { return static_cast<int64_t>(std::nearbyint(x)); }

// Uniform numbers of one sample, one after the other.
class Draws {
 public:
  explicit Draws(const Philox& random, uint64_t first) : random_(random), next_(first) {}
  double uniform() { return random_.uniform(next_++); }

 private:
  Philox random_;
  uint64_t next_;
};

// `items` in `segments` parts of at least one, every division as likely: the segments - 1 cuts are drawn from
// the places between items (Knuth's algorithm S). T5's _random_segmentation.
std::vector<int64_t> random_segments(int64_t items, int64_t segments, Draws& draws) {
  std::vector<int64_t> lengths(1, 1);
  int64_t cuts = segments - 1;
  for (int64_t places = items - 1; places > 0; --places) {
    if (draws.uniform() * static_cast<double>(places) < static_cast<double>(cuts)) {
      lengths.push_back(1);
      --cuts;
    } else {
      ++lengths.back();
    }
  }
  return lengths;
}

// The most raw tokens whose corrupted text and spans fit into `room`.
int64_t raw_tokens(const Denoiser& denoiser, int64_t room) {
  int64_t n = room;
  while (n > 2 && n + 2 * corruption_of(denoiser, n).spans > room) --n;
  return n;
}

constexpr uint64_t kFirstCut = 1;  // uniform 0 chooses the denoiser

// What a denoiser makes of a sample, whatever its text: a corrupted text of `inputs` tokens out of `raw`, and
// answers up to token `written`.
struct Made {
  int64_t raw = 0, inputs = 0, written = 0;
  Corruption corruption = {};
};

Made made_of(const Denoiser& denoiser, int64_t room, bool ends) {
  if (denoiser.span == 0) {
    const Corruption c = corruption_of(denoiser, room);
    return {room, room - c.taken, room, c};
  }
  const int64_t n = raw_tokens(denoiser, room - (ends ? 1 : 0));
  const Corruption c = corruption_of(denoiser, n);
  return {n, n - c.taken + c.spans, n + 2 * c.spans + (ends ? 1 : 0), c};
}

}  // namespace

std::vector<Denoiser> denoisers_of(const Ul2Config& config) {
  if (!config.mixture.empty()) return config.mixture;
  return {{.share = 0.5, .span = 0, .rate = 0.5},  {.share = 0.1, .span = 3, .rate = 0.15},
          {.share = 0.1, .span = 8, .rate = 0.15}, {.share = 0.1, .span = 3, .rate = 0.5},
          {.share = 0.1, .span = 8, .rate = 0.5},  {.share = 0.1, .span = 64, .rate = 0.5}};
}

Corruption corruption_of(const Denoiser& denoiser, int64_t length) {
  const int64_t taken =
      std::clamp<int64_t>(rounded(static_cast<double>(length) * denoiser.rate), 1, length - 1);
  if (denoiser.span == 0) return {taken, 0};
  const int64_t spans = rounded(static_cast<double>(taken) / static_cast<double>(denoiser.span));
  return {taken, std::clamp<int64_t>(spans, 1, std::min(taken, length - taken))};
}

int64_t most_spans(const Ul2Config& config, int64_t sequence_length) {
  int64_t most = 0;
  for (const Denoiser& d : denoisers_of(config)) {
    if (d.span == 0) continue;
    most = std::max(most, corruption_of(d, raw_tokens(d, sequence_length + 1)).spans);
  }
  return most;
}

int64_t denoise(const Denoiser& denoiser, const Philox& random, std::span<const int32_t> raw,
                const Sentinels& sentinels, int32_t eod, int32_t* tokens, int32_t* targets) {
  const auto room = static_cast<int64_t>(raw.size()), length = room - 1;
  const Made made = made_of(denoiser, room, eod >= 0);
  std::vector<int32_t> text;
  if (denoiser.span == 0) {
    text.assign(raw.begin(), raw.end());
  } else {
    const Corruption& c = made.corruption;
    check(c.spans <= sentinels.count, ErrorKind::internal, "[ul2] {} spans, but {} sentinels", c.spans,
          sentinels.count);
    Draws draws(random, kFirstCut);
    const std::vector<int64_t> kept = random_segments(made.raw - c.taken, c.spans, draws),
                               taken = random_segments(c.taken, c.spans, draws);
    std::vector<int32_t> answers;
    const int32_t* at = raw.data();
    for (size_t k = 0; k < kept.size(); ++k) {  // the text begins with what is kept, as T5's
      const int32_t sentinel = sentinels.id(static_cast<int64_t>(k));
      text.insert(text.end(), at, at + kept[k]);
      at += kept[k];
      text.push_back(sentinel);
      answers.push_back(sentinel);
      answers.insert(answers.end(), at, at + taken[k]);
      at += taken[k];
    }
    if (eod >= 0) answers.push_back(eod);
    text.insert(text.end(), answers.begin(), answers.end());
  }
  text.resize(static_cast<size_t>(room), std::max(eod, 0));
  for (int64_t i = 0; i < length; ++i) {
    tokens[i] = text[static_cast<size_t>(i)];
    const bool counts = i + 1 >= made.inputs && i + 1 < made.written;
    targets[i] = counts ? text[static_cast<size_t>(i + 1)] : -1;
  }
  return made.inputs;
}

Ul2Samples::Ul2Samples(std::unique_ptr<SampleSource> source, const Ul2Config& config, uint64_t seed,
                       int64_t sequence_length, int64_t vocab_size)
    : source_(std::move(source)),
      denoisers_(denoisers_of(config)),
      seed_(seed),
      sequence_length_(sequence_length),
      until_(config.until / sequence_length),
      sentinels_{vocab_size, config.sentinels} {}

Philox Ul2Samples::random_of(int64_t position) const {
  return {seed_, Purpose::denoising, static_cast<uint64_t>(position)};
}

const Denoiser& Ul2Samples::denoiser_of(const Philox& random) const {
  double shares = 0;
  for (const Denoiser& d : denoisers_) shares += d.share;
  double rest = random.uniform(0) * shares;
  size_t chosen = 0;
  while (chosen + 1 < denoisers_.size() && rest >= denoisers_[chosen].share)
    rest -= denoisers_[chosen++].share;
  return denoisers_[chosen];
}

void Ul2Samples::denoise_sample(int64_t position, int32_t* tokens, int32_t* targets) const {
  const auto length = static_cast<size_t>(sequence_length_);
  std::vector<int32_t> raw(tokens, tokens + length);
  raw.push_back(targets[length - 1]);
  const Philox random = random_of(position);
  denoise(denoiser_of(random), random, raw, sentinels_, source_->eod_id(), tokens, targets);
}

void Ul2Samples::load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const {
  source_->load(first, count, tokens, targets);
  for (int64_t i = 0; i < std::min(count, until_ - first); ++i) {
    denoise_sample(first + i, tokens + i * sequence_length_, targets + i * sequence_length_);
  }
}

void Ul2Samples::load_prefixes(int64_t first, int64_t count, int32_t* lengths) const {
  std::fill_n(lengths, count, 0);
  const bool ends = source_->eod_id() >= 0;
  for (int64_t i = 0; i < std::min(count, until_ - first); ++i) {
    const Denoiser& denoiser = denoiser_of(random_of(first + i));
    lengths[i] = static_cast<int32_t>(made_of(denoiser, sequence_length_ + 1, ends).inputs);
  }
}

int64_t Ul2Samples::known_targets(int64_t first, int64_t count) const {
  const bool ends = source_->eod_id() >= 0;
  const int64_t denoised = std::clamp<int64_t>(until_ - first, 0, count);
  int64_t targets = (count - denoised) * sequence_length_;
  for (int64_t i = 0; i < denoised; ++i) {
    const Made made = made_of(denoiser_of(random_of(first + i)), sequence_length_ + 1, ends);
    targets += made.written - made.inputs;
  }
  return targets;
}

// Without `until`: a run may go over to next tokens earlier or later than it was meant to.
std::string Ul2Samples::fingerprint() const {
  std::string text = source_->fingerprint() + "ul2: ";
  for (const Denoiser& d : denoisers_)
    text += fmt::format("{} of spans {} rate {}, ", d.share, d.span, d.rate);
  return text + fmt::format("{} sentinels below {}\n", sentinels_.count, sentinels_.vocab_size);
}

}  // namespace ziggurat
