#include <atomic>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include <spdlog/sinks/base_sink.h>
#include <spdlog/sinks/basic_file_sink.h>
#include <spdlog/sinks/ringbuffer_sink.h>
#include <spdlog/spdlog.h>
#include <unistd.h>

#include "core/patient_output.h"
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/terminal.h>

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

// Standard output as far as somebody reads it: when its reader has left (`| head`), or does not read on, the
// log goes on in its file.
class TerminalSink final : public spdlog::sinks::base_sink<std::mutex> {
 public:
  // True once, after the reader has left.
  bool lost_just_now() {
    Lost untold = Lost::untold;
    return lost_.compare_exchange_strong(untold, Lost::told);
  }

  // From now on lines may be left out here: they stand in a file.
  void wait_for_nobody() {
    const std::lock_guard lock(mutex_);
    std::fflush(stdout);
    output_.emplace(STDOUT_FILENO);
  }

 private:
  enum class Lost { no, untold, told };

  void sink_it_(const spdlog::details::log_msg& message) override {
    if (lost_ != Lost::no || (is_quiet() && message.level < spdlog::level::warn)) return;
    spdlog::memory_buf_t text;
    formatter_->format(message, text);
    clear_status();
    std::string line(text.data(), text.size());
    if (message.level >= spdlog::level::warn) {
      line = coloured(line, Colour::yellow, STDOUT_FILENO);  // errors go past this sink
    }
    if (output_ && output_->able()) {
      if (!output_->write(line)) lost_ = Lost::untold;
      return;
    }
    std::fwrite(line.data(), 1, line.size(), stdout);
    flush_();
  }
  void flush_() override {
    if (std::fflush(stdout) != 0 && lost_ == Lost::no) lost_ = Lost::untold;
  }

  std::atomic<Lost> lost_ = Lost::no;
  std::optional<PatientOutput> output_;
};

std::shared_ptr<TerminalSink> terminal;

using LogFile = spdlog::sinks::basic_file_sink_mt;
using Memory = spdlog::sinks::ringbuffer_sink_mt;

std::string file_name, file_path, pattern;  // of the thread that makes loggers
std::mutex choosing;                        // which one logs: others do, while it changes

std::shared_ptr<spdlog::logger> current_logger() {
  const std::lock_guard lock(choosing);
  return spdlog::default_logger();
}

void set_sinks(std::vector<spdlog::sink_ptr> sinks, spdlog::level::level_enum level) {
  auto logger = std::make_shared<spdlog::logger>("ziggurat", sinks.begin(), sinks.end());
  logger->set_pattern(pattern);
  logger->set_level(level);
  logger->flush_on(spdlog::level::info);
  const std::lock_guard lock(choosing);
  spdlog::set_default_logger(logger);
}

std::shared_ptr<LogFile> open_log_file() {
  try {
    auto file = std::make_shared<LogFile>(file_path);
    file->set_pattern(pattern);
    return file;
  } catch (const spdlog::spdlog_ex& e) {
    fail(ErrorKind::config, "output: cannot write the log {}: {}", file_path, e.what());
  }
}

}  // namespace

void init_log(int rank, int world_size, LogLevel level) {
  file_name = fmt::format("rank_{}.log", rank);
  file_path.clear();
  const std::string tag = world_size > 1 ? fmt::format("[{}/{}] ", rank, world_size) : "";
  pattern = "%H:%M:%S " + tag + "%l %v";
  constexpr size_t kRemembered = 1000;
  std::vector<spdlog::sink_ptr> sinks = {std::make_shared<Memory>(kRemembered)};
  terminal.reset();
  if (rank == 0) {
    terminal = std::make_shared<TerminalSink>();
    sinks.push_back(terminal);
  }
  set_sinks(std::move(sinks), spdlog_level(level));
}

void log_to_folder(const std::string& directory) {
  file_path = directory + "/" + file_name;
  const auto logger = current_logger();
  std::vector<spdlog::sink_ptr> sinks;
  const auto file = open_log_file();
  for (const spdlog::sink_ptr& sink : logger->sinks()) {
    const auto memory = std::dynamic_pointer_cast<Memory>(sink);
    if (memory == nullptr) {
      sinks.push_back(sink);
      continue;
    }
    for (const spdlog::details::log_msg_buffer& line : memory->last_raw()) file->log(line);
  }
  file->flush();
  sinks.push_back(file);
  if (terminal) terminal->wait_for_nobody();
  set_sinks(std::move(sinks), logger->level());
}

void remake_log_file() {
  if (file_path.empty() || std::filesystem::exists(file_path)) return;
  const auto logger = current_logger();
  std::vector<spdlog::sink_ptr> sinks;
  for (const spdlog::sink_ptr& sink : logger->sinks()) {
    if (std::dynamic_pointer_cast<LogFile>(sink) == nullptr) sinks.push_back(sink);
  }
  sinks.push_back(open_log_file());
  set_sinks(std::move(sinks), logger->level());
}

void log_line(LogLevel level, const std::string& message) {
  const auto logger = current_logger();
  logger->log(spdlog_level(level), "{}", message);
  if (terminal && terminal->lost_just_now()) {
    logger->warn("nobody reads standard output any more: only this file goes on");
  }
}

bool speaks() { return terminal != nullptr; }

void log_to_file(const std::string& message) {
  const auto logger = current_logger();
  for (const spdlog::sink_ptr& sink : logger->sinks()) {
    if (std::dynamic_pointer_cast<LogFile>(sink) == nullptr) continue;
    sink->log({logger->name(), spdlog::level::err, message});
    sink->flush();
  }
}

// Past the terminal's sink: stderr is the same terminal, and a message told twice looks like two.
void log_fatal(const std::string& message) {
  log_to_file(message);
  clear_status();
  std::fprintf(stderr, "%s\n", coloured("ziggurat: " + message, Colour::red, STDERR_FILENO).c_str());
  std::fflush(stderr);
}

}  // namespace ziggurat
