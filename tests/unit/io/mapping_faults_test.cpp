#include <csignal>
#include <filesystem>
#include <fstream>

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <ziggurat/io/mapping_faults.h>

namespace ziggurat {
namespace {

constexpr size_t kBytes = 5 * 4096;

class MappingFaults : public testing::Test {
 protected:
  MappingFaults() : path_(std::filesystem::temp_directory_path() / ("mapped_" + std::to_string(getpid()))) {
    std::ofstream(path_) << std::string(kBytes, 'x');
    const int file = open(path_.c_str(), O_RDONLY);
    bytes_ = static_cast<const char*>(mmap(nullptr, kBytes, PROT_READ, MAP_SHARED, file, 0));
    close(file);
  }
  ~MappingFaults() override {
    munmap(const_cast<char*>(bytes_), kBytes);
    std::filesystem::remove(path_);
  }
  char read_last_page() const { return static_cast<const volatile char*>(bytes_)[kBytes - 1]; }

  std::string path_;
  const char* bytes_;
};

TEST_F(MappingFaults, AFileThatWasCutOffIsNamed) {
  watch_mapping(bytes_, kBytes, path_);
  const auto cut_off = [&] {
    report_mapping_faults("rank 3");
    std::filesystem::resize_file(path_, 100);
    read_last_page();
  };
  EXPECT_EXIT(cut_off(), testing::ExitedWithCode(3),
              "rank 3: data error:\n" + path_ +
                  " was cut off while it was in use: it had 20480 bytes, now it has 100. .*start the same "
                  "command again");
  forget_mapping(bytes_);
}

TEST_F(MappingFaults, AFileThatIsGoneIsNamed) {
  watch_mapping(bytes_, kBytes, path_);
  const auto remove = [&] {
    report_mapping_faults("");
    std::filesystem::resize_file(path_, 0);
    std::filesystem::remove(path_);
    read_last_page();
  };
  EXPECT_EXIT(remove(), testing::ExitedWithCode(3), "ziggurat: data error:\n" + path_ + " is gone");
  forget_mapping(bytes_);
}

TEST_F(MappingFaults, OtherFaultsStayAsTheyAre) {
  watch_mapping(bytes_, kBytes, path_);
  forget_mapping(bytes_);
  const auto cut_off = [&] {
    std::signal(SIGBUS, SIG_DFL);  // a sanitizer has a handler of its own
    report_mapping_faults("");
    std::filesystem::resize_file(path_, 0);
    read_last_page();
  };
  EXPECT_EXIT(cut_off(), testing::KilledBySignal(SIGBUS), "");
  const auto sent = [] {
    std::signal(SIGBUS, SIG_DFL);
    report_mapping_faults("");
    raise(SIGBUS);
  };
  EXPECT_EXIT(sent(), testing::KilledBySignal(SIGBUS), "");
}

}  // namespace
}  // namespace ziggurat
