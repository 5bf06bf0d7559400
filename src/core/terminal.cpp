#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>

#include <fmt/format.h>
#include <unistd.h>

#include <ziggurat/core/terminal.h>

namespace ziggurat {

namespace {
std::atomic<bool> quiet = false;
std::atomic<bool> status_shows = false;
}  // namespace

bool is_terminal(int fd) {
  if (::isatty(fd) == 0) return false;
  if (::tcgetpgrp(fd) >= 0) return true;  // the terminal that this process was started from
  std::error_code unseen;
  const std::string starters =
      std::filesystem::read_symlink(fmt::format("/proc/{}/fd/{}", ::getppid(), fd), unseen).string();
  return starters.starts_with("/dev/pts/") || starters.starts_with("/dev/tty");
}

bool may_colour(int fd) {
  const char* no_color = std::getenv("NO_COLOR");
  const char* term = std::getenv("TERM");
  const bool wanted = no_color == nullptr || *no_color == '\0';
  const bool able = term != nullptr && std::string_view(term) != "dumb";
  return wanted && able && is_terminal(fd);
}

std::string coloured(std::string_view text, Colour colour, int fd) {
  if (!may_colour(fd)) return std::string(text);
  return fmt::format("\033[{}m{}\033[0m", static_cast<int>(colour), text);
}

void set_quiet(bool value) { quiet = value; }
bool is_quiet() { return quiet; }

void draw_status(const std::string& line) {
  if (!is_terminal(STDERR_FILENO)) return;
  std::fprintf(stderr, "\r\033[K%s", line.c_str());
  std::fflush(stderr);
  status_shows = true;
}

void clear_status() {
  if (!status_shows.exchange(false)) return;
  std::fputs("\r\033[K", stderr);
  std::fflush(stderr);
}

}  // namespace ziggurat
