#include <gtest/gtest.h>

#include <ziggurat/data/tokenizer.h>
#include <ziggurat/infer/text_stream.h>

namespace ziggurat::infer {
namespace {

std::vector<std::string> pieces(const std::string& text, std::vector<std::string> stops,
                                bool* stopped = nullptr) {
  const auto tokenizer = load_tokenizer("bytes");
  TextStream stream(*tokenizer, {}, std::move(stops));
  std::vector<std::string> taken;
  for (const int32_t id : tokenizer->encode(text)) {
    stream.add(id);
    if (std::string piece = stream.take(); !piece.empty()) taken.push_back(piece);
  }
  stream.finish();
  if (std::string piece = stream.take(); !piece.empty()) taken.push_back(piece);
  if (stopped != nullptr) *stopped = stream.stopped();
  return taken;
}

std::string joined(const std::vector<std::string>& parts) {
  std::string all;
  for (const std::string& part : parts) all += part;
  return all;
}

using Pieces = std::vector<std::string>;

TEST(TextStream, TextComesAsSoonAsItIsCertain) {
  EXPECT_EQ(pieces("abc", {}), (Pieces{"a", "b", "c"}));
  EXPECT_EQ(pieces("a\xc3\xa9z", {}), (Pieces{"a", "\xc3\xa9", "z"})) << "a character is never cut";
  EXPECT_EQ(pieces("abxabc", {"abc"}), (Pieces{"abx"})) << "what may become a stop is held back";
  EXPECT_EQ(pieces("abab", {"abc"}), (Pieces{"ab", "ab"})) << "until the end shows that it did not";
}

TEST(TextStream, EndsBeforeTheFirstStop) {
  bool stopped = false;
  EXPECT_EQ(joined(pieces("one two three", {"three", "tw"}, &stopped)), "one ");
  EXPECT_TRUE(stopped);
  EXPECT_EQ(joined(pieces("one two", {"none"}, &stopped)), "one two");
  EXPECT_FALSE(stopped);
  EXPECT_EQ(joined(pieces("aaab", {"aab"})), "a");
  EXPECT_EQ(joined(pieces("stop", {"stop"})), "");
  EXPECT_EQ(joined(pieces("caf\xc3\xa9!", {"\xc3\xa9"})), "caf");
}

}  // namespace
}  // namespace ziggurat::infer
