#include "eval/sets.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <span>

#include "eval/python_text.h"
#include <ziggurat/core/error.h>
#include <ziggurat/io/files.h>
#include <ziggurat/io/untrusted_json.h>

namespace ziggurat::eval {

namespace {

using nlohmann::json;
using Path = std::filesystem::path;

// The first that exists, below data/<set> or in `data` itself.
std::optional<Path> look_for(const SetFolder& data, const char* set, std::span<const char* const> names) {
  for (const Path& folder : {data.path / set, data.path}) {
    for (const char* name : names) {
      if (std::filesystem::exists(folder / name)) return folder / name;
    }
  }
  return std::nullopt;
}

// Where the set lies in a form that no reader here knows.
std::string hint_at_parquet(const SetFolder& data, const char* set) {
  for (const Path& folder : {data.path / set, data.path}) {
    if (!std::filesystem::is_directory(folder)) continue;
    for (const auto& entry : std::filesystem::directory_iterator(folder)) {
      if (entry.path().extension() != ".parquet") continue;
      return fmt::format(
          "; {} is Parquet, which is not read: take the set's own files, or in Python "
          "pandas.read_parquet(FILE).to_json(NEW_FILE, orient=\"records\", lines=True)",
          entry.path().string());
    }
  }
  return "";
}

Path find(const SetFolder& data, const char* set, std::initializer_list<const char*> names) {
  if (const auto found = look_for(data, set, names)) return *found;
  std::string tried;
  for (const Path& folder : {data.path / set, data.path}) {
    for (const char* name : names) tried += (tried.empty() ? "" : ", ") + (folder / name).string();
  }
  fail(ErrorKind::data, "no {} below {}: expected one of {}{}", set, data.path.string(), tried,
       hint_at_parquet(data, set));
}

void check_rows(const SetFolder& data, const char* set, const Path& file, size_t got, size_t expected,
                const char* unit) {
  check(got > 0, ErrorKind::data, "{} is empty: expected the {} {} of {}", file.string(), expected, unit,
        set);
  check(got == expected || data.any_size, ErrorKind::data,
        "{} has {} {}, but the public {} has {}: it is cut, or another set (--any-size takes it as it is)",
        file.string(), got, unit, set, expected);
}

// Editors and spreadsheets put a byte-order mark before a text, which is no part of it.
std::string read_text(const Path& file) {
  constexpr std::string_view kMark = "\xef\xbb\xbf";
  std::string text = read_file(file);
  if (text.starts_with(kMark)) text.erase(0, kMark.size());
  return text;
}

json parse_file(const Path& file) {
  try {
    return parse_untrusted_json(read_text(file));
  } catch (const JsonFault& fault) {
    fail(ErrorKind::data, "{} is no valid JSON in UTF-8: is it cut? {}", file.string(), fault.what());
  }
}

const json& member(const json& object, const char* key, const std::string& place) {
  check(object.is_object() && object.contains(key), ErrorKind::data,
        "{}: expected an object with the key \"{}\"", place, key);
  return object[key];
}

std::vector<std::string> read_lines(const Path& file) {
  std::vector<std::string> lines;
  std::string text = read_text(file), line;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find('\n', begin), text.size());
    line = text.substr(begin, end - begin);
    if (!line.empty() && line.back() == '\r') line.pop_back();
    lines.push_back(line);
    begin = end + 1;
  }
  return lines;
}

size_t letter(const json& value, const std::string& place) {
  check(value.is_string() && value.get_ref<const std::string&>().size() == 1 &&
            'A' <= value.get_ref<const std::string&>()[0] && value.get_ref<const std::string&>()[0] <= 'D',
        ErrorKind::data, "{}: expected an answer A, B, C or D, got {}", place, value.dump());
  return static_cast<size_t>(value.get_ref<const std::string&>()[0] - 'A');
}

std::vector<RaceProblem> race_problems(const json& root, const std::string& place) {
  const json &questions = member(root, "questions", place), &options = member(root, "options", place),
             &answers = member(root, "answers", place);
  check(questions.is_array() && options.is_array() && answers.is_array() && !questions.empty() &&
            questions.size() == options.size() && questions.size() == answers.size(),
        ErrorKind::data, "{}: expected as many questions, options and answers, at least one", place);
  std::vector<RaceProblem> problems;
  for (size_t i = 0; i < questions.size(); ++i) {
    const json one = {{"question", questions[i]}, {"options", options[i]}};
    problems.push_back(
        {string_at(one, "question", place), strings_at(one, "options", place), letter(answers[i], place)});
    check(problems.back().options.size() == 4, ErrorKind::data, "{}: question {} has {} options, expected 4",
          place, i + 1, problems.back().options.size());
  }
  return problems;
}

}  // namespace

std::string string_at(const json& object, const char* key, const std::string& place) {
  const json& value = member(object, key, place);
  check(value.is_string(), ErrorKind::data, "{}: \"{}\" must be a string, got {}", place, key, value.dump());
  return value.get<std::string>();
}

std::vector<std::string> strings_at(const json& object, const char* key, const std::string& place) {
  const json& value = member(object, key, place);
  check(value.is_array() && !value.empty() &&
            std::all_of(value.begin(), value.end(), [](const json& v) { return v.is_string(); }),
        ErrorKind::data, "{}: \"{}\" must be a list of strings, at least one", place, key);
  return value.get<std::vector<std::string>>();
}

void for_each_json_line(const Path& file, const std::function<void(const std::string&, const json&)>& row) {
  const std::vector<std::string> lines = read_lines(file);
  for (size_t i = 0; i < lines.size(); ++i) {
    if (lines[i].find_first_not_of(" \t") == std::string::npos) continue;
    const std::string place = fmt::format("{}:{}", file.string(), i + 1);
    json value;
    std::string why;
    try {
      value = parse_untrusted_json(lines[i]);
    } catch (const JsonFault& fault) {
      why = std::string(": ") + fault.what();
    }
    check(value.is_object(), ErrorKind::data, "{}: expected a JSON object in UTF-8{}{}", place,
          i + 1 == lines.size() ? ": is the file cut?" : "", why);
    row(place, value);
  }
}

std::vector<std::string> read_lambada(const SetFolder& data) {
  const Path file = find(data, "lambada", {"lambada_test.jsonl"});
  std::vector<std::string> texts;
  for_each_json_line(file, [&](const std::string& place, const json& row) {
    texts.push_back(string_at(row, "text", place));
  });
  check_rows(data, "LAMBADA", file, texts.size(), 5153, "texts");
  return texts;
}

std::vector<PiqaRow> read_piqa(const SetFolder& data) {
  const Path file = find(data, "piqa", {"valid.jsonl"}),
             label_file = find(data, "piqa", {"valid-labels.lst"});
  std::vector<PiqaRow> rows;
  for_each_json_line(file, [&](const std::string& place, const json& row) {
    rows.push_back(
        {string_at(row, "goal", place), {string_at(row, "sol1", place), string_at(row, "sol2", place)}, 0});
  });
  const std::vector<std::string> labels = read_lines(label_file);
  check_rows(data, "PIQA", file, rows.size(), 1838, "rows");
  check(labels.size() == rows.size(), ErrorKind::data, "{} has {} labels for the {} rows of {}",
        label_file.string(), labels.size(), rows.size(), file.string());
  for (size_t i = 0; i < rows.size(); ++i) {
    check(labels[i] == "0" || labels[i] == "1", ErrorKind::data, "{}:{}: expected 0 or 1, got '{}'",
          label_file.string(), i + 1, labels[i]);
    rows[i].label = labels[i] == "1";
  }
  return rows;
}

std::vector<BoolqRow> read_boolq(const SetFolder& data) {
  const Path file = find(data, "boolq", {"dev.jsonl", "val.jsonl", "boolq_dev.jsonl"});
  std::vector<BoolqRow> rows;
  for_each_json_line(file, [&](const std::string& place, const json& row) {
    const bool super_glue = row.contains("label");  // its passages begin with their title
    const json& answer = member(row, super_glue ? "label" : "answer", place);
    check(answer.is_boolean(), ErrorKind::data, "{}: the answer must be true or false, got {}", place,
          answer.dump());
    std::string passage = string_at(row, "passage", place);
    if (!super_glue) passage = string_at(row, "title", place) + " -- " + passage;
    rows.push_back({std::move(passage), string_at(row, "question", place), answer.get<bool>()});
  });
  check_rows(data, "BoolQ", file, rows.size(), 3270, "rows");
  return rows;
}

std::vector<RaceArticle> read_race(const SetFolder& data) {
  const Path folder = find(data, "race", {"test/high", "RACE/test/high", "high"});
  std::vector<Path> files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    if (entry.path().extension() == ".txt") files.push_back(entry.path());
  }
  std::sort(files.begin(), files.end(), [](const Path& a, const Path& b) { return a.native() < b.native(); });
  std::vector<RaceArticle> articles;
  std::map<std::string, size_t> known;
  for (const Path& file : files) {
    const json root = parse_file(file);
    const std::string place = file.string(), article = string_at(root, "article", place);
    const std::vector<RaceProblem> problems = race_problems(root, place);
    const auto [found, is_new] = known.emplace(article, articles.size());
    if (is_new) articles.push_back({article, {}});
    std::vector<RaceProblem>& all = articles[found->second].problems;
    all.insert(all.end(), problems.begin(), problems.end());
  }
  check_rows(data, "RACE-h test", folder, articles.size(), 1045, "articles");
  return articles;
}

std::vector<Question> read_triviaqa(const SetFolder& data) {
  const Path file =
      find(data, "triviaqa", {"unfiltered-web-dev.tsv", "trivia-test.qa.csv", "dev.tsv", "triviaqa_dev.tsv"});
  std::vector<Question> questions;
  const auto rows = parse_tsv(read_text(file), file.string());
  for (size_t i = 0; i < rows.size(); ++i) {
    const std::string place = fmt::format("{}, row {}", file.string(), i + 1);
    check(rows[i].size() == 2, ErrorKind::data,
          "{}: expected a question, a tab and the list of its answers, got {} columns", place,
          rows[i].size());
    questions.push_back({rows[i][0], parse_string_list(rows[i][1], place)});
    check(!questions.back().answers.empty(), ErrorKind::data, "{}: no answers", place);
  }
  check_rows(data, "TriviaQA (unfiltered dev)", file, questions.size(), 11313, "questions");
  return questions;
}

std::optional<std::vector<Question>> read_triviaqa_rc(const SetFolder& data) {
  const char* const names[] = {kTriviaqaRc};
  const auto file = look_for(data, "triviaqa", names);
  if (!file) return std::nullopt;
  std::vector<Question> questions;
  for_each_json_line(*file, [&](const std::string& place, const json& row) {
    questions.push_back(
        {string_at(row, "question", place), strings_at(member(row, "answer", place), "aliases", place)});
  });
  check_rows(data, "TriviaQA (rc.nocontext, validation)", *file, questions.size(), 17944, "questions");
  return questions;
}

std::vector<Question> read_webqs(const SetFolder& data) {
  const Path file =
      find(data, "webqs",
           {"test.json", "test.jsonl", "webquestions.examples.test.json", "WebQuestions-test.json"});
  std::vector<Question> questions;
  const auto add = [&](const std::string& place, const json& row) {
    questions.push_back({string_at(row, row.contains("question") ? "question" : "qText", place),
                         strings_at(row, "answers", place)});
  };
  if (file.extension() == ".jsonl") {
    for_each_json_line(file, add);
  } else {
    const json root = parse_file(file);
    check(root.is_array(), ErrorKind::data, "{}: expected a list of questions", file.string());
    for (size_t i = 0; i < root.size(); ++i)
      add(fmt::format("{}, question {}", file.string(), i + 1), root[i]);
  }
  check_rows(data, "WebQuestions test", file, questions.size(), 2032, "questions");
  return questions;
}

}  // namespace ziggurat::eval
