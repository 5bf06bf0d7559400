// The contract of Communicator as one suite: an executable includes it once and instantiates it with its
// implementations.
#pragma once

#include <bit>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/comm/group.h"
#include "tests/comm/values.h"
#include <ziggurat/comm/communicator.h>

namespace ziggurat {

// Runs a body on every rank of a world: on all ranks as threads, or on this process's rank under MPI.
struct CommunicatorHarness {
  std::string name;
  std::function<void(const std::function<void(Communicator&)>&)> run;
  Device device = Device::cpu;  // where tensors lie
};

inline std::string harness_name(const testing::TestParamInfo<CommunicatorHarness>& info) {
  return info.param.name;
}

class CommunicatorContract : public testing::TestWithParam<CommunicatorHarness> {
 protected:
  void on_every_rank(const std::function<void(contract::Group&)>& body) {
    GetParam().run([&](Communicator& communicator) {
      contract::Group world(communicator, GetParam().device);
      body(world);
    });
  }
  // Also on two worlds cut out of it: consecutive halves and even/odd ranks.
  void on_every_group(const std::function<void(contract::Group&)>& body) {
    on_every_rank([&](contract::Group& world) {
      body(world);
      const int half = std::max(1, world.size() / 2);
      const auto consecutive = world.split(world.rank() / half, world.rank(), "consecutive");
      body(*consecutive);
      const auto strided = world.split(world.rank() % 2, world.rank(), "strided");
      body(*strided);
    });
  }
};

namespace contract {

template <class T>
void broadcast_and_gather(Group& group) {
  Stream stream;
  for (int root = 0; root < group.size(); ++root) {
    Buffer<T> buffer({7, 3});
    for (int64_t i = 0; i < 21; ++i) buffer.values[static_cast<size_t>(i)] = tagged<T>(group.rank(), i);
    group.broadcast(buffer.tensor, root, stream).wait();
    for (int64_t i = 0; i < 21; ++i)
      EXPECT_TRUE(same_bits(buffer.values[static_cast<size_t>(i)], tagged<T>(root, i)));
  }
  for (const bool in_place : {false, true}) {
    Buffer<T> mine({5, 3}), all({5 * group.size(), 3});
    const Tensor input = in_place ? all.tensor.rows(5 * group.rank(), 5 * group.rank() + 5) : mine.tensor;
    for (int64_t i = 0; i < 15; ++i) input.data<T>()[i] = tagged<T>(group.rank(), i);
    group.all_gather(input, all.tensor, stream).wait();
    for (int r = 0; r < group.size(); ++r) {
      for (int64_t i = 0; i < 15; ++i) {
        EXPECT_TRUE(same_bits(all.values[static_cast<size_t>(r * 15 + i)], tagged<T>(r, i))) << "from " << r;
      }
    }
  }
}

template <class T>
void all_to_all(Group& group) {
  Stream stream;
  const int n = group.size();
  Buffer<T> input({2 * n, 3}), output({2 * n, 3});
  // The value carries the sender, the element its receiver.
  for (int64_t i = 0; i < 6 * n; ++i) input.values[static_cast<size_t>(i)] = tagged<T>(group.rank(), i);
  group.all_to_all(input.tensor, output.tensor, stream).wait();
  for (int r = 0; r < n; ++r) {
    for (int64_t i = 0; i < 6; ++i) {
      EXPECT_TRUE(
          same_bits(output.values[static_cast<size_t>(r * 6 + i)], tagged<T>(r, group.rank() * 6 + i)));
    }
  }
}

// Rank s sends (s + 2 r) % 4 rows to rank r, none among them, of `width` elements; row i holds tag (s, i).
template <class T>
void all_to_all_v(Group& group, int64_t width) {
  Stream stream;
  const auto rows = [](int from, int to) { return int64_t{(from + 2 * to) % 4}; };
  std::vector<int64_t> send, receive;
  int64_t sent = 0, received = 0;
  for (int r = 0; r < group.size(); ++r) {
    sent += send.emplace_back(rows(group.rank(), r));
    received += receive.emplace_back(rows(r, group.rank()));
  }
  const T untouched = tagged<T>(7, 15);
  Buffer<T> input({sent, width}), output({received + 1, width}, untouched);
  for (int64_t i = 0; i < sent * width; ++i)
    input.values[static_cast<size_t>(i)] = tagged<T>(group.rank(), i / width);
  group.all_to_all_v(input.tensor, send, output.tensor, receive, stream).wait();
  int64_t at = 0;
  for (int r = 0; r < group.size(); ++r) {
    int64_t first = 0;
    for (int before = 0; before < group.rank(); ++before) first += rows(r, before);
    for (int64_t i = 0; i < rows(r, group.rank()) * width; ++i) {
      EXPECT_TRUE(same_bits(output.values[static_cast<size_t>(at++)], tagged<T>(r, first + i / width)));
    }
  }
  for (; at < (received + 1) * width; ++at)
    EXPECT_TRUE(same_bits(output.values[static_cast<size_t>(at)], untouched));
}

// Small integers: exact in any order.
template <class T>
void reduce_exactly(Group& group) {
  Stream stream;
  const int n = group.size();
  for (const ReduceOp op : {ReduceOp::sum, ReduceOp::max}) {
    Buffer<T> buffer({37});
    for (int64_t i = 0; i < 37; ++i)
      buffer.values[static_cast<size_t>(i)] = static_cast<T>((group.rank() + 1) * (i - 18));
    group.all_reduce(buffer.tensor, op, ReduceOrder::any, stream).wait();
    for (int64_t i = 0; i < 37; ++i) {
      const int64_t factor = op == ReduceOp::sum ? n * (n + 1) / 2 : (i < 18 ? 1 : n);
      EXPECT_EQ(buffer.values[static_cast<size_t>(i)], static_cast<T>(factor * (i - 18)));
    }
  }
  Buffer<T> input({5 * n, 3}), output({5, 3});
  for (int64_t i = 0; i < 15 * n; ++i)
    input.values[static_cast<size_t>(i)] = static_cast<T>((group.rank() + 1) * i);
  group.reduce_scatter(input.tensor, output.tensor, ReduceOrder::any, stream).wait();
  for (int64_t i = 0; i < 15; ++i) {
    EXPECT_EQ(output.values[static_cast<size_t>(i)],
              static_cast<T>(n * (n + 1) / 2 * (group.rank() * 15 + i)));
  }
}

template <class T>
void reduce_as_tree(Group& group, int64_t elements) {
  Stream stream;
  const int n = group.size();
  Buffer<T> buffer({elements});
  for (int64_t i = 0; i < elements; ++i)
    buffer.values[static_cast<size_t>(i)] = random_value<T>(group.rank(), i);
  group.all_reduce(buffer.tensor, ReduceOp::sum, ReduceOrder::fixed_tree, stream).wait();
  for (int64_t i = 0; i < elements; ++i) {
    ASSERT_TRUE(same_bits(buffer.values[static_cast<size_t>(i)], local_tree<T>(0, n, i))) << "element " << i;
  }
  for (const bool in_place : {false, true}) {
    Buffer<T> input({elements * n}), own({elements});
    for (int64_t i = 0; i < elements * n; ++i) {
      input.values[static_cast<size_t>(i)] = random_value<T>(group.rank(), i);
    }
    const int64_t first = group.rank() * elements;
    const Tensor output = in_place ? input.tensor.rows(first, first + elements) : own.tensor;
    group.reduce_scatter(input.tensor, output, ReduceOrder::fixed_tree, stream).wait();
    for (int64_t i = 0; i < elements; ++i) {
      ASSERT_TRUE(same_bits(output.data<T>()[i], local_tree<T>(0, n, first + i))) << "element " << i;
    }
    for (int64_t i = 0; i < elements * n; ++i) {
      if (in_place && first <= i && i < first + elements) continue;
      ASSERT_TRUE(same_bits(input.values[static_cast<size_t>(i)], random_value<T>(group.rank(), i)))
          << "input changed";
    }
  }
}

// Blocks of a length that is rarely a multiple of anything, other to every rank: some are long, some empty.
inline void exchange_lengths(Group& group, int64_t base) {
  Stream stream;
  const auto rows = [&](int from, int to) { return (from + to) % 3 == 0 ? 0 : base + 5 * from + 3 * to; };
  std::vector<int64_t> send, receive;
  int64_t sent = 0, received = 0;
  for (int r = 0; r < group.size(); ++r) {
    sent += send.emplace_back(rows(group.rank(), r));
    received += receive.emplace_back(rows(r, group.rank()));
  }
  Buffer<int32_t> input({sent}), output({received});
  int64_t at = 0;
  for (int r = 0; r < group.size(); ++r) {
    for (int64_t i = 0; i < send[static_cast<size_t>(r)]; ++i)
      input.values[static_cast<size_t>(at++)] =
          static_cast<int32_t>(group.rank() * 100000000 + r * 10000000 + i);
  }
  group.all_to_all_v(input.tensor, send, output.tensor, receive, stream).wait();
  at = 0;
  for (int r = 0; r < group.size(); ++r) {
    for (int64_t i = 0; i < receive[static_cast<size_t>(r)]; ++i)
      ASSERT_EQ(output.values[static_cast<size_t>(at++)], r * 100000000 + group.rank() * 10000000 + i)
          << "element " << i << " from rank " << r;
  }
}

inline void gather_length(Group& group, int64_t elements) {
  Stream stream;
  Buffer<bf16> mine({elements}), all({elements * group.size()});
  for (int64_t i = 0; i < elements; ++i) mine.values[static_cast<size_t>(i)] = tagged<bf16>(group.rank(), i);
  group.all_gather(mine.tensor, all.tensor, stream).wait();
  for (int64_t i = 0; i < elements * group.size(); ++i) {
    ASSERT_TRUE(same_bits(all.values[static_cast<size_t>(i)], tagged<bf16>(i / elements, i % elements)))
        << "element " << i;
  }
}

}  // namespace contract

TEST_P(CommunicatorContract, BroadcastAndGatherMoveEveryDtype) {
  on_every_group([](contract::Group& group) {
    contract::broadcast_and_gather<float>(group);
    contract::broadcast_and_gather<double>(group);
    contract::broadcast_and_gather<bf16>(group);
    contract::broadcast_and_gather<int32_t>(group);
  });
}

TEST_P(CommunicatorContract, AllToAllMovesEveryDtype) {
  on_every_group([](contract::Group& group) {
    contract::all_to_all<float>(group);
    contract::all_to_all<double>(group);
    contract::all_to_all<bf16>(group);
    contract::all_to_all<int32_t>(group);
  });
}

TEST_P(CommunicatorContract, AllToAllVMovesRowsOfAnyWidth) {
  on_every_group([](contract::Group& group) {
    for (const int64_t width : {1, 3, 40, 0}) {
      contract::all_to_all_v<float>(group, width);
      contract::all_to_all_v<double>(group, width);
      contract::all_to_all_v<bf16>(group, width);
      contract::all_to_all_v<int32_t>(group, width);
    }
  });
}

TEST_P(CommunicatorContract, AwaitedBroadcastsMayBeLongInComing) {
  on_every_group([](contract::Group& group) {
    Stream stream;
    for (int root = 0; root < group.size(); ++root) {
      contract::Buffer<int32_t> buffer({7, 3});
      for (int64_t i = 0; i < 21; ++i) {
        buffer.values[static_cast<size_t>(i)] = contract::tagged<int32_t>(group.rank(), i);
      }
      // Later than others look for it without a pause.
      if (group.rank() == root && root == 0) std::this_thread::sleep_for(std::chrono::milliseconds(4));
      group.communicator().await_broadcast(buffer.tensor, root, stream);
      for (int64_t i = 0; i < 21; ++i) {
        EXPECT_EQ(buffer.values[static_cast<size_t>(i)], contract::tagged<int32_t>(root, i));
      }
    }
    const contract::Buffer<int32_t> any({1, 1});
    EXPECT_THROW(group.communicator().await_broadcast(any.tensor, group.size(), stream), Error);
  });
}

TEST_P(CommunicatorContract, ZeroRowsEverywhere) {
  on_every_group([](contract::Group& group) {
    Stream stream;
    const contract::Buffer<float> none({0, 5});
    const std::vector<int64_t> zeros(static_cast<size_t>(group.size()), 0);
    group.all_to_all_v(none.tensor, zeros, none.tensor, zeros, stream).wait();
    group.all_to_all(none.tensor, none.tensor, stream).wait();
    group.all_gather(none.tensor, none.tensor, stream).wait();
    group.reduce_scatter(none.tensor, none.tensor, ReduceOrder::any, stream).wait();
    group.all_reduce(none.tensor, ReduceOp::sum, ReduceOrder::any, stream).wait();
    group.broadcast(none.tensor, 0, stream).wait();
  });
}

TEST_P(CommunicatorContract, ReductionsAreExactOnSmallIntegers) {
  on_every_group([](contract::Group& group) {
    contract::reduce_exactly<float>(group);
    contract::reduce_exactly<double>(group);
    contract::reduce_exactly<int32_t>(group);
  });
}

TEST_P(CommunicatorContract, FixedTreeIsBitEqualToTheLocalTree) {
  on_every_group([](contract::Group& group) {
    if (!std::has_single_bit(static_cast<unsigned>(group.size()))) return;  // refused: WrongArguments...
    contract::reduce_as_tree<float>(group, 1003);
    contract::reduce_as_tree<double>(group, 1003);
    contract::reduce_as_tree<int32_t>(group, 1003);
  });
}

// An implementation may cut messages: lengths around multiples of powers of two, down to one element.
TEST_P(CommunicatorContract, MessagesOfEveryLength) {
  on_every_group([](contract::Group& group) {
    const bool has_tree = std::has_single_bit(static_cast<unsigned>(group.size()));
    for (const int64_t border : {16, 32, 128}) {
      for (const int64_t elements : {border - 1, border, border + 1, border * group.size() - 3}) {
        if (has_tree) contract::reduce_as_tree<float>(group, elements);
        contract::exchange_lengths(group, elements);
        contract::gather_length(group, elements);
      }
    }
  });
}

TEST_P(CommunicatorContract, AllReduceGivesAllRanksTheSameBits) {
  on_every_group([](contract::Group& group) {
    Stream stream;
    constexpr int64_t n = 501;
    contract::Buffer<float> buffer({n}), all({n * group.size()});
    for (int64_t i = 0; i < n; ++i) {
      buffer.values[static_cast<size_t>(i)] = contract::random_value<float>(group.rank(), i);
    }
    group.all_reduce(buffer.tensor, ReduceOp::sum, ReduceOrder::any, stream).wait();
    group.all_gather(buffer.tensor, all.tensor, stream).wait();
    for (int r = 0; r < group.size(); ++r) {
      EXPECT_EQ(std::memcmp(all.values.data() + r * n, buffer.values.data(), n * sizeof(float)), 0)
          << "rank " << r;
    }
  });
}

TEST_P(CommunicatorContract, WorkOfSeveralCollectivesMayBeOpen) {
  on_every_rank([](contract::Group& world) {
    Stream stream;
    const int n = world.size();
    contract::Buffer<float> in_a({n, 50}, 1.0f + static_cast<float>(world.rank())), out_a({n, 50});
    contract::Buffer<float> in_b({n, 9}, 101.0f + static_cast<float>(world.rank())), out_b({n, 9});
    Work a = world.all_to_all(in_a.tensor, out_a.tensor, stream);
    Work b = world.all_to_all(in_b.tensor, out_b.tensor, stream);
    b.wait();
    a.wait();
    a.wait();
    for (int r = 0; r < n; ++r) {
      EXPECT_EQ(out_a.values[static_cast<size_t>(r * 50 + 49)], 1.0f + static_cast<float>(r));
      EXPECT_EQ(out_b.values[static_cast<size_t>(r * 9)], 101.0f + static_cast<float>(r));
    }
  });
}

TEST_P(CommunicatorContract, ManyWorksOfAllSizesMayBeOpen) {
  on_every_rank([](contract::Group& world) {
    Stream stream;
    const int n = world.size();
    std::vector<contract::Buffer<int32_t>> inputs, outputs;
    std::vector<Work> works;
    for (int k = 0; k < 24; ++k) {
      const int64_t rows = (int64_t{1} << k % 8) * 7 + k;
      inputs.emplace_back(Shape{n, rows}, world.rank() * 1000 + k);
      outputs.emplace_back(Shape{n, rows});
    }
    for (size_t k = 0; k < inputs.size(); ++k) {
      works.push_back(world.all_to_all(inputs[k].tensor, outputs[k].tensor, stream));
      int32_t sum = static_cast<int32_t>(k);
      world.all_reduce(Tensor(&sum, DType::i32, {1}), ReduceOp::sum, ReduceOrder::any, stream).wait();
      EXPECT_EQ(sum, n * static_cast<int32_t>(k));
    }
    while (!works.empty()) works.pop_back();
    for (size_t k = 0; k < inputs.size(); ++k) {
      const int64_t rows = outputs[k].tensor.dim(1);
      for (int64_t i = 0; i < n * rows; ++i)
        ASSERT_EQ(outputs[k].values[static_cast<size_t>(i)], i / rows * 1000 + static_cast<int64_t>(k));
    }
  });
}

TEST_P(CommunicatorContract, SplitOrdersByKeyThenRank) {
  on_every_rank([](contract::Group& world) {
    const auto reversed = world.split(0, -world.rank(), "reversed");
    EXPECT_EQ(reversed->size(), world.size());
    EXPECT_EQ(reversed->rank(), world.size() - 1 - world.rank());
    const auto same_key = world.split(0, 5, "same_key");
    EXPECT_EQ(same_key->rank(), world.rank());
    const auto alone = world.split(world.rank(), 0, "alone");
    EXPECT_EQ(alone->size(), 1);
    const std::vector<std::string> texts = reversed->all_gather_text(std::to_string(world.rank()));
    for (int r = 0; r < world.size(); ++r) {
      EXPECT_EQ(texts[static_cast<size_t>(r)], std::to_string(world.size() - 1 - r));
    }
  });
}

TEST_P(CommunicatorContract, TextOfAnyLength) {
  on_every_group([](contract::Group& group) {
    const auto text = [](int rank) { return std::string(static_cast<size_t>(rank * 100), 'a') + '\0'; };
    const std::vector<std::string> texts = group.all_gather_text(group.rank() == 0 ? "" : text(group.rank()));
    ASSERT_EQ(texts.size(), static_cast<size_t>(group.size()));
    for (int r = 0; r < group.size(); ++r) EXPECT_EQ(texts[static_cast<size_t>(r)], r == 0 ? "" : text(r));
    EXPECT_EQ(group.all_gather_text("").back(), "");
  });
}

TEST_P(CommunicatorContract, CollectivesAreNumbered) {
  on_every_rank([](contract::Group& world) {
    Stream stream;
    const int64_t before = world.last_collective().sequence;
    world.barrier();
    contract::Buffer<double> buffer({6});
    world.all_reduce(buffer.tensor, ReduceOp::max, ReduceOrder::any, stream).wait();
    EXPECT_EQ(world.last_collective().sequence, before + 2);
    EXPECT_STREQ(world.last_collective().name, "all_reduce");
    EXPECT_EQ(world.last_collective().bytes, 48);
  });
}

// Whole numbers: their sums are exact in any order.
TEST_P(CommunicatorContract, WhatHasBegunEndsInOrder) {
  on_every_rank([](contract::Group& group) {
    Communicator& world = group.communicator();
    Stream stream;
    const int n = world.size(), rank = world.rank();
    const auto value = [](size_t call, int of_rank, size_t i) {
      return static_cast<float>((static_cast<int>(call) + 1) * (of_rank + 1) + static_cast<int>(i % 7));
    };
    const auto sum = [&](size_t call, size_t i) {
      float all = 0;
      for (int r = 0; r < n; ++r) all += value(call, r, i);
      return all;
    };
    for (const int64_t rows : {1, 3, 700, 9'000}) {
      constexpr size_t kCalls = 3;
      const int64_t few = std::min<int64_t>(rows, 100);  // of a gather, where chunks may be tiny
      std::vector<std::vector<float>> whole, scattered, gathered;
      std::vector<Work> works;
      for (size_t call = 0; call < kCalls; ++call) {
        auto& to = whole.emplace_back(static_cast<size_t>(rows));
        auto& wide = scattered.emplace_back(static_cast<size_t>(n * rows));
        for (size_t i = 0; i < to.size(); ++i) to[i] = value(call, rank, i);
        for (size_t i = 0; i < wide.size(); ++i) wide[i] = value(call, rank, i);
        auto& everyones = gathered.emplace_back(static_cast<size_t>(n * few));
        const Tensor from_all(everyones.data(), DType::f32, {n * few}),
            own = from_all.rows(rank * few, (rank + 1) * few);
        for (int64_t i = 0; i < few; ++i) own.data<float>()[i] = value(call, rank, static_cast<size_t>(i));
        const Tensor all(to.data(), DType::f32, {rows}), blocks(wide.data(), DType::f32, {n * rows});
        works.push_back(world.begin_all_reduce(all, ReduceOrder::any, stream));
        // In place, as gradients are.
        works.push_back(world.begin_reduce_scatter(blocks, blocks.rows(rank * rows, (rank + 1) * rows),
                                                   ReduceOrder::any, stream));
        works.push_back(world.begin_all_gather(own, from_all, stream));  // in place, as values are
        world.progress();
        // A few numbers may go past them.
        float one = 1;
        world.all_reduce(Tensor(&one, DType::f32, {1}), ReduceOp::sum, ReduceOrder::any, stream).wait();
        ASSERT_EQ(one, static_cast<float>(n));
      }
      if (rows == 3) world.barrier();
      works.back().wait();  // and all before it
      for (size_t call = 0; call < kCalls; ++call) {
        for (size_t i = 0; i < static_cast<size_t>(rows); ++i) {
          const size_t at = static_cast<size_t>(rank * rows) + i;
          ASSERT_EQ(whole[call][i], sum(call, i));
          ASSERT_EQ(scattered[call][at], sum(call, at));
        }
        for (size_t i = 0; i < gathered[call].size(); ++i) {
          const auto width = static_cast<size_t>(few);
          ASSERT_EQ(gathered[call][i], value(call, static_cast<int>(i / width), i % width));
        }
      }
    }
    EXPECT_EQ(world.times().contains(fmt::format("all_reduce on {}", world.name())), n > 1);
  });
}

TEST_P(CommunicatorContract, MetaTensorsSendNothing) {
  on_every_rank([](contract::Group& world) {
    Stream stream(Device::meta);
    const Tensor one(nullptr, DType::f32, {2, 3}, Device::meta);
    const Tensor all(nullptr, DType::f32, {2 * world.size(), 3}, Device::meta);
    if (world.rank() != 0) return;  // nobody else enters: it would hang if it sent
    world.all_gather(one, all, stream).wait();
    world.reduce_scatter(all, one, ReduceOrder::any, stream).wait();
    world.all_to_all(all, all, stream).wait();
    world.all_reduce(one, ReduceOp::sum, ReduceOrder::any, stream).wait();
    world.broadcast(one, 0, stream).wait();
  });
}

TEST_P(CommunicatorContract, WrongArgumentsAreNamedBeforeAnythingIsSent) {
  on_every_rank([](contract::Group& world) {
    using contract::Buffer;
    using contract::message_of;
    using testing::AllOf;
    using testing::HasSubstr;
    Stream stream;
    const int n = world.size();
    const Buffer<float> one({2, 3}), all({2 * n, 3}), wrong({2 * n + 1, 3}), narrow({2 * n, 2});
    const Buffer<bf16> half({2, 3});
    const auto argument_error = [](const auto& f) { return message_of(ErrorKind::argument, f); };

    EXPECT_THAT(argument_error([&] { world.all_gather(one.tensor, wrong.tensor, stream); }),
                AllOf(HasSubstr("[all_gather #"), HasSubstr("of 24 bytes"),
                      HasSubstr(fmt::format("of {}]", n)), HasSubstr(wrong.tensor.shape().str())));
    EXPECT_THAT(argument_error([&] { world.all_gather(one.tensor, narrow.tensor, stream); }),
                HasSubstr("does not fill"));
    EXPECT_THAT(argument_error([&] { world.all_gather(half.tensor, all.tensor, stream); }),
                HasSubstr("input is bf16, output is f32"));
    EXPECT_THAT(
        argument_error([&] { world.reduce_scatter(wrong.tensor, one.tensor, ReduceOrder::any, stream); }),
        HasSubstr("[reduce_scatter #"));
    EXPECT_THAT(
        argument_error([&] { world.all_reduce(half.tensor, ReduceOp::sum, ReduceOrder::any, stream); }),
        HasSubstr("reduce an f32 buffer"));
    EXPECT_THAT(argument_error([&] { world.broadcast(one.tensor, n, stream); }),
                HasSubstr("not in the group"));
    EXPECT_THAT(argument_error([&] {
                  world.all_to_all(all.tensor, one.tensor.reshape({3, 2}), stream);
                }),
                HasSubstr("must be equal"));
    EXPECT_THAT(argument_error([&] { world.split(-1, 0, "x"); }), HasSubstr("color"));
    const Tensor on_gpu(nullptr, DType::f32, {2, 3}, Device::cuda);
    EXPECT_THAT(argument_error([&] { world.communicator().broadcast(on_gpu, 0, stream); }),
                HasSubstr("tensors of cuda need a stream there, got one of cpu"));
    EXPECT_THAT(argument_error([&] { world.communicator().all_to_all(on_gpu, one.tensor, stream); }),
                HasSubstr("input is on cuda, output on cpu"));

    const std::vector<int64_t> two(static_cast<size_t>(n), 2), many(static_cast<size_t>(n), 3),
        negative(static_cast<size_t>(n), -1), longer(static_cast<size_t>(n) + 1, 0);
    const auto send_rows = [&](const std::vector<int64_t>& send, const std::vector<int64_t>& receive) {
      return argument_error([&] { world.all_to_all_v(all.tensor, send, all.tensor, receive, stream); });
    };
    EXPECT_THAT(send_rows(longer, two), HasSubstr("send_rows has"));
    EXPECT_THAT(send_rows(negative, two), HasSubstr("negative"));
    EXPECT_THAT(send_rows(two, many), HasSubstr("recv_rows sums to"));
    std::vector<int64_t> less = two;
    less[static_cast<size_t>(world.rank())] = 1;
    EXPECT_THAT(send_rows(two, less), HasSubstr("sends itself 2 rows and expects 1"));

    if (!std::has_single_bit(static_cast<unsigned>(n))) {
      EXPECT_THAT(
          argument_error(
              [&] { world.all_reduce(one.tensor, ReduceOp::sum, ReduceOrder::fixed_tree, stream); }),
          AllOf(HasSubstr("power-of-two"),
                HasSubstr(fmt::format("start {} or {} ranks", std::bit_floor(static_cast<unsigned>(n)),
                                      std::bit_ceil(static_cast<unsigned>(n))))));
    }
    world.barrier();  // all ranks are still in step
  });
}

}  // namespace ziggurat
