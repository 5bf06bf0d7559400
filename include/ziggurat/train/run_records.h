// What a run tells programs, as it happens: metrics.jsonl, and the same numbers in TensorBoard's event files,
// one for each start, beside it.
#pragma once

#include <cstdint>
#include <string>

#include <nlohmann/json.hpp>

#include <ziggurat/io/appended_file.h>

namespace ziggurat::train {

class RunRecords {
 public:
  RunRecords() = default;  // tells nothing: ranks other than 0

  // Goes on in <folder>/metrics.jsonl and begins a new event file; the run continues after `step`. Throws
  // Error(config) naming the file that cannot be opened.
  RunRecords(const std::string& folder, int64_t step);

  void write(const std::string& json);  // one record, as to_json() makes them
  void sync();                          // to the disk

 private:
  AppendedFile metrics_, events_;
};

// The file that a start at this time writes, a name that is not taken in the folder.
std::string new_event_file(const std::string& folder, double time);

// The event of a record, "" for one that TensorBoard has no use for.
std::string event_of(const nlohmann::json& record, double time);

}  // namespace ziggurat::train
