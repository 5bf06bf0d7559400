// How the binary ends: what launchers, batch systems and scripts/slurm/requeue.sh go by.
#pragma once

namespace ziggurat {

namespace exit_codes {
inline constexpr int done = 0;
inline constexpr int other = 1;         // a lost rank, a device, the system
inline constexpr int config = 2;        // bad config or usage: the same start ends the same way
inline constexpr int data = 3;          // data or checkpoint unusable
inline constexpr int saved = 75;        // ended early by a signal, a limit or a STOP file, saved: start again
inline constexpr int hang = 76;         // a rank made no progress: start again
inline constexpr int numeric = 77;      // start again elsewhere, or with other numbers
inline constexpr int no_progress = 93;  // of requeue.sh: rounds that got nowhere; do not start again
}  // namespace exit_codes

}  // namespace ziggurat
