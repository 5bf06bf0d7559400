// The public evaluation sets as they lie in their files. Every reader throws Error(data) naming file and
// line for what is missing or broken, and, unless `any_size`, for another number of rows than the public set
// has.
#pragma once

#include <array>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace ziggurat::eval {

struct SetFolder {
  std::filesystem::path path;
  bool any_size = false;
};

struct PiqaRow {
  std::string goal;
  std::array<std::string, 2> solutions;
  int64_t label = 0;
};

struct BoolqRow {
  std::string passage;  // with its title, as SuperGLUE has it
  std::string question;
  bool answer = false;
};

struct RaceProblem {
  std::string question;
  std::vector<std::string> options;  // four
  size_t answer = 0;                 // index into options
};
struct RaceArticle {
  std::string article;
  std::vector<RaceProblem> problems;  // at least one
};

struct Question {
  std::string text;
  std::vector<std::string> answers;  // at least one
};

std::vector<std::string> read_lambada(const SetFolder& data);  // texts
std::vector<PiqaRow> read_piqa(const SetFolder& data);
std::vector<BoolqRow> read_boolq(const SetFolder& data);
std::vector<RaceArticle> read_race(const SetFolder& data);   // problems of one article together
std::vector<Question> read_triviaqa(const SetFolder& data);  // unfiltered, dev

// What lm-eval asks of TriviaQA today, where the file is there: lines of
// datasets.load_dataset("mandarjoshi/trivia_qa", "rc.nocontext", split="validation").to_json(FILE).
inline constexpr const char* kTriviaqaRc = "rc.nocontext-validation.jsonl";
std::optional<std::vector<Question>> read_triviaqa_rc(const SetFolder& data);

std::vector<Question> read_webqs(const SetFolder& data);

// Lines of JSON objects: row(place of the line, object). Empty lines are passed over.
void for_each_json_line(const std::filesystem::path& file,
                        const std::function<void(const std::string&, const nlohmann::json&)>& row);

// Members of objects, Error(data) beginning with `place` where they are missing or of another type.
std::string string_at(const nlohmann::json& object, const char* key, const std::string& place);
std::vector<std::string> strings_at(const nlohmann::json& object, const char* key, const std::string& place);

}  // namespace ziggurat::eval
