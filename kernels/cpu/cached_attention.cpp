#include <algorithm>

#include <kernels/cpu/reductions.h>
#include <kernels/cpu/stream_rows.h>

#include <ziggurat/kernels/cached_attention.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

constexpr int64_t kRows = 4;  // rows of one sequence that share a read of its keys and values

// Rows [first, first + count) follow each other in one sequence.
struct Run {
  int64_t first, count;
};

template <class T>
std::pair<Run*, int64_t> cut_into_runs(const CachedAttentionArgs<T>& g, Arena& workspace) {
  Run* runs = workspace.take<Run>(g.shape.rows());
  int64_t count = 0;
  for (int64_t r = 0; r < g.shape.rows(); ++r) {
    const bool follows = count > 0 && runs[count - 1].count < kRows && g.sequence[r] == g.sequence[r - 1] &&
                         g.position[r] == g.position[r - 1] + 1;
    if (follows) {
      ++runs[count - 1].count;
    } else {
      runs[count++] = {r, 1};
    }
  }
  return {runs, count};
}

// The first position that a row sees.
template <class T>
int64_t first_seen(const CachedAttentionArgs<T>& g, int64_t row) {
  return g.window == 0 ? 0 : std::max<int64_t>(0, g.position[row] + 1 - g.window);
}

// y [d] = factor * x rotated to its position; rounded to T between, as the rotation of a whole batch does.
template <class T, class TY>
void rotate(const CachedAttentionArgs<T>& g, int64_t row, const T* x, Accum<T> factor, TY* y) {
  using A = Accum<T>;
  const int64_t d = g.shape.head_dim, half = d / 2;
  if (g.cosine == nullptr) {
    for (int64_t j = 0; j < d; ++j) y[j] = TY(factor * A(x[j]));
    return;
  }
  const A *c = g.cosine + row * half, *s = g.sine + row * half;
  for (int64_t j = 0; j < half; ++j) {
    const A low = A(x[j]), high = A(x[j + half]);
    y[j] = TY(factor * A(T(low * c[j] - high * s[j])));
    y[j + half] = TY(factor * A(T(high * c[j] + low * s[j])));
  }
}

// Where positions [begin, end) of a sequence lie, for one head of `cache`.
template <class T>
std::span<const Rows<T>> find_rows(const CachedAttentionArgs<T>& g, const T* cache, int32_t sequence,
                                   int64_t head, int64_t begin, int64_t end, Rows<T>* pieces) {
  const int64_t d = g.shape.head_dim, block = g.tables.block;
  size_t count = 0;
  for (int64_t at = begin; at < end;) {
    const int64_t inside = at % block, rows = std::min(block - inside, end - at);
    const int64_t place = g.tables.block_of(sequence, at) * g.shape.kv_heads + head;
    pieces[count++] = {cache + (place * block + inside) * d, rows};
    at += rows;
  }
  return {pieces, count};
}

}  // namespace

template <Device D, class T>
void cached_attention(const CachedAttentionArgs<T>& g, Arena& workspace, Stream& stream) {
  const Span span(stream.profile(), "cached_attention");
  using A = Accum<T>;
  const AttentionShape& s = g.shape;
  const int64_t d = s.head_dim, rows = s.rows(), queries = kRows * s.group(), block = g.tables.block;
  const ArenaScope scope(workspace);
  const auto [runs, run_count] = cut_into_runs(g, workspace);
  int64_t longest = 0;  // positions that a run sees
  for (int64_t r = 0; r < rows; ++r) {
    longest = std::max<int64_t>(longest, g.position[r] + kRows - first_seen(g, r));
  }
  // Of each thread: q and y [queries, d], scores [queries, longest], a row of q as it is rotated, and where
  // the rows of a run lie.
  const int64_t scratch = queries * (2 * d + longest) + d, threads = thread_count(),
                most_pieces = longest / block + 2;
  A* const all_scratch = workspace.take_on_device<A>(threads * scratch);
  auto* const all_pieces = workspace.take<Rows<T>>(threads * most_pieces);

  parallel_for_blocks(rows * s.kv_heads, 16, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      const int64_t row = i / s.kv_heads, head = i % s.kv_heads, position = g.position[row];
      const int64_t place = g.tables.block_of(g.sequence[row], position) * s.kv_heads + head,
                    at = (place * block + position % block) * d;
      const T* x = g.qkv + row * s.width() + head * d;
      rotate(g, row, x + s.k_column(), A(1), g.keys + at);
      std::copy_n(x + s.v_column(), d, g.values + at);
    }
  });

  parallel_for(run_count * s.kv_heads, [&, runs = runs](int64_t unit) {
    const Run run = runs[unit / s.kv_heads];
    const int64_t head = unit % s.kv_heads, first_head = head * s.group(), count = run.count * s.group();
    const int64_t last = run.first + run.count - 1, begin = first_seen(g, run.first),
                  end = g.position[last] + 1, seen = end - begin;
    const int64_t thread = threads == 1 ? 0 : thread_index();
    Rows<T>* const pieces = all_pieces + thread * most_pieces;
    A* const q = all_scratch + thread * scratch;
    A *const y = q + queries * d, *const rotated = y + queries * d, *const scores = rotated + d;
    const auto row_of = [&](int64_t query) { return run.first + query / s.group(); };
    const auto column_of = [&](int64_t query) { return (first_head + query % s.group()) * d; };

    for (int64_t i = 0; i < count; ++i) {
      rotate(g, row_of(i), g.qkv + row_of(i) * s.width() + column_of(i), A(g.scale), rotated);
      arrange_in_pairs<T>(rotated, d, q + i * d);
    }
    const auto keys = find_rows<T>(g, g.keys, g.sequence[last], head, begin, end, pieces);
    for_row_tiles(count, [&]<int M>(int64_t tile, std::integral_constant<int, M>) {
      A* p = scores + tile * seen;
      for (const Rows<T>& piece : keys) {
        for (int64_t j = 0; j < piece.count; ++j) {
          dot_with_rows<M>(piece.first + j * d, q + tile * d, d, d, p++, seen);
        }
      }
    });
    for (int64_t i = 0; i < count; ++i) {
      const int64_t first = first_seen(g, row_of(i)) - begin,
                    visible = g.position[row_of(i)] + 1 - begin - first;
      A *const all = scores + i * seen, *const p = all + first;
      const A sum = exp_row(p, row_max(p, visible), p, visible);
      for (int64_t j = 0; j < visible; ++j) p[j] /= sum;
      std::fill(all, p, A(0));
      std::fill(p + visible, all + seen, A(0));
    }
    const auto values = find_rows<T>(g, g.values, g.sequence[last], head, begin, end, pieces);
    for_row_tiles(count, [&]<int M>(int64_t tile, std::integral_constant<int, M>) {
      weigh_rows<M, T>(scores + tile * seen, seen, values, d, y + tile * d);
    });
    for (int64_t i = 0; i < count; ++i) {
      T* out = g.y + row_of(i) * s.heads * d + column_of(i);
      for (int64_t j = 0; j < d; ++j) out[j] = T(y[i * d + j]);
    }
  });
}

template void cached_attention<Device::cpu>(const CachedAttentionArgs<float>&, Arena&, Stream&);
template void cached_attention<Device::cpu>(const CachedAttentionArgs<bf16>&, Arena&, Stream&);
template void cached_attention<Device::cpu>(const CachedAttentionArgs<double>&, Arena&, Stream&);

}  // namespace ziggurat::kernels
