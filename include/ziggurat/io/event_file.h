// TensorBoard's event files: numbers and texts by step, which `tensorboard --logdir run` shows.
//
// A file is a sequence of records: u64 length, masked CRC-32C of it, a protobuf message Event, masked CRC-32C
// of that. The few fields that are needed are encoded by hand:
//   Event   1 wall_time (double)  2 step (int64)  3 file_version (string)  5 summary  7 session_log
//   Summary 1 value: 1 tag (string)  2 simple_value (float)  8 tensor, of a text, with 9 metadata
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>

namespace ziggurat {

using NamedScalar = std::pair<std::string, double>;
using NamedText = std::pair<std::string, std::string>;

// Each a whole record. `time`: seconds since 1970.
std::string event_file_head(double time);  // the first of a file
// The run goes on after `step`: TensorBoard forgets what earlier files told of later ones.
std::string event_of_start(double time, int64_t step);
std::string event_of_scalars(double time, int64_t step, std::span<const NamedScalar> scalars);
std::string event_of_texts(double time, int64_t step, std::span<const NamedText> texts);

// Protects checksums of data that hold checksums themselves.
uint32_t masked_crc32c(std::string_view data);

}  // namespace ziggurat
