#include <algorithm>
#include <cstring>
#include <exception>
#include <filesystem>
#include <map>
#include <new>

#include <nlohmann/json.hpp>
#include <xxhash.h>

#include <ziggurat/comm/agreement.h>
#include <ziggurat/memory/arena.h>

namespace ziggurat {

namespace {

constexpr char kDone = '+';

// "rank 2", "ranks 0, 4-7"
std::string ranks_text(const std::vector<size_t>& ranks) {
  std::string text;
  for (size_t i = 0; i < ranks.size();) {
    size_t end = i + 1;
    while (end < ranks.size() && ranks[end] == ranks[end - 1] + 1) ++end;
    text += text.empty() ? "" : ", ";
    text += end == i + 1 ? fmt::format("{}", ranks[i]) : fmt::format("{}-{}", ranks[i], ranks[end - 1]);
    i = end;
  }
  return (ranks.size() == 1 ? "rank " : "ranks ") + text;
}

bool all_the_same(Communicator& comm, const std::string& text) {
  const XXH128_hash_t hash = XXH3_128bits(text.data(), text.size());
  constexpr int64_t kWords = sizeof hash / sizeof(int32_t);
  std::vector<int32_t> mine(kWords), all(static_cast<size_t>(kWords * comm.size()));
  std::memcpy(mine.data(), &hash, sizeof hash);
  Stream stream;
  comm.all_gather(Tensor(mine.data(), DType::i32, {kWords}),
                  Tensor(all.data(), DType::i32, {kWords * comm.size()}), stream)
      .wait();
  for (size_t i = 0; i < all.size(); ++i) {
    if (all[i] != mine[i % kWords]) return false;
  }
  return true;
}

}  // namespace

std::vector<std::string> agree(Communicator& comm, const std::function<std::string()>& work,
                               ErrorKind others) {
  std::string answer;
  const auto failed = [](ErrorKind kind, const char* what) {
    return fmt::format("{}{}", static_cast<char>('a' + static_cast<int>(kind)), what);
  };
  try {
    answer = kDone + work();
  } catch (const Error& e) {
    answer = failed(e.kind(), e.what());
  } catch (const std::bad_alloc&) {
    answer = failed(ErrorKind::device, ("no memory is left: " + Arena::describe_limits()).c_str());
  } catch (const std::filesystem::filesystem_error& e) {  // a path that the system does not take
    answer = failed(ErrorKind::data,
                    fmt::format("{}; name another path, or one that can be read", e.what()).c_str());
  } catch (const std::exception& e) {
    answer = failed(others, e.what());
  }
  std::vector<std::string> answers = comm.all_gather_text(answer);
  for (size_t rank = 0; rank < answers.size(); ++rank) {
    std::string& text = answers[rank];
    if (text[0] != kDone) {
      const std::string where =
          answers.size() == 1 ? "" : fmt::format(" (rank {} of {})", rank, answers.size());
      fail(static_cast<ErrorKind>(text[0] - 'a'), "{}{}", text.substr(1), where);
    }
    text.erase(0, 1);
  }
  return answers;
}

std::string on_rank_0(Communicator& comm, const std::function<std::string()>& work, ErrorKind others) {
  return agree(
             comm, [&] { return comm.rank() == 0 ? work() : std::string(); }, others)
      .front();
}

std::vector<std::string> share(Communicator& comm, size_t n, const std::function<std::string(size_t)>& work,
                               ErrorKind others) {
  std::vector<std::string> all;
  const auto size = static_cast<size_t>(comm.size());
  for (size_t first = 0; first < n; first += size) {
    const size_t mine = first + static_cast<size_t>(comm.rank());
    const std::vector<std::string> answers = agree(
        comm, [&] { return mine < n ? work(mine) : std::string(); }, others);
    all.insert(all.end(), answers.begin(), answers.end());
  }
  all.resize(n);
  return all;
}

SharedProgress::SharedProgress(const Communicator& comm, std::span<const int64_t> sizes, Tell tell)
    : tell_(std::move(tell)) {
  for (size_t i = 0; i < sizes.size(); ++i) {
    total_ += sizes[i];
    if (i % static_cast<size_t>(comm.size()) == static_cast<size_t>(comm.rank())) mine_ += sizes[i];
  }
}

void SharedProgress::add(int64_t done) {
  done_ += done;
  if (!tell_) return;
  const double part = static_cast<double>(done_) / static_cast<double>(mine_);
  tell_(done_ == mine_ ? total_ : static_cast<int64_t>(part * static_cast<double>(total_)), total_);
}

void check_same_on_all_ranks(Communicator& comm, std::span<const NamedValue> values) {
  const std::string mine = nlohmann::json(std::vector<NamedValue>(values.begin(), values.end()))
                               .dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
  // Every rank must come to the same verdict: a rank that differs from all others sees it too.
  if (all_the_same(comm, mine)) return;
  const std::vector<std::string> texts = comm.all_gather_text(mine);

  std::vector<std::map<std::string, std::string>> of_rank;
  std::vector<std::string> keys;
  for (const std::string& text : texts) {
    std::map<std::string, std::string>& its = of_rank.emplace_back();
    for (const auto& pair : nlohmann::json::parse(text)) {
      its[pair[0]] = pair[1];
      if (std::find(keys.begin(), keys.end(), pair[0]) == keys.end()) keys.push_back(pair[0]);
    }
  }
  std::string lines;
  for (const std::string& key : keys) {
    std::map<std::string, std::vector<size_t>> ranks_of_value;
    for (size_t rank = 0; rank < of_rank.size(); ++rank) {
      const auto found = of_rank[rank].find(key);
      ranks_of_value[found == of_rank[rank].end() ? "(absent)" : found->second].push_back(rank);
    }
    if (ranks_of_value.size() == 1) continue;
    std::vector<std::string> sides;
    for (const auto& [value, ranks] : ranks_of_value) {
      sides.push_back(fmt::format("{} ({})", value, ranks_text(ranks)));
    }
    lines += fmt::format("\n  {}: {}", key, fmt::join(sides, ", "));
  }
  fail(ErrorKind::config, "expected the same on all {} ranks, got{}\nStart every rank with the same command",
       comm.size(), lines);
}

}  // namespace ziggurat
