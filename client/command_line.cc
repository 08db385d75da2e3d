#include "client/command_line.h"

#include <iostream>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "client/exit_code.h"
#include "client/nearest.h"

namespace lockstep {
namespace {

constexpr const char* kExitCodes = "Exit codes: 0 done, 1 failed, 2 bad input, 3 refused for memory, 130 interrupted.";

const char* GroupOf(const JobField& field) {
  if (field.path.starts_with("data.")) return "Data";
  if (field.path.starts_with("replicas") || field.path.starts_with("memory") || field.path == "virtual_replicas" ||
      field.path == "micro_batch" || field.path == "device") {
    return "Machines and memory";
  }
  return "Training";
}

// The flags of the job's fields. evaluate and predict have fewer, and call their folder --data.
void AddJobFlags(CLI::App& app, bool fit, CommandLine& line) {
  for (const JobField& field : JobFields()) {
    if (field.flag.empty() || (field.fit_only && !fit)) continue;
    const std::string name(!fit && field.path == "data.train" ? "--data" : field.flag);
    const std::string help(!fit && field.path == "data.train" ? "Folder of class folders" : field.help);
    const JobField* at = &field;
    if (field.implied.empty()) {
      app.add_option_function<std::string>(
             name,
             [&line, at, name](const std::string& value) {
               line.flags.push_back({at, value, name});
             },
             help)
          ->type_name(std::string(field.value_name))
          ->group(GroupOf(field));
    } else {
      app.add_flag_callback(
             name,
             [&line, at, name] {
               line.flags.push_back({at, std::string(at->implied), name});
             },
             help)
          ->group(GroupOf(field));
    }
  }
}

CLI::App& AddCommand(CLI::App& app, const char* name, const char* help, Command command, CommandLine& line) {
  CLI::App& sub = *app.add_subcommand(name, help);
  sub.parse_complete_callback([&line, command] { line.command = command; });
  AddClientFlags(sub, line.connection);
  for (CLI::Option* option : sub.get_options()) {
    if (!option->get_name().empty() && option->get_name() != "--help") option->group("Coordinator");
  }
  return sub;
}

void AddModelAndJob(CLI::App& sub, CommandLine& line) {
  sub.add_option("MODEL", line.model, "The .keras file (or model: in the job file)");
  sub.add_option("--job", line.job_file, "YAML file with the job; flags override it")->type_name("FILE.yaml");
}

void AddRunCommands(CLI::App& app, CommandLine& line) {
  CLI::App& fit = AddCommand(app, "fit", "Train a Keras model on a folder of pictures", Command::kFit, line);
  AddModelAndJob(fit, line);
  fit.add_option("--out", line.out, "The trained model; default: MODEL-trained.keras in this folder")->type_name("FILE.keras");
  fit.add_option("--best-out", line.best_out, "The model of the best epoch; default, with --best: MODEL-best.keras")
      ->type_name("FILE.keras");
  fit.add_option("--step-log", line.step_log, "A line of JSON for each step")->type_name("FILE.jsonl");
  fit.add_option("--summary", line.summary, "Final figures as JSON")->type_name("FILE.json");
  AddJobFlags(fit, true, line);

  CLI::App& evaluate = AddCommand(app, "evaluate", "Loss and metrics of a model on a folder", Command::kEvaluate, line);
  AddModelAndJob(evaluate, line);
  evaluate.add_option("--summary", line.summary, "Final figures as JSON")->type_name("FILE.json");
  AddJobFlags(evaluate, false, line);

  CLI::App& predict = AddCommand(app, "predict", "What a model says of each picture of a folder, as CSV", Command::kPredict, line);
  AddModelAndJob(predict, line);
  predict.add_option("--out", line.out, "Path, class, and a column for each class")->type_name("FILE.csv")->required();
  predict.add_option("--summary", line.summary, "Final figures as JSON")->type_name("FILE.json");
  AddJobFlags(predict, false, line);

  CLI::App& plan = AddCommand(app, "plan", "What fit with the same flags would take of memory; trains nothing", Command::kPlan, line);
  AddModelAndJob(plan, line);
  plan.add_option("--svg", line.svg, "A picture of memory over one step")->type_name("FILE.svg");
  plan.add_flag("--json", line.json, "JSON out");
  AddJobFlags(plan, true, line);

  CLI::App& submit = AddCommand(app, "submit", "Hand a job to a coordinator; prints its id", Command::kSubmit, line);
  AddModelAndJob(submit, line);
  submit.add_flag("--wait-plan", line.wait_plan, "Wait for the verdict of planning");
  submit.add_flag("--follow", line.follow, "Watch it to its end");
  submit.add_flag("--json", line.json, "JSON out");
  AddJobFlags(submit, true, line);
}

void AddLedger(CLI::App& app, CommandLine& line) {
  CLI::App& ledger =
      AddCommand(app, "ledger", "Which sample was used in which committed step, by which virtual replica", Command::kLedger, line);
  CLI::Option* job = ledger.add_option("JOB", line.job_id, "The job's id");
  ledger.add_flag("--json", line.json, "A line of JSON for each step, behind one with what the job says; --from reads it");
  ledger.add_option("--epoch", line.epoch, "Of this epoch alone; 1 is the first")->type_name("E")->check(CLI::Range(1u, UINT32_MAX));
  ledger.add_flag("--verify", line.verify, "Prove exactly-once against the data set's index; exit 1 and every violation if it is not so");
  ledger.add_option("--data", line.data_folder, "With --verify: that folder's files, too, are what was read")->type_name("DIR");
  CLI::Option* from = ledger.add_option("--from", line.ledger_file, "In place of JOB: a file that --json wrote; needs --index")
                          ->type_name("FILE.jsonl")
                          ->excludes(job);
  ledger.add_option("--index", line.index_file, "The data set's index: the job's artifact train.index")->type_name("FILE")->needs(from);
  ledger.callback([&line] {
    if (line.job_id.empty() == line.ledger_file.empty()) throw CLI::RequiredError("JOB, or --from and --index");
    if (!line.ledger_file.empty() && line.index_file.empty()) throw CLI::RequiredError("--index");
    if (!line.data_folder.empty() && !line.verify) throw CLI::RequiredError("--verify, which --data is for,");
  });
}

void AddJobCommands(CLI::App& app, CommandLine& line) {
  const auto add = [&](const char* name, const char* help, Command command) -> CLI::App& {
    CLI::App& sub = AddCommand(app, name, help, command, line);
    sub.add_option("JOB", line.job_id, "The job's id")->required();
    sub.add_flag("--json", line.json, "JSON out");
    return sub;
  };
  add("describe", "Everything about a job", Command::kDescribe);
  CLI::App& watch = add("watch", "Progress of a job until it ends", Command::kWatch);
  watch.add_option("--after", line.after_sequence, "Sequence number of the last event that is known")->type_name("N");
  watch.add_option("--step-log", line.step_log, "A line of JSON for each step that is seen")->type_name("FILE.jsonl");
  add("cancel", "End a job at its next step", Command::kCancel);
  AddLedger(app, line);
  add("pause", "Stop a job at its next step, with a checkpoint; its slots are free for others", Command::kPause);
  add("resume", "Put a paused job back into the queue", Command::kResume);
  CLI::App& scale = add("scale", "Give a job more or fewer replicas, from its next step on", Command::kScale);
  CLI::Option* exactly = scale
                             .add_option_function<uint32_t>(
                                 "--replicas", [&line](uint32_t count) { line.fewest = line.most = count; }, "So many")
                             ->type_name("N")
                             ->check(CLI::Range(1u, 65'536u));
  CLI::Option* fewest = scale.add_option("--min", line.fewest, "At least so many; with fewer the job waits")->type_name("N");
  CLI::Option* most = scale.add_option("--max", line.most, "At most so many, as there are slots for them")->type_name("N");
  fewest->check(CLI::Range(1u, 65'536u))->needs(most)->excludes(exactly);
  most->check(CLI::Range(1u, 65'536u))->needs(fewest)->excludes(exactly);
  scale.callback([exactly, most] {
    if (exactly->empty() && most->empty()) throw CLI::RequiredError("--replicas, or --min and --max");
  });
  CLI::App& download = add("download", "What a job made", Command::kDownload);
  download.add_option("--artifact", line.artifact, "trained.keras, best.keras, predictions.csv or model.keras; default: the result")
      ->type_name("NAME");
  download.add_option("--out", line.out, "Default: the artifact's name, in this folder")->type_name("FILE");
  CLI::App& logs = add("logs", "What a job's trainers wrote", Command::kLogs);
  logs.add_flag("--follow", line.follow, "Go on until the job ends");
}

void AddClusterCommands(CLI::App& app, CommandLine& line) {
  CLI::App& list = AddCommand(app, "list", "Jobs, the newest first", Command::kList, line);
  list.add_option("--limit", line.limit, "At most so many; default 100")->type_name("N");
  list.add_flag("--json", line.json, "JSON out");
  CLI::App& workers = AddCommand(app, "workers", "Workers and what they run", Command::kWorkers, line);
  workers.add_flag("--json", line.json, "JSON out");
  CLI::App& version = AddCommand(app, "version", "Of this program, and of the coordinator if one is named", Command::kVersion, line);
  version.add_flag("--json", line.json, "JSON out");
}

// What the user may have meant by the first unknown flag.
std::string Hint(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  const CLI::App& at = chosen.empty() ? app : *chosen.front();
  std::vector<std::string> known;
  for (const CLI::Option* option : at.get_options()) {
    for (const std::string& name : option->get_lnames()) known.push_back(absl::StrCat("--", name));
  }
  for (const std::string& extra : app.remaining(/*recurse=*/true)) {
    if (!absl::StartsWith(extra, "-")) continue;
    const std::string hint = DidYouMean(extra.substr(0, extra.find('=')), known);
    return absl::StartsWith(hint, "did") ? absl::StrCat("\n", extra, ": ", hint) : "";
  }
  return "";
}

}  // namespace

std::variant<CommandLine, int> ParseCommandLine(int argc, const char* const* argv) {
  CommandLine line;
  CLI::App app("Lockstep trains Keras models on as many workers as there are, to the same bits.", "lockstep");
  app.set_version_flag("--version", std::string("lockstep ") + LOCKSTEP_VERSION);
  app.require_subcommand(1);
  app.footer(kExitCodes);
  AddRunCommands(app, line);
  AddJobCommands(app, line);
  AddClusterCommands(app, line);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ExtrasError& error) {
    std::cerr << "lockstep: " << error.what() << Hint(app) << "\n";
    return kExitBadInput;
  } catch (const CLI::ParseError& error) {
    return app.exit(error, std::cout, std::cerr) == 0 ? kExitDone : kExitBadInput;
  }
  return line;
}

}  // namespace lockstep
