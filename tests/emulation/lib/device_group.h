// What tests can make of the emulated devices' links.
#pragma once

#include <string>

namespace ziggurat::emulation {

// Each thread takes the emulated device for one of its own, while true (the start); else all know it as one.
void give_each_thread_a_device(bool give);
// All groups of devices made from now on fail so, until "": their streams stay where they are.
void break_links(const std::string& failure);

}  // namespace ziggurat::emulation
