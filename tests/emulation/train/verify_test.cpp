// verify() between the emulated device and the CPU: what agrees, and what it calls the first tensor that does
// not.
#include "tests/emulation/emulated_test.h"
#include "tests/support/training.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/comm/communicator.h>
#include <ziggurat/train/verify.h>

namespace ziggurat::emulation {
namespace {

class EmulatedVerify : public EmulatedTest {
 protected:
  std::vector<train::StepDeviation> verify(const train::RunConfig& config, const train::RunConfig& other) {
    std::vector<train::StepDeviation> steps;
    train::verify(config, other, 2, train::verify_tolerance(config), *self, *self,
                  [&](const train::StepDeviation& step) { steps.push_back(step); });
    return steps;
  }
  train::RunConfig pr_moe(Device device) {
    train::RunConfig config = test::small_pr_moe(folder.path(), 1);
    config.model.blocks.resize(1);
    config.batch.global_batch = config.batch.micro_batch;
    config.eval.sequences = 0;
    config.device = device;
    return config;
  }
  ziggurat::testing::TempDir folder;
  std::unique_ptr<Communicator> self = make_self_communicator();
};

TEST_F(EmulatedVerify, DevicesAgree) {
  const auto steps = verify(pr_moe(Device::cuda), pr_moe(Device::cpu));
  EXPECT_EQ(steps.size(), 2u);
  for (const train::StepDeviation& step : steps) {
    EXPECT_FALSE(step.first) << step.first.value_or(train::Deviation()).what << " by "
                             << step.first.value_or(train::Deviation()).difference;
    EXPECT_GT(step.worst.difference, 0) << "two devices to the bit: was one of them the device?";
  }
}

TEST_F(EmulatedVerify, TheFirstTensorThatDiffersIsNamed) {
  train::RunConfig other = pr_moe(Device::cpu);
  other.optimizer.lr = 2 * other.optimizer.lr;
  const auto steps = verify(pr_moe(Device::cuda), other);
  ASSERT_EQ(steps.size(), 1u);  // it ends there
  ASSERT_TRUE(steps[0].first);
  EXPECT_EQ(steps[0].first->what, "weights");  // losses and gradients come from the same weights
}

}  // namespace
}  // namespace ziggurat::emulation
