#include "agree.h"

#include <exception>

namespace ziggurat {

std::vector<std::string> agree(Communicator& comm, const std::function<std::string()>& work) {
  constexpr char kDone = '+', kFailed = '-';
  std::string answer;
  try {
    answer = kDone + work();
  } catch (const std::exception& e) {
    answer = kFailed + std::string(e.what());
  }
  std::vector<std::string> answers = comm.all_gather_text(answer);
  for (size_t rank = 0; rank < answers.size(); ++rank) {
    std::string& text = answers[rank];
    check(!text.empty() && text[0] == kDone, ErrorKind::checkpoint, "{} (rank {} of {})",
          text.empty() ? "no answer" : text.substr(1), rank, answers.size());
    text.erase(0, 1);
  }
  return answers;
}

}  // namespace ziggurat
