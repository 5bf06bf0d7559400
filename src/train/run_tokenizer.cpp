#include <algorithm>
#include <vector>

#include <ziggurat/core/log.h>
#include <ziggurat/train/run_tokenizer.h>

namespace ziggurat::train {

namespace {

namespace fs = std::filesystem;

constexpr char kFolder[] = "tokenizer";  // in the run's folder

// Looks at one place after another until a tokenizer fits.
class Search {
 public:
  explicit Search(Vocabulary wanted) : wanted_(std::move(wanted)) {}

  void look(const fs::path& path) {
    if (found_.tokenizer || std::find(seen_.begin(), seen_.end(), path) != seen_.end()) return;
    seen_.push_back(path);
    try {
      auto tokenizer = load_tokenizer(path);
      const auto reason = misfit(ziggurat::vocabulary_of(*tokenizer, path), wanted_);
      if (!reason) {
        found_ = {std::move(tokenizer), path};
        return;
      }
      tried_ += fmt::format("\n  {}", *reason);
    } catch (const Error& error) {
      tried_ += fmt::format("\n  {}", error.what());
    }
  }

  FoundTokenizer found() { return std::move(found_); }
  const std::string& tried() const { return tried_; }  // a line for each place

 private:
  Vocabulary wanted_;
  FoundTokenizer found_;
  std::vector<fs::path> seen_;
  std::string tried_;
};

// Folders of the training shards; tokenizing leaves the tokenizer there.
std::vector<fs::path> shard_folders(const DataConfig& data) {
  std::vector<fs::path> folders;
  const auto add = [&](const std::string& train) {
    if (train.empty()) return;
    folders.push_back(fs::is_directory(train) ? fs::path(train) : fs::path(train).parent_path());
  };
  add(data.train);
  for (const BlendSource& source : data.blend) add(source.train);
  return folders;
}

// Where a path of the config lies if what is around the run's folder was moved together with it.
fs::path beside_moved_run(const fs::path& path, const RunConfig& config, const fs::path& run) {
  const fs::path relative =
      path.lexically_normal().lexically_relative(fs::path(config.output_folder()).lexically_normal());
  return relative.empty() ? fs::path() : (run / relative).lexically_normal();
}

void look_beside(const fs::path& checkpoint, Search& search) {
  fs::path folder = checkpoint;
  for (int level = 0; level < 3; ++level) {  // the step, checkpoints, the run
    if (fs::exists(folder / kFolder)) search.look(folder / kFolder);
    if (holds_tokenizer(folder)) search.look(folder);
    folder = folder.parent_path();
  }
}

std::string recorded_fingerprint(const nlohmann::json& state) {
  const auto text = [&](const char* key) {
    const auto found = state.find(key);
    return found != state.end() && found->is_string() ? found->get<std::string>() : std::string();
  };
  if (const std::string whole = text("tokenizer"); !whole.empty()) return whole;
  // Older checkpoints have its first digits in the lines that describe the data.
  constexpr std::string_view kLine = "tokenizer: ";
  const std::string data = text("data");
  const size_t begin = data.find(kLine);
  if (begin == std::string::npos) return {};
  return data.substr(begin + kLine.size(), data.find('\n', begin) - begin - kLine.size());
}

bool is_synthetic(const RunConfig& config) { return config.data.train == "synthetic"; }

}  // namespace

void save_tokenizer(const RunConfig& config, const std::string& fingerprint) {
  if (is_synthetic(config)) return;
  Search search({"the training data", fingerprint, config.model.vocab_size, true});
  if (!config.data.tokenizer.empty()) search.look(config.data.tokenizer);
  for (const fs::path& folder : shard_folders(config.data)) {
    if (holds_tokenizer(folder)) search.look(folder);
  }
  const FoundTokenizer found = search.found();
  if (!found.tokenizer) {
    warn("no tokenizer of the training data was found, so `ziggurat generate` will need --tokenizer{}",
         search.tried().empty() ? "; data.tokenizer names none" : ":" + search.tried());
    return;
  }
  const fs::path folder = fs::path(config.output_folder()) / kFolder;
  if (!holds_tokenizer(folder)) return found.tokenizer->save(folder);
  const auto old = load_tokenizer(folder);
  check(old->fingerprint() == found.tokenizer->fingerprint(), ErrorKind::config,
        "output: {} holds the tokenizer of another run ({:.12}; this run's is {}, {:.12}); choose another "
        "output "
        "folder",
        folder.string(), old->fingerprint(), found.path.string(), found.tokenizer->fingerprint());
}

Vocabulary vocabulary_of(const CheckpointReader& checkpoint, const RunConfig& config) {
  return {"the model of " + checkpoint.path(), recorded_fingerprint(checkpoint.manifest().state),
          config.model.vocab_size, true};
}

FoundTokenizer find_tokenizer(const CheckpointReader& checkpoint, const RunConfig& config,
                              const std::string& named) {
  const Vocabulary wanted = vocabulary_of(checkpoint, config);
  if (!named.empty()) {
    auto tokenizer = load_tokenizer(named);
    check_fit(ziggurat::vocabulary_of(*tokenizer, named), wanted,
              "name the tokenizer that the model was trained with by --tokenizer");
    return {std::move(tokenizer), named};
  }
  const fs::path step = fs::weakly_canonical(checkpoint.path());
  Search search(wanted);
  look_beside(step, search);
  std::vector<fs::path> paths;
  if (!config.data.tokenizer.empty()) paths.push_back(config.data.tokenizer);
  if (!is_synthetic(config)) {
    for (const fs::path& folder : shard_folders(config.data)) paths.push_back(folder);
  }
  const fs::path run = step.parent_path().parent_path();
  for (const fs::path& path : paths) search.look(path);
  for (const fs::path& path : paths) {
    const fs::path moved = beside_moved_run(path, config, run);
    if (!moved.empty() && fs::exists(moved)) search.look(moved);
  }
  FoundTokenizer found = search.found();
  check(found.tokenizer || !is_synthetic(config), ErrorKind::data,
        "{} was trained on the synthetic language, which has no text; give a tokenizer of at most {} tokens "
        "with --tokenizer to read its ids as text",
        wanted.owner, wanted.size);
  check(found.tokenizer != nullptr, ErrorKind::data,
        "no tokenizer of {}{} was found; name it with --tokenizer. Tried:\n"
        "  tokenizer/ in {} and in the two folders above it: none that fits{}",
        wanted.owner, wanted.fingerprint.empty() ? "" : fmt::format(" ({:.12})", wanted.fingerprint),
        step.string(), search.tried());
  return found;
}

}  // namespace ziggurat::train
