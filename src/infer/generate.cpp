#include <algorithm>

#include <ziggurat/infer/generate.h>

namespace ziggurat::infer {

namespace {

// Texts that grow side by side; text i is the decoder's sequence i.
class Generation {
 public:
  Generation(Decoder& decoder, std::span<const std::vector<int32_t>> prompts, const SamplingOptions& options,
             const std::function<void(size_t, int32_t)>& on_token)
      : decoder_(decoder),
        prompts_(prompts),
        options_(options),
        sampler_(options, decoder.vocabulary()),
        on_token_(on_token),
        texts_(prompts.begin(), prompts.end()),
        growing_(prompts.size(), options.max_new_tokens > 0) {}

  std::vector<std::vector<int32_t>> run() {
    read_prompts();
    while (std::find(growing_.begin(), growing_.end(), true) != growing_.end()) read_new_tokens();
    for (size_t i = 0; i < texts_.size(); ++i) {
      texts_[i].erase(texts_[i].begin(), texts_[i].begin() + static_cast<int64_t>(prompts_[i].size()));
    }
    return std::move(texts_);
  }

 private:
  void read_prompts() {
    for (size_t i = 0; i < texts_.size(); ++i) {
      if (std::find(prompts_.begin(), prompts_.begin() + static_cast<int64_t>(i), prompts_[i]) !=
          prompts_.begin() + static_cast<int64_t>(i)) {
        continue;  // read with an equal one before it
      }
      const Tensor logits = read_window(i);
      for (size_t same = i; same < texts_.size(); ++same) {
        if (prompts_[same] != prompts_[i] || !growing_[same]) continue;
        if (same != i) decoder_.copy(static_cast<int64_t>(i), static_cast<int64_t>(same));
        append(same, logits);
      }
    }
  }

  void read_new_tokens() {
    std::vector<int32_t> sequences, tokens;
    for (size_t i = 0; i < texts_.size(); ++i) {
      if (!growing_[i]) continue;
      if (decoder_.length(static_cast<int64_t>(i)) == decoder_.context()) {
        append(i, read_window(i));
      } else {
        sequences.push_back(static_cast<int32_t>(i));
        tokens.push_back(texts_[i].back());
      }
    }
    if (tokens.empty()) return;
    const Tensor logits = decoder_.step(sequences, tokens);
    for (size_t row = 0; row < tokens.size(); ++row) {
      append(static_cast<size_t>(sequences[row]), logits.rows(int64_t(row), int64_t(row) + 1));
    }
  }

  Tensor read_window(size_t i) {
    const size_t seen = std::min(texts_[i].size(), static_cast<size_t>(decoder_.context()));
    return decoder_.prefill(static_cast<int64_t>(i), std::span(texts_[i]).last(seen));
  }

  void append(size_t i, const Tensor& logits) {
    std::vector<int32_t>& text = texts_[i];
    int32_t token = options_.stop_token;
    visit_float_dtype(logits.dtype(), [&]<class T>() {
      if constexpr (!std::is_same_v<T, bf16>) {
        token = sampler_(logits.data<T>(), static_cast<int64_t>(text.size()), static_cast<int64_t>(i));
      }
    });
    growing_[i] = token != options_.stop_token;
    if (!growing_[i]) return;
    text.push_back(token);
    if (on_token_) on_token_(i, token);
    const auto added = static_cast<int64_t>(text.size() - prompts_[i].size());
    growing_[i] = added < options_.max_new_tokens;
  }

  Decoder& decoder_;
  std::span<const std::vector<int32_t>> prompts_;
  const SamplingOptions& options_;
  Sampler sampler_;
  const std::function<void(size_t, int32_t)>& on_token_;
  std::vector<std::vector<int32_t>> texts_;
  std::vector<bool> growing_;
};

}  // namespace

std::vector<std::vector<int32_t>> generate(Decoder& decoder, std::span<const std::vector<int32_t>> prompts,
                                           const SamplingOptions& options,
                                           const std::function<void(size_t, int32_t)>& on_token) {
  check(static_cast<int64_t>(prompts.size()) <= decoder.sequences(), ErrorKind::argument,
        "[generate] {} prompts, but the decoder holds {} sequences", prompts.size(), decoder.sequences());
  for (const std::vector<int32_t>& prompt : prompts) {
    check(!prompt.empty(), ErrorKind::argument, "[generate] a prompt must have at least one token");
    for (const int32_t id : prompt) {
      check(0 <= id && id < decoder.vocabulary(), ErrorKind::argument,
            "[generate] a prompt has token {}, outside the model's vocabulary of {}", id,
            decoder.vocabulary());
    }
  }
  return Generation(decoder, prompts, options, on_token).run();
}

}  // namespace ziggurat::infer
