#include "io/lock_owner.h"

#include <cstdlib>
#include <fstream>
#include <iterator>

#include <nlohmann/json.hpp>
#include <unistd.h>

#include <ziggurat/core/utc.h>
#include <ziggurat/io/random_id.h>
#include <ziggurat/io/system_facts.h>

namespace ziggurat {

namespace {

std::string command_line() {
  std::ifstream file("/proc/self/cmdline");
  std::string words((std::istreambuf_iterator<char>(file)), {});
  while (!words.empty() && words.back() == '\0') words.pop_back();
  for (char& c : words) {
    if (static_cast<unsigned char>(c) < ' ') c = ' ';
  }
  constexpr size_t kEnough = 500;
  return words.substr(0, kEnough);
}

std::string batch_job() {
  for (const char* name :
       {"SLURM_JOB_ID", "PBS_JOBID", "LSB_JOBID", "FLUX_JOB_ID", "COBALT_JOBID", "JOB_ID"}) {
    if (const char* id = std::getenv(name)) return fmt::format("{} {}", name, id);
  }
  return "";
}

}  // namespace

std::string LockOwner::text() const {
  if (id.empty()) return "a job that has not told its name";
  return fmt::format("pid {} on {}, {}since {}: {}", pid, host, job.empty() ? "" : job + ", ", started,
                     command);
}

LockOwner this_process() {
  return {.host = host_name(),
          .kernel = first_line("/proc/sys/kernel/random/boot_id"),
          .pid = ::getpid(),
          .job = batch_job(),
          .started = utc_now(),
          .command = command_line(),
          .id = random_id()};
}

std::string to_json(const LockOwner& o) {
  const nlohmann::ordered_json json = {
      {"host", o.host},       {"pid", o.pid},       {"job", o.job}, {"started", o.started},
      {"command", o.command}, {"kernel", o.kernel}, {"id", o.id}};
  return json.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace) + '\n';
}

LockOwner owner_from(const std::string& line) {
  const nlohmann::json json = nlohmann::json::parse(line, nullptr, false);
  if (!json.is_object()) return {};
  const auto text = [&](const char* key) {
    const auto found = json.find(key);
    return found != json.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  LockOwner owner{.host = text("host"),
                  .kernel = text("kernel"),
                  .job = text("job"),
                  .started = text("started"),
                  .command = text("command"),
                  .id = text("id")};
  if (const auto pid = json.find("pid"); pid != json.end() && pid->is_number_integer()) owner.pid = *pid;
  return owner;
}

}  // namespace ziggurat
