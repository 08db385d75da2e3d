"""Breaks one rule of the coordinator at a time, in a copy of one source, and sees whether the simulation finds it.

    mutants.py BUILD [--schedules N]

A mutant is the program of lockstep-simulate with one object in front of the coordinator's library. Ends with 1 if one is not found, or if the
line that is to be broken is not there any more.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile

MUTANTS = (
    ("a generation's number is handed out twice", "coordinator/coordinator_members.cc",
     "  draft.record.generation = generation.number;\n  ++draft.record.next_generation;\n", "  draft.record.generation = generation.number;\n"),
    ("an older generation may still report steps", "coordinator/coordinator.cc",
     "if (job->record.state != v1::RUNNING || job->generation->record.number != generation) {", "if (job->record.state != v1::RUNNING) {"),
    ("answers before it is durable", "coordinator/coordinator.cc",
     "  RETURN_IF_ERROR(store_.Apply(change));\n", "  store_.Apply(change).IgnoreError();\n"),
    ("a job that waits for replicas is forgotten by a restart", "coordinator/store.cc",
     "  generation.waits = newest.Integer(5) != 0;\n", ""),
    ("who was to join a paused job is remembered", "coordinator/coordinator.cc",
     "  if (job.record.state != v1::RUNNING) {\n    job.joiners.clear();", "  if (HasEnded(job.record.state)) {\n    job.joiners.clear();"),
)  # fmt: skip


def commands(build):
    with open(os.path.join(build, "compile_commands.json"), encoding="utf-8") as file:
        return {os.path.normpath(os.path.join(entry["directory"], entry["file"])): entry for entry in json.load(file)}


def compile_mutant(build, entry, source, mutant, folder):
    arguments = [part for part in shlex.split(entry["command"]) if not part.endswith("ccache")]
    output = os.path.join(folder, "mutant.o")
    arguments[arguments.index("-o") + 1] = output
    arguments[arguments.index("-c") + 1] = mutant
    arguments += ["-I", os.path.dirname(os.path.dirname(source))]
    subprocess.run(arguments, cwd=entry["directory"], check=True)
    return output


def link(build, mutant, folder):
    """The link of lockstep-simulate as ninja has it, with the mutant's object first."""
    lines = subprocess.run(["ninja", "-C", build, "-t", "commands", "tests/lockstep-simulate"], check=True, capture_output=True, text=True).stdout
    command = lines.strip().splitlines()[-1]
    parts = shlex.split(command.split("&&")[1] if "&&" in command else command)
    program = os.path.join(folder, "lockstep-simulate")
    parts[parts.index("-o") + 1] = program
    first = next(i for i, part in enumerate(parts) if part.endswith(".o"))
    parts.insert(first, mutant)
    subprocess.run(parts, cwd=build, check=True)
    return program


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("build")
    parser.add_argument("--schedules", type=int, default=10000)
    options = parser.parse_args()
    build = os.path.abspath(options.build)
    root = os.path.abspath(os.path.join(os.path.dirname(__file__), "..", ".."))
    entries = commands(build)
    survivors = 0
    for what, path, rule, broken in MUTANTS:
        source = os.path.join(root, path)
        with open(source, encoding="utf-8") as file:
            text = file.read()
        if text.count(rule) != 1:
            print(f"{what}: {path} holds the line to break {text.count(rule)} times")
            return 1
        with tempfile.TemporaryDirectory() as folder:
            mutant = os.path.join(folder, os.path.basename(path))
            with open(mutant, "w", encoding="utf-8") as file:
                file.write(text.replace(rule, broken))
            program = link(build, compile_mutant(build, entries[source], source, mutant, folder), folder)
            played = subprocess.run([program, "--schedules", str(options.schedules)], capture_output=True, text=True, timeout=900, check=False)
        lines = [line for line in played.stdout.splitlines() if line.startswith("BREACH")]
        survivors += not lines
        print(f"{what}: {'found: ' + lines[0] if lines else 'NOT FOUND'}", flush=True)
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main())
