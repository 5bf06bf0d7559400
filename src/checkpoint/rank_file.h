// The file of one rank in a checkpoint.
#pragma once

#include <ziggurat/checkpoint/checkpoint.h>

namespace ziggurat {

using MakeSlice = std::function<void(size_t slice, const WriteBytes& write)>;

// Throws Error(checkpoint) naming path and errno.
FileRecord write_rank_file(const std::string& folder, const CheckpointInfo& info, size_t rank,
                           std::span<const SliceHeader> slices, const MakeSlice& make);

// Of tensors that somebody holds. `go_on` is asked now and then; it throws to give up.
FileRecord write_rank_file(const std::string& folder, const CheckpointInfo& info, size_t rank,
                           std::span<const TensorSlice> slices, const std::function<void()>& go_on = {});

}  // namespace ziggurat
