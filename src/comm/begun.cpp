// Collectives that begin, and end when somebody waits: the thread that computes puts them into a list; it and
// the communication thread take turns to move the first that is not done.
#include "comm/begun.h"

#include <algorithm>
#include <exception>

#include "comm/background.h"
#include "comm/noted.h"
#include <ziggurat/core/flight_log.h>

namespace ziggurat {

namespace {

using comm::Noted;

std::span<std::byte> bytes_of(const Tensor& tensor) {
  return {static_cast<std::byte*>(tensor.raw()), static_cast<size_t>(tensor.bytes())};
}

bool on_host(const Tensor& tensor) { return tensor.device() == Device::cpu; }

}  // namespace

Work Communicator::begin_all_reduce(const Tensor& buffer, ReduceOrder order, Stream& stream) {
  if (buffer.device() == Device::cuda && size_ > 1 && goes_between_devices(order)) {
    begin("all_reduce", buffer, buffer, stream);
    check_reducible(buffer, order);
    const Noted noted(*this, time());
    Stream& sums = beside(stream, Beside::sums);
    device_all_reduce(buffer, ReduceOp::sum, sums);
    return done_beside(sums, stream);
  }
  const bool host = on_host(buffer) && size_ > 1;
  if (!host || sums_by_nodes(buffer.bytes(), order)) return all_reduce(buffer, ReduceOp::sum, order, stream);
  last_ = {last_.sequence + 1, "all_reduce", buffer.bytes()};
  check_reducible(buffer, order);
  auto collective = begin_reduce_all(bytes_of(buffer), buffer.dtype(), order);
  if (collective) return keep_begun(std::move(collective));
  --last_.sequence;
  return all_reduce(buffer, ReduceOp::sum, order, stream);
}

Work Communicator::begin_reduce_scatter(const Tensor& input, const Tensor& output, ReduceOrder order,
                                        Stream& stream) {
  if (input.device() == Device::cuda && size_ > 1 && goes_between_devices(order)) {
    begin("reduce_scatter", input, output, stream);
    check_scatter(input, output, order);
    const Noted noted(*this, time());
    Stream& sums = beside(stream, Beside::sums);
    device_reduce_scatter(input, output, sums);
    return done_beside(sums, stream);
  }
  const bool host = on_host(input) && size_ > 1;
  if (!host || sums_by_nodes(input.bytes(), order)) return reduce_scatter(input, output, order, stream);
  last_ = {last_.sequence + 1, "reduce_scatter", input.bytes()};
  check_alike(input, output);
  check_scatter(input, output, order);
  auto collective = begin_reduce_blocks(bytes_of(input), bytes_of(output), input.dtype(), order);
  if (collective) return keep_begun(std::move(collective));
  --last_.sequence;
  return reduce_scatter(input, output, order, stream);
}

Work Communicator::begin_all_gather(const Tensor& input, const Tensor& output, Stream& stream) {
  const bool host = on_host(input) && size_ > 1;
  // Gathers go by nodes from as many bytes on as sums.
  if (!host || sums_by_nodes(output.bytes(), ReduceOrder::any)) return all_gather(input, output, stream);
  last_ = {last_.sequence + 1, "all_gather", input.bytes()};
  check_alike(input, output);
  check_gather(input, output);
  auto collective = begin_gather(bytes_of(input), bytes_of(output));
  if (collective) return keep_begun(std::move(collective));
  --last_.sequence;
  return all_gather(input, output, stream);
}

// Of the thread that computes, which the other gives way to.
class Communicator::Turn {
 public:
  explicit Turn(Communicator& group) : group_(group) {
    group.wants_turn_ = true;
    group.turn_.lock();
    group.wants_turn_ = false;
  }
  ~Turn() { group_.turn_.unlock(); }
  Turn(const Turn&) = delete;
  Turn& operator=(const Turn&) = delete;

 private:
  Communicator& group_;
};

Work Communicator::keep_begun(std::unique_ptr<BegunCollective> collective) {
  CollectiveTime& its_time = time();
  ++its_time.calls;
  its_time.bytes += last_.bytes;
  const int64_t event = flight_log().note_collective(last_.name, name_, last_.sequence, last_.bytes);
  const bool by_any_thread = collective->by_any_thread() && background_ != nullptr;
  {
    const std::lock_guard list(list_);
    begun_.push_back(std::make_unique<Begun>(Begun{std::move(collective), event, &its_time}));
  }
  if (by_any_thread && !background_->add(this, [this] { return move_in_background(); })) background_.reset();
  progress();
  const int64_t number = begun_before_ + static_cast<int64_t>(begun_.size());
  return Work([this, number] { finish_begun(number); });
}

void Communicator::end_first_begun() {
  const Begun& first = *begun_.front();
  const std::exception_ptr error = first.error;
  flight_log().end_noted(first.event);
  first.time->exposed += first.moved;
  // What MPI moves by itself takes no time of anybody.
  first.time->hidden +=
      first.collective->by_any_thread() ? first.behind : first.since.seconds() - first.spent;
  {
    const std::lock_guard list(list_);
    begun_.pop_front();
  }
  ++begun_before_;
  if (error) std::rethrow_exception(error);
}

// In their order: a pair of ranks has one line.
void Communicator::progress() {
  if (begun_.empty()) return;
  const std::unique_lock turn(turn_, std::try_to_lock);
  if (!turn) return;  // the communication thread is moving them
  while (!begun_.empty()) {
    Begun& first = *begun_.front();
    if (!first.done && background_ != nullptr && first.collective->by_any_thread()) return;
    if (!first.done) {
      const Timer moving;
      first.done = first.collective->advance();
      first.moved += moving.seconds();
      for (const auto& begun : begun_) begun->spent += moving.seconds();
    }
    if (!first.done) return;
    end_first_begun();
  }
}

void Communicator::finish_begun(int64_t until) {
  if (begun_before_ >= until) return;
  if (std::uncaught_exceptions() > 0) {  // the peers may never come, and the buffers go
    leave_background();
    const std::lock_guard list(list_);
    begun_before_ += static_cast<int64_t>(begun_.size());
    return begun_.clear();
  }
  Timer waiting;  // for the turn, too
  const Turn turn(*this);
  while (begun_before_ < until) {
    Begun& first = *begun_.front();
    if (!first.done) first.collective->finish();
    first.moved += waiting.seconds();
    for (const auto& begun : begun_) begun->spent += waiting.seconds();
    waiting = Timer();
    end_first_begun();
  }
}

// With the turn. What another thread has to move holds up those behind it.
Communicator::Begun* Communicator::first_to_move() {
  const std::lock_guard list(list_);
  const auto first = std::find_if(begun_.begin(), begun_.end(), [](const auto& b) { return !b->done; });
  return first == begun_.end() ? nullptr : first->get();
}

comm::Moved Communicator::move_in_background() {
  if (wants_turn_) return comm::Moved::nothing;
  const std::unique_lock turn(turn_, std::try_to_lock);
  if (!turn) return comm::Moved::nothing;
  comm::Moved result = comm::Moved::nothing;
  while (Begun* const begun = first_to_move()) {
    if (!begun->collective->by_any_thread()) return result;
    const Timer moving;
    const uint64_t before = begun->collective->messages();
    try {
      begun->done = begun->collective->advance();
    } catch (...) {
      begun->error = std::current_exception();
      begun->done = true;
    }
    if (!begun->done && begun->collective->messages() == before) return result;
    begun->behind += moving.seconds();
    result = comm::Moved::something;
    if (!begun->done) return result;
  }
  return comm::Moved::all;
}

bool Communicator::passes_all_begun(int64_t bytes) const {
  return nodes_ == 1 && passes_begun(bytes) && std::all_of(begun_.begin(), begun_.end(), [](const auto& b) {
           return b->collective->by_any_thread();
         });
}

void Communicator::use_background() { background_ = std::make_shared<comm::Background>(); }

void Communicator::leave_background() {
  if (background_ != nullptr) background_->remove(this);
}

std::unique_ptr<BegunCollective> Communicator::begin_reduce_all(Bytes, DType, ReduceOrder) { return nullptr; }
std::unique_ptr<BegunCollective> Communicator::begin_reduce_blocks(ConstBytes, Bytes, DType, ReduceOrder) {
  return nullptr;
}
std::unique_ptr<BegunCollective> Communicator::begin_gather(ConstBytes, Bytes) { return nullptr; }

}  // namespace ziggurat
