// No command destroys what it writes over: old files stay, byte for byte, until the new ones are complete.
#include <array>
#include <cmath>
#include <map>
#include <numeric>

#include <gmock/gmock.h>
#include <sys/stat.h>
#include <unistd.h>

#include "data_tools/convert.h"
#include "data_tools/file_exchange.h"
#include "data_tools/tokenize.h"
#include "tests/unit/data/data_test_support.h"
#include <ziggurat/data/dataset.h>
#include <ziggurat/data/tokenizer.h>
#include <ziggurat/io/files.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;
using Path = std::filesystem::path;
using Files = std::map<std::string, std::string>;

// What a reader of the folder sees.
Files files_in(const Path& folder) {
  Files files;
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    const std::string name = entry.path().filename().string();
    if (!name.starts_with('.')) files[name] = read_text(entry.path());
  }
  return files;
}

void expect_nothing_hidden(const Path& folder) {
  for (const auto& entry : std::filesystem::directory_iterator(folder)) {
    EXPECT_FALSE(entry.path().filename().string().starts_with('.')) << entry.path();
  }
}

class Output : public ::testing::Test {
 protected:
  void SetUp() override {
    write_corpus("text", 60, "river stone light");
    write_corpus("other", 80, "dark water over sand");
    make_tokenizer("text", "tok", false);
  }

  void write_corpus(const std::string& folder, int count, const std::string& words) const {
    for (int d = 0; d < count; ++d) {
      write_text(dir / (folder + "/" + std::to_string(1000 + d) + ".txt"),
                 "document " + std::to_string(d * 7919) + " " + words + " " + words + ".\n");
    }
  }

  void make_tokenizer(const std::string& text, const std::string& output, bool overwrite) const {
    TrainTokenizerOptions train;
    train.text.inputs = {dir / text};
    train.vocab_size = 280, train.output = dir / output, train.overwrite = overwrite;
    train_tokenizer(train);
  }

  TokenizeOptions options(const std::string& text, bool overwrite = false) const {
    TokenizeOptions o;
    o.text.inputs = {dir / text};
    o.tokenizer = dir / "tok", o.output = dir / "out", o.split = {0.8, 0.2, 0};
    o.shard_bytes = 1000, o.overwrite = overwrite;
    return o;
  }

  Path out() const { return dir / "out"; }
  void expect_whole() const {
    for (const char* split : {"train", "valid"}) {
      const ShardManifest manifest = read_manifest(out(), split);
      verify_files(manifest);
      TokenStream(manifest).verify();
    }
  }

  const TempDir dir;
};

TEST_F(Output, AFailureLeavesWhatWasThere) {
  tokenize_text(options("text"));
  const Files before = files_in(out());
  const auto expect_refused = [&](ErrorKind kind, const TokenizeOptions& o) {
    const std::string message = error_of(kind, [&] { tokenize_text(o); });
    EXPECT_EQ(files_in(out()), before) << message;
    return message;
  };
  TokenizeOptions o = options("nowhere", true);
  EXPECT_NE(expect_refused(ErrorKind::data, o).find("nowhere"), std::string::npos);
  o = options("other", true);
  o.tokenizer = dir / "no-tokenizer";
  expect_refused(ErrorKind::data, o);
  const std::vector<std::array<double, 3>> bad = {{0.5, 0.4, 0}, {1.5, -0.5, 0}, {std::nan(""), 1, 0}};
  for (const std::array<double, 3>& split : bad) {
    o = options("other", true);
    o.split = split;
    EXPECT_NE(expect_refused(ErrorKind::argument, o).find("--split"), std::string::npos);
  }
  o = options("other", true);
  o.split = {1 - 1e-9, 1e-9, 0};  // valid gets nothing, which shows at the end
  expect_refused(ErrorKind::data, o);
  o = options("other", true);
  o.text.document_per = DocumentPer::json;  // broken from the first line on
  expect_refused(ErrorKind::data, o);
  write_text(dir / "other/2000.txt.gz", "\x1f\x8b and then no gzip");  // broken in the middle
  expect_refused(ErrorKind::data, options("other", true));
  std::filesystem::remove(dir / "other/2000.txt.gz");
  expect_whole();
  tokenize_text(options("other", true));
  EXPECT_NE(files_in(out()), before);
  expect_whole();
  expect_nothing_hidden(out());
}

TEST_F(Output, NewShardsNeverHaveTheNamesOfThoseTheyReplace) {
  tokenize_text(options("text"));
  const auto names = [&] {
    std::vector<std::string> all;
    for (const auto& shard : read_manifest(out(), "train").shards) all.push_back(shard.file);
    return all;
  };
  const auto first = names();
  EXPECT_EQ(first[0], shard_name("corpus", "train", 0, static_cast<int64_t>(first.size())));
  tokenize_text(options("text", true));  // the same number of shards
  const auto second = names();
  ASSERT_EQ(second.size(), first.size());
  EXPECT_NE(second[0], first[0]);
  EXPECT_FALSE(std::filesystem::exists(out() / first[0]));
  tokenize_text(options("text", true));
  EXPECT_EQ(names(), first);
  expect_whole();
}

TEST_F(Output, AnotherSplitTakesTheOldOnesAway) {
  tokenize_text(options("text"));
  TokenizeOptions o = options("text", true);
  o.split = {1, 0, 0};
  write_text(out() / "corpus-train-x-train-00000-of-00001.h5", "of another source");
  tokenize_text(o);
  EXPECT_FALSE(std::filesystem::exists(out() / "corpus-valid.json"));
  for (const auto& [name, text] : files_in(out())) EXPECT_FALSE(name.starts_with("corpus-valid")) << name;
  EXPECT_EQ(read_text(out() / "corpus-train-x-train-00000-of-00001.h5"), "of another source");
}

// The old set is read while the new one is made, and what a killed run left is not taken for another's.
TEST_F(Output, AnInterruptedOverwriteIsResumedOrBegunAgain) {
  tokenize_text(options("text"));
  const Files before = files_in(out());
  const TokenizeOptions o = options("other", true);
  EXPECT_FALSE(prepare_shards(o).done);
  write_shards(o, 0, 2);  // one of two ranks: killed before the end
  EXPECT_EQ(files_in(out()), before);
  // Without --overwrite nothing is touched; with it and other text the shards are not taken.
  error_of(ErrorKind::data, [&] { tokenize_text(options("other")); });
  EXPECT_EQ(files_in(out()), before);
  prepare_shards(o);
  EXPECT_GT(write_shards(o, 0, 1).resumed_shards, 0);
  prepare_shards(options("text", true));
  EXPECT_EQ(write_shards(options("text", true), 0, 1).resumed_shards, 0);
  tokenize_text(o);
  const Files after = files_in(out());
  expect_whole();
  std::filesystem::remove_all(out());
  tokenize_text(options("text"));
  tokenize_text(o);
  EXPECT_EQ(files_in(out()), after);
}

TEST_F(Output, UnfinishedShardsOfOtherOptionsAreNotMixedIn) {
  TokenizeOptions o = options("text");
  prepare_shards(o);
  write_shards(o, 0, 2);
  TokenizeOptions other = o;
  other.shard_bytes = 2000, other.append_eod = false;
  const std::string message = error_of(ErrorKind::data, [&] { tokenize_text(other); });
  EXPECT_NE(message.find("then shard bytes: 1000"), std::string::npos) << message;
  EXPECT_NE(message.find("--overwrite"), std::string::npos) << message;
  tokenize_text(o);  // the same goes on
  expect_whole();
}

TEST_F(Output, ATokenizerIsNotReplacedUnasked) {
  const std::string tokenizer = read_text(dir / "tok/tokenizer.json");
  EXPECT_NE(error_of(ErrorKind::data, [&] { make_tokenizer("other", "tok", false); }).find("--overwrite"),
            std::string::npos);
  EXPECT_EQ(read_text(dir / "tok/tokenizer.json"), tokenizer);
  tokenize_text(options("text"));
  // Not the one that shards were made with, whatever is said.
  const std::string message = error_of(ErrorKind::data, [&] { make_tokenizer("other", "out", true); });
  EXPECT_NE(message.find("corpus-"), std::string::npos) << message;
  make_tokenizer("other", "tok", true);
  EXPECT_NE(read_text(dir / "tok/tokenizer.json"), tokenizer);
  EXPECT_EQ(read_text(out() / "tokenizer.json"), tokenizer);
  // Another source with another tokenizer has no place beside these shards; the same source has, in exchange.
  TokenizeOptions o = options("other", true);
  o.source = "second";
  EXPECT_NE(error_of(ErrorKind::data, [&] { tokenize_text(o); }).find("another tokenizer"),
            std::string::npos);
  EXPECT_EQ(read_text(out() / "tokenizer.json"), tokenizer);
  tokenize_text(options("other", true));
  EXPECT_EQ(load_tokenizer(out())->fingerprint(), load_tokenizer(dir / "tok")->fingerprint());
  // A tokenizer without shards is somebody's too.
  o = options("text");
  o.output = dir / "kept";
  write_text(dir / "kept/tokenizer.json", "{\"kind\": \"bytes\"}\n");
  error_of(ErrorKind::data, [&] { tokenize_text(o); });
  EXPECT_EQ(read_text(dir / "kept/tokenizer.json"), "{\"kind\": \"bytes\"}\n");
  // A tokenizer.json would hide one of two files from whoever names the folder.
  write_text(dir / "two/vocab.bpe", "#version: 0.2\n");
  write_text(dir / "two/encoder.json", "{}\n");
  EXPECT_NE(error_of(ErrorKind::data, [&] { make_tokenizer("other", "two", true); }).find("two files"),
            std::string::npos);
  EXPECT_FALSE(std::filesystem::exists(dir / "two/tokenizer.json"));
}

TEST_F(Output, NamesStayInTheFolder) {
  for (const std::string& source :
       std::vector<std::string>{"../x", "a/b", "/tmp/x", "", ".hidden", "..", std::string("a\0b", 3), "a\nb",
                                std::string(300, 'x')}) {
    TokenizeOptions o = options("text", true);
    o.source = source;
    EXPECT_NE(error_of(ErrorKind::argument, [&] { tokenize_text(o); }).find("--source"), std::string::npos);
  }
  EXPECT_FALSE(std::filesystem::exists(out()));
  tokenize_text(options("text"));
  ShardManifest manifest = read_manifest(out(), "valid");
  const std::string shard = manifest.shards[0].file;
  for (const std::string& file : {"../" + shard, "/" + shard, std::string(".."), std::string()}) {
    manifest.shards[0].file = file;
    write_manifest(manifest);
    EXPECT_NE(error_of(ErrorKind::data, [&] { read_manifest(out(), "valid"); }).find("plain name"),
              std::string::npos);
  }
}

TEST_F(Output, AnOutputThatCannotBeSaysWhy) {
  write_text(dir / "file", "");
  for (const Path& output : {dir / "file", dir / "file/below", Path("/proc/none")}) {
    TokenizeOptions o = options("text");
    o.output = output;
    EXPECT_NE(error_of(ErrorKind::argument, [&] { tokenize_text(o); }).find("--output " + output.string()),
              std::string::npos);
  }
}

TEST_F(Output, TwoDoNotWriteAtOnce) {
  const std::string pid = std::to_string(::getpid());
  {
    const PreparedFolder first = prepare_shards(options("text"));
    const std::string message = error_of(ErrorKind::config, [&] { tokenize_text(options("other", true)); });
    EXPECT_NE(message.find(pid), std::string::npos) << message;
    TrainTokenizerOptions train;
    train.text.inputs = {dir / "text"}, train.output = out();
    error_of(ErrorKind::config, [&] { train_tokenizer(train); });
  }
  tokenize_text(options("other", true));
  expect_nothing_hidden(out());
}

TEST(FileExchange, IsFinishedWhereverItWasKilled) {
  // Names in the order in which they are treated; "b" is replaced with a moment in which it is not there.
  const std::vector<FileExchange::Step> steps = {{{"b"}, {"new"}}, {{}, {"a", "b"}}, {{"old"}, {}}};
  const std::vector<std::string> order = {"-b", "+new", "+a", "+b", "-old"};
  for (size_t done = 0; done <= order.size(); ++done) {
    const TempDir dir;
    for (const char* name : {"a", "b", "old", "other"}) write_text(dir / name, "before");
    const FileExchange exchange(dir.path(), "x");
    for (const char* name : {"a", "b", "new"}) write_text(exchange.staging() / name, "after");
    // What commit() leaves when it is killed: the decision, and a part of the steps.
    write_text(
        exchange.staging() / "exchange.json",
        R"([{"remove": ["b"], "put": ["new"]}, {"remove": [], "put": ["a", "b"]}, {"remove": ["old"], "put": []}])");
    std::filesystem::rename(exchange.staging(), dir / ".x.exchange");
    for (size_t i = 0; i < done; ++i) {
      const std::string name = order[i].substr(1);
      order[i][0] == '-' ? void(std::filesystem::remove(dir / name))
                         : std::filesystem::rename(dir / (".x.exchange/" + name), dir / name);
    }
    EXPECT_TRUE(exchange.finish_interrupted("", nullptr));
    EXPECT_FALSE(exchange.finish_interrupted("", nullptr));
    const Files expected = {{"a", "after"}, {"b", "after"}, {"new", "after"}, {"other", "before"}};
    EXPECT_EQ(files_in(dir.path()), expected) << done;
    expect_nothing_hidden(dir.path());
  }
  const TempDir dir;
  for (const char* name : {"a", "b", "old"}) write_text(dir / name, "before");
  const FileExchange exchange(dir.path(), "x");
  for (const char* name : {"a", "b", "new"}) write_text(exchange.staging() / name, "after");
  exchange.commit(steps);
  EXPECT_EQ(files_in(dir.path()), (Files{{"a", "after"}, {"b", "after"}, {"new", "after"}}));
  expect_nothing_hidden(dir.path());
}

TEST(ConvertOutput, IsReplacedOnlyWhenAsked) {
  const TempDir dir;
  for (const char* folder : {"in", "wide"}) std::filesystem::create_directories(dir / folder);
  counting_shards(dir / "in", {300, 200}, 1000);
  counting_shards(dir / "wide", {100}, 70000);
  ConvertOptions o;
  o.inputs = {dir / "in"}, o.output = dir / "m/tokens";
  convert_to_megatron(o);
  const Files before = files_in(dir / "m");
  EXPECT_EQ(before.size(), 2u);
  ConvertOptions other = o;
  other.inputs = {dir / "wide"};
  EXPECT_NE(error_of(ErrorKind::data, [&] { convert_to_megatron(other); }).find("--overwrite"),
            std::string::npos);
  other.inputs = {dir / "nowhere"}, other.overwrite = true;
  error_of(ErrorKind::data, [&] { convert_to_megatron(other); });
  EXPECT_EQ(files_in(dir / "m"), before);
  other.inputs = {dir / "wide"};
  convert_to_megatron(other);
  EXPECT_NE(files_in(dir / "m").at("tokens.bin"), before.at("tokens.bin"));

  ConvertOptions back;
  back.inputs = {dir / "m/tokens"}, back.output = dir / "back", back.vocab_size = 70000, back.eod_id = 1;
  convert_to_shards(back);
  back.split = "valid";  // joins the other
  convert_to_shards(back);
  const Files shards = files_in(dir / "back");
  EXPECT_NE(error_of(ErrorKind::data, [&] { convert_to_shards(back); }).find("--overwrite"),
            std::string::npos);
  back.overwrite = true, back.vocab_size = 50;  // too small, which shows on the way
  error_of(ErrorKind::data, [&] { convert_to_shards(back); });
  EXPECT_EQ(files_in(dir / "back"), shards);
  back.vocab_size = 80000;
  convert_to_shards(back);
  EXPECT_EQ(read_manifest(dir / "back", "valid").vocab_size, 80000);
  EXPECT_EQ(read_manifest(dir / "back", "train").vocab_size, 70000);
  expect_nothing_hidden(dir / "back");
}

}  // namespace
}  // namespace ziggurat
