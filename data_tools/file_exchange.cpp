#include "data_tools/file_exchange.h"

#include <algorithm>

#include <nlohmann/json.hpp>

#include <ziggurat/core/error.h>
#include <ziggurat/data/folder.h>
#include <ziggurat/io/files.h>

namespace ziggurat {
namespace {

using nlohmann::ordered_json;
using Path = std::filesystem::path;
constexpr const char* kSteps = "exchange.json";

}  // namespace

FileExchange::FileExchange(Path folder, const std::string& name)
    : folder_(folder.empty() ? "." : std::move(folder)),
      staging_(folder_ / ("." + name + ".new")),
      decided_(folder_ / ("." + name + ".exchange")) {}

void FileExchange::commit(const std::vector<Step>& steps) const {
  ordered_json list = ordered_json::array();
  for (const Step& step : steps) list.push_back({{"remove", step.remove}, {"put", step.put}});
  replace_file(staging_ / kSteps, list.dump(1) + "\n");
  rename_durably(staging_, decided_);
  carry_out();
}

void FileExchange::carry_out() const {
  const Path list = decided_ / kSteps;
  const ordered_json steps = ordered_json::parse(read_file(list), nullptr, /*allow_exceptions=*/false);
  check(steps.is_array(), ErrorKind::data,
        "{} cannot be understood, so the interrupted exchange of files in {} cannot be finished; move the "
        "folder away and run the command again",
        list.string(), folder_.string());
  std::vector<std::string> all;
  for (const ordered_json& step : steps) {
    for (const std::string name : step.at("put")) all.push_back(name);
  }
  for (const ordered_json& step : steps) {
    for (const std::string name : step.at("remove")) {
      const bool replaced = std::count(all.begin(), all.end(), name) > 0 && !is_there(decided_ / name);
      if (!replaced) remove_file(folder_ / name);
    }
    for (const std::string name : step.at("put")) {
      if (is_there(decided_ / name)) rename_path(decided_ / name, folder_ / name);
    }
    sync_folder(folder_);
  }
  remove_folder(decided_);
}

bool FileExchange::finish_interrupted(const std::string& keep, std::string* text) const {
  if (!is_there(decided_)) return false;
  if (!keep.empty() && is_there(decided_ / keep)) *text = read_file(decided_ / keep);
  // The list of steps goes with the folder's last files, when all are done.
  is_there(decided_ / kSteps) ? carry_out() : remove_folder(decided_);
  return true;
}

void FileExchange::discard() const { remove_folder(staging_); }

}  // namespace ziggurat
