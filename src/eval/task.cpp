#include <algorithm>

#include "eval/python_text.h"
#include "eval/sets.h"
#include <ziggurat/core/error.h>
#include <ziggurat/eval/task.h>

namespace ziggurat::eval {

namespace {

using nlohmann::json;

SetFolder folder(const TaskOptions& options) {
  check(!options.data.empty(), ErrorKind::argument, "the public sets lie in a folder: name it with --data");
  return {options.data, options.any_size};
}

std::string question_prompt(const std::string& question) { return "Question: " + question + "\nAnswer:"; }

Task lambada(const TaskOptions& options) {
  const bool v0 = options.form == Form::v0;
  Task task{.name = v0 ? "lambada" : "lambada_openai", .version = v0 ? "0" : "1.0", .rule = Rule::last_word};
  task.recorded_hash = "6829e6a8aa5922e6c92dd31403cc060f242dc0ede4a775e085a70da095ab2e20";
  if (v0) {
    task.perplexity = "ppl";
    task.request_order = {0, 0};  // once for the likelihood, once for being greedy
  }
  const std::vector<std::string> texts = read_lambada(folder(options));
  for (size_t i = 0; i < texts.size(); ++i) {
    const auto parts = split_last_word(texts[i]);
    check(parts.has_value() || !v0, ErrorKind::data, "LAMBADA: text {} has no space before its last word",
          i + 1);
    task.documents.push_back(
        {.context = parts ? parts->first : "", .continuations = {" " + (parts ? parts->second : texts[i])}});
  }
  return task;
}

Task piqa(const TaskOptions& options) {
  Task task{.name = "piqa", .version = options.form == Form::v0 ? "0" : "1.0", .by_length = true};
  task.recorded_hash = "6048a3a2bb3ad1e6a3d98139618e06b4d7de766edd685bd38837596199c3f69f";
  for (const PiqaRow& row : read_piqa(folder(options))) {
    task.documents.push_back({.context = question_prompt(row.goal),
                              .continuations = {" " + row.solutions[0], " " + row.solutions[1]},
                              .gold = row.label});
  }
  return task;
}

Task boolq(const TaskOptions& options) {
  const bool v0 = options.form == Form::v0;
  Task task{.name = "boolq", .version = v0 ? "1" : "2.0"};
  task.recorded_hash = "6577e0d88572772ef08e64f624c0e3df0953286ae1f118ccef15623b59ffeabf";
  if (v0) task.request_order = {1, 0};
  for (const BoolqRow& row : read_boolq(folder(options))) {
    task.documents.push_back({.context = row.passage + "\n" + question_prompt(row.question + "?"),
                              .continuations = {" no", " yes"},  // equally likely: no, in both forms
                              .gold = row.answer});
  }
  return task;
}

// Earlier problems come with their answers, the last one is asked.
std::string race_prompt(const RaceArticle& article, Form form) {
  constexpr std::string_view kBlank = "  _  .";
  std::string prompt = "Article: " + article.article + "\n\n";
  for (size_t i = 0; i + 1 < article.problems.size(); ++i) {
    const RaceProblem& problem = article.problems[i];
    const std::string &question = problem.question, &answer = problem.options[problem.answer];
    if (question.ends_with(kBlank)) {  // lm-eval 0.2.0 kept the blank and lost the sentence before it
      const size_t blank = question.size() - (kBlank.size() - 1);
      prompt += (form == Form::v0 ? question.substr(blank) : question.substr(0, blank)) + answer + "\n";
    } else {
      prompt += question_prompt(question) + " " + answer + "\n";
    }
  }
  return prompt + article.problems.back().question;
}

Task race(const TaskOptions& options) {
  Task task{.name = "race", .version = options.form == Form::v0 ? "0" : "3.0"};
  task.recorded_hash = "bdfdfab7fa1c7af0c1e161785e347b1b8071a15cbf971f6f2a9ae8c8e845199f";
  for (const RaceArticle& article : read_race(folder(options))) {
    const RaceProblem& last = article.problems.back();
    Document document{.context = race_prompt(article, options.form),
                      .gold = static_cast<int64_t>(last.answer)};
    for (const std::string& option : last.options) document.continuations.push_back(" " + option);
    task.documents.push_back(std::move(document));
  }
  return task;
}

// Where "Paris" is right, so is all that begins with it: only the shorter one needs to be greedy.
std::vector<std::string> without_longer_ones(std::vector<std::string> answers) {
  std::sort(answers.begin(), answers.end());
  std::vector<std::string> kept;
  for (const std::string& answer : answers) {
    if (kept.empty() || !answer.starts_with(kept.back())) kept.push_back(answer);
  }
  return kept;
}

Document any_answer(const Question& question) {
  Document document{.context = question_prompt(question.text)};
  for (const std::string& answer : without_longer_ones(question.answers)) {
    document.continuations.push_back(" " + answer);
  }
  return document;
}

Task triviaqa(const TaskOptions& options) {
  Task task{.name = "triviaqa"};
  const SetFolder sets = folder(options);
  if (options.form == Form::v0) {
    const std::vector<Question> questions = read_triviaqa(sets);
    task.version = "0";
    task.rule = Rule::any_greedy;
    task.recorded_hash = "f8ec05b306b9f6187c0f8117cae441fb85a7a2e4670f4f9a1a3b632b1978421a";
    for (const Question& question : questions) task.documents.push_back(any_answer(question));
    return task;
  }
  task.version = "3.0";
  task.rule = Rule::generated;
  task.until = {"\n", ".", ","};
  const auto todays = read_triviaqa_rc(sets);
  if (!todays) {
    task.note = fmt::format(
        "asks the 11,313 questions of the unfiltered set; lm-eval asks 17,944 today: for those, in Python "
        "datasets.load_dataset(\"mandarjoshi/trivia_qa\", \"rc.nocontext\", split=\"validation\")"
        ".to_json(\"{}\")",
        (sets.path / "triviaqa" / kTriviaqaRc).string());
  }
  for (const Question& question : todays ? *todays : read_triviaqa(sets)) {
    task.documents.push_back({.context = question_prompt(question.text + "?"), .answers = question.answers});
  }
  return task;
}

Task webqs(const TaskOptions& options) {
  const bool v0 = options.form == Form::v0;
  Task task{.name = "webqs", .version = v0 ? "0" : "2.0", .rule = Rule::any_greedy};
  task.recorded_hash = "96b218173468cc94552a0b946193bda89faba51f1bfc3e7945531f9dff8d6fe9";
  if (!v0) task.accuracy = "exact_match";
  for (const Question& question : read_webqs(folder(options))) {
    task.documents.push_back(any_answer(question));
  }
  return task;
}

Rule rule_of_line(const json& line, const std::string& place) {
  const bool is_scored = line.contains("continuation"), is_written = line.contains("until");
  check(!is_scored || !is_written, ErrorKind::data,
        "{}: has continuation and until: is the text to be scored or written? Take one of both out", place);
  if (is_written) return Rule::generated;
  check(is_scored, ErrorKind::data,
        "{}: expected the keys context and continuation, or context, until and answers", place);
  return line["continuation"].is_array() ? Rule::choice : Rule::last_word;
}

Document document_of_line(const json& line, Rule rule, const std::string& place) {
  Document document{.context = string_at(line, "context", place)};
  if (rule == Rule::generated) {
    document.answers = strings_at(line, "answers", place);
  } else if (rule == Rule::last_word) {
    document.continuations = {string_at(line, "continuation", place)};
  } else {
    document.continuations = strings_at(line, "continuation", place);
    const json gold = line.value("gold", json());
    const size_t choices = document.continuations.size();
    check(gold.is_number_unsigned() && gold.get<uint64_t>() < choices, ErrorKind::data,
          "{}: expected gold as the number of the right continuation, 0 to {}, got {}", place, choices - 1,
          gold.dump());
    document.gold = gold.get<int64_t>();
  }
  for (const std::string& continuation : document.continuations) {
    check(!continuation.empty(), ErrorKind::data, "{}: a continuation is empty", place);
  }
  return document;
}

Task from_file(const std::filesystem::path& file) {
  Task task{.name = file.stem().string(), .version = "file", .by_length = true};
  for_each_json_line(file, [&](const std::string& place, const json& line) {
    const Rule rule = rule_of_line(line, place);
    if (task.documents.empty()) task.rule = rule;
    check(rule == task.rule, ErrorKind::data, "{}: the lines before are of another kind: one file, one task",
          place);
    if (rule == Rule::generated) {
      const std::vector<std::string> until = strings_at(line, "until", place);
      if (task.documents.empty()) task.until = until;
      check(until == task.until, ErrorKind::data, "{}: the lines before end at other texts (until)", place);
    }
    task.documents.push_back(document_of_line(line, rule, place));
  });
  check(!task.documents.empty(), ErrorKind::data, "{} holds no documents", file.string());
  return task;
}

struct KnownTask {
  const char *name, *alias;
  Task (*load)(const TaskOptions&);
};
constexpr KnownTask kTasks[] = {{"lambada", "lambada_openai", lambada},
                                {"piqa", "piqa", piqa},
                                {"boolq", "boolq", boolq},
                                {"race", "race", race},
                                {"triviaqa", "triviaqa", triviaqa},
                                {"webqs", "webqs", webqs}};

}  // namespace

std::vector<std::string> known_tasks() {
  std::vector<std::string> names;
  for (const KnownTask& task : kTasks) names.push_back(task.name);
  return names;
}

Task load_task(const std::string& name, const TaskOptions& options) {
  const auto* known = std::find_if(std::begin(kTasks), std::end(kTasks),
                                   [&](const KnownTask& t) { return name == t.name || name == t.alias; });
  const bool is_known = known != std::end(kTasks);
  check(is_known || std::filesystem::path(name).extension() == ".jsonl", ErrorKind::argument,
        "unknown task '{}': expected {}, or a task file that ends in .jsonl", name,
        fmt::join(known_tasks(), ", "));
  Task task = is_known ? known->load(options) : from_file(name);
  task.total_documents = static_cast<int64_t>(task.documents.size());
  if (is_known && options.form == Form::v0) {
    std::vector<Document> documents;
    for (const size_t i : shuffled(task.documents.size(), 42))
      documents.push_back(std::move(task.documents[i]));
    task.documents = std::move(documents);
  }
  if (options.form == Form::current || !is_known) task.recorded_hash.clear();
  if (options.limit > 0 && options.limit < task.total_documents) {
    task.documents.resize(static_cast<size_t>(options.limit));
  }
  return task;
}

}  // namespace ziggurat::eval
