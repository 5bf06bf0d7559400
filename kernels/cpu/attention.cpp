#include <algorithm>
#include <array>
#include <cstddef>
#include <limits>
#include <utility>

#include <kernels/cpu/operand_copies.h>
#include <kernels/cpu/reductions.h>

#include <ziggurat/kernels/attention.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kQueries = kAttentionQueries;
constexpr int64_t kLanes = 16;  // rows of scores are padded to whole registers

int64_t padded(int64_t n) { return (n + kLanes - 1) / kLanes * kLanes; }

// Bytes of a thread's matrix, to the end of a line.
template <class X>
int64_t bytes(int64_t elements) {
  return (elements * int64_t{sizeof(X)} + 63) / 64 * 64;
}

// Matrices of one thread, cut one after the other from memory allocated before the threads start.
class Scratch {
 public:
  explicit Scratch(std::byte* next) : next_(next) {}

  template <class X>
  X* take(int64_t elements) {
    return reinterpret_cast<X*>(std::exchange(next_, next_ + bytes<X>(elements)));
  }

 private:
  std::byte* next_;
};

// A head's part of a row is a few cache lines, and the next row lies on another page, where the hardware does
// not fetch ahead: so rows are asked for this many before their turn. By number, since the last ones lie
// behind the array.
constexpr int64_t kAhead = 12;
template <bool write, class T>
void fetch_ahead(const T* row, int64_t ld, int64_t cols) {
  const uintptr_t ahead = reinterpret_cast<uintptr_t>(row) + static_cast<uintptr_t>(kAhead * ld) * sizeof(T);
  for (uintptr_t line = 0; line < static_cast<uintptr_t>(cols) * sizeof(T); line += 64) {
    __builtin_prefetch(reinterpret_cast<const void*>(ahead + line), write);
  }
}

// to [rows, cols] = factor * from, whose rows are ld elements apart
template <class T, class A, class G>
void load(const T* from, int64_t ld, int64_t rows, int64_t cols, A factor, G* __restrict to) {
  for (int64_t i = 0; i < rows; ++i) {
    fetch_ahead<false>(from + i * ld, ld, cols);
    for (int64_t j = 0; j < cols; ++j) to[i * cols + j] = G(factor * A(from[i * ld + j]));
  }
}

// to, whose rows are ld elements apart, = or += factor(row) * from [rows, cols]
template <class A, class Factor, class T>
void store(const A* __restrict from, int64_t rows, int64_t cols, const Factor& factor, T* __restrict to,
           int64_t ld, bool accumulate) {
  for (int64_t i = 0; i < rows; ++i) {
    const A* f = from + i * cols;
    const A scale = factor(i);
    T* t = to + i * ld;
    fetch_ahead<true>(t, ld, cols);
    if (accumulate) {
      for (int64_t j = 0; j < cols; ++j) t[j] = T(A(t[j]) + scale * f[j]);
    } else {
      for (int64_t j = 0; j < cols; ++j) t[j] = T(scale * f[j]);
    }
  }
}

// keep[j] = 1 / (1 - p) or 0 for the n probabilities from element `first` on. Not inlined: see reductions.h.
template <class A>
[[gnu::noinline]] void dropout_row(const AttentionDropout& dropout, uint64_t first, int64_t n, A* keep) {
  const auto p = static_cast<float>(dropout.probability);
  const A kept = A(1 / (1 - dropout.probability));
  const Philox random = dropout.random.now();
  std::array<uint32_t, 4 * Philox::kBatch> bits;
  for (uint64_t block = first / 4; 4 * block < first + static_cast<uint64_t>(n); block += Philox::kBatch) {
    random.blocks(block, bits);
    const auto at =
        static_cast<int64_t>(4 * block - first);  // of bits[0] in the row; negative where it starts
    const int64_t begin = std::max<int64_t>(0, -at), end = std::min<int64_t>(4 * Philox::kBatch, n - at);
    for (int64_t i = begin; i < end; ++i) {
      keep[at + i] = Philox::to_uniform(bits[static_cast<size_t>(i)]) < p ? A(0) : kept;
    }
  }
}

// From scores and dp to p = e^(score - lse) and dscore = p (dp - delta). Not inlined: see reductions.h.
template <class A>
[[gnu::noinline]] void gradient_row(A* __restrict p, A* __restrict ds, A lse, A delta, int64_t n) {
  for (int64_t j = 0; j < n; ++j) {
    const A e = vexp(p[j] - lse);
    ds[j] = e * (ds[j] - delta);
    p[j] = e;
  }
}

// Not inlined: see reductions.h.
template <class A, class G>
[[gnu::noinline]] void round_row(const A* __restrict from, G* __restrict to, int64_t n) {
  for (int64_t j = 0; j < n; ++j) to[j] = G(from[j]);
}

// Memory for an operand made from `values`: theirs, unless it is of another type.
template <class G, class A>
G* operand_of(A* values, int64_t elements, Scratch& scratch) {
  if constexpr (std::is_same_v<G, A>) {
    return values;
  } else {
    return scratch.take<G>(elements);
  }
}

// A row of an operand of `keys` columns from its values for the keys that are seen, behind `hidden` ones:
// zero for all others. `values` lie in place, unless the operand is of another type.
template <class A, class G>
void finish_row(const A* values, int64_t hidden, int64_t seen, int64_t keys, G* operand) {
  if constexpr (!std::is_same_v<A, G>) round_row(values, operand + hidden, seen);
  std::fill_n(operand, hidden, G{});
  std::fill_n(operand + hidden + seen, std::max(kQueries, keys - hidden - seen), G{});
}

// Query rows [begin, end) of one head, and the keys [first, last] that some of them see.
struct Block {
  int64_t head, begin, end, first, last;
  int64_t rows() const { return end - begin; }
  int64_t keys() const { return last + 1 - first; }
};

// A key head of one sequence and the query heads that share it: the work of one thread. G: the type of the
// operands of products.
template <class T, class G>
class KeyHead {
 public:
  using A = Accum<T>;
  const int64_t sequence, head;
  G *const k, *const v;  // [T, d]

  KeyHead(const AttentionShape& s, const T* qkv, const int32_t* first_key, const int32_t* last_key,
          int64_t window, int64_t unit, Scratch& scratch)
      : sequence(unit / s.kv_heads),
        head(unit % s.kv_heads),
        k(scratch.take<G>(s.length * s.head_dim)),
        v(scratch.take<G>(s.length * s.head_dim)),
        s_(s),
        first_key_(first_key == nullptr ? nullptr : first_key + sequence * s.length),
        last_key_(last_key == nullptr ? nullptr : last_key + sequence * s.length),
        window_(window > 0 ? window : s.length) {
    const T* rows = qkv + sequence * s.length * s.width();
    load(rows + s.k_column() + head * s.head_dim, s.width(), s.length, s.head_dim, A(1), k);
    load(rows + s.v_column() + head * s.head_dim, s.width(), s.length, s.head_dim, A(1), v);
  }

  // Query row i sees the keys first(i)..last(i).
  int64_t first(int64_t i) const {
    return std::max<int64_t>(i - window_ + 1, first_key_ == nullptr ? 0 : first_key_[i]);
  }
  int64_t last(int64_t i) const { return last_key_ == nullptr ? i : last_key_[i]; }

  template <class Body>
  void for_each_block(const Body& body) const {
    for (int64_t h = head * s_.group(); h < (head + 1) * s_.group(); ++h) {
      for (int64_t begin = 0; begin < s_.length; begin += kQueries) {
        const int64_t end = std::min(begin + kQueries, s_.length);
        int64_t first_seen = first(begin), last_seen = last(end - 1);
        for (int64_t i = begin; i < end; ++i) {
          first_seen = std::min(first_seen, first(i)), last_seen = std::max(last_seen, last(i));
        }
        body(Block{h, begin, end, first_seen, last_seen});
      }
    }
  }

 private:
  const AttentionShape& s_;
  const int32_t *const first_key_, *const last_key_;
  const int64_t window_;
};

// Calls body(key head, its thread's scratch memory of so many bytes beyond k and v) for every key head.
template <class T, class G, class Args, class Body>
void for_each_key_head(const Args& g, Arena& workspace, int64_t scratch_bytes, const Body& body) {
  const AttentionShape& s = g.shape;
  const ArenaScope scope(workspace);
  const int threads = thread_count();
  const int64_t stride = 2 * bytes<G>(s.length * s.head_dim) + scratch_bytes;
  auto* const base = workspace.take_on_device<std::byte>(threads * stride);
  parallel_for(s.batch * s.kv_heads, [&](int64_t unit) {
    const OneThread one_thread;
    Scratch scratch(base + (threads == 1 ? 0 : thread_index()) * stride);
    const KeyHead<T, G> head(s, g.qkv, g.first_key, g.last_key, g.window, unit, scratch);
    body(head, scratch);
  });
}

// Elements between two rows of scores. Behind the keys that a row sees, as many as are hidden from the first
// row of a block are cleared, whatever the row.
int64_t score_stride(const AttentionShape& s) { return padded(s.length) + kQueries; }

// Products of bf16 are summed in f32, and so are their scores kept; probabilities and their gradients are
// rounded for the products that they enter. So is the scaled query, exactly where the scale is a power of
// two.
template <class T, class G>
void forward(const AttentionArgs<T>& g, Arena& workspace) {
  using A = Accum<T>;
  const AttentionShape& s = g.shape;
  const int64_t length = s.length, d = s.head_dim, width = s.width(), y_width = s.heads * d;
  const int64_t block = std::min(kQueries, length), ld = score_stride(s);
  constexpr bool in_place = std::is_same_v<G, A>;
  const auto product = [](const GemmArgs<G, A>& args) { gemm_on_this_thread<Device::cpu>(args); };
  const int64_t scratch_bytes = bytes<G>(block * d) + bytes<A>(block * d) + bytes<A>(block * ld) +
                                (in_place ? 0 : bytes<G>(block * ld)) + bytes<A>(ld) + bytes<A>(block);

  for_each_key_head<T, G>(g, workspace, scratch_bytes, [&](const KeyHead<T, G>& keys, Scratch& scratch) {
    G* const q = scratch.take<G>(block * d);
    A* const o = scratch.take<A>(block * d);
    A* const scores = scratch.take<A>(block * ld);
    G* const probabilities = operand_of<G>(scores, block * ld, scratch);
    A* const keep = scratch.take<A>(ld);
    A* const normalise = scratch.take<A>(block);

    keys.for_each_block([&](const Block& at) {
      const int64_t n = at.rows(), head_row = (keys.sequence * s.heads + at.head) * length,
                    drop_row = g.dropout.place(s, keys.sequence, at.head) * length;
      const int64_t row = keys.sequence * length + at.begin;
      load(g.qkv + row * width + at.head * d, width, n, d, A(g.scale), q);
      product({false, true, n, at.keys(), d, q, d, keys.k + at.first * d, d, scores, ld});
      for (int64_t i = at.begin; i < at.end; ++i) {
        const int64_t r = i - at.begin, first = keys.first(i), hidden = first - at.first,
                      seen = keys.last(i) + 1 - first;
        A* const p = scores + r * ld + hidden;
        // Padding of -inf adds nothing to maximum and sum.
        std::fill_n(p + seen, kLanes, -std::numeric_limits<A>::infinity());
        const A max = row_max(p, padded(seen));
        const A sum = exp_row(p, max, p, padded(seen));
        g.log_sum_exp[head_row + i] = max + std::log(sum);
        normalise[r] = 1 / sum;
        if (g.dropout.probability > 0) {
          dropout_row(g.dropout, static_cast<uint64_t>((drop_row + i) * length + first), seen, keep);
          for (int64_t j = 0; j < seen; ++j) p[j] *= keep[j];
        }
        finish_row(p, hidden, seen, at.keys(), probabilities + r * ld);
      }
      product({false, false, n, d, at.keys(), probabilities, ld, keys.v + at.first * d, d, o, d});
      // Normalised here: d factors a row, in the probabilities up to T.
      store(
          o, n, d, [=](int64_t r) { return normalise[r]; }, g.y + row * y_width + at.head * d, y_width,
          false);
    });
  });
}

template <class T, class G>
void backward(const AttentionGradArgs<T>& g, Arena& workspace) {
  using A = Accum<T>;
  const AttentionShape& s = g.shape;
  const int64_t length = s.length, d = s.head_dim, width = s.width(), y_width = s.heads * d;
  const int64_t block = std::min(kQueries, length), ld = score_stride(s);
  constexpr bool in_place = std::is_same_v<G, A>;
  const auto product = [](const GemmArgs<G, A>& args) { gemm_on_this_thread<Device::cpu>(args); };
  const int64_t scratch_bytes = 2 * bytes<A>(length * d) + 2 * bytes<G>(block * d) + bytes<A>(block * d) +
                                2 * bytes<A>(block * ld) + (in_place ? 0 : 2 * bytes<G>(block * ld)) +
                                bytes<A>(ld);

  for_each_key_head<T, G>(g, workspace, scratch_bytes, [&](const KeyHead<T, G>& keys, Scratch& scratch) {
    A* const dk = scratch.take<A>(length * d);
    A* const dv = scratch.take<A>(length * d);
    G* const q = scratch.take<G>(block * d);
    G* const dout = scratch.take<G>(block * d);
    A* const dq = scratch.take<A>(block * d);
    A* const scores = scratch.take<A>(block * ld);
    A* const dp = scratch.take<A>(block * ld);
    G* const probabilities = operand_of<G>(scores, block * ld, scratch);
    G* const dscores = operand_of<G>(dp, block * ld, scratch);
    A* const keep = scratch.take<A>(ld);

    std::fill(dk, dk + length * d, A(0));
    std::fill(dv, dv + length * d, A(0));
    keys.for_each_block([&](const Block& at) {
      const int64_t n = at.rows(), head_row = (keys.sequence * s.heads + at.head) * length,
                    drop_row = g.dropout.place(s, keys.sequence, at.head) * length;
      const int64_t row = keys.sequence * length + at.begin, y_offset = row * y_width + at.head * d;
      const G *const k = keys.k + at.first * d, *const v = keys.v + at.first * d;
      load(g.qkv + row * width + at.head * d, width, n, d, A(g.scale), q);
      load(g.dy + y_offset, y_width, n, d, A(1), dout);
      product({false, true, n, at.keys(), d, q, d, k, d, scores, ld});
      product({false, true, n, at.keys(), d, dout, d, v, d, dp, ld});
      for (int64_t i = at.begin; i < at.end; ++i) {
        const int64_t r = i - at.begin, first = keys.first(i), hidden = first - at.first,
                      seen = keys.last(i) + 1 - first;
        A *const p = scores + r * ld + hidden, *const ds = dp + r * ld + hidden;
        // p = e^(score - lse); m = keep / (1 - dropout); dscore = p (m dp - delta), delta = dy . y
        const A lse = g.log_sum_exp[head_row + i];
        const T* y = g.y + y_offset + r * y_width;
        fetch_ahead<false>(y, y_width, d);
        const A delta = dot_row<A>(dout + r * d, y, d);
        if (g.dropout.probability > 0) {
          dropout_row(g.dropout, static_cast<uint64_t>((drop_row + i) * length + first), seen, keep);
          for (int64_t j = 0; j < seen; ++j) {
            const A e = vexp(p[j] - lse);
            ds[j] = e * (keep[j] * ds[j] - delta);
            p[j] = e * keep[j];
          }
        } else {
          gradient_row(p, ds, lse, delta, padded(seen));
        }
        finish_row(p, hidden, seen, at.keys(), probabilities + r * ld);
        finish_row(ds, hidden, seen, at.keys(), dscores + r * ld);
      }
      // dv += (m p)^T dy, dk += dscore^T (scale q), dq = scale dscore k
      product({true, false, at.keys(), d, n, probabilities, ld, dout, d, dv + at.first * d, d, true});
      product({true, false, at.keys(), d, n, dscores, ld, q, d, dk + at.first * d, d, true});
      product({false, false, n, d, at.keys(), dscores, ld, k, d, dq, d});
      store(
          dq, n, d, [=](int64_t) { return A(g.scale); }, g.dqkv + row * width + at.head * d, width,
          g.accumulate);
    });
    T* drows = g.dqkv + keys.sequence * length * width;
    const auto one = [](int64_t) { return A(1); };
    store(dk, length, d, one, drows + s.k_column() + keys.head * d, width, g.accumulate);
    store(dv, length, d, one, drows + s.v_column() + keys.head * d, width, g.accumulate);
  });
}

}  // namespace

template <Device D, class T>
void attention_forward(const AttentionArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "attention_forward");
  with_operands<T>([&]<class Policy>(Policy) { forward<T, typename Policy::Operand>(g, workspace); });
}

template <Device D, class T>
void attention_backward(const AttentionGradArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "attention_backward");
  with_operands<T>([&]<class Policy>(Policy) { backward<T, typename Policy::Operand>(g, workspace); });
}

template void attention_forward<Device::cpu>(const AttentionArgs<float>&, Arena&, Stream&);
template void attention_forward<Device::cpu>(const AttentionArgs<bf16>&, Arena&, Stream&);
template void attention_forward<Device::cpu>(const AttentionArgs<double>&, Arena&, Stream&);
template void attention_backward<Device::cpu>(const AttentionGradArgs<float>&, Arena&, Stream&);
template void attention_backward<Device::cpu>(const AttentionGradArgs<bf16>&, Arena&, Stream&);
template void attention_backward<Device::cpu>(const AttentionGradArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
