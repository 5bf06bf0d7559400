// A collective that has begun, and moves on while this rank computes.
#pragma once

namespace ziggurat {

class BegunCollective {
 public:
  virtual ~BegunCollective() = default;
  virtual bool advance() = 0;  // as far as it goes without waiting; true: done
  virtual void finish() = 0;   // waits
};

}  // namespace ziggurat
