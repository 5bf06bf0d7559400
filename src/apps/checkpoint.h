// ziggurat checkpoint inspect|verify|diff|convert
#pragma once

#include <string>

#include <CLI/App.hpp>

namespace ziggurat::apps {

// What is in it. `path` as everywhere: a step folder, or the folder above or the run's, then the newest.
void checkpoint_inspect(const std::string& path, bool json);

// Every hash of it; of the folder of a run or of its checkpoints, of all of them. Throws Error(checkpoint)
// naming the files that are damaged.
void checkpoint_verify(const std::string& path);

void checkpoint_diff(const std::string& a, const std::string& b, bool json);

struct ConvertArguments {
  std::string checkpoint, output;
  std::string moments;  // bf16, fp32; empty: as they are
  bool weights_only = false;
};
void checkpoint_convert(const ConvertArguments& arguments);

}  // namespace ziggurat::apps
