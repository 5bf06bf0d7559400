#include "tests/emulation/kernels/compare.h"
#include <ziggurat/kernels/dropout.h>

namespace ziggurat::emulation {
namespace {

// (elements, how far from 16 bytes the tensors begin)
class EmulatedDropout : public EmulatedTest, public testing::WithParamInterface<std::tuple<int, int>> {};

enum class Form { plain, offset, in_place, onto_offset };

template <class T>
void expect_same_bits(size_t n, size_t shift, Form form, double rate) {
  Stream cpu(Device::cpu), cuda(Device::cuda);
  const auto offset = values<T>("offset", n);
  auto x = values<T>("x", n), y = values<T>("y", n);
  if (form == Form::onto_offset) y = offset;
  const DeviceTensor<T> d_x(x, shift), d_offset(offset, shift), d_y(y, shift);
  const uint64_t moment = 7;
  const DeviceArray<uint64_t> d_moment(std::vector<uint64_t>{moment});
  const auto rng = [](const uint64_t* when) { return LatePhilox(3, Purpose::hidden_dropout, 5, when); };
  kernels::DropoutArgs<T> args{
      static_cast<int64_t>(n),        rate, rng(&moment), x.data(), nullptr, y.data(),
      4 * static_cast<int64_t>(shift)};
  kernels::DropoutArgs<T> device_args = args;
  device_args.rng = rng(d_moment.data());
  device_args.x = d_x.data();
  device_args.y = d_y.data();
  for (auto [a, own, added, result] :
       {std::tuple{&args, x.data(), offset.data(), y.data()},
        std::tuple{&device_args, d_x.data(), static_cast<const T*>(d_offset.data()), d_y.data()}}) {
    if (form == Form::offset) a->offset = added;
    if (form == Form::in_place) a->y = own;
    if (form == Form::onto_offset) a->offset = result;
  }
  kernels::dropout<Device::cpu>(args, cpu);
  kernels::dropout<Device::cuda>(device_args, cuda);
  const std::vector<T> got = (form == Form::in_place ? d_x : d_y).get(),
                       &want = form == Form::in_place ? x : y;
  for (size_t i = 0; i < n; ++i) ASSERT_EQ(to_double(got[i]), to_double(want[i])) << "element " << i;
}

TEST_P(EmulatedDropout, BitsAreTheCpus) {
  const auto [n, shift] = GetParam();
  for (const Form form : {Form::plain, Form::offset, Form::in_place, Form::onto_offset}) {
    for (const double rate : {0.0, 0.1, 0.7}) {
      SCOPED_TRACE(testing::Message() << "form " << static_cast<int>(form) << ", rate " << rate);
      expect_same_bits<float>(static_cast<size_t>(n), static_cast<size_t>(shift), form, rate);
      expect_same_bits<bf16>(static_cast<size_t>(n), static_cast<size_t>(shift), form, rate);
    }
  }
}

// Around a block of Philox, a load of 16 bytes and a block of 256 threads.
INSTANTIATE_TEST_SUITE_P(Sizes, EmulatedDropout,
                         testing::Combine(testing::Values(0, 1, 3, 8, 1029, 2056), testing::Values(0, 1)));

}  // namespace
}  // namespace ziggurat::emulation
