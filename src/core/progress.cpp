#include <algorithm>
#include <cstdio>
#include <utility>

#include <fmt/format.h>

#include <ziggurat/core/amounts.h>
#include <ziggurat/core/progress.h>
#include <ziggurat/core/terminal.h>

namespace ziggurat {

Progress::Progress(std::string job, std::string unit, int64_t total)
    : job_(std::move(job)),
      unit_(std::move(unit)),
      total_(total),
      tells_(speaks() && !is_quiet()),
      terminal_(is_terminal(STDERR_FILENO)) {}

Progress::~Progress() {
  if (tells_) clear_status();
}

std::string Progress::amount(double n) const {
  return unit_.empty() ? format_bytes(n) : format_count(n) + " " + unit_;
}

std::string Progress::line(int64_t done, int64_t tokens, double seconds, bool finished) const {
  const auto n = static_cast<double>(done), total = static_cast<double>(total_);
  const double rate = n / std::max(seconds, 1e-6);
  std::string text = job_;
  if (total_ > 0) text += fmt::format(" {:.0f}% | {} of {}", 100 * n / total, amount(n), amount(total));
  if (total_ == 0) text += fmt::format(" | {}", amount(n));
  text += fmt::format(" | {}/s", amount(rate));
  if (tokens > 0) {
    text +=
        fmt::format(" | {} tokens/s", format_count(static_cast<double>(tokens) / std::max(seconds, 1e-6)));
  }
  if (finished) return text + fmt::format(" | took {}", format_duration(seconds));
  if (total_ > 0 && rate > 0) text += fmt::format(" | ETA {}", format_duration((total - n) / rate));
  return text;
}

void Progress::update(int64_t done, int64_t tokens) {
  const double now = timer_.seconds();
  if (!tells_ || now - last_ < (terminal_ ? 0.5 : 10.0)) return;
  last_ = now;
  const std::string text = line(done, tokens, now, false);
  if (terminal_) return draw_status(text);
  std::fprintf(stderr, "%s\n", text.c_str());
}

void Progress::finish(int64_t done, int64_t tokens) {
  if (!std::exchange(tells_, false)) return;
  clear_status();
  std::fprintf(stderr, "%s\n", line(done, tokens, timer_.seconds(), true).c_str());
}

void Progress::operator()(int64_t done, int64_t total) {
  total_ = total;
  done < total ? update(done) : finish(done);
}

}  // namespace ziggurat
