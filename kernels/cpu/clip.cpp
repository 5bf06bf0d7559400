#include <algorithm>
#include <cmath>
#include <limits>

#include <ziggurat/kernels/clip.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

template <Device D>
void clip(const ClipArgs& g, Stream& stream) {
  const Span span(stream.profile(), "clip");
  if (DryRun::on()) return;
  double sum = 0;
  for (int64_t i = 0; i < g.n; ++i) sum += g.squares[i];
  const double norm = std::sqrt(sum);
  const bool finite = std::isfinite(norm) &&
                      std::all_of(g.loss, g.loss + g.losses, [](double loss) { return std::isfinite(loss); });
  double loss = 0;
  for (int64_t i = 0; i < g.losses; i += g.parts) loss += g.loss[i];
  const bool updates = finite && norm <= g.most_norm && loss <= g.most_loss;
  g.clipped[0] = norm;
  g.clipped[1] = !updates         ? std::numeric_limits<double>::quiet_NaN()
                 : g.max_norm > 0 ? std::min(1.0, g.max_norm / norm)
                                  : 1.0;
}

template void clip<Device::cpu>(const ClipArgs&, Stream&);

}  // namespace ziggurat::kernels
