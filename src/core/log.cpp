#include <atomic>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <vector>

#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/spdlog.h>

#include <ziggurat/core/log.h>

namespace ziggurat {

namespace {
spdlog::level::level_enum spdlog_level(LogLevel level) {
  switch (level) {
    case LogLevel::debug:
      return spdlog::level::debug;
    case LogLevel::info:
      return spdlog::level::info;
    case LogLevel::warn:
      return spdlog::level::warn;
  }
  return spdlog::level::info;
}

// Standard output as far as somebody reads it: when its reader has left (`| head`), the log goes on in its
// file.
class TerminalSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  // True once, after the reader has left.
  bool lost_just_now() {
    Lost untold = Lost::untold;
    return lost_.compare_exchange_strong(untold, Lost::told);
  }

 private:
  enum class Lost { no, untold, told };

  void sink_it_(const spdlog::details::log_msg& message) override {
    if (lost_ != Lost::no) return;
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    std::fwrite(text.data(), 1, text.size(), stdout);
    flush_();
  }
  void flush_() override {
    if (std::fflush(stdout) != 0 && lost_ == Lost::no) lost_ = Lost::untold;
  }

  std::atomic<Lost> lost_ = Lost::no;
};

std::shared_ptr<TerminalSink> terminal;

}  // namespace

void init_log(int rank, int world_size, const std::string& directory, LogLevel level) {
  std::vector<spdlog::sink_ptr> sinks;
  if (rank == 0) {
    terminal = std::make_shared<TerminalSink>();
    sinks.push_back(terminal);
  }
  if (!directory.empty()) {
    std::filesystem::create_directories(directory);
    const auto path = std::filesystem::path(directory) / fmt::format("rank_{}.log", rank);
    sinks.push_back(std::make_shared<spdlog::sinks::basic_file_sink_mt>(path.string()));
  }
  auto logger = std::make_shared<spdlog::logger>("ziggurat", sinks.begin(), sinks.end());
  const std::string tag = world_size > 1 ? fmt::format("[{}/{}] ", rank, world_size) : "";
  logger->set_pattern("%H:%M:%S " + tag + "%l %v");
  logger->set_level(spdlog_level(level));
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(logger);
}

void log_line(LogLevel level, const std::string& message) {
  spdlog::log(spdlog_level(level), "{}", message);
  if (terminal && terminal->lost_just_now()) {
    spdlog::warn("nobody reads standard output any more: only this file goes on");
  }
}

// Past the terminal's sink: stderr is the same terminal, and a message told twice looks like two.
void log_fatal(const std::string& message) {
  const auto logger = spdlog::default_logger();
  for (const spdlog::sink_ptr& sink : logger->sinks()) {
    if (dynamic_cast<spdlog::sinks::basic_file_sink_mt*>(sink.get()) == nullptr) continue;
    sink->log({logger->name(), spdlog::level::err, message});
    sink->flush();
  }
  std::fprintf(stderr, "ziggurat: %s\n", message.c_str());
  std::fflush(stderr);
}

}  // namespace ziggurat
