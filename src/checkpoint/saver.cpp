#include <algorithm>
#include <chrono>
#include <utility>

#include "commit.h"
#include "manifest.h"
#include "rank_file.h"
#include <ziggurat/checkpoint/saver.h>
#include <ziggurat/comm/agreement.h>
#include <ziggurat/config/units.h>
#include <ziggurat/core/flight_log.h>
#include <ziggurat/core/injection.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/timer.h>
#include <ziggurat/io/files.h>
#include <ziggurat/memory/arena.h>

namespace ziggurat {

namespace {

int64_t bytes_of(std::span<const TensorSlice> slices) {
  int64_t bytes = 0;
  for (const TensorSlice& s : slices) bytes += (s.data.bytes() + 63) / 64 * 64;
  return bytes;
}

std::string text_of(const std::exception& e) {
  return dynamic_cast<const std::bad_alloc*>(&e) == nullptr
             ? e.what()
             : "no memory is left: " + Arena::describe_limits();
}

}  // namespace

struct Saver::Save {
  CheckpointInfo info;
  std::unique_ptr<HostMemory> memory;
  std::vector<TensorSlice> slices;  // in it

  // By the thread, under the mutex.
  bool written = false, committed = false;
  std::string record, error;  // of this rank's file
  double write_seconds = 0;

  bool gathered = false;
  std::vector<std::string> records;  // of all ranks
  SaveOutcome outcome;
};

Saver::Saver(std::string dir, Communicator& comm, bool in_background)
    : dir_(std::move(dir)), comm_(comm), in_background_(in_background) {
  if (in_background_) thread_ = std::thread([this] { work(); });
}

Saver::~Saver() {
  if (!in_background_) return;
  {
    const std::lock_guard lock(mutex_);
    ending_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Saver::work() {
  std::unique_lock lock(mutex_);
  for (;;) {
    changed_.wait(lock, [this] { return ending_ || !jobs_.empty(); });
    if (ending_) return;
    const std::function<void()> job = std::move(jobs_.front());
    jobs_.pop_front();
    lock.unlock();
    job();
    lock.lock();
    changed_.notify_all();
  }
}

std::vector<SaveOutcome> Saver::start(const CheckpointInfo& info, std::span<const TensorSlice> slices,
                                      const Timer& stall) {
  if (pending_.size() == kMostPending) wait_for_oldest();
  auto save = std::make_unique<Save>();
  save->info = info;
  save->outcome.step = info.step;
  try {
    if (!in_background_) {
      save_checkpoint(dir_, info, slices, comm_);
    } else {
      const auto begin = [&] {
        if (comm_.rank() == 0) {
          make_folder(dir_, ErrorKind::checkpoint);
          if (pending_.empty()) remove_stale_temporaries(dir_);
        }
        copy(*save, slices);
        return std::to_string(bytes_of(slices));
      };
      for (const std::string& bytes : agree(comm_, begin, ErrorKind::checkpoint)) {
        save->outcome.bytes += std::stoll(bytes);
      }
    }
  } catch (const Error& e) {
    save->outcome.error = e.what();
  }
  save->outcome.stall_seconds = stall.seconds();
  if (!in_background_ || !save->outcome.error.empty()) {
    save->outcome.write_seconds = stall.seconds();
    ended_.push_back(save->outcome);
    return ended();
  }
  if (comm_.rank() == 0) {
    const int64_t free = free_bytes(dir_);
    if (free >= 0 && free < save->outcome.bytes) {
      warn("the checkpoint of step {} takes {} and the disk of {} has {} left: make room now, or it fails",
           info.step, format_bytes(double(save->outcome.bytes)), dir_, format_bytes(double(free)));
    }
  }
  pending_.push_back(std::move(save));
  const std::lock_guard lock(mutex_);
  jobs_.emplace_back([this, &it = *pending_.back()] { write(it); });
  changed_.notify_all();
  return ended();
}

void Saver::copy(Save& save, std::span<const TensorSlice> slices) {
  const int64_t bytes = bytes_of(slices);
  const Device device = slices.empty() ? Device::cpu : slices[0].data.device();
  {
    const std::lock_guard lock(mutex_);
    if (!memories_.empty()) {
      save.memory = std::move(memories_.back());
      memories_.pop_back();
    }
  }
  if (!save.memory || save.memory->bytes() < bytes) {
    save.memory.reset();
    save.memory = std::make_unique<HostMemory>(device, bytes);
  }
  reach(Site::stage, comm_.rank(), save.info.step);
  Stream stream(device);
  auto* to = static_cast<std::byte*>(save.memory->data());
  for (const TensorSlice& s : slices) {
    check_slice(s);
    TensorSlice& copied = save.slices.emplace_back(s);
    copied.data = Tensor(to, s.data.dtype(), s.data.shape());
    ziggurat::copy(s.data, copied.data, stream);
    to += bytes_of({&s, 1});
  }
  stream.wait();
}

// In the thread.
void Saver::write(Save& save) {
  const Timer timer;
  std::string record, error;
  try {
    const std::string folder = temporary_path(dir_, save.info.step);
    make_folder(folder, ErrorKind::checkpoint);
    reach(Site::write, comm_.rank(), save.info.step);
    const auto go_on = [this] {
      const std::lock_guard lock(mutex_);
      ++pieces_;
      check(!ending_, ErrorKind::checkpoint, "the run ended first");
    };
    record =
        to_text(write_rank_file(folder, save.info, static_cast<size_t>(comm_.rank()), save.slices, go_on));
  } catch (const std::exception& e) {
    error = text_of(e);
  }
  const std::lock_guard lock(mutex_);
  memories_.push_back(std::move(save.memory));
  save.write_seconds = timer.seconds();
  save.record = std::move(record), save.error = std::move(error);
  save.written = true;
}

// Every rank has written its file, or failed to. Then rank 0's thread has the next word.
void Saver::gather(Save& save) {
  const Timer stall;
  save.gathered = true;
  try {
    const auto tell = [&] {
      check(save.error.empty(), ErrorKind::checkpoint, "{}", save.error);
      return fmt::format("{} {}", save.write_seconds, save.record);
    };
    save.records = agree(comm_, tell, ErrorKind::checkpoint);
    for (std::string& record : save.records) {
      const size_t end = record.find(' ');
      save.outcome.write_seconds = std::max(save.outcome.write_seconds, std::stod(record.substr(0, end)));
      record.erase(0, end + 1);
    }
  } catch (const Error& e) {
    save.outcome.error = e.what();
  }
  save.outcome.stall_seconds += stall.seconds();
  if (comm_.rank() != 0) return;
  const std::lock_guard lock(mutex_);
  jobs_.emplace_back([this, &save] { commit(save); });
  changed_.notify_all();
}

// In rank 0's thread.
void Saver::commit(Save& save) {
  std::string error = save.outcome.error;
  if (error.empty()) {
    try {
      std::vector<FileRecord> files;
      for (const std::string& record : save.records) files.push_back(file_record_from_text(record, dir_));
      reach(Site::commit, 0, save.info.step);
      commit_checkpoint(dir_, save.info, std::move(files));
      remove_superfluous(dir_, save.info);
    } catch (const std::exception& e) {
      error = text_of(e);
    }
  }
  if (!error.empty()) discard_checkpoint(dir_, save.info.step);
  const std::lock_guard lock(mutex_);
  save.error = std::move(error);
  save.committed = true;
}

// Rank 0's thread is done with it.
void Saver::end_oldest() {
  Save& save = *pending_.front();
  const Timer stall;
  save.outcome.error = on_rank_0(comm_, [&] { return save.error; });
  save.outcome.stall_seconds += stall.seconds();
  ended_.push_back(save.outcome);
  pending_.pop_front();
}

Saver::Lag Saver::lag() const {
  const std::lock_guard lock(mutex_);
  Lag lag;
  for (const auto& save : pending_) {
    lag.unwritten += save->written ? 0 : 1;
    lag.uncommitted += save->committed || comm_.rank() != 0 ? 0 : 1;
  }
  return lag;
}

std::vector<SaveOutcome> Saver::advance(const Lag& worst) {
  while (!pending_.empty()) {
    const auto n = static_cast<double>(pending_.size());
    Save& oldest = *pending_.front();
    if (oldest.gathered) {
      if (worst.uncommitted >= n) break;
      end_oldest();
    } else {
      if (worst.unwritten >= n) break;
      gather(oldest);
    }
  }
  return ended();
}

void Saver::wait_for_oldest() {
  Save& oldest = *pending_.front();
  const Timer timer;
  if (!oldest.gathered) {
    wait_until(oldest.written);
    gather(oldest);
  }
  if (comm_.rank() == 0) wait_until(oldest.committed);
  const int64_t step = oldest.info.step;
  end_oldest();
  constexpr double kNoticed = 0.1;  // seconds
  if (comm_.rank() == 0 && timer.seconds() > kNoticed) {
    info("waited {:.1f} s until the checkpoint of step {} was on the disk", timer.seconds(), step);
  }
}

// A disk that is slow is no rank that hangs.
void Saver::wait_until(const bool& done) {
  std::unique_lock lock(mutex_);
  for (int64_t pieces = pieces_; !changed_.wait_for(lock, std::chrono::seconds(1), [&] { return done; });) {
    if (std::exchange(pieces, pieces_) != pieces_) flight_log().note_progress();
  }
}

std::vector<SaveOutcome> Saver::ended() { return std::exchange(ended_, {}); }

std::vector<SaveOutcome> Saver::finish() {
  while (!pending_.empty()) wait_for_oldest();
  return ended();
}

}  // namespace ziggurat
