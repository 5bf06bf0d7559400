// Every collective has the same form: publish what the peers may read, meet them, read from them, meet again.
// One lock serves all groups: this is for tests, where clarity counts and speed does not.
#include <algorithm>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <string_view>
#include <thread>

#include "comm/host_bytes.h"
#include <ziggurat/comm/thread.h>
#include <ziggurat/runtime/parallel_for.h>

namespace ziggurat {
namespace {

using comm::copy_bytes;
using comm::reduce_into;
using comm::slice;

// What all groups of one run share: who reads, who has ended, and the first failure.
struct Job {
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<bool> ended;
  int readers = 0;  // ranks that may be reading a peer's memory
  int failed_rank = -1;
  std::string failure;
  std::exception_ptr exception;

  void record_failure(int rank, const std::string& what) {
    const std::lock_guard lock(mutex);
    if (failed_rank < 0) {
      failed_rank = rank;
      failure = what;
      exception = std::current_exception();
    }
  }
  void record_end(int rank) {
    const std::lock_guard lock(mutex);
    ended[static_cast<size_t>(rank)] = true;
    changed.notify_all();
  }
};

class ThreadCommunicator;

struct Group {
  std::shared_ptr<Job> job;
  std::vector<int> members;  // ranks of the world
  std::vector<ThreadCommunicator*> ranks;
  int arrived = 0;
  int64_t meetings = 0;
};

class ThreadCommunicator final : public Communicator {
 public:
  ThreadCommunicator(const std::string& group_name, std::shared_ptr<Group> group, int group_rank,
                     int64_t chunk_bytes)
      : Communicator(group_name, group_rank, static_cast<int>(group->members.size()), chunk_bytes),
        group_(std::move(group)) {
    const std::lock_guard lock(group_->job->mutex);
    group_->ranks[static_cast<size_t>(rank())] = this;
  }

 private:
  struct Published {
    ConstBytes bytes = {};
    std::vector<int64_t> counts = {};  // bytes for each rank
    int color = 0, key = 0;
    std::shared_ptr<Group> group = {};
  };

  // Until every rank of the group is here, in the same collective. With `then_read` every rank owes a
  // finished_reading() afterwards.
  void meet(bool then_read = false) {
    Job& job = *group_->job;
    std::unique_lock lock(job.mutex);
    const int64_t meeting = group_->meetings;
    const auto over = [&] { return job.failed_rank >= 0 || peer_ended(); };
    const bool arrives = !over();
    if (arrives && ++group_->arrived == size()) {
      check_agreement();
      group_->arrived = 0;
      group_->meetings++;
      if (then_read) job.readers += size();
      job.changed.notify_all();
    }
    job.changed.wait(lock, [&] { return group_->meetings > meeting || over(); });
    if (group_->meetings > meeting) return;
    if (arrives) --group_->arrived;  // and soon is no more: nobody may meet this rank
    // Unwinding frees what this rank published: not while a peer reads it.
    job.changed.wait(lock, [&] { return job.readers == 0; });
    check(job.failed_rank < 0, ErrorKind::communication, "{} ended because rank {} failed first: {}", where(),
          job.failed_rank, job.failure);
    fail(ErrorKind::communication, "{} a rank returned without entering it; ended: {}", where(),
         ended_members());
  }

  void finished_reading() {
    const std::lock_guard lock(group_->job->mutex);
    if (--group_->job->readers == 0) group_->job->changed.notify_all();
  }

  // Unwinding frees what this rank published: not while a peer reads it.
  void wait_for_readers() {
    std::unique_lock lock(group_->job->mutex);
    group_->job->changed.wait(lock, [&] { return group_->job->readers == 0; });
  }

  bool peer_ended() const {
    return std::any_of(group_->members.begin(), group_->members.end(),
                       [&](int m) { return group_->job->ended[static_cast<size_t>(m)]; });
  }

  std::string ended_members() const {
    std::string text;
    for (const int m : group_->members) {
      if (group_->job->ended[static_cast<size_t>(m)])
        text += fmt::format("{}rank {}", text.empty() ? "" : ", ", m);
    }
    return text;
  }

  // Name and number must agree; so must sizes, where the collective asks for it. Called by the last to
  // arrive, while all others wait.
  void check_agreement() const {
    const Collective& mine = last_collective();
    for (const ThreadCommunicator* peer : group_->ranks) {
      const Collective& theirs = peer->last_collective();
      const std::string_view name = mine.name;
      const bool sizes_may_differ = name == "all_to_all_v" || name == "all_gather_text";
      check(name == theirs.name && mine.sequence == theirs.sequence &&
                (sizes_may_differ || mine.bytes == theirs.bytes),
            ErrorKind::communication, "{} but {}: every rank must enter the same collective", where(),
            peer->where());
    }
  }

  const ThreadCommunicator& peer(int r) const { return *group_->ranks[static_cast<size_t>(r)]; }

  // Runs read() while everybody's publication stands.
  template <class Read>
  void publish(Published mine, const Read& read) {
    published_ = std::move(mine);
    meet(true);
    try {
      read();
    } catch (...) {
      finished_reading();
      wait_for_readers();
      throw;
    }
    finished_reading();
    meet();
  }

  std::unique_ptr<Communicator> do_split(int color, int key, const std::string& name) override {
    std::vector<int> peers;  // ranks here with my color, in the order of the new group
    publish({.color = color, .key = key}, [&] {
      for (int r = 0; r < size(); ++r) {
        if (peer(r).published_.color == color) peers.push_back(r);
      }
      std::stable_sort(peers.begin(), peers.end(),
                       [&](int a, int b) { return peer(a).published_.key < peer(b).published_.key; });
    });
    // The first rank of the new group makes what its members share.
    Published mine;
    if (peers.front() == rank()) {
      mine.group = std::make_shared<Group>();
      mine.group->job = group_->job;
      for (const int r : peers) mine.group->members.push_back(group_->members[static_cast<size_t>(r)]);
      mine.group->ranks.resize(peers.size());
    }
    std::shared_ptr<Group> shared;
    publish(std::move(mine), [&] { shared = peer(peers.front()).published_.group; });
    const auto place = std::find(peers.begin(), peers.end(), rank()) - peers.begin();
    return std::make_unique<ThreadCommunicator>(name, shared, static_cast<int>(place), reduce_chunk_bytes());
  }

  void do_barrier() override { meet(); }

  void do_broadcast(Bytes buffer, int root) override {
    publish({.bytes = buffer}, [&] { copy_bytes(peer(root).published_.bytes, buffer); });
  }

  void do_all_reduce(Bytes buffer, DType dtype, ReduceOp op) override {
    std::vector<std::byte> result(buffer.size());
    publish({.bytes = buffer}, [&] {
      copy_bytes(peer(0).published_.bytes, result);
      for (int r = 1; r < size(); ++r) reduce_into(result, result, peer(r).published_.bytes, dtype, op);
    });
    copy_bytes(result, buffer);
  }

  void do_all_gather(ConstBytes input, Bytes output) override {
    const auto n = static_cast<int64_t>(input.size());
    publish({.bytes = input}, [&] {
      for (int r = 0; r < size(); ++r) copy_bytes(peer(r).published_.bytes, slice(output, r * n, n));
    });
  }

  Work do_all_to_all_v(ConstBytes input, const std::vector<int64_t>& send, Bytes output,
                       const std::vector<int64_t>& receive) override {
    publish({.bytes = input, .counts = send}, [&] {
      int64_t at = 0;
      for (int r = 0; r < size(); ++r) {
        const Published& theirs = peer(r).published_;
        const auto begin = theirs.counts.begin();
        int64_t offset = 0;
        for (auto c = begin; c != begin + rank(); ++c) offset += *c;
        const int64_t sent = *(begin + rank()), expected = receive[static_cast<size_t>(r)];
        check(sent == expected, ErrorKind::communication, "{} expects {} bytes from rank {}, which sends {}",
              where(), expected, r, sent);
        copy_bytes(slice(theirs.bytes, offset, sent), slice(output, at, sent));
        at += sent;
      }
    });
    return {};
  }

  void do_exchange(int partner, ConstBytes send, Bytes receive) override {
    publish({.bytes = send}, [&] { copy_bytes(peer(partner).published_.bytes, receive); });
  }

  std::shared_ptr<Group> group_;
  Published published_;
};

}  // namespace

void run_on_threads(int ranks, const std::function<void(Communicator&)>& body, int64_t reduce_chunk_bytes) {
  check(ranks >= 1, ErrorKind::argument, "[run_on_threads] needs at least 1 rank, got {}", ranks);
  const auto job = std::make_shared<Job>();
  job->ended.resize(static_cast<size_t>(ranks));
  const auto world = std::make_shared<Group>();
  world->job = job;
  world->ranks.resize(static_cast<size_t>(ranks));
  for (int r = 0; r < ranks; ++r) world->members.push_back(r);

  const auto run_rank = [&](int rank) {
    set_thread_count(1);  // OpenMP counts per calling thread: `ranks` threads in all, not ranks * cores
    try {
      ThreadCommunicator communicator("world", world, rank, reduce_chunk_bytes);
      body(communicator);
    } catch (const std::exception& error) {
      job->record_failure(rank, error.what());
    } catch (...) {
      job->record_failure(rank, "an exception of unknown type");
    }
    job->record_end(rank);
  };
  {
    std::vector<std::jthread> threads;
    for (int r = 0; r < ranks; ++r) threads.emplace_back(run_rank, r);
  }
  if (job->exception) std::rethrow_exception(job->exception);
}

}  // namespace ziggurat
