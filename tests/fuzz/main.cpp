// Mutation fuzzing of every reader: files that were good are changed and read. A reader may refuse them with
// an Error, within 10 seconds and with little more memory than a file has; all else is a finding.
//
//   ziggurat_fuzz SEEDS WORK [--inputs N] [--seconds S] [--first N] [--memory] [READER ...]
//   ziggurat_fuzz --hostile FOLDER        writes HDF5 files that were made to do harm
//   ziggurat_fuzz --sentencepiece FILE    writes a small model
//   ziggurat_fuzz --repair MANIFEST       writes the right hash into a checkpoint's manifest that was edited
//
// SEEDS/<reader>/ holds good files. Input i, of reader i % readers, is the same in every run: `--first i
// --inputs 1` repeats it, and leaves its files in WORK. --memory: holds memory against 64 MiB + 2 x file (not
// under sanitizers).
#include <algorithm>
#include <csignal>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <map>

#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "hostile_hdf5.h"
#include "mutations.h"
#include "readers.h"
#include "tests/unit/data/sentencepiece_model.h"
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/timer.h>

namespace ziggurat::fuzz {
namespace {

namespace fs = std::filesystem;

constexpr unsigned kMostSeconds = 10;
constexpr int64_t kMostBytes = 64 << 20;
constexpr int kMostFindings = 100;  // then there is enough to do
constexpr int kOtherException = 41, kTooMuchMemory = 42;

struct Options {
  fs::path seeds, work;
  uint64_t first = 0, inputs = 1000;
  double seconds = 1e9;
  bool memory = false;
  std::vector<std::string> only;
};

// What the child that reads tells its parent.
struct Shared {
  uint64_t input = 0, read = 0, refused = 0, library = 0;
};

// Kilobytes of the process, as the kernel calls them: VmHWM, VmRSS.
int64_t memory_of(const std::string& name) {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.starts_with(name)) return std::atoll(line.c_str() + name.size() + 1) * 1024;
  }
  return 0;
}

class Fuzzer {
 public:
  explicit Fuzzer(const Options& options) : options_(options) {
    for (Reader& reader : readers()) {
      const bool wanted =
          options.only.empty() || std::count(options.only.begin(), options.only.end(), reader.name) > 0;
      if (!wanted || !fs::is_directory(options.seeds / reader.name)) continue;
      readers_.push_back(std::move(reader));
    }
    fs::create_directories(options.work);
    check(!readers_.empty(), ErrorKind::argument, "{}: expected a folder for a reader",
          options.seeds.string());
    void* memory = ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    shared_ = new (memory) Shared;
  }

  // The number of findings.
  int run() {
    const Timer timer;
    const uint64_t end = options_.first + options_.inputs;
    int findings = 0;
    for (uint64_t next = options_.first;
         next < end && findings < kMostFindings && timer.seconds() < options_.seconds;) {
      const pid_t child = ::fork();
      if (child == 0) {
        read_from(next, end, timer);
        ::_exit(0);
      }
      int status = 0;
      ::waitpid(child, &status, 0);
      if (WIFEXITED(status) && WEXITSTATUS(status) == 0) break;
      next = shared_->input + 1;
      if (WIFEXITED(status) &&
          WEXITSTATUS(status) == exit_code(ErrorKind::data)) {  // told by the guard of HDF5
        ++shared_->library;
        continue;
      }
      ++findings;
      const std::string how = !WIFEXITED(status)                      ? ::strsignal(WTERMSIG(status))
                              : WEXITSTATUS(status) == kTooMuchMemory ? "too much memory"
                              : WEXITSTATUS(status) == kOtherException
                                  ? "an exception that is no Error"
                                  : fmt::format("exit code {}", WEXITSTATUS(status));
      fmt::print("FOUND input {} ({}): {}\n", shared_->input, reader_of(shared_->input).name, how);
      std::fflush(stdout);
    }
    const uint64_t all =
        shared_->read + shared_->refused + shared_->library + static_cast<uint64_t>(findings);
    fmt::print(
        "{} inputs of {} readers in {:.0f} s: {} refused, {} read, {} stopped inside HDF5 and told, {} "
        "findings\n",
        all, readers_.size(), timer.seconds(), shared_->refused, shared_->read, shared_->library, findings);
    return findings;
  }

 private:
  const Reader& reader_of(uint64_t input) const { return readers_[input % readers_.size()]; }

  void read_from(uint64_t first, uint64_t end, const Timer& timer) {
    std::map<std::string, std::vector<std::pair<fs::path, std::string>>> good;
    for (const Reader& reader : readers_) {
      const fs::path seeds = options_.seeds / reader.name, work = options_.work / reader.name;
      fs::remove_all(work);
      fs::copy(seeds, work, fs::copy_options::recursive);
      for (const auto& entry : fs::recursive_directory_iterator(work)) {
        if (entry.is_regular_file()) good[reader.name].emplace_back(entry.path(), read_bytes(entry.path()));
      }
      std::sort(good[reader.name].begin(), good[reader.name].end());
    }
    for (uint64_t input = first; input < end && timer.seconds() < options_.seconds; ++input) {
      shared_->input = input;
      const Reader& reader = reader_of(input);
      std::mt19937_64 random(input);
      const auto& files = good[reader.name];
      const auto& [path, bytes] = files[random() % files.size()];
      const std::string bad = mutate(bytes, random);
      write_bytes(path, bad);
      if (reader.repair && random() % 8 != 0) reader.repair(path);
      read(reader, static_cast<int64_t>(bad.size()));
      if (options_.inputs > 1) write_bytes(path, bytes);
    }
  }

  void read(const Reader& reader, int64_t file_bytes) {
    int64_t before = 0;
    if (options_.memory) {
      std::ofstream("/proc/self/clear_refs") << 5;  // the peak so far is forgotten
      before = memory_of("VmRSS:");
    }
    ::alarm(kMostSeconds);
    try {
      reader.read(options_.work / reader.name);
      ++shared_->read;
    } catch (const Error& e) {
      ++shared_->refused;
      if (options_.inputs == 1) fmt::print("{}\n", e.what());
    } catch (const std::exception& e) {
      fmt::print("{}\n", e.what());
      std::fflush(stdout);
      ::_exit(kOtherException);
    }
    ::alarm(0);
    if (options_.memory && memory_of("VmHWM:") - before > kMostBytes + 2 * file_bytes)
      ::_exit(kTooMuchMemory);
  }

  const Options options_;
  std::vector<Reader> readers_;
  Shared* shared_ = nullptr;
};

int run(int argc, char** argv) {
  init_log(1, 2);  // what readers tell is not of interest: as if it were another rank, which is silent
  if (argc == 3 && std::string(argv[1]) == "--hostile") return write_hostile_hdf5(argv[2]), 0;
  if (argc == 3 && std::string(argv[1]) == "--sentencepiece")
    return write_bytes(argv[2], testing::sentencepiece_model()), 0;
  if (argc == 3 && std::string(argv[1]) == "--repair") return repair_manifest(argv[2]), 0;
  Options options;
  std::vector<std::string> words;
  for (int i = 1; i < argc; ++i) {
    const std::string word = argv[i];
    const auto number = [&] { return ++i < argc ? std::strtoull(argv[i], nullptr, 10) : 0; };
    if (word == "--inputs") {
      options.inputs = number();
    } else if (word == "--seconds") {
      options.seconds = static_cast<double>(number());
    } else if (word == "--first") {
      options.first = number();
    } else if (word == "--memory") {
      options.memory = true;
    } else {
      words.push_back(word);
    }
  }
  check(words.size() >= 2, ErrorKind::argument, "expected SEEDS WORK, see tests/fuzz/main.cpp");
  options.seeds = words[0], options.work = words[1];
  options.only.assign(words.begin() + 2, words.end());
  return std::min(Fuzzer(options).run(), 1);
}

}  // namespace
}  // namespace ziggurat::fuzz

int main(int argc, char** argv) {
  try {
    return ziggurat::fuzz::run(argc, argv);
  } catch (const std::exception& e) {
    fmt::print(stderr, "{}\n", e.what());
    return 2;
  }
}
