// What /metrics tells, for Prometheus, and the log of requests.
#pragma once

#include <cstdint>
#include <fstream>
#include <map>
#include <mutex>
#include <string>
#include <utility>

#include "serve/model_thread.h"
#include <ziggurat/serve/completions.h>

namespace ziggurat::serve {

class Metrics {
 public:
  // Appends a line of JSON about each completion to the file `log`; empty: no log. Throws Error(argument)
  // where it cannot be opened.
  explicit Metrics(const std::string& log);

  void count_request(const std::string& path, int status);
  void count_completion(const std::string& id, int status, const Usage& usage, const RequestTimes& times);
  std::string text(const ModelState& state) const;

 private:
  mutable std::mutex mutex_;
  std::map<std::pair<std::string, int>, int64_t> requests_;
  Usage usage_;
  int64_t completions_ = 0, with_tokens_ = 0;
  RequestTimes sums_;
  std::string log_path_;
  std::ofstream log_;
};

}  // namespace ziggurat::serve
