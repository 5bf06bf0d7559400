// Megatron's .bin/.idx and foreign HDF5 files to shards and back.
#include "data_tools/convert.h"

#include <cstring>

#include <hdf5.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/core/philox.h>
#include <ziggurat/data/megatron_file.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

template <class T>
void put(std::string& out, T value) {
  out.append(reinterpret_cast<const char*>(&value), sizeof(T));
}

// A pair as Megatron's preprocess_data.py writes it: documents of these tokens, written field by field.
template <class Token>
void make_megatron(const std::filesystem::path& prefix, const std::vector<std::vector<int32_t>>& documents) {
  std::string bin, lengths, offsets, firsts, idx("MMIDIDX\0\0", 9);
  int64_t n = 0;
  put<int64_t>(firsts, 0);
  for (const auto& document : documents) {
    put(lengths, static_cast<int32_t>(document.size()));
    put(offsets, static_cast<int64_t>(bin.size()));
    for (const int32_t token : document) put(bin, static_cast<Token>(token));
    put<int64_t>(firsts, ++n);
  }
  put<uint64_t>(idx, 1);
  put<uint8_t>(idx, sizeof(Token) == 2 ? 8 : 4);
  put(idx, static_cast<uint64_t>(documents.size()));
  put(idx, static_cast<uint64_t>(documents.size() + 1));
  write_text(prefix.string() + ".bin", bin);
  write_text(prefix.string() + ".idx", idx + lengths + offsets + firsts);
}

std::vector<std::vector<int32_t>> some_documents(int32_t top) {
  const Philox random(3, Purpose::test);
  std::vector<std::vector<int32_t>> documents;
  for (uint64_t d = 0; d < 40; ++d) {
    documents.emplace_back();
    for (uint64_t t = 0; t < d % 7 * 5; ++t) {  // some are empty
      documents.back().push_back(static_cast<int32_t>(random.bits(d * 64 + t) % static_cast<uint32_t>(top)));
    }
    documents.back().push_back(top);
  }
  return documents;
}

ConvertOptions to_shards(const std::filesystem::path& input, const std::filesystem::path& output,
                         int64_t vocab) {
  ConvertOptions options;
  options.inputs = {input}, options.output = output, options.vocab_size = vocab, options.eod_id = vocab - 1;
  options.shard_tokens = 200;
  return options;
}

void expect_documents(const std::filesystem::path& folder,
                      const std::vector<std::vector<int32_t>>& documents) {
  const TokenStream stream(read_manifest(folder, "train"));
  stream.verify();
  const std::vector<int64_t> starts = stream.document_starts();
  ASSERT_EQ(starts.size(), documents.size() + 1);
  for (size_t d = 0; d < documents.size(); ++d) {
    std::vector<int32_t> ids(static_cast<size_t>(starts[d + 1] - starts[d]));
    stream.read(starts[d], static_cast<int64_t>(ids.size()), ids.data());
    EXPECT_EQ(ids, documents[d]) << "document " << d;
  }
}

TEST(Convert, MegatronFilesComeBackByteForByte) {
  for (const int64_t vocab : {1000, 70000}) {
    const TempDir dir;
    auto documents = some_documents(static_cast<int32_t>(vocab) - 1);
    documents[3].clear();
    vocab < 65500 ? make_megatron<uint16_t>(dir / "m", documents)
                  : make_megatron<int32_t>(dir / "m", documents);
    EXPECT_TRUE(is_megatron(dir / "m"));
    convert_to_shards(to_shards(dir / "m", dir / "shards", vocab));
    EXPECT_GT(read_manifest(dir / "shards", "train").shards.size(), 2u);
    expect_documents(dir / "shards", documents);
    ConvertOptions back;
    back.inputs = {dir / "shards"}, back.output = dir / "back";
    convert_to_megatron(back);
    EXPECT_EQ(read_text(dir / "back.bin"), read_text(dir / "m.bin"));
    EXPECT_EQ(read_text(dir / "back.idx"), read_text(dir / "m.idx"));
    // Nothing is overwritten, and nothing but the shards is left.
    error_of(ErrorKind::data, [&] { convert_to_shards(to_shards(dir / "m", dir / "shards", vocab)); });
    for (const auto& entry : std::filesystem::directory_iterator(dir / "shards")) {
      EXPECT_NE(entry.path().extension(), ".tmp") << entry.path();
    }
  }
}

TEST(Convert, SentencesOfADocumentAreJoined) {
  const TempDir dir;
  make_megatron<uint16_t>(dir / "m", {{1, 2}, {3}, {4, 9}});
  std::string idx = read_text(dir / "m.idx");
  // Documents {0, 1} and {2}: three sequences, document index 0, 2, 3.
  const uint64_t entries = 3;
  std::memcpy(idx.data() + 26, &entries, 8);
  idx.erase(34 + 12 * 3 + 8, 8);
  write_text(dir / "m.idx", idx);
  convert_to_shards(to_shards(dir / "m.idx", dir / "shards", 10));
  expect_documents(dir / "shards", {{1, 2, 3}, {4, 9}});
}

TEST(Convert, ForeignHdf5FilesAreCutAtEndsOfDocuments) {
  const TempDir dir;
  const std::vector<int32_t> tokens = {1, 2, 99, 99, 5, 6, 7, 99, 8};
  const hid_t file = H5Fcreate((dir / "corpus.h5").c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t n = tokens.size(), chunk = 4;
  const hid_t space = H5Screate_simple(1, &n, nullptr), options = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(options, 1, &chunk), H5Pset_shuffle(options), H5Pset_deflate(options, 4);
  const hid_t data = H5Dcreate2(file, "data", H5T_STD_U16LE, space, H5P_DEFAULT, options, H5P_DEFAULT);
  H5Dwrite(data, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, tokens.data());
  H5Dclose(data), H5Pclose(options), H5Sclose(space), H5Fclose(file);
  EXPECT_FALSE(is_megatron(dir / "corpus.h5"));
  convert_to_shards(to_shards(dir / "corpus.h5", dir / "shards", 100));
  expect_documents(dir / "shards", {{1, 2, 99}, {99}, {5, 6, 7, 99}, {8}});
  // A token outside the vocabulary is named, and no shard is left half-written.
  const std::string message =
      error_of(ErrorKind::data, [&] { convert_to_shards(to_shards(dir / "corpus.h5", dir / "small", 99)); });
  EXPECT_NE(message.find("corpus.h5: a token of document 0 is 99"), std::string::npos) << message;
  EXPECT_TRUE(std::filesystem::is_empty(dir / "small"));
  error_of(ErrorKind::argument, [&] { convert_to_shards(to_shards(dir / "corpus.h5", dir / "none", 0)); });
}

TEST(Convert, ATokenizerThatDidNotMakeTheFileIsRefused) {
  const TempDir dir;
  counting_shards(dir.path(), {20}, 257);  // of a tokenizer "abc"
  ConvertOptions options = to_shards(dir / shard_name("counting", "train", 0, 1), dir / "out", 0);
  options.eod_id = -1, options.tokenizer = "bytes";
  const std::string message = error_of(ErrorKind::data, [&] { convert_to_shards(options); });
  EXPECT_NE(message.find("--tokenizer bytes"), std::string::npos) << message;
  EXPECT_NE(message.find("(abc)"), std::string::npos) << message;
  options.tokenizer.clear(), options.vocab_size = 256;
  error_of(ErrorKind::data, [&] { convert_to_shards(options); });
  options.vocab_size = 300;
  convert_to_shards(options);
  options.tokenizer = "bytes", options.output = dir / "both";  // two answers to one question
  error_of(ErrorKind::argument, [&] { convert_to_shards(options); });
}

// A sequence of less than no tokens; and many that all lie over the same bytes, from which gigabytes would
// come.
TEST(Convert, MegatronIndexesThatLieAreRefused) {
  const TempDir dir;
  make_megatron<uint16_t>(dir / "m", {{1, 2, 3}, {4, 5, 6}});
  const std::string good = read_text(dir / "m.idx");
  constexpr size_t kHeader = 34, kSecondLength = kHeader + 4, kSecondOffset = kHeader + 2 * 4 + 8;
  const auto refusal = [&](size_t at, const std::string& bytes) {
    write_text(dir / "m.idx", std::string(good).replace(at, bytes.size(), bytes));
    return error_of(ErrorKind::data, [&] { convert_to_shards(to_shards(dir / "m", dir / "out", 1000)); });
  };
  EXPECT_NE(refusal(kSecondLength, std::string(4, '\xff')).find("sequence 1 has -1 tokens"),
            std::string::npos);
  std::string overlapping = good;
  std::string zero(8, '\0');
  overlapping.replace(kHeader + 4, 4, std::string("\6\0\0\0", 4)).replace(kSecondOffset, 8, zero);
  write_text(dir / "m.idx", overlapping);
  EXPECT_NE(error_of(ErrorKind::data, [&] { convert_to_shards(to_shards(dir / "m", dir / "out", 1000)); })
                .find("overlap"),
            std::string::npos);
}

TEST(Convert, DamagedMegatronFilesAreReadOrRefused) {
  const TempDir dir;
  make_megatron<uint16_t>(dir / "m", some_documents(999));
  const std::string idx = read_text(dir / "m.idx"), bin = read_text(dir / "m.bin");
  const Philox random(23, Purpose::test);
  int refused = 0;
  for (uint64_t n = 0; n < 1500; ++n) {
    std::string text = idx;
    const Philox::Block r = random.block(n);
    const size_t place = n % 2 ? r[0] % text.size() : r[0] % 34;
    if (n % 5 == 0) {
      text.resize(r[1] % text.size());
    } else {
      for (size_t k = 0; k < 1 + n % 8 && place + k < text.size(); ++k)
        text[place + k] = static_cast<char>(r[1]);
    }
    write_text(dir / "m.idx", text);
    std::filesystem::remove_all(dir / "out");
    try {
      convert_to_shards(to_shards(dir / "m", dir / "out", 1000));
    } catch (const Error& e) {
      EXPECT_EQ(e.kind(), ErrorKind::data) << e.what();
      EXPECT_NE(std::string(e.what()).find((dir / "m").string()), std::string::npos) << e.what();
      ++refused;
    }
  }
  EXPECT_GT(refused, 1500 / 5);
  write_text(dir / "m.idx", idx);
  write_text(dir / "m.bin", bin.substr(0, bin.size() - 1));
  EXPECT_NE(error_of(ErrorKind::data, [&] { convert_to_shards(to_shards(dir / "m", dir / "cut", 1000)); })
                .find("cut off"),
            std::string::npos);
}

}  // namespace
}  // namespace ziggurat
