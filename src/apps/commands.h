// What the sub-commands do, and what they are told. apps/options fills the arguments in; errors are thrown.
#pragma once

#include <string>
#include <vector>

#include <ziggurat/eval/task.h>
#include <ziggurat/infer/sampler.h>
#include <ziggurat/runtime/device.h>

namespace ziggurat::apps {

struct ConfigArguments {
  std::string path;                    // YAML file
  std::vector<std::string> overrides;  // key=value
};

int train(const ConfigArguments& config);  // the exit code

struct PlanArguments {
  ConfigArguments config;
  int ranks = 0;        // 0: the largest expert-parallel size; to simulate, all of the cluster
  std::string cluster;  // a file; empty: no simulation
  bool search = false;  // for the fastest layout there
  bool json = false;
  std::string serving_cluster;  // a file: the time of a token there, instead
  std::string parallel;         // as of SharingArguments
  int64_t texts = 1;            // of a rank
  int64_t context = 128;        // tokens that each has
};

void plan(const PlanArguments& arguments);
void simulate(const PlanArguments& arguments);    // plan --simulate
void plan_serve(const PlanArguments& arguments);  // plan --serve

struct VerifyArguments {
  ConfigArguments config;
  std::vector<std::string> against = {"device=cpu"};  // key=value
  int64_t steps = 3;
  double tolerance = 0;  // 0: by precision
};

void verify(const VerifyArguments& arguments);

struct ReplayArguments {
  std::string checkpoint;
  int64_t step = 0;
  std::string dump, output;  // pattern of names, folder; both or none
};
void replay(const ReplayArguments& arguments);

struct ReportArguments {
  std::vector<std::string> runs;  // folders
  std::string output = "report.html";
};
void report(const ReportArguments& arguments);

struct AnalyseArguments {
  std::vector<std::string> checkpoints, data;  // folders
  std::string tokenizer;                       // as of GenerateArguments
  bool average = false;                        // as of EvalArguments
  int64_t sequences = 64;                      // of each text
  int64_t least = 10;                          // tokens of a kind that is averaged over
  std::string output = "routing";              // folder
};
void analyse_routing(const AnalyseArguments& arguments);
void top(const std::string& run, double every);  // seconds between two looks

void config_dump(const ConfigArguments& config, bool changed_only);
void config_check(const ConfigArguments& config);
void config_schema(bool of_cluster);
void config_help(const std::string& key, bool of_cluster);      // empty: all
void config_explain(const ConfigArguments& config, int ranks);  // 0: as plan

// How ranks that mpirun started share a model that is asked, and look after each other (apps/sharing.h).
struct SharingArguments {
  std::string parallel;      // keys of model::InferenceLayout, as tensor=2,expert_slice=2
  int expert_parallel = 0;   // InferenceLayout::expert, by an older name
  double watch_timeout = 0;  // WatchConfig::timeout
};

struct GenerateArguments {
  std::string checkpoint, tokenizer;
  std::vector<std::string> prompts, files, stops;  // files: -: standard input
  int64_t samples = 1;                             // of each prompt
  int64_t max_new_tokens = 64;
  int threads = 0;  // of a rank; 0: the cores divided among the ranks
  SharingArguments sharing;
  bool json = false;
  infer::SamplingOptions sampling;
  bool average = false;  // the averages of weights instead of them
  Device device = Device::cpu;
  std::string weights;  // int8: of 8 bits; empty: as in training
};
void generate(const GenerateArguments& arguments);

struct EvalArguments {
  std::string checkpoint, tokenizer, data, output, scores, dump_requests;
  std::string precision;  // bf16, fp32 or fp64; empty: as in training
  std::string weights;    // as of GenerateArguments
  std::vector<std::string> tasks;
  eval::Form form = eval::Form::current;
  int64_t limit = 0;       // documents of each task; 0: all
  int64_t max_length = 0;  // tokens that the model sees; 0: as in training
  int64_t batch_tokens = 1024;
  int threads = 0;  // of a rank; 0: the cores divided among the ranks
  SharingArguments sharing;
  bool any_size = false, request_hash = false;
  bool average = false;  // the averages of weights instead of them
  Device device = Device::cpu;
};
void eval(const EvalArguments& arguments);

struct ServeArguments {
  std::string checkpoint, tokenizer, name, host = "127.0.0.1";
  std::string precision;   // as of EvalArguments
  std::string weights;     // as of GenerateArguments
  int64_t max_length = 0;  // tokens of prompt and completion; 0: as in training
  int64_t texts = 64;      // written at once
  std::string cache;  // memory of keys and values; empty: enough for these texts, or a part of the memory
  int64_t most_requests = 96;
  double time_limit = 0;  // seconds of a request; 0: none
  std::string log;        // of requests; empty: none
  int port = 8000;        // 0: any that is free
  int threads = 0;        // of a rank; 0: the cores divided among the ranks
  SharingArguments sharing;
  bool average = false;  // as of EvalArguments
  Device device = Device::cpu;
};
void serve(const ServeArguments& arguments);

struct LogitsArguments {
  std::string checkpoint, output;
  std::vector<int32_t> tokens;
  bool average = false;  // as of EvalArguments
  Device device = Device::cpu;
};
void logits(const LogitsArguments& arguments);

struct ExportArguments {
  std::string checkpoint, output, tokenizer;
  std::string format = "hf";
  std::string dtype;  // fp32 or bf16; empty: as the run computed
  std::string shard_size = "5GB";
  bool no_tokenizer = false, overwrite = false;
  bool average = false;  // as of EvalArguments
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
  ConfigArguments config;       // bench_step only
  Device device = Device::cpu;  // bench_roof only: bench_step's is the config's
  int64_t steps = 5;
  int ranks_per_node = 0;  // bench_comm only; 0: those that share a machine's memory
  int threads = 0;         // of a rank; 0: the cores divided among the ranks
  bool json = false;
};
void bench_roof(const BenchArguments& arguments);
void bench_step(const BenchArguments& arguments);
void bench_comm(const BenchArguments& arguments);

struct BenchKernelsArguments {
  std::string filter;  // regular expression, found in NAME/DTYPE
  Device device = Device::cpu;
  int threads = 0;  // 0: every core
  bool json = false;
};
void bench_kernels(const BenchKernelsArguments& arguments);

struct BenchDecodeArguments {
  ConfigArguments config;
  int64_t context = 128;  // tokens read before the first measured one
  int64_t tokens = 64;    // of a round
  int64_t rounds = 5;
  int64_t texts = 1;    // side by side
  std::string weights;  // as of GenerateArguments
  Device device = Device::cpu;
  int threads = 0;  // 0: every core
  bool json = false;
};
void bench_decode(const BenchDecodeArguments& arguments);

struct BenchServeArguments {
  ConfigArguments config;
  int64_t clients = 16;  // who each ask again when they have their answer; with a rate: none
  double rate = 0;       // requests a second, at random times; 0: as the clients ask
  int64_t requests = 200;
  int64_t prompt = 128, tokens = 64;        // of a request, on average: half of it to half more
  int64_t texts = 64;                       // written at once
  double most_first = 1, most_token = 0.2;  // seconds within which a request is a good one
  std::string weights;                      // as of GenerateArguments
  Device device = Device::cpu;              // as of GenerateArguments
  int threads = 0;                          // of a rank; 0: the cores divided among the ranks
  bool json = false;
};
void bench_serve(const BenchServeArguments& arguments);

}  // namespace ziggurat::apps
