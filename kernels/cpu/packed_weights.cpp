#include <array>
#include <map>
#include <mutex>
#include <optional>

#include <kernels/cpu/matmul.h>
#include <kernels/cpu/operand_copies.h>

#include <ziggurat/core/error.h>
#include <ziggurat/kernels/gemm.h>
#include <ziggurat/kernels/packed_weights.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat::kernels {

namespace {

// The type of copies, and so of both operands, of weights of a type.
Type operand_type(Type weight) {
  return weight == Type::bf16 && bf16_gemm() == Bf16Gemm::widened ? Type::f32 : weight;
}

// Whether products of `rows` rows with B in this layout are blocked ones, written to any dtype, also added
// up.
bool has_kernels(Type operand, const Layout& b, int64_t rows, int64_t k, int64_t n) {
  for (const Type c : {Type::f32, Type::bf16}) {
    if (c == Type::bf16 && operand != Type::bf16) continue;
    for (const bool accumulate : {false, true}) {
      if (!is_blocked(choose_matmul(row_major(rows, k, operand), b, row_major(rows, n, c), accumulate))) {
        return false;
      }
    }
  }
  return true;
}

// The library's choice of a layout for B [k, n]; none if it has no packed kernels. Asked for once, with many
// rows: one layout then serves any number of rows and threads.
std::optional<Layout> choose_layout(Type operand, int64_t k, int64_t n) {
  constexpr int64_t kRows = 256;
  const Layout any({k, n}, operand, dnnl::memory::format_tag::any);
  const auto chosen = choose_matmul(row_major(kRows, k, operand), any, row_major(kRows, n, Type::f32), false);
  if (!is_blocked(chosen)) return std::nullopt;
  for (const int64_t rows : {1, 100}) {  // asking takes most of a millisecond
    if (!has_kernels(operand, chosen.weights_desc(), rows, k, n)) return std::nullopt;
  }
  return chosen.weights_desc();
}

const std::optional<Layout>& layout(Type operand, int64_t k, int64_t n) {
  static std::mutex mutex;
  static std::map<std::array<int64_t, 3>, std::optional<Layout>> known;
  const std::lock_guard lock(mutex);
  const auto [entry, is_new] = known.try_emplace({static_cast<int64_t>(operand), k, n});
  if (is_new) entry->second = choose_layout(operand, k, n);
  return entry->second;
}

// op(W) as [k, n]: W^T forward, W backward.
struct Sides {
  int64_t k, n;
};
Sides sides(Side side, int64_t out, int64_t in) {
  return side == Side::forward ? Sides{in, out} : Sides{out, in};
}

int64_t copy_bytes(Type weight, Side side, int64_t out, int64_t in) {
  const auto [k, n] = sides(side, out, in);
  return static_cast<int64_t>(layout(operand_type(weight), k, n).value().get_size());
}

// Row-major weights into a layout; kept per thread as products are.
class Packing {
 public:
  Packing(const Layout& from, const Layout& to)
      : stream_(cpu()), from_(from, cpu(), nullptr), to_(to, cpu(), nullptr), reorder_(from_, to_) {}

  void run(const void* from, void* to) {
    from_.set_data_handle(const_cast<void*>(from));
    to_.set_data_handle(to);
    execute<2>(reorder_, stream_, {{{DNNL_ARG_FROM, from_.get()}, {DNNL_ARG_TO, to_.get()}}}, "reorder");
  }

 private:
  dnnl::stream stream_;
  dnnl::memory from_, to_;
  dnnl::reorder reorder_;
};

Packing& packing_of(Type weight, Side side, int64_t out, int64_t in) {
  thread_local std::map<std::array<int64_t, 5>, Packing> packings;
  const std::array<int64_t, 5> key{static_cast<int64_t>(weight), static_cast<int64_t>(side), out, in,
                                   thread_count()};
  auto found = packings.find(key);
  if (found == packings.end()) {
    const auto [k, n] = sides(side, out, in);
    const auto strides = side == Side::forward ? dnnl::memory::dims{1, in} : dnnl::memory::dims{in, 1};
    found =
        packings.try_emplace(key, Layout({k, n}, weight, strides), layout(operand_type(weight), k, n).value())
            .first;
  }
  return found->second;
}

// The product of this shape for the calling thread and as many threads as a parallel_for would have here.
// Products know their threads, and their memory objects are for one caller at a time: so one set per thread.
// A model has few different shapes: the rows of experts are rounded (see expert_products.h).
template <class T, class TC>
Matmul& product_of(const WeightProduct<T, TC>& g) {
  thread_local std::map<std::array<int64_t, 5>, Matmul> products;
  const auto [k, n] = sides(g.side, g.out, g.in);
  const std::array<int64_t, 5> key{g.rows, k, n, thread_count(), g.accumulate ? 1 : 0};
  auto found = products.find(key);
  if (found == products.end()) {
    const auto chosen = choose_matmul(row_major(g.rows, k, kType<T>), layout(kType<T>, k, n).value(),
                                      row_major(g.rows, n, kType<TC>), g.accumulate);
    check(is_blocked(chosen), ErrorKind::internal,
          "[weight_product] the library has no blocked kernel for {} rows and a packed weight [{}, {}]",
          g.rows, k, n);
    found = products.try_emplace(key, chosen).first;
  }
  return found->second;
}

// C = A times a copy.
template <class T, class TC>
void packed_product(const WeightProduct<T, TC>& g) {
  if (g.rows == 0 || DryRun::on()) return;
  check(g.packed->out(g.index) == g.out && g.packed->in() == g.in, ErrorKind::internal,
        "[weight_product] packed matrix [{}, {}] as [{}, {}]", g.packed->out(g.index), g.packed->in(), g.out,
        g.in);
  product_of(g).run(g.a, g.packed->copy(g.index, g.side), g.c);
}

}  // namespace

template <class T>
bool PackedWeights::supported(int64_t total, int64_t rows, int64_t in, Copies copies) {
  if constexpr (std::is_same_v<T, double>) return false;
  const Type type = operand_type(kType<T>);
  const auto has_layouts = [&](int64_t out) {  // asks the library, for milliseconds: for what is wanted only
    return layout(type, in, out).has_value() &&
           (copies == Copies::forward || layout(type, out, in).has_value());
  };
  return (total < rows || has_layouts(rows)) && (total % rows == 0 || has_layouts(total % rows));
}

// bf16 gains on both sides: without a copy it is widened in every product or, by the library's gemm, summed
// in f32 and rounded in a second pass. At few rows gemm is a third slower forward, on a CPU that multiplies
// bf16.
template <class T>
std::optional<Copies> copies_that_pay(int64_t rows) {
  constexpr bool is_bf16 = std::is_same_v<T, bf16>;
  if (rows >= 2048) return is_bf16 ? Copies::both : Copies::forward;
  if (is_bf16 && bf16_gemm() == Bf16Gemm::native) return Copies::forward;
  return std::nullopt;
}

template <class T>
PackedWeights::PackedWeights(const T* weight, int64_t total, int64_t rows, int64_t in, Copies copies,
                             Arena& arena)
    : is_bf16_(std::is_same_v<T, bf16>),
      sides_(copies),
      weight_(weight),
      total_(total),
      rows_(rows),
      in_(in) {
  for (int64_t i = 0; i < count(); ++i) {
    for (const Side side : {Side::forward, Side::backward}) {
      copies_.push_back(has(side) ? arena.allocate_on_device(copy_bytes(kType<T>, side, out(i), in))
                                  : nullptr);
    }
  }
  current_.assign(copies_.size(), 0);
}

void PackedWeights::expire() { std::fill(current_.begin(), current_.end(), 0); }

void PackedWeights::reserve(int64_t index, Side side) const {
  packing_of(is_bf16_ ? Type::bf16 : Type::f32, side, out(index), in_);
}

void PackedWeights::prepare(int64_t index, Side side) {
  if (prepared(index, side) || DryRun::on()) return;
  const int64_t element = is_bf16_ ? sizeof(bf16) : sizeof(float);
  const char* matrix = static_cast<const char*>(weight_) + index * rows_ * in_ * element;
  packing_of(is_bf16_ ? Type::bf16 : Type::f32, side, out(index), in_)
      .run(matrix, copies_[slot(index, side)]);
  current_[slot(index, side)] = 1;
}

const void* PackedWeights::copy(int64_t index, Side side) const {
  check(prepared(index, side), ErrorKind::internal, "[packed_weights] matrix {} of [{}, {}] is out of date",
        index, out(index), in_);
  return copies_[slot(index, side)];
}

template <Device D, class T, class TC>
void weight_product(const WeightProduct<T, TC>& g, Arena& workspace, Stream& stream) {
  if constexpr (!std::is_same_v<T, double>) {
    if (g.packed != nullptr && g.packed->has(g.side)) {
      check(!stream.strict(), ErrorKind::internal, "[weight_product] packed weights on a strict stream");
      const Span span(stream.profile(), "gemm");
      g.packed->prepare(g.index, g.side);
      if (std::is_same_v<T, float> || bf16_gemm() == Bf16Gemm::native) return packed_product(g);
      if constexpr (std::is_same_v<T, bf16>) {
        const ArenaScope scope(workspace);
        const auto [k, n] = sides(g.side, g.out, g.in);
        const float* a = float_copy(g.a, g.rows, k, k, k, workspace);
        WeightProduct<float, float> wide{g.side, g.rows, g.out, g.in, a, nullptr, g.packed, g.index};
        if constexpr (std::is_same_v<TC, float>) {
          wide.c = g.c, wide.accumulate = g.accumulate;
          return packed_product(wide);
        } else {
          wide.c = workspace.take_on_device<float>(g.rows * n);
          packed_product(wide);
          return round_sum(wide.c, g.rows, n, g.c, n, g.accumulate);
        }
      }
    }
  }
  gemm<D>(without_copy(g), workspace, stream);
}

template <Device D, class T, class TC>
void packed_product_on_this_thread(const WeightProduct<T, TC>& g) {
  const OneThread alone;
  packed_product(g);
}

template <Device D, class T, class TC>
void reserve_product_on_this_thread(const WeightProduct<T, TC>& g) {
  const OneThread alone;
  product_of(g);
}

template std::optional<Copies> copies_that_pay<float>(int64_t);
template std::optional<Copies> copies_that_pay<bf16>(int64_t);
template bool PackedWeights::supported<float>(int64_t, int64_t, int64_t, Copies);
template bool PackedWeights::supported<bf16>(int64_t, int64_t, int64_t, Copies);
template bool PackedWeights::supported<double>(int64_t, int64_t, int64_t, Copies);
template PackedWeights::PackedWeights(const float*, int64_t, int64_t, int64_t, Copies, Arena&);
template PackedWeights::PackedWeights(const bf16*, int64_t, int64_t, int64_t, Copies, Arena&);
template void weight_product<Device::cpu>(const WeightProduct<float, float>&, Arena&, Stream&);
template void weight_product<Device::cpu>(const WeightProduct<bf16, bf16>&, Arena&, Stream&);
template void weight_product<Device::cpu>(const WeightProduct<bf16, float>&, Arena&, Stream&);
template void weight_product<Device::cpu>(const WeightProduct<double, double>&, Arena&, Stream&);
template void packed_product_on_this_thread<Device::cpu>(const WeightProduct<float, float>&);
template void reserve_product_on_this_thread<Device::cpu>(const WeightProduct<float, float>&);
template void packed_product_on_this_thread<Device::cpu>(const WeightProduct<bf16, float>&);
template void reserve_product_on_this_thread<Device::cpu>(const WeightProduct<bf16, float>&);
template void packed_product_on_this_thread<Device::cpu>(const WeightProduct<bf16, bf16>&);
template void reserve_product_on_this_thread<Device::cpu>(const WeightProduct<bf16, bf16>&);

}  // namespace ziggurat::kernels
