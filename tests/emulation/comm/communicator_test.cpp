// The contract of Communicator with tensors of the emulated device, which ranks as threads share: through the
// host's memory, and between devices.
#include "tests/comm/communicator_contract.h"
#include "tests/emulation/emulated_device.h"
#include <ziggurat/comm/thread.h>

namespace ziggurat {
namespace {

CommunicatorHarness harness(const std::string& name, int ranks, int64_t chunk_bytes = kReduceChunkBytes,
                            bool between_devices = false, int ranks_per_node = 0) {
  return {name,
          [=](const auto& body) {
            emulation::reset(emulation::default_seed());
            if (ranks == 1) {
              body(*make_self_communicator());
            } else {
              run_on_threads(
                  ranks,
                  [&](Communicator& world) {
                    check(!between_devices || world.use_devices().empty(), ErrorKind::internal, "no devices");
                    if (ranks_per_node > 0) {
                      world.use_nodes({.node = world.rank() / ranks_per_node,
                                       .all_to_all = AllToAll::hierarchical,
                                       .sums_from = 1});
                    }
                    body(world);
                  },
                  chunk_bytes);
            }
            EXPECT_EQ(emulation::pending_work(), 0) << "queued, and nobody waited for it";
            EXPECT_EQ(emulation::live_allocations(), 0) << "device memory was not freed";
          },
          Device::cuda};
}

CommunicatorHarness between_devices(const std::string& name, int ranks) {
  return harness(name, ranks, kReduceChunkBytes, true);
}

// Nodes matter to what goes through the host.
CommunicatorHarness on_nodes(const std::string& name, bool between_devices) {
  return harness(name, 4, kReduceChunkBytes, between_devices, 2);
}

INSTANTIATE_TEST_SUITE_P(Emulated, CommunicatorContract,
                         testing::Values(harness("Self", 1), harness("Thread2", 2), harness("Thread3", 3),
                                         harness("Thread4", 4), harness("Thread4Chunked", 4, 24),
                                         between_devices("Devices2", 2), between_devices("Devices3", 3),
                                         between_devices("Devices4", 4), on_nodes("TwoNodes", false),
                                         on_nodes("DevicesOnTwoNodes", true)),
                         harness_name);

}  // namespace
}  // namespace ziggurat
