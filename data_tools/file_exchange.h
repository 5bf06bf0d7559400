// New files take the place of old ones, all of them, whenever the process is killed:
//   <folder>/.<name>.new/       being made; a reader of the folder does not see it
//   <folder>/.<name>.exchange/  complete, and decided: only renames and removals are left to do
// The second comes from the first by one rename. What it says is done by commit() or, if that was killed, by
// the next command that writes there.
#pragma once

#include <filesystem>
#include <string>
#include <vector>

namespace ziggurat {

class FileExchange {
 public:
  FileExchange(std::filesystem::path folder, const std::string& name);

  const std::filesystem::path& folder() const { return folder_; }
  const std::filesystem::path& staging() const { return staging_; }  // where new files are made

  // Names in folder(); those to put lie in staging(), whole and synced. Removals come first. A step is on the
  // disk before the next begins.
  struct Step {
    std::vector<std::string> remove, put;
  };
  void commit(const std::vector<Step>& steps) const;

  // Does what a killed commit() left; false if nothing was left. `keep`: a file of its staging() that is
  // copied to *text before it goes; may be empty.
  bool finish_interrupted(const std::string& keep, std::string* text) const;

  void discard() const;  // removes staging()

 private:
  void carry_out() const;

  std::filesystem::path folder_, staging_, decided_;
};

}  // namespace ziggurat
