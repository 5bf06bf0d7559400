#include "apps/command_line.h"

#include "apps/options/options.h"

namespace ziggurat::apps {

void add_commands(CLI::App& app) {
  add_train(app);
  add_plan(app);
  add_config(app);
  add_generate(app);
  add_eval(app);
  add_serve(app);
  add_logits(app);
  add_export(app);
  add_import(app);
  add_checkpoint(app);
  add_verify(app);
  add_replay(app);
  add_bench(app);
  add_report(app);
  add_analyse(app);
  add_top(app);
  add_doctor(app);
  add_pages(app);
}

}  // namespace ziggurat::apps
