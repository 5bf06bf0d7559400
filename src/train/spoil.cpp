#include <algorithm>
#include <cstring>
#include <vector>

#include <ziggurat/core/injection.h>
#include <ziggurat/tensor/host_pieces.h>
#include <ziggurat/train/spoil.h>

namespace ziggurat::train {

namespace {

void spoil(const Fault& fault, const Tensor& values) {
  HostPieces pieces;
  const auto each = [&](const Tensor& piece, int64_t) {
    visit_float_dtype(piece.dtype(), [&]<class T>() {
      for (T *value = piece.data<T>(), *end = value + piece.numel(); value < end; ++value) {
        *value = fault.spoiled(*value);
      }
    });
  };
  if (values.device() == Device::cpu) return pieces.read(values, each);
  std::vector<std::byte> there(static_cast<size_t>(values.bytes()));
  const auto bytes_from = [&](int64_t first) { return there.data() + first * size_of(values.dtype()); };
  pieces.read(values, [&](const Tensor& piece, int64_t first) {
    std::memcpy(bytes_from(first), piece.raw(), static_cast<size_t>(piece.bytes()));
  });
  pieces.write(values, [&](const Tensor& piece, int64_t first) {
    std::memcpy(piece.raw(), bytes_from(first), static_cast<size_t>(piece.bytes()));
    each(piece, first);
  });
}

// What this rank holds of a parameter: flat, from an element of the global tensor on.
struct Held {
  Tensor values;
  int64_t first = 0;
};

template <class Of>
void spoil(const Fault& fault, const nn::ParamStore& store, const Of& of) {
  const bool everything = fault.kind == FaultKind::scale && fault.element < 0;
  bool known = false;
  for (const nn::ParamEntry& entry : store.entries()) {
    if (!fault.tensor.empty() && entry.spec.name != fault.tensor) continue;
    known = true;
    const Held held = of(entry);
    const int64_t element = fault.element < 0 ? 0 : fault.element - held.first;
    if (everything) {
      spoil(fault, held.values);
    } else if (element >= 0 && element < held.values.numel()) {
      spoil(fault, held.values.rows(element, element + 1));
    }
    if (fault.tensor.empty() && !everything) break;
  }
  check(known, ErrorKind::config, "ZIGGURAT_INJECT: the model has no parameter '{}'", fault.tensor);
}

}  // namespace

void spoil_weights(Training& training, int64_t step, Stream& stream) {
  const int rank = training.groups.world().rank();
  nn::ParamStore& store = training.store;
  const auto value = [](const nn::ParamEntry& entry) {
    return Held{entry.param.value.reshape({entry.numel}), entry.first};
  };
  const auto master = [&](const nn::ParamEntry& entry) {
    return Held{training.optimizer.state().master(entry), entry.first + store.owned(entry).begin};
  };
  for (const Fault& fault : due_faults(Site::weight, rank, step)) {
    stream.wait();
    spoil(fault, store, value);
    store.values_changed();
  }
  for (const Fault& fault : due_faults(Site::master, rank, step)) {
    stream.wait();
    spoil(fault, store, master);
    store.values_changed();  // where masters are the values
  }
}

void spoil_results(Training& training, const Tensor& loss, int64_t step, Stream& stream) {
  const int rank = training.groups.world().rank();
  nn::ParamStore& store = training.store;
  for (const Fault& fault : due_faults(Site::gradient, rank, step)) {
    store.settle_gradients(stream);
    stream.wait();
    // Experts in strict mode have one of each source, all of which are scaled.
    int64_t sources = 1;
    if (fault.kind == FaultKind::scale) {
      for (const nn::ParamGroup& group : store.groups()) sources = std::max(sources, group.sources);
    }
    for (int64_t source = 0; source < sources; ++source) {
      spoil(fault, store, [&](const nn::ParamEntry& entry) {
        if (store.group_of(entry).scattered) {
          return Held{store.kept_gradient(entry), entry.first + store.kept(entry).begin};
        }
        const bool has = source < store.group_of(entry).sources;
        const Tensor gradient = entry.param.grad_of_source(has ? source : 0).reshape({entry.numel});
        return Held{has ? gradient : gradient.rows(0, 0), entry.first};
      });
    }
  }
  for (const Fault& fault : due_faults(Site::loss, rank, step)) {
    stream.wait();
    spoil(fault, loss);
  }
}

}  // namespace ziggurat::train
