// What a group whose ranks lie on several nodes needs to go by nodes.
#pragma once

#include <ziggurat/comm/communicator.h>

namespace ziggurat {

// N nodes of G ranks each. A rank's place is its number among those of its node, which are in the group's
// order.
struct Communicator::Levels {
  std::unique_ptr<Communicator> inside;   // G: this rank's node, by place
  std::unique_ptr<Communicator> between;  // N: the ranks of this place, by node
  std::vector<int> rank_at;               // of node n and place g: rank_at[n * G + g]
  bool in_order = false;                  // rank = n * G + g

  AllToAll all_to_all = AllToAll::automatic;
  int64_t small_block = 0;  // bytes; below it the automatic all-to-all goes by nodes
  int64_t sums_from = 0;    // bytes
  // The automatic all_to_all_v: its calls, the most bytes that this rank sent in one of them, and the largest
  // such number of any rank that all have told each other.
  int64_t calls = 0, most_sent = 0, agreed_most = 0;

  // Of the all-to-all under way; kept, so that none allocates. Bytes that this rank gives to peer g for node
  // n, to_pass[g * N + n], and that peer g gives to it for node n, passed[g * N + n].
  std::vector<int64_t> to_pass, passed;
  std::vector<int64_t> send_at, receive_at, passed_at;  // where blocks begin
  std::vector<int64_t> inside_send, inside_receive, between_send, between_receive, count_bytes;  // of a stage
  std::vector<std::byte> leaving, arriving;

  int nodes() const { return between->size(); }
  int places() const { return inside->size(); }
  int rank(int node, int place) const { return rank_at[static_cast<size_t>(node * places() + place)]; }
};

}  // namespace ziggurat
