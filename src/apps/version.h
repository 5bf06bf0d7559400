#pragma once

#include <string>

namespace ziggurat::apps {

// Of the sources, as git tells it, "" outside a checkout. Made by scripts/cmake/revision.cmake at every
// build, and part of the binary alone: a commit compiles and links nothing else again.
extern const char* const kRevision;

// What `ziggurat --version` prints: this build, what it was built for and with, and the formats of its files.
std::string version_text(const std::string& revision);

// Name and version of the MPI that runs.
std::string mpi_library();

}  // namespace ziggurat::apps
