// Groups of rows (kernels/row_groups.h) as the CPU's kernels walk over them.
#pragma once

#include <ziggurat/kernels/row_groups.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

struct Segment {
  int64_t row_begin = 0, rows = 0;
  int32_t expert = 0, source = 0;
};

struct Segments {
  const Segment* first;
  int64_t count;
  const Segment* begin() const { return first; }
  const Segment* end() const { return first + count; }
};

// One of each group, also of those without rows. In a dry run `rows` are shared equally.
inline Segments segments_of(const RowGroups& groups, int64_t rows, Arena& workspace) {
  const int64_t count = groups.count();
  auto* segments = workspace.take<Segment>(count);
  int64_t begin = 0;
  for (int64_t g = 0; g < count; ++g) {
    const int64_t end =
        DryRun::on() ? begin + rows / count + (g < rows % count ? 1 : 0) : groups.offsets[g + 1];
    segments[g] = {begin, end - begin, static_cast<int32_t>(g / groups.sources),
                   static_cast<int32_t>(g % groups.sources)};
    begin = end;
  }
  return {segments, count};
}

}  // namespace ziggurat::kernels
