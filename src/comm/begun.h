// A collective that has begun, and moves on while this rank computes.
#pragma once

#include <cstdint>
#include <exception>
#include <memory>

#include <ziggurat/comm/communicator.h>
#include <ziggurat/core/timer.h>

namespace ziggurat {

class BegunCollective {
 public:
  virtual ~BegunCollective() = default;
  virtual bool advance() = 0;  // as far as it goes without waiting; true: done
  virtual void finish() = 0;   // waits
  // Whether any thread may call advance(), whatever others do meanwhile; else the one that begun it.
  virtual bool by_any_thread() const { return false; }
  virtual uint64_t messages() const {
    return 0;
  }  // moved so far, by this and others: has advance() done anything?
};

// A collective under way, and what its end has to know.
struct Communicator::Begun {
  std::unique_ptr<BegunCollective> collective;
  int64_t event;
  CollectiveTime* time;
  double moved = 0;   // seconds that the thread which computes has spent on it,
  double behind = 0;  // and the communication thread
  double spent = 0;   // the first, on it and others since it began: in the rest it did something else
  Timer since = {};
  bool done = false;
  std::exception_ptr error = {};  // that the communication thread met
};

}  // namespace ziggurat
