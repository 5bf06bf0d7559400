#include <cstdio>
#include <filesystem>
#include <memory>
#include <vector>

#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/stdout_sinks.h>

#include <ziggurat/core/log.h>

namespace ziggurat {

void init_log(int rank, int world_size, const std::string& directory, const std::string& level) {
  std::vector<spdlog::sink_ptr> sinks;
  if (rank == 0) {
    sinks.push_back(std::make_shared<spdlog::sinks::stdout_sink_mt>());
  }
  if (!directory.empty()) {
    std::filesystem::create_directories(directory);
    const auto path = std::filesystem::path(directory) / fmt::format("rank_{}.log", rank);
    sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string()));
  }
  auto logger = std::make_shared<spdlog::logger>("ziggurat", sinks.begin(), sinks.end());
  const std::string tag = world_size > 1 ? fmt::format("[{}/{}] ", rank, world_size) : "";
  logger->set_pattern("%H:%M:%S " + tag + "%l %v");
  logger->set_level(spdlog::level::from_str(level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
}

void log_fatal(const std::string& message) {
  spdlog::error("{}", message);  // to the rank's file, and to the terminal on rank 0
  std::fprintf(stderr, "ziggurat: %s\n", message.c_str());
  std::fflush(stderr);
}

}  // namespace ziggurat
