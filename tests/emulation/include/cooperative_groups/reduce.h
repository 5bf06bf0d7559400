#pragma once

#include <cooperative_groups.h>

namespace cooperative_groups {

template <class T>
struct plus {
  T operator()(T a, T b) const { return a + b; }
};
template <class T>
struct greater {
  T operator()(T a, T b) const { return a > b ? a : b; }
};
template <class T>
struct less {
  T operator()(T a, T b) const { return a < b ? a : b; }
};

template <unsigned Size, class T, class F>
T reduce(const thread_block_tile<Size>& tile, T value, const F& function, ZIGGURAT_SITE) {
  for (unsigned bits = Size / 2; bits > 0; bits /= 2)
    value = function(value, tile.shfl_xor(value, bits, file, line));
  return value;
}

}  // namespace cooperative_groups
