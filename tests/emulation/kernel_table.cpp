#include "tests/emulation/kernel_table.h"

#include <algorithm>

#include "apps/kernel_cases/lab.h"
#include "tests/emulation/emulated_device.h"

namespace ziggurat::emulation {

namespace {

void add(const KernelCounts& part, KernelCounts& total) {
  total.launches += part.launches;
  total.loads += part.loads, total.stores += part.stores;
  total.loaded_bytes += part.loaded_bytes, total.stored_bytes += part.stored_bytes;
  total.load_requests += part.load_requests, total.store_requests += part.store_requests;
  total.load_sectors += part.load_sectors, total.store_sectors += part.store_sectors;
}

}  // namespace

TableRow table_row(const apps::KernelCase& kernel) {
  reset(default_seed());
  TableRow row{kernel, {}, {}};
  {
    apps::Lab lab(Device::cuda, apps::CaseSize::counted);
    const auto call = kernel.prepare(lab);
    call();
    lab.stream().wait();
  }
  for (const auto& [name, did] : all_counts()) {
    row.launched.emplace_back(name, did);
    add(did, row.total);
  }
  reset(default_seed());
  return row;
}

// Reasons that several have. They hold for the small shapes of the table, with rows of 128 values.
constexpr const char* kTiles = "every tile of the result reads its operands again";
constexpr const char* kAgain = "rows are read more than once, and weights by every block: from the cache";
constexpr const char* kScalars = "every thread reads its row's factor or index, every block the bias";
constexpr const char* kPairs =
    "16 bytes of bf16 are 32 of f32: the second load or store finds its sector in L1";
constexpr const char* kKeys = "whether a row is the first of its key is found by reading all keys";
constexpr const char* kKeysAndScale =
    "which row is the first of its key is found by reading all keys; every thread reads the weight of a "
    "token";
constexpr const char* kFewExperts = "a token's eight values are read several times, by a request each";

const std::vector<Allowance>& allowances() {
  static const std::vector<Allowance> all = {
      {"grouped_linear.forward", {1.56}, {1.80}, kTiles},
      {"grouped_linear.backward", {1.95}, {2.08, 0.69}, kTiles},
      {"attention.forward", {1.78}, {2.03, 0.86}, kTiles},
      {"attention.backward", {2.43}, {2.83, 0.86}, kTiles},
      {"softmax_tile", {1.53}, {3.05, 0.54}, kAgain},
      {"add_exponentials", {2.02}, {}, kAgain},
      {"distillation_tile", {}, {1.86, 0.68}, kPairs},
      {"scale_rows", {1.14}, {1.27}, kScalars},
      {"subtract_targets", {1.36}, {2.24, 0.74}, kKeysAndScale},
      {"cross_entropy", {2.17, 0.84}, {}, "references are read three times, sums and maxima besides"},
      {"layer_norm.forward", {3.10}, {6.19, 0.64}, kAgain},
      {"layer_norm.backward", {2.57}, {4.85}, kAgain},
      {"rms_norm.forward", {2.06}, {3.60, 0.69}, kAgain},
      {"rms_norm.backward", {2.47}, {4.62, 0.80}, kAgain},
      {"qk_norm.forward", {1.71}, {2.74, 0.73}, kAgain},
      {"qk_norm.backward", {2.17}, {3.83}, kAgain},
      {"qk_norm.squares", {}, {1.13}, "a block writes one number, of a sector of 32 bytes"},
      {"qk_norm.products", {1.79}, {3.57}, "every block reads the weights: from the cache"},
      {"bias_activation.forward", {}, {1.18}, kScalars},
      {"rope", {1.39}, {2.45, 0.71}, "every row reads the angles of its position, in f32: from the cache"},
      {"embedding.forward",
       {1.65},
       {1.77},
       "the floor has one of the two tables: positions stay in the cache"},
      {"embedding.backward", {3.28}, {4.74, 0.76}, kKeys},
      {"gather_rows", {1.14}, {1.27}, kScalars},
      {"scatter_rows", {1.14}, {1.27}, kScalars},
      {"combine_rows.forward", {}, {1.14}, kScalars},
      {"combine_rows.backward", {1.20}, {1.39}, kScalars},
      {"mix.forward", {1.18}, {1.35}, kScalars},
      {"mix.backward", {1.14}, {1.27}, kScalars},
      {"gated_add.forward", {}, {1.18}, kScalars},
      {"gated_add.backward", {1.12}, {1.23}, kScalars},
      {"router_input.forward", {}, {1.69, 0.59}, kPairs},
      {"router_input.backward", {}, {1.69, 0.59}, kPairs},
      {"router_softmax", {3.03, 0.70}, {}, kFewExperts},
      {"router_choose", {3.03}, {}, kFewExperts},
      {"router_sigmoid", {2.51, 0.64}, {}, kFewExperts},
      {"router_choose_limited",
       {3.01, 0.74},
       {},
       "every token reads the bias, from the cache, and stores its two choices by a request of its own"},
      {"router_assign", {9.38}, {}, "every expert's block reads all choices"},
      {"cached_attention", {1.20}, {1.40}, "new rows, and where their sequences' blocks lie"},
      {"label_smoothing", {2.27}, {2.50}, "rows and targets' weights besides, sums of strips of columns"},
      {"adafactor", {1.80}, {}, "strips' columns, and factors of rows and columns for every value"},
      {"muon", {4.91}, {}, "products read their operands again, and passes go over all in between"},
      {"router_weights", {2.78, 0.36}, {}, "one of the eight probabilities of a token is read"},
      {"own_tokens", {3.21}, {}, "every expert's block counts the rows of the experts before it"},
      {"expert_blocks", {1.11}, {}, "every thread reads where its expert's rows begin and end"},
      {"router_means", {2.03}, {}, kFewExperts},
      {"write_numbers", {8.0, 0.12}, {}, "one thread writes three numbers"},
      {"adamw.rounded", {}, {2.04, 0.61}, "the two values that share random words, by a request each"},
      {"router_backward",
       {8.60},
       {},
       "a token's eight values are read several times, by a request each, and the scale of the losses"},
      {"elementwise.convert", {1.69, 0.59}, {}, kPairs},
  };
  return all;
}

Allowance allowance(const std::string& kernel) {
  const auto it = std::find_if(allowances().begin(), allowances().end(),
                               [&](const Allowance& a) { return a.kernel == kernel; });
  return it == allowances().end() ? Allowance{kernel, {}, {}, ""} : *it;
}

}  // namespace ziggurat::emulation
