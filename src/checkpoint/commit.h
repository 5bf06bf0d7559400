// From the files of all ranks to a checkpoint, in one rename; and away with what it makes superfluous. One
// process of a job does this.
#pragma once

#include <ziggurat/checkpoint/checkpoint.h>

namespace ziggurat {

// Of the files in temporary_path(dir, info.step). Throws Error(checkpoint) naming path and errno; then there
// is no such checkpoint.
void commit_checkpoint(const std::string& dir, const CheckpointInfo& info, std::vector<FileRecord> files);

// What info.keep and info.keep_every let go, after a commit. A failure is only logged.
void remove_superfluous(const std::string& dir, const CheckpointInfo& info) noexcept;

// What was written of one that failed.
void discard_checkpoint(const std::string& dir, int64_t step) noexcept;

}  // namespace ziggurat
