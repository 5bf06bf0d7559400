#include <kernels/cpu/matmul.h>

namespace ziggurat::kernels {

bool library_has(dnnl::cpu_isa isa) {  // a newer one has all bits of those that it contains
  const auto wanted = static_cast<unsigned>(isa);
  return (static_cast<unsigned>(dnnl::get_effective_cpu_isa()) & wanted) == wanted;
}

dnnl::matmul::primitive_desc choose_matmul(const Layout& a, const Layout& b, const Layout& c,
                                           bool accumulate) {
  dnnl::primitive_attr attributes;
  if (accumulate) {
    dnnl::post_ops sum;
    sum.append_sum(1.0f);
    attributes.set_post_ops(sum);
  }
  return {dnnl::matmul::desc(a, b, c), attributes, cpu(), /*allow_empty=*/true};
}

bool is_blocked(const dnnl::matmul::primitive_desc& chosen) {
  return chosen && std::string_view(chosen.impl_info_str()).starts_with("brg");
}

Matmul::Matmul(const dnnl::matmul::primitive_desc& chosen)
    : stream_(cpu()),
      a_(chosen.src_desc(), cpu(), nullptr),
      b_(chosen.weights_desc(), cpu(), nullptr),
      c_(chosen.dst_desc(), cpu(), nullptr),
      primitive_(chosen) {}

void Matmul::run(const void* a, const void* b, void* c) {
  a_.set_data_handle(const_cast<void*>(a));
  b_.set_data_handle(const_cast<void*>(b));
  c_.set_data_handle(c);
  execute<3>(primitive_, stream_,
             {{{DNNL_ARG_SRC, a_.get()}, {DNNL_ARG_WEIGHTS, b_.get()}, {DNNL_ARG_DST, c_.get()}}}, "matmul");
}

}  // namespace ziggurat::kernels
