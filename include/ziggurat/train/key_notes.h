// What a user wants to know of a config's key beyond its field list: who reads it, and what the paper says.
#pragma once

#include <string>
#include <vector>

namespace ziggurat::train {

struct KeyNote {
  const char* key;      // of a value, or of a struct: then of everything below it
  const char* used_by;  // where to read on; null: as the struct around it
  const char* paper;    // of DeepSpeed-MoE and its published scripts; null: nothing
};

const std::vector<KeyNote>& key_notes();

// The lines for one key (model.blocks.N.repeat): those of the nearest struct where it has none of its own.
std::string note_of_key(const std::string& key);

}  // namespace ziggurat::train
