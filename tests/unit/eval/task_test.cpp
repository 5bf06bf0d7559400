#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "tests/support/source_dir.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/eval/task.h>

namespace ziggurat::eval {
namespace {

using namespace ziggurat::testing;
using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace fs = std::filesystem;

fs::path tiny_sets() { return fs::path(test::source_dir()) / "tests/unit/eval/data"; }

TaskOptions tiny(Form form) { return {.data = tiny_sets(), .form = form, .any_size = true}; }

struct Known {
  const char* task;
  Form form;
  size_t requests;
  const char* hash;
};

// By lm-eval's own code: scripts/lm_eval/request_hashes.py tests/unit/eval/data LM_EVAL_0_2_0
constexpr Known kKnown[] = {
    {"lambada", Form::v0, 14, "c15333bc416615a5e2596038722ca465f87a96c51e99d979631e205746acb768"},
    {"piqa", Form::v0, 6, "bb2659ffbbd6aa0a901aba68d7e84783b12b963b92510d294c8e09c4e4ca67fd"},
    {"boolq", Form::v0, 8, "091dc39bbb51fab41c91c74ecb15ae6134f71205c14197bb6d865b4957a91536"},
    {"race", Form::v0, 12, "2cf86b61c70aaee8bcb029243e43c2c2f9ac3d696dbb7d1ae66fbddeda371def"},
    {"triviaqa", Form::v0, 10, "635fc137d75453859b3aa563a08f5e5616ca680f2aff59bcd6cd78080acc7762"},
    {"webqs", Form::v0, 4, "4e97e6201b11cf52888b062eeb97f364b37423528d91169aa21df49ed45ef696"},
    {"lambada", Form::current, 7, "3b70feec2276c014aab5ea10350bee8242e3215a9c54d7035a9a3953a3b470cf"},
    {"piqa", Form::current, 6, "8cfb3c3b394ad7c42a01d5eb975f29ac0d0a1933ee50e8718f1ff51866f29474"},
    {"boolq", Form::current, 8, "1a6b72c96e647241e39f6cd78aa9c01bca778626a98e481bc9ee2da650e90c92"},
    {"race", Form::current, 12, "26676e6aefc9147ad3202532b1078ae69af0eac43ee2787005935d728bdbb0aa"},
    {"triviaqa", Form::current, 3, "71b1706cd156d8c6de7dc7cdec8a8b2aeee17e8d37da307dc0b8380c1c7cbb38"},
    {"webqs", Form::current, 4, "01d42dd701a6119cb22e7fcabb1e84b3bd0d415e006eb61d7d076ba72b3beb6d"},
};

TEST(Task, RequestsAreThoseOfLmEval) {
  for (const Known& known : kKnown) {
    const Task task = load_task(known.task, tiny(known.form));
    EXPECT_EQ(requests_of(task).size(), known.requests) << known.task;
    EXPECT_EQ(request_hash(task), known.hash) << known.task << (known.form == Form::v0 ? " v0" : " current");
  }
}

// What editors add is no part of a set: a byte-order mark, and lines of blanks.
TEST(Task, AMarkBeforeASetAndBlankLinesChangeNothing) {
  const TempDir dir;
  fs::copy(tiny_sets(), dir / "sets", fs::copy_options::recursive);
  for (const auto& entry : fs::recursive_directory_iterator(dir / "sets")) {
    if (!entry.is_regular_file()) continue;
    const std::string text = read_text(entry.path());
    write_text(entry.path(), "\xef\xbb\xbf" + text + (entry.path().extension() == ".jsonl" ? " \t\r\n" : ""));
  }
  for (const Known& known : kKnown) {
    TaskOptions options = tiny(known.form);
    options.data = dir / "sets";
    EXPECT_EQ(request_hash(load_task(known.task, options)), known.hash) << known.task;
  }
}

TEST(Task, ALimitTakesTheFirstDocumentsOfTheForm) {
  TaskOptions options = tiny(Form::v0);
  const Task whole = load_task("lambada", options);
  options.limit = 2;
  const Task some = load_task("lambada", options);
  ASSERT_EQ(some.documents.size(), 2u);
  EXPECT_EQ(some.total_documents, 7);
  EXPECT_EQ(some.documents[1].context, whole.documents[1].context);
  options.form = Form::current;
  EXPECT_EQ(load_task("lambada_openai", options).documents[1].continuations[0], " rope");
}

TEST(Task, AnotherNumberOfRowsIsRefused) {
  const std::pair<const char*, const char*> expected[] = {{"lambada", "5153"},   {"piqa", "1838"},
                                                          {"boolq", "3270"},     {"race", "1045"},
                                                          {"triviaqa", "11313"}, {"webqs", "2032"}};
  for (const auto& [task, rows] : expected) {
    const std::string message = error_of(ErrorKind::data, [&] { load_task(task, {.data = tiny_sets()}); });
    EXPECT_THAT(message, HasSubstr(rows)) << task;
  }
}

// The files as their sets have them, each form beside the others, and what lm-eval asks of them.
TEST(Task, EveryPublicFormOfAFileIsRead) {
  struct Form_ {
    const char *task, *file, *text, *context,
        *first;  // the first document's context and continuation or answer
  };
  const Form_ forms[] = {
      {"boolq", "boolq/dev.jsonl",
       R"({"question": "is it", "title": "T", "answer": true, "passage": "P."})"
       "\n",
       "T -- P.\nQuestion: is it?\nAnswer:", " no"},
      {"boolq", "boolq/val.jsonl",  // SuperGLUE's
       R"({"question": "is it", "passage": "T -- P.", "idx": 0, "label": false})"
       "\n",
       "T -- P.\nQuestion: is it?\nAnswer:", " no"},
      {"race", "race/test/high/high1.txt",
       R"({"answers": ["B"], "options": [["a", "b", "c", "d"]], "questions": ["q"], "article": "A", "id": "1"})",
       "Article: A\n\nq", " a"},
      {"race", "race/RACE/test/high/high1.txt",
       R"({"answers": ["B"], "options": [["a", "b", "c", "d"]], "questions": ["q"], "article": "A", "id": "1"})",
       "Article: A\n\nq", " a"},
      {"triviaqa", "triviaqa/unfiltered-web-dev.tsv",
       "who said \"\"x\"\"\t\"['it\"\"s', \"\"don't\"\"]\"\r\n", nullptr, "it\"s"},
      {"triviaqa", "triviaqa/rc.nocontext-validation.jsonl",
       R"({"question": "Who", "question_id": "tc_1", "question_source": "http://x/", "answer": {"aliases": ["A", "B"],
           "matched_wiki_entity_name": "", "normalized_aliases": ["a", "b"], "type": "WikipediaEntity", "value": "A"}})",
       "Question: Who?\nAnswer:", "A"},
      {"webqs", "webqs/test.json", R"([{"answers": ["B", "A"], "qId": "wqr1", "qText": "what"}])",
       "Question: what\nAnswer:", " A"},
      {"webqs", "webqs/test.jsonl", R"({"url": "http://x/", "question": "what", "answers": ["B", "A"]})",
       "Question: what\nAnswer:", " A"},
  };
  for (const Form_& form : forms) {
    const TempDir folder;
    std::string text = form.text;
    if (text.starts_with("{\"question\": \"Who\"")) std::erase(text, '\n');  // one object a line
    fs::create_directories((folder / form.file).parent_path());
    write_text(folder / form.file, text);
    const Task task = load_task(form.task, {.data = folder.path(), .any_size = true});
    ASSERT_EQ(task.documents.size(), 1u) << form.file;
    const Document& document = task.documents[0];
    if (form.context != nullptr) {
      EXPECT_EQ(document.context, form.context) << form.file;
    }
    EXPECT_EQ(document.answers.empty() ? document.continuations.at(0) : document.answers.at(0), form.first)
        << form.file;
    EXPECT_EQ(task.note.empty(), std::string(form.file).find(".tsv") == std::string::npos) << task.note;
    const char* rows = form.task == std::string("boolq")   ? "3270"
                       : form.task == std::string("race")  ? "1045"
                       : form.task == std::string("webqs") ? "2032"
                       : task.note.empty()                 ? "17944"
                                                           : "11313";
    EXPECT_THAT(error_of(ErrorKind::data, [&] { load_task(form.task, {.data = folder.path()}); }),
                HasSubstr(rows))
        << form.file;
  }
  const TempDir folder;
  write_text(folder / "validation-00000.parquet", "PAR1");
  EXPECT_THAT(error_of(ErrorKind::data, [&] { load_task("boolq", {.data = folder.path()}); }),
              AllOf(HasSubstr("validation-00000.parquet is Parquet"), HasSubstr("to_json")));
}

// Files cut in the middle, of another form, or with a broken value; what the message must name.
TEST(Task, BrokenFilesAreNamed) {
  struct Broken {
    const char *task, *file, *text, *named;
  };
  const Broken cases[] = {
      {"lambada", "lambada/lambada_test.jsonl", "{\"text\": \"a b\"}\n{\"text\": \"c", ":2"},
      {"lambada", "lambada/lambada_test.jsonl", "{\"txt\": \"a b\"}\n", "\"text\""},
      {"lambada", "lambada/lambada_test.jsonl", "{\"text\": \"a \xff\"}\n", ":1"},
      {"lambada", "lambada/lambada_test.jsonl", "", "empty"},
      {"piqa", "piqa/valid.jsonl", "{\"goal\": 1, \"sol1\": \"a\", \"sol2\": \"b\"}\n", "\"goal\""},
      {"piqa", "piqa/valid-labels.lst", "0\n1\n", "2 labels"},
      {"piqa", "piqa/valid-labels.lst", "0\n1\n2\n", ":3"},
      {"boolq", "boolq/dev.jsonl", "{\"question\": \"q\", \"passage\": \"p\", \"answer\": true}\n",
       "\"title\""},
      {"boolq", "boolq/dev.jsonl", "{\"question\": \"q\", \"passage\": \"p\", \"label\": 1}\n",
       "true or false"},
      {"race", "race/test/high/high2.txt", "{\"answers\": [\"E\"]", "high2.txt"},
      {"race", "race/test/high/high2.txt",
       R"({"answers": ["E"], "options": [["a","b","c","d"]], "questions": ["q"], "article": "x"})",
       "A, B, C or D"},
      {"race", "race/test/high/high2.txt",
       R"({"answers": ["A"], "options": [["a","b"]], "questions": ["q"], "article": "x"})", "expected 4"},
      {"triviaqa", "triviaqa/unfiltered-web-dev.tsv", "q\t\"['a'", "never closed"},
      {"triviaqa", "triviaqa/unfiltered-web-dev.tsv", "q\t[]\r\n", "no answers"},
      {"triviaqa", "triviaqa/unfiltered-web-dev.tsv", "q,['a']\r\n", "1 columns"},
      {"webqs", "webqs/test.json", "[{\"answers\": [\"a\"], \"qText\"", "cut"},
      {"webqs", "webqs/test.json", "[{\"answers\": [], \"qText\": \"q\"}]", "question 1"},
  };
  for (const Broken& broken : cases) {
    const TempDir copy;
    fs::copy(tiny_sets(), copy.path(), fs::copy_options::recursive);
    write_text(copy / broken.file, broken.text);
    EXPECT_THAT(
        error_of(ErrorKind::data, [&] { load_task(broken.task, {.data = copy.path(), .any_size = true}); }),
        HasSubstr(broken.named));
  }
  const TempDir empty;
  for (const std::string& task : known_tasks()) {
    EXPECT_THAT(error_of(ErrorKind::data, [&] { load_task(task, {.data = empty.path()}); }),
                HasSubstr(empty.path().string()));
  }
  error_of(ErrorKind::argument, [] { load_task("lambada", {}); });
  error_of(ErrorKind::argument, [&] { load_task("hellaswag", tiny(Form::v0)); });
}

Task from_lines(const std::string& lines) {
  const TempDir folder;
  write_text(folder / "mine.jsonl", lines);
  return load_task((folder / "mine.jsonl").string(), {});
}

TEST(Task, OfOnesOwn) {
  const Task words = from_lines("{\"context\": \"a\", \"continuation\": \" b\"}\n\n");
  EXPECT_EQ(words.rule, Rule::last_word);
  EXPECT_EQ(words.name, "mine");
  const Task choices = from_lines("{\"context\": \"\", \"continuation\": [\"b\", \"c\"], \"gold\": 1}\n");
  EXPECT_EQ(choices.rule, Rule::choice);
  EXPECT_EQ(choices.documents[0].gold, 1);
  const Task written = from_lines(
      "{\"context\": \"a\", \"until\": [\".\"], \"answers\": [\"b\"]}\n"
      "{\"context\": \"c\", \"until\": [\".\"], \"answers\": [\"d\"]}\n");
  EXPECT_EQ(written.rule, Rule::generated);
  EXPECT_THAT(written.until, ElementsAre("."));

  const std::pair<const char*, const char*> broken[] = {
      {"", "no documents"},
      {"{\"context\": \"a\"}\n", "continuation"},
      {"{\"context\": \"a\", \"continuation\": \"\"}\n", "empty"},
      {"{\"context\": \"a\", \"continuation\": [\"b\"]}\n", "gold"},
      {"{\"context\": \"a\", \"continuation\": [\"b\"], \"gold\": 1}\n", "0 to 0"},
      {"{\"context\": \"a\", \"continuation\": [\"b\"], \"gold\": -1}\n", "0 to 0"},
      {"{\"context\": \"a\", \"continuation\": \"b\"}\n{\"context\": \"a\", \"continuation\": [\"b\"], "
       "\"gold\": "
       "0}\n",
       "another kind"},
      {"{\"context\": \"a\", \"continuation\": \"b\", \"until\": [\".\"], \"answers\": [\"b\"]}\n",
       "one of both"},
      {"{\"context\": \"a\", \"until\": [\".\"], \"answers\": [\"b\"]}\n"
       "{\"context\": \"c\", \"until\": [\",\"], \"answers\": [\"d\"]}\n",
       "until"}};
  for (const auto& [lines, named] : broken) {
    EXPECT_THAT(error_of(ErrorKind::data, [&, text = lines] { from_lines(text); }), HasSubstr(named));
  }
}

TEST(Task, DumpsItsRequests) {
  const std::string lines = dump_requests(load_task("boolq", tiny(Form::current)));
  EXPECT_EQ(std::count(lines.begin(), lines.end(), '\n'), 8);
  EXPECT_THAT(lines, HasSubstr("\"document\":0,\"context\":\"Red house -- The red house was built in 1901."));
  EXPECT_THAT(lines, HasSubstr("\"continuation\":\" yes\",\"gold\":true}"));
}

}  // namespace
}  // namespace ziggurat::eval
