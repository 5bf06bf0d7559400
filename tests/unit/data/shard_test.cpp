#include <csignal>

#include <hdf5.h>
#include <sys/resource.h>

#include "tests/unit/data/data_test_support.h"
#include <ziggurat/core/crc32c.h>
#include <ziggurat/data/sha256.h>

namespace ziggurat {
namespace {

using namespace ziggurat::testing;

TEST(Checksums, KnownAnswers) {
  EXPECT_EQ(crc32c("123456789", 9), 0xe3069283u);  // the check value of the CRC catalogue
  const std::string zeros(32, '\0');
  EXPECT_EQ(crc32c(zeros.data(), 32), 0x8a9136aau);  // RFC 3720, B.4
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex(std::string(1000000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

std::vector<int32_t> read_all(const ShardReader& shard) {
  std::vector<int32_t> tokens(static_cast<size_t>(shard.size()));
  shard.read(0, shard.size(), tokens.data());
  return tokens;
}

TEST(Shard, KeepsDocumentsAndAttributes) {
  for (const int64_t vocab : {50257, 65499, 65500, 128000}) {
    const TempDir dir;
    ShardInfo common;
    common.vocab_size = vocab, common.eod_id = 5, common.eod_appended = true;
    common.tokenizer = "test", common.tokenizer_sha256 = "0123", common.source = "books",
    common.split = "valid";
    common.unicode_version = "15", common.normalisation = "none", common.created_by = "a test";
    ShardBuilder builder(common);
    const auto top = static_cast<int32_t>(vocab - 1);
    builder.append(std::vector<int32_t>{1, 2, 3, 5});
    builder.append(std::vector<int32_t>{});
    builder.append(std::vector<int32_t>{top, 5});
    EXPECT_EQ(builder.tokens(), 6);
    builder.write(dir / "a.tmp");
    EXPECT_EQ(builder.documents(), 0);
    finish_shard(dir / "a.tmp", dir / "a.h5", 3);
    EXPECT_FALSE(std::filesystem::exists(dir / "a.tmp"));

    const ShardReader shard(dir / "a.h5");
    EXPECT_TRUE(shard.mapped());
    EXPECT_EQ(read_all(shard), (std::vector<int32_t>{1, 2, 3, 5, top, 5}));
    EXPECT_EQ(shard.doc_offsets(), (std::vector<int64_t>{0, 4, 4, 6}));
    EXPECT_EQ(shard.info().n_docs, 3);
    EXPECT_EQ(shard.info().shards, 3);
    EXPECT_EQ(shard.info().vocab_size, vocab);
    EXPECT_EQ(shard.info().eod_id, 5);
    EXPECT_TRUE(shard.info().eod_appended);
    EXPECT_EQ(shard.info().source, "books");
    EXPECT_EQ(shard.info().split, "valid");
    EXPECT_EQ(shard.info().tokenizer_sha256, "0123");
    EXPECT_EQ(shard.info().created_by, "a test");
    shard.verify();
    error_of(ErrorKind::internal, [&] { builder.append(std::vector<int32_t>{static_cast<int32_t>(vocab)}); });
    int32_t token = 0;
    error_of(ErrorKind::internal, [&] { shard.read(6, 1, &token); });
    error_of(ErrorKind::internal, [&] { shard.read(-1, 1, &token); });
  }
}

TEST(Shard, LiesOnDiskAsTheSchemaSays) {
  const TempDir dir;
  const ShardManifest manifest = counting_shards(dir.path(), {5000});
  const auto path = dir / manifest.shards[0].file;
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT);
  const hid_t data = H5Dopen2(file, "/data", H5P_DEFAULT), type = H5Dget_type(data);
  const haddr_t offset = H5Dget_offset(data);
  EXPECT_TRUE(H5Tequal(type, H5T_STD_U16LE));
  EXPECT_NE(offset, HADDR_UNDEF);
  EXPECT_EQ(offset % 4096, 0u);
  H5Tclose(type), H5Dclose(data), H5Fclose(file);
  // Equal content gives equal bytes.
  const TempDir other;
  counting_shards(other.path(), {5000});
  EXPECT_EQ(read_text(path), read_text(other / manifest.shards[0].file));
}

// Where /data begins in the file.
int64_t data_offset(const std::filesystem::path& path) {
  const hid_t file = H5Fopen(path.c_str(), H5F_ACC_RDONLY, H5P_DEFAULT),
              data = H5Dopen2(file, "/data", H5P_DEFAULT);
  const auto offset = static_cast<int64_t>(H5Dget_offset(data));
  H5Dclose(data), H5Fclose(file);
  return offset;
}

TEST(Shard, AFlippedBitIsNamedByFileAndBlock) {
  const TempDir dir;
  ShardInfo common;
  common.vocab_size = 1000;
  ShardBuilder builder(common);
  builder.append(std::vector<int32_t>(2 * kCrcBlockTokens + 10, 1));
  builder.write(dir / "big.h5");
  ShardReader(dir / "big.h5").verify();
  flip_bit(dir / "big.h5", data_offset(dir / "big.h5") + 2 * (kCrcBlockTokens + 77));
  const ShardReader shard(dir / "big.h5");
  EXPECT_EQ(shard.damaged_blocks(), std::vector<int64_t>{1});
  const std::string message = error_of(ErrorKind::data, [&] { shard.verify(); });
  EXPECT_NE(message.find("big.h5: block 1 of 3"), std::string::npos) << message;
}

TEST(Shard, ACutOrForeignFileIsNamed) {
  const TempDir dir;
  const ShardManifest manifest = counting_shards(dir.path(), {40000});
  const auto path = dir / manifest.shards[0].file;
  const auto size = std::filesystem::file_size(path);
  for (const auto bytes : {uintmax_t{0}, uintmax_t{100}, size / 2, size - 1}) {
    std::filesystem::resize_file(path, bytes);
    const std::string message = error_of(ErrorKind::data, [&] { ShardReader shard(path); });
    EXPECT_NE(message.find(path.string()), std::string::npos) << message;
    std::filesystem::resize_file(path, size);
  }
  error_of(ErrorKind::data, [&] { ShardReader shard(dir / "missing.h5"); });
  write_text(dir / "text.h5", "this is no HDF5 file");
  error_of(ErrorKind::data, [&] { ShardReader shard(dir / "text.h5"); });
}

// A file made by another program: only /data, signed and compressed in chunks.
void write_foreign(const std::filesystem::path& path, const std::vector<int32_t>& tokens, int rank = 1) {
  const hid_t file = H5Fcreate(path.c_str(), H5F_ACC_TRUNC, H5P_DEFAULT, H5P_DEFAULT);
  const hsize_t dims[2] = {tokens.size() / static_cast<size_t>(rank), 2}, chunk[2] = {64, 1};
  const hid_t space = H5Screate_simple(rank, dims, nullptr), options = H5Pcreate(H5P_DATASET_CREATE);
  H5Pset_chunk(options, rank, chunk);
  H5Pset_deflate(options, 1);
  const hid_t data = H5Dcreate2(file, "data", H5T_STD_I32BE, space, H5P_DEFAULT, options, H5P_DEFAULT);
  H5Dwrite(data, H5T_NATIVE_INT32, H5S_ALL, H5S_ALL, H5P_DEFAULT, tokens.data());
  H5Dclose(data), H5Pclose(options), H5Sclose(space), H5Fclose(file);
}

TEST(Shard, ForeignFilesAreReadThroughHdf5) {
  const TempDir dir;
  std::vector<int32_t> tokens(1000);
  std::iota(tokens.begin(), tokens.end(), 0);
  write_foreign(dir / "foreign.h5", tokens);
  const ShardReader shard(dir / "foreign.h5");
  EXPECT_FALSE(shard.mapped());
  EXPECT_EQ(read_all(shard), tokens);
  EXPECT_EQ(shard.info().vocab_size, 0);
  EXPECT_TRUE(shard.doc_offsets().empty());
  shard.verify();
  write_foreign(dir / "matrix.h5", tokens, 2);
  EXPECT_NE(error_of(ErrorKind::data, [&] { ShardReader s(dir / "matrix.h5"); }).find("rank"),
            std::string::npos);
}

TEST(Shard, AForeignFileIsKnownByItsTokens) {
  const TempDir dir;
  std::vector<int32_t> tokens(100000);  // more than are read for the fingerprint
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto fingerprint_of = [&] {
    write_foreign(dir / "foreign.h5", tokens);
    return ShardReader(dir / "foreign.h5").fingerprint();
  };
  const std::string before = fingerprint_of();
  EXPECT_EQ(fingerprint_of(), before);
  for (const size_t place : {size_t{0}, size_t{14000}, tokens.size() - 1}) {
    tokens[place] += 1;
    EXPECT_NE(fingerprint_of(), before) << place;
    tokens[place] -= 1;
  }
  tokens.pop_back();  // all samples lie elsewhere
  EXPECT_NE(fingerprint_of(), before);
  // Of few tokens, every one counts.
  tokens.resize(9001);
  const std::string small = fingerprint_of();
  tokens[5000] += 1;
  EXPECT_NE(fingerprint_of(), small);
}

// In a child process, since the limit cannot be lifted again; the child must also end in peace.
TEST(ShardBuilder, AFullDiskIsAnErrorAndLeavesNothing) {
  const TempDir dir;
  EXPECT_EXIT(
      {
        std::signal(SIGXFSZ, SIG_IGN);
        rlimit limit;
        limit.rlim_cur = limit.rlim_max = 8192;
        ::setrlimit(RLIMIT_FSIZE, &limit);
        try {
          counting_shards(dir.path(), {20000});
        } catch (const Error& e) {
          std::fputs(e.what(), stderr);
          std::exit(exit_code(e.kind()));
        }
        std::exit(0);
      },
      ::testing::ExitedWithCode(3), "shard.tmp.*make room");
  EXPECT_TRUE(std::filesystem::is_empty(dir.path()));
}

}  // namespace
}  // namespace ziggurat
