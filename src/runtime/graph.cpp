#include <ziggurat/core/error.h>
#include <ziggurat/runtime/backend.h>
#include <ziggurat/runtime/device_work.h>
#include <ziggurat/runtime/graph.h>

namespace ziggurat {

Graph::~Graph() {
  if (handle_ != nullptr) backend(device_).drop_graph(handle_);
}

void Graph::launch(Stream& stream) {
  check(handle_ != nullptr, ErrorKind::internal, "[graph] nothing was recorded");
  ++device_work().graphs;
  backend(device_).launch(handle_, stream);
}

Graph::Recording::Recording(Stream& stream) : stream_(&stream), launches_(device_work().launches) {
  backend(stream.device()).begin_recording(stream);
}

Graph::Recording::~Recording() {
  if (stream_ == nullptr) return;
  device_work().launches = launches_;
  backend(stream_->device()).give_up_recording(*stream_);
}

Graph Graph::Recording::end() {
  device_work().launches = launches_;  // none of them was
  Stream& stream = *std::exchange(stream_, nullptr);
  return {stream.device(), backend(stream.device()).end_recording(stream)};
}

}  // namespace ziggurat
