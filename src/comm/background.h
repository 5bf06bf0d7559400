// The communication thread of a rank: moves collectives that have begun on while the rank computes. It sleeps
// while there are none, and between looks when the other ranks have sent nothing; where the rank has no core
// to spare, what it does takes its time from the thread that computes.
#pragma once

#include <condition_variable>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <thread>

namespace ziggurat::comm {

enum class Moved : uint8_t { nothing, something, all };

class Background {
 public:
  // Moves on as far as it goes without waiting. Called by the thread, one at a time; after `all` not before
  // the next add().
  using Move = std::function<Moved()>;

  ~Background();

  // False: there is no thread to have, and who asked moves by itself.
  bool add(const void* who, Move move);
  void remove(const void* who);  // returns when it is not being called, and will not be

 private:
  void run();
  Moved visit(const void* who, const Move& move, std::unique_lock<std::mutex>& lock);

  std::mutex mutex_;  // not held while anything moves
  std::condition_variable wake_, left_;
  std::map<const void*, Move> moves_;
  const void* visited_ = nullptr;  // whose move is being called
  bool added_again_ = false;       // meanwhile
  std::thread thread_;
  bool ends_ = false, impossible_ = false;
};

}  // namespace ziggurat::comm
