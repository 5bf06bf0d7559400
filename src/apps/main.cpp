// ziggurat: arguments, and the one place where an error becomes an exit code.
#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <initializer_list>
#include <iostream>
#include <string_view>

#include <data_tools/commands.h>
#include <fcntl.h>
#include <unistd.h>

#include "apps/command_line.h"
#include "apps/version.h"
#include <ziggurat/comm/mpi.h>
#include <ziggurat/core/error.h>
#include <ziggurat/core/log.h>
#include <ziggurat/core/signals.h>
#include <ziggurat/core/terminal.h>
#include <ziggurat/io/mapping_faults.h>
#include <ziggurat/memory/arena.h>
#include <ziggurat/runtime/parallel_for.h>
#include <ziggurat/watch/last_words.h>
#include <ziggurat/watch/stop_requests.h>

namespace {

using namespace ziggurat;

// A mistake in the arguments or the config is found by every rank, before MPI starts. Rank 0 tells it, ends,
// and so the launcher ends the others, who wait for that; where it does not come, the mistake may be theirs
// alone.
void let_rank_0_speak() {
  if (launched_rank(std::getenv) != 0) watch::leave_it_to_rank_0();
}

// CLI11 would only say that a sub-command is missing.
void check_first_word(const CLI::App& app, int argc, char** argv) {
  if (argc >= 2 && argv[1][0] == '-') return;  // CLI11 knows
  std::string known;
  for (const CLI::App* command : app.get_subcommands(nullptr)) {
    if (argc >= 2 && command->get_name() == argv[1]) return;
    if (command->get_group().empty()) continue;  // hidden
    known += (known.empty() ? "" : ", ") + command->get_name();
  }
  fail(ErrorKind::config, "expected a sub-command ({}), got {}; --help tells more", known,
       argc >= 2 ? fmt::format("'{}'", argv[1]) : "nothing");
}

// Who only prints ends quietly when its reader leaves (`| head`); who makes something goes on.
bool only_prints(int argc, char** argv) {
  if (argc > 1 && std::string_view(argv[1]) == "--quiet") --argc, ++argv;
  const auto word_in = [&](int i, std::initializer_list<std::string_view> words) {
    return i < argc && std::find(words.begin(), words.end(), argv[i]) != words.end();
  };
  return argc < 2 || argv[1][0] == '-' ||
         word_in(1, {"plan", "config", "generate", "bench", "doctor", "top"}) ||
         (word_in(1, {"checkpoint"}) && word_in(2, {"inspect", "verify", "diff"})) ||
         (word_in(1, {"data"}) && word_in(2, {"inspect", "verify", "sample", "stats", "bench"}));
}

// Files that are opened later must not become the standard streams of who closed them. The other way round
// than these are used, so that using them still fails.
void open_closed_streams() {
  for (int stream = 0; stream <= 2; ++stream) {
    if (fcntl(stream, F_GETFD) < 0 && open("/dev/null", stream == 0 ? O_WRONLY : O_RDONLY) != stream) {
      std::exit(exit_code(ErrorKind::internal));
    }
  }
}

// What was printed must have arrived, or a full disk looks like success.
int after_printing(int code) {
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0 && std::cout.flush()) return code;
  std::fprintf(stderr, "ziggurat: standard output cannot be written; is the disk full?\n");
  return code != 0 ? code : exit_code(ErrorKind::internal);
}

}  // namespace

int main(int argc, char** argv) {
  open_closed_streams();
  take_signals_elsewhere();
  std::signal(SIGXFSZ, SIG_IGN);  // a file past `ulimit -f` is then an error with a name, EFBIG
  CLI::App app{"Trains dense, MoE and PR-MoE GPT models from YAML files", "ziggurat"};
  app.set_version_flag("--version", [] { return apps::version_text(apps::kRevision); });
  app.require_subcommand(1);
  app.fallthrough();  // --quiet may stand anywhere
  app.add_flag_callback(
      "--quiet", [] { set_quiet(true); }, "no progress, and of the log warnings only; log files stay whole");
  apps::add_commands(app);
  add_data_commands(app);
  std::signal(SIGPIPE, only_prints(argc, argv) ? SIG_DFL : SIG_IGN);
  if (thread_count() > available_cores())
    set_thread_count(available_cores());  // whatever OMP_NUM_THREADS says
  const std::string who =
      started_by_mpi_launcher(std::getenv) ? fmt::format("rank {}", launched_rank(std::getenv)) : "";
  watch::say_last_words(who);
  report_mapping_faults(who);
  init_log(0, 1);  // train makes it anew when the rank is known
  try {
    check_first_word(app, argc, argv);
    app.parse(argc, argv);
    return only_prints(argc, argv) ? after_printing(0) : 0;
  } catch (const CLI::RuntimeError& end) {  // of a command that has told everything
    return end.get_exit_code();
  } catch (const CLI::ParseError& error) {
    let_rank_0_speak();
    return app.exit(error) == 0 ? after_printing(0) : exit_code(ErrorKind::config);
  } catch (const Error& error) {
    let_rank_0_speak();
    clear_status();
    const std::string kind = fmt::format("ziggurat: {} error:", to_string(error.kind()));
    std::fprintf(stderr, "%s\n%s\n", coloured(kind, Colour::red, STDERR_FILENO).c_str(), error.what());
    return exit_code(error.kind());
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "ziggurat: device error:\nno memory is left: %s\n",
                 Arena::describe_limits().c_str());
    return exit_code(ErrorKind::device);
  } catch (const std::filesystem::filesystem_error& error) {  // a path that the system does not take
    let_rank_0_speak();
    std::fprintf(stderr, "ziggurat: data error:\n%s; name another path, or one that can be read\n",
                 error.what());
    return exit_code(ErrorKind::data);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "ziggurat: %s\n", error.what());
    return exit_code(ErrorKind::internal);
  }
}
