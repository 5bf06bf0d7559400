#include <numeric>

#include <nlohmann/json.hpp>

#include "eval/python_text.h"
#include <ziggurat/data/sha256.h>
#include <ziggurat/eval/task.h>

namespace ziggurat::eval {

namespace {

std::string json_list(const std::vector<std::string>& texts) {
  std::string list = "[";
  for (const std::string& text : texts) list += (list.size() > 1 ? ", " : "") + json_dumps(text);
  return list + "]";
}

// What a request asks for, as json.dumps writes it.
std::string json_dumps(const Task& task, const Request& request) {
  if (task.rule != Rule::generated) return eval::json_dumps(request.continuation);
  return R"({"do_sample": false, "temperature": 0.0, "until": )" + json_list(task.until) + "}";
}

}  // namespace

std::vector<Request> requests_of(const Task& task) {
  std::vector<Request> requests;
  for (size_t d = 0; d < task.documents.size(); ++d) {
    const Document& document = task.documents[d];
    std::vector<size_t> order = task.request_order;
    if (order.empty()) {
      order.resize(document.continuations.size());
      std::iota(order.begin(), order.end(), size_t{0});
    }
    if (task.rule == Rule::generated) requests.push_back({d, document.context, ""});
    for (const size_t c : order) requests.push_back({d, document.context, document.continuations[c]});
  }
  return requests;
}

std::string request_hash(const Task& task) {
  Sha256 hash;
  hash.update("[");
  bool first = true;
  for (const Request& request : requests_of(task)) {
    hash.update(first ? "[" : ", [");
    hash.update(eval::json_dumps(request.context));
    hash.update(", ");
    hash.update(json_dumps(task, request));
    hash.update("]");
    first = false;
  }
  hash.update("]");
  return hash.hex();
}

std::string dump_requests(const Task& task) {
  std::string lines;
  for (const Request& request : requests_of(task)) {
    const Document& document = task.documents[request.document];
    nlohmann::ordered_json line = {
        {"task", task.name}, {"document", request.document}, {"context", request.context}};
    if (task.rule == Rule::generated) {
      line["until"] = task.until;
      line["answers"] = document.answers;
    } else {
      line["continuation"] = request.continuation;
    }
    if (task.rule == Rule::choice) {
      line["gold"] = request.continuation == document.continuations[static_cast<size_t>(document.gold)];
    }
    lines += line.dump() + "\n";
  }
  return lines;
}

}  // namespace ziggurat::eval
