#include <ziggurat/infer/generate.h>

namespace ziggurat::infer {

std::vector<std::vector<int32_t>> generate(Engine& engine, std::span<const std::vector<int32_t>> prompts,
                                           const GenerateOptions& options,
                                           const std::function<void(size_t, int32_t)>& on_token) {
  check(engine.idle(), ErrorKind::argument, "[generate] the engine has texts of somebody else under way");
  std::vector<std::vector<int32_t>> texts(prompts.size());
  std::vector<TextRequest> requests;
  for (const std::vector<int32_t>& prompt : prompts) {
    const auto number = std::ssize(requests);
    requests.push_back({.id = number,
                        .prompt = prompt,
                        .max_new_tokens = options.max_new_tokens,
                        .stop_token = options.stop_token,
                        .sampling = options.sampling,
                        .text = number});
    engine.check(requests.back());
  }
  for (TextRequest& request : requests) engine.submit(std::move(request));
  const TextEvents events{.token = [&](int64_t id, int32_t token, bool, const Likelihood*) {
    if (token == options.stop_token) return;
    const auto i = static_cast<size_t>(id);
    texts[i].push_back(token);
    if (on_token) on_token(i, token);
  }};
  while (!engine.idle()) engine.step(events);
  return texts;
}

}  // namespace ziggurat::infer
