#include <algorithm>
#include <map>
#include <sstream>

#include <xxhash.h>

#include <ziggurat/core/flight_log.h>
#include <ziggurat/train/bit_hash.h>
#include <ziggurat/train/replica_check.h>

namespace ziggurat::train {

namespace {

// Of one parameter as this rank holds it: from which element on, and hashes.
struct Held {
  int64_t first = 0;
  uint64_t value = 0, master = 0;  // 0: there is none that others have too
};

std::vector<Held> hash_all(const OptimizerState& state) {
  std::vector<Held> all;
  BitHash hash;
  for (const nn::ParamEntry& entry : state.store().entries()) {
    const nn::ParamGroup& group = state.store().group_of(entry);
    flight_log().note_progress();
    const bool has_master = state.rounded(entry) && !group.sharded();
    if (entry.numel == 0) {  // none of it lies here
      all.push_back({-1, 0, 0});
      continue;
    }
    all.push_back({entry.first, hash.of(entry.param.value), has_master ? hash.of(state.master(entry)) : 0});
  }
  return all;
}

// One number a group, compared among those who hold the same.
bool all_agree(const std::vector<Held>& mine, const OptimizerState& state, const ProcessGroups& groups) {
  const nn::ParamStore& store = state.store();
  Stream stream;
  double different = 0;
  for (size_t g = 0; g < store.groups().size(); ++g) {
    std::vector<uint64_t> of_group;
    for (size_t i = 0; i < mine.size(); ++i) {
      if (static_cast<size_t>(store.entries()[i].group) != g) continue;
      of_group.insert(of_group.end(), {mine[i].value, mine[i].master});
    }
    uint64_t one = XXH3_64bits(of_group.data(), of_group.size() * sizeof(uint64_t));
    Communicator& ranks = nn::replicas(store.groups()[g], groups);
    std::vector<uint64_t> all(static_cast<size_t>(ranks.size()));
    ranks
        .all_gather(Tensor(&one, DType::i32, {1, 2}), Tensor(all.data(), DType::i32, {ranks.size(), 2}),
                    stream)
        .wait();
    for (const uint64_t other : all) different = other == one ? different : 1;
  }
  groups.world()
      .all_reduce(Tensor(&different, DType::f64, {1}), ReduceOp::max, ReduceOrder::any, stream)
      .wait();
  return different == 0;
}

std::string listed(const std::vector<int>& ranks) {
  return fmt::format("{} {}", ranks.size() == 1 ? "rank" : "ranks", fmt::join(ranks, ", "));
}

// "" if they agree.
std::string tell(const std::string& what, const std::vector<std::pair<int, std::string>>& answers) {
  const Minority found = minority(answers);
  if (found.odd.empty()) return "";
  if (found.others.empty()) return fmt::format("{}: {} differ from each other", what, listed(found.odd));
  return fmt::format("{}: {} differ{} from {}", what, listed(found.odd), found.odd.size() == 1 ? "s" : "",
                     listed(found.others));
}

}  // namespace

Minority minority(const std::vector<std::pair<int, std::string>>& answers) {
  std::map<std::string, std::vector<int>> by_answer;
  for (const auto& [rank, answer] : answers) by_answer[answer].push_back(rank);
  if (by_answer.size() < 2) return {};
  size_t most = 0, how_many = 0;
  for (const auto& [answer, ranks] : by_answer) most = std::max(most, ranks.size());
  for (const auto& [answer, ranks] : by_answer) how_many += ranks.size() == most ? 1 : 0;
  Minority result;
  for (const auto& [answer, ranks] : by_answer) {
    std::vector<int>& to = how_many == 1 && ranks.size() == most ? result.others : result.odd;
    to.insert(to.end(), ranks.begin(), ranks.end());
  }
  std::sort(result.odd.begin(), result.odd.end());
  return result;
}

std::string first_disagreement(const OptimizerState& state, const ProcessGroups& groups) {
  state.store().await_values();
  const std::vector<Held> mine = hash_all(state);
  if (all_agree(mine, state, groups)) return "";
  std::string text;
  for (const Held& held : mine) text += fmt::format("{} {:x} {:x}\n", held.first, held.value, held.master);
  const std::vector<std::string> of_ranks = groups.world().all_gather_text(text);
  std::vector<std::istringstream> lines(of_ranks.begin(), of_ranks.end());
  for (const nn::ParamEntry& entry : state.store().entries()) {
    std::map<int64_t, std::vector<std::pair<int, std::string>>> values, masters;  // by the first element held
    for (size_t rank = 0; rank < lines.size(); ++rank) {
      int64_t first = 0;
      std::string value, master;
      lines[rank] >> first >> value >> master;
      values[first].emplace_back(static_cast<int>(rank), value);
      masters[first].emplace_back(static_cast<int>(rank), master);
    }
    for (const auto& [name, all] : {std::pair("weight", values), {"master", masters}}) {
      for (const auto& [first, answers] : all) {
        const std::string found = tell(fmt::format("{}, {}", entry.spec.name, name), answers);
        if (!found.empty()) return found;
      }
    }
  }
  return "weights";  // cannot be: some group differed
}

}  // namespace ziggurat::train
