// A run whose folder is this job's own, and gone in the end.
#pragma once

#include <filesystem>
#include <string>

#include <unistd.h>

#include <ziggurat/comm/agreement.h>
#include <ziggurat/train/run_config.h>

namespace ziggurat::train {

class TemporaryRun {
 public:
  // Collective. The folder is named after `name`; `config` is the run's but for that.
  TemporaryRun(RunConfig config, const char* name, Communicator& world)
      : config_(std::move(config)), world_(world) {
    const auto path = [&] {
      return (std::filesystem::temp_directory_path() / fmt::format("ziggurat_{}_{}", name, getpid()))
          .string();
    };
    config_.output = on_rank_0(world, path);
  }
  ~TemporaryRun() {
    std::error_code ignored;
    if (world_.rank() == 0) std::filesystem::remove_all(config_.output, ignored);
  }
  TemporaryRun(const TemporaryRun&) = delete;
  TemporaryRun& operator=(const TemporaryRun&) = delete;
  RunConfig& config() { return config_; }

 private:
  RunConfig config_;
  Communicator& world_;
};

}  // namespace ziggurat::train
