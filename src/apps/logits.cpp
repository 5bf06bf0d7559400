// ziggurat logits --checkpoint DIR --tokens 5,17,3 --output FILE
#include <algorithm>
#include <filesystem>
#include <memory>

#include "apps/commands.h"
#include "apps/on_ranks.h"
#include "apps/trained_model.h"
#include <ziggurat/checkpoint/checkpoint.h>
#include <ziggurat/config/config.h>
#include <ziggurat/infer/decoder.h>
#include <ziggurat/io/files.h>
#include <ziggurat/runtime/gpus.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::apps {

void logits(const LogitsArguments& arguments) {
  check_one_process("logits");
  CheckpointReader reader(arguments.checkpoint);
  if (arguments.average) reader.use_averages();
  train::RunConfig config;
  parse_config(config, reader.manifest().config, reader.path());
  check(!std::filesystem::exists(arguments.output), ErrorKind::argument,
        "--output: {} stands already: choose another file", arguments.output);
  const auto n = static_cast<int64_t>(arguments.tokens.size());
  const int64_t vocabulary = config.model.vocab_size;
  check(0 < n && n <= config.model.max_sequence, ErrorKind::argument,
        "--tokens: expected 1 to {} tokens, the model's max_sequence, got {}", config.model.max_sequence, n);
  for (const int32_t token : arguments.tokens) {
    check(0 <= token && token < vocabulary, ErrorKind::argument,
          "--tokens: expected ids from 0 to {}, got {}", vocabulary - 1, token);
  }

  set_thread_count(available_cores());
  if (arguments.device == Device::cuda) check_gpu(look_for_gpus(), 0);
  const auto self = make_self_communicator();
  const train::LoadedModel loaded(reader, config, *self, {.device = arguments.device});  // all experts here

  infer::Decoder decoder(loaded.model(), 1, n);
  std::vector<float> rows(static_cast<size_t>(n * vocabulary));
  for (int64_t i = 0; i < n; ++i) {
    const int32_t token = arguments.tokens[static_cast<size_t>(i)];
    const int32_t zero = 0;
    decoder.read({&zero, 1}, {&token, 1}, {&zero, 1}, [&](size_t, const Tensor& row) {
      visit_float_dtype(row.dtype(), [&]<class T>() {
        const T* values = row.data<T>();
        std::transform(values, values + vocabulary, rows.data() + i * vocabulary,
                       [](T value) { return static_cast<float>(value); });
      });
    });
  }
  std::vector<int32_t> tokens = arguments.tokens;
  const std::string unfinished = arguments.output + ".tmp";
  remove_file(unfinished);  // a killed run's
  try {
    write_safetensors(unfinished, {{{"tokens", Tensor(tokens.data(), DType::i32, {n})},
                                    {"logits", Tensor(rows.data(), DType::f32, {n, vocabulary})}}});
    rename_durably(unfinished, arguments.output);
  } catch (...) {
    std::error_code ignored;
    std::filesystem::remove(unfinished, ignored);
    throw;
  }
}

}  // namespace ziggurat::apps
