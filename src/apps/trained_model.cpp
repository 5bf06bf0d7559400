#include "apps/trained_model.h"

#include <ziggurat/config/config.h>
#include <ziggurat/train/run_tokenizer.h>

namespace ziggurat::apps {

namespace {

train::Precision precision_of(const std::string& name, train::Precision trained, const std::string& path) {
  for (const EnumName& known : train::enum_names(train::Precision{})) {
    if (known.name != name) continue;
    const auto value = static_cast<train::Precision>(known.value);
    const bool wide = trained == train::Precision::fp64;  // its weights are, too
    check((value == train::Precision::fp64) == wide, ErrorKind::argument,
          "--precision: {} was trained {} fp64, so it runs {} fp64", path, wide ? "in" : "without",
          wide ? "only in" : "without");
    return value;
  }
  fail(ErrorKind::argument, "--precision: expected bf16, fp32 or fp64, got {}", name);
}

}  // namespace

TrainedModel::TrainedModel(const std::string& checkpoint, const std::string& precision,
                           const std::string& tokenizer, bool average, Communicator& world, WeightForm form,
                           const model::InferenceLayout& layout, Device device)
    : reader_(checkpoint) {
  if (average) reader_.use_averages();
  parse_config(config_, reader_.manifest().config, reader_.path());
  tokenizer_ = train::find_tokenizer(reader_, config_, tokenizer).tokenizer;
  if (!precision.empty()) config_.precision = precision_of(precision, config_.precision, reader_.path());
  loaded_ = std::make_unique<LoadedModel>(
      reader_, config_, world, train::LoadOptions{.form = form, .device = device, .layout = layout});
}

}  // namespace ziggurat::apps
