// What the sub-commands do, and what they are told. main.cpp fills the arguments in; errors are thrown.
#pragma once

#include <string>
#include <vector>

#include <ziggurat/infer/generate.h>

namespace ziggurat::apps {

struct ConfigArguments {
  std::string path;                    // YAML file
  std::vector<std::string> overrides;  // key=value
};

void train(const ConfigArguments& config);

struct PlanArguments {
  ConfigArguments config;
  int ranks = 0;  // 0: the largest expert-parallel size
  bool json = false;
};
void plan(const PlanArguments& arguments);

void config_dump(const ConfigArguments& config, bool changed_only);
void config_check(const ConfigArguments& config);
void config_schema();
void config_help();

struct GenerateArguments {
  std::string checkpoint, tokenizer, prompt;
  infer::SamplingOptions sampling;
};
void generate(const GenerateArguments& arguments);

struct BenchArguments {
  ConfigArguments config;  // bench_step only
  int64_t steps = 5;
  int threads = 0;  // of a rank; 0: the cores divided among the ranks
  bool json = false;
};
void bench_roof(const BenchArguments& arguments);
void bench_step(const BenchArguments& arguments);
void bench_comm(const BenchArguments& arguments);

}  // namespace ziggurat::apps
