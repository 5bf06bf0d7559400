#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include <ziggurat/core/error.h>
#include <ziggurat/data/blend.h>

namespace ziggurat {
namespace {

constexpr int kBits = 32;

uint32_t mirrored(uint64_t i) {  // the radical inverse of i, in units of 2^-32
  auto x = static_cast<uint32_t>(i);
  x = (x >> 16) | (x << 16);
  x = ((x >> 8) & 0x00ff00ffu) | ((x & 0x00ff00ffu) << 8);
  x = ((x >> 4) & 0x0f0f0f0fu) | ((x & 0x0f0f0f0fu) << 4);
  x = ((x >> 2) & 0x33333333u) | ((x & 0x33333333u) << 2);
  return ((x >> 1) & 0x55555555u) | ((x & 0x55555555u) << 1);
}

// How many of 0 .. n - 1 have a radical inverse below bound / 2^32. For each 1 bit of the bound, at place j
// from the top, those are the i that agree with the bound in the j bits above it and have a 0 there:
// a residue class modulo 2^(j+1).
int64_t count_below(uint64_t bound, int64_t n) {
  if (bound >> kBits) return n;
  int64_t count = 0;
  for (int j = 0; j < kBits; ++j) {
    const uint64_t top = bound >> (kBits - 1 - j);  // the first j + 1 bits
    if ((top & 1) == 0) continue;
    const auto residue = static_cast<int64_t>(mirrored((top ^ 1) << (kBits - 1 - j)));
    if (n > residue) count += ((n - residue - 1) >> (j + 1)) + 1;
  }
  return count;
}

std::vector<double> normalised(std::vector<double> weights) {
  check(!weights.empty() && weights.size() <= std::numeric_limits<uint16_t>::max(), ErrorKind::argument,
        "[blend] expected 1 to 65,535 sources, got {}", weights.size());
  for (const double w : weights) {
    check(std::isfinite(w) && w > 0, ErrorKind::argument,
          "[blend] weights must be above 0, got {}; leave such a source out", w);
  }
  const double sum = std::accumulate(weights.begin(), weights.end(), 0.0);
  for (double& w : weights) w /= sum;
  return weights;
}

}  // namespace

BlendOrder::BlendOrder(std::vector<double> weights, BlendRule rule, int64_t samples)
    : weights_(normalised(std::move(weights))), rule_(rule) {
  rule == BlendRule::greedy ? lay_out(samples) : share_out();
}

void BlendOrder::share_out() {
  double sum = 0;
  bounds_.push_back(0);
  for (const double w : weights_) {
    sum += w;
    bounds_.push_back(static_cast<uint64_t>(std::llround(std::min(sum, 1.0) * 0x1p32)));
    check(bounds_.back() > bounds_[bounds_.size() - 2], ErrorKind::config,
          "data.blend: a weight of {:.3g} of the whole is below the least share, 2^-32; leave the source out",
          w);
  }
  bounds_.back() = uint64_t{1} << kBits;
}

void BlendOrder::lay_out(int64_t samples) {
  std::vector<int64_t> drawn(weights_.size(), 0);
  choices_.reserve(static_cast<size_t>(samples));
  for (int64_t i = 0; i < samples; ++i) {
    if (i % kBlock == 0) counts_.insert(counts_.end(), drawn.begin(), drawn.end());
    const auto so_far = static_cast<double>(std::max<int64_t>(i, 1));
    size_t most = 0;
    double largest = weights_[0] * so_far - static_cast<double>(drawn[0]);
    for (size_t s = 1; s < weights_.size(); ++s) {
      const double lag = weights_[s] * so_far - static_cast<double>(drawn[s]);
      if (lag > largest) largest = lag, most = s;
    }
    choices_.push_back(static_cast<uint16_t>(most));
    ++drawn[most];
  }
  counts_.insert(counts_.end(), drawn.begin(), drawn.end());  // so that taken() may be asked at the end
}

BlendOrder::Pick BlendOrder::at(int64_t i) const {
  size_t source = 0;
  if (rule_ == BlendRule::greedy) {
    check(i < static_cast<int64_t>(choices_.size()), ErrorKind::data,
          "the blend was laid out for {} samples, sample {} lies past its end; set train.tokens to what the "
          "run takes",
          choices_.size(), i);
    source = choices_[static_cast<size_t>(i)];
  } else {
    const auto after = std::upper_bound(bounds_.begin(), bounds_.end(), mirrored(static_cast<uint64_t>(i)));
    source = static_cast<size_t>(after - bounds_.begin()) - 1;
  }
  return {source, taken(source, i)};
}

int64_t BlendOrder::samples() const {
  return rule_ == BlendRule::greedy ? static_cast<int64_t>(choices_.size())
                                    : std::numeric_limits<int64_t>::max();
}

int64_t BlendOrder::taken(size_t source, int64_t n) const {
  if (rule_ == BlendRule::even) return count_below(bounds_[source + 1], n) - count_below(bounds_[source], n);
  n = std::min(n, static_cast<int64_t>(choices_.size()));
  const int64_t block = n / kBlock;
  const auto begin = choices_.begin() + block * kBlock, end = choices_.begin() + n;
  return counts_[static_cast<size_t>(block) * weights_.size() + source] +
         std::count(begin, end, static_cast<uint16_t>(source));
}

namespace {

std::vector<double> weights_of(const std::vector<BlendedSamples::Source>& sources) {
  std::vector<double> weights;
  for (const auto& source : sources) weights.push_back(source.weight);
  return weights;
}

}  // namespace

BlendedSamples::BlendedSamples(std::vector<Source> sources, int64_t sequence_length, BlendRule rule,
                               int64_t samples)
    : sources_(std::move(sources)),
      sequence_length_(sequence_length),
      rule_(rule),
      order_(weights_of(sources_), rule, samples) {}

int64_t BlendedSamples::samples_per_epoch() const {
  int64_t least = std::numeric_limits<int64_t>::max();
  for (size_t s = 0; s < sources_.size(); ++s) {
    const auto own = static_cast<double>(sources_[s].samples->samples_per_epoch());
    least = std::min(least, static_cast<int64_t>(own / order_.weights()[s]));
  }
  return std::max<int64_t>(1, least);
}

void BlendedSamples::load(int64_t first, int64_t count, int32_t* tokens, int32_t* targets) const {
  for (int64_t i = 0; i < count; ++i) {
    const BlendOrder::Pick pick = order_.at(first + i);
    sources_[pick.source].samples->load(pick.sample, 1, tokens + i * sequence_length_,
                                        targets + i * sequence_length_);
  }
}

void BlendedSamples::prefetch(int64_t first, int64_t count) const {
  count = std::min(count, order_.samples() - first);
  for (int64_t i = 0; i < count; ++i) {
    const BlendOrder::Pick pick = order_.at(first + i);
    sources_[pick.source].samples->prefetch(pick.sample, 1);
  }
}

std::string BlendedSamples::fingerprint() const {
  std::string lines = fmt::format("blend: {} sources, {} rule\n", sources_.size(),
                                  rule_ == BlendRule::even ? "even" : "greedy");
  for (size_t s = 0; s < sources_.size(); ++s) {
    lines += fmt::format("source {}: weight {:.9f}\n", s, order_.weights()[s]);
    const std::string own = sources_[s].samples->fingerprint();
    for (size_t begin = 0; begin < own.size();) {
      const size_t end = own.find('\n', begin);
      lines += fmt::format("source {}, {}\n", s, own.substr(begin, end - begin));
      begin = end + 1;
    }
  }
  return lines;
}

double BlendedSamples::epochs(size_t source, int64_t n) const {
  return static_cast<double>(order_.taken(source, n)) /
         static_cast<double>(sources_[source].samples->samples_per_epoch());
}

std::vector<std::string> BlendedSamples::report(int64_t n) const {
  std::vector<std::string> lines;
  for (size_t s = 0; s < sources_.size(); ++s) {
    lines.push_back(fmt::format("{}: weight {:.5f}, {} samples, {:.2f} epochs", sources_[s].name,
                                order_.weights()[s], order_.taken(s, n), epochs(s, n)));
  }
  return lines;
}

}  // namespace ziggurat
