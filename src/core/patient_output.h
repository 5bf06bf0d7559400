// Standard output that holds up nobody: as long as its reader takes nothing (a terminal that was stopped, a
// pager, mpirun while it ends a job), lines are left out and counted. Whoever prints keeps them elsewhere,
// too.
#pragma once

#include <cstdint>
#include <string>

namespace ziggurat {

class PatientOutput {
 public:
  // Of a pipe or a terminal; of anything else, which holds up nobody, it is not able().
  explicit PatientOutput(int descriptor);
  ~PatientOutput();
  PatientOutput(const PatientOutput&) = delete;
  PatientOutput& operator=(const PatientOutput&) = delete;

  bool able() const { return file_ >= 0; }
  // Waits half a second at most, and not at all once it has waited in vain until the reader is back. False:
  // there is no reader any more.
  bool write(const std::string& line);

 private:
  enum class Sent { all, part, never };
  Sent send_rest();

  int file_ = -1;
  std::string rest_;  // of a line that was begun
  int64_t left_out_ = 0;
  bool patient_ = true;
};

}  // namespace ziggurat
