// What the sub-commands do, and what they are told. main.cpp fills the arguments in; errors are thrown.
#pragma once

#include <string>
#include <vector>

#include <ziggurat/eval/task.h>
#include <ziggurat/infer/sampler.h>

namespace ziggurat::apps {

// choose_thread_count; the warning goes to stderr.
void use_threads(int asked, const char* option, int local_ranks = 1);

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
  std::string checkpoint, tokenizer;
  std::vector<std::string> prompts;
  int64_t samples = 1;  // of each prompt
  int threads = 0;      // 0: every core
  infer::SamplingOptions sampling;
};
void generate(const GenerateArguments& arguments);

struct EvalArguments {
  std::string checkpoint, tokenizer, data, output, scores, dump_requests;
  std::string precision;  // bf16, fp32 or fp64; empty: as in training
  std::vector<std::string> tasks;
  eval::Form form = eval::Form::current;
  int64_t limit = 0;       // documents of each task; 0: all
  int64_t max_length = 0;  // tokens that the model sees; 0: as in training
  int64_t batch_tokens = 1024;
  int threads = 0;  // of a rank; 0: the cores divided among the ranks
  bool any_size = false, request_hash = false;
};
void eval(const EvalArguments& arguments);

struct ServeArguments {
  std::string checkpoint, tokenizer, name, host = "127.0.0.1";
  std::string precision;   // as of EvalArguments
  int64_t max_length = 0;  // tokens of prompt and completion; 0: as in training
  int port = 8000;         // 0: any that is free
  int threads = 0;         // 0: every core
};
void serve(const ServeArguments& arguments);

struct LogitsArguments {
  std::string checkpoint, output;
  std::vector<int32_t> tokens;
};
void logits(const LogitsArguments& arguments);

struct ExportArguments {
  std::string checkpoint, output, tokenizer;
  std::string format = "hf";
  std::string dtype;  // fp32 or bf16; empty: as the run computed
  std::string shard_size = "5GB";
  bool no_tokenizer = false, overwrite = false;
};
void export_model(const ExportArguments& arguments);

struct ImportArguments {
  std::string from, output;
  std::vector<std::string> overrides;  // key=value of the run that goes on
  std::string upcycle;                 // experts=8,every=2; empty: none
  std::string shard_size = "5GB";
};
void import_model(const ImportArguments& arguments);

struct BenchArguments {
  ConfigArguments config;  // bench_step only
  int64_t steps = 5;
  int threads = 0;  // of a rank; 0: the cores divided among the ranks
  bool json = false;
};
void bench_roof(const BenchArguments& arguments);
void bench_step(const BenchArguments& arguments);
void bench_comm(const BenchArguments& arguments);

struct BenchKernelsArguments {
  std::string filter;  // regular expression, found in NAME/DTYPE
  int threads = 0;     // 0: every core
  bool json = false;
};
void bench_kernels(const BenchKernelsArguments& arguments);

struct BenchDecodeArguments {
  ConfigArguments config;
  int64_t context = 128;  // tokens read before the first measured one
  int64_t tokens = 64;    // of a round
  int64_t rounds = 5;
  int threads = 0;  // 0: every core
  bool json = false;
};
void bench_decode(const BenchDecodeArguments& arguments);

}  // namespace ziggurat::apps
