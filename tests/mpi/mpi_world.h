// What tests started by mpirun share. The runtime is made by main, before any test.
#pragma once

#include <ziggurat/comm/mpi.h>

namespace ziggurat {

MpiRuntime& mpi_runtime();

}  // namespace ziggurat
