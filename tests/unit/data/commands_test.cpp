// The command line of `ziggurat data`.
#include "data_tools/commands.h"

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/data/tokenizer.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

TEST(DataCommands, OptionsReachTheirCommands) {
  const TempDir dir;
  for (int d = 0; d < 60; ++d) {
    std::string text = "document " + std::to_string(d) + ":";
    for (int w = 0; w < 30; ++w) text += " river stone " + std::to_string(d * w);
    write_text(dir / ("text/" + std::to_string(1000 + d) + ".txt"), text);
  }
  CLI::App app("ziggurat");
  add_data_commands(app);
  const std::string text = (dir / "text").string(), tokenizer = (dir / "cli-tok").string(),
                    out = (dir / "cli").string();
  app.parse("data train-tokenizer --input " + text + " --vocab-size 280 --output " + tokenizer);
  app.parse("data tokenize --input " + text + " --tokenizer " + tokenizer + " --output " + out +
            " --split 0.9,0.1 --split-by text --no-eod --source mine");
  EXPECT_EQ(load_tokenizer(tokenizer)->vocab_size(), 280);
  EXPECT_EQ(read_manifest(out, "train").source, "mine");
  EXPECT_FALSE(std::filesystem::exists(dir / "cli/mine-test.json"));
  EXPECT_THROW(app.parse("data tokenize --input " + text), CLI::RequiredError);
  EXPECT_THROW(app.parse("data"), CLI::RequiredError);
}

}  // namespace
}  // namespace ziggurat
