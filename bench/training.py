"""Lockstep beside Keras and PyTorch DDP, on the same architecture, pictures and batch, in one run.

Each round runs the three after one another. Images/s are over all of Lockstep's steps, and over the peers' after their warm-up; memory
is the peak of the whole process tree (bench/process_tree.py). Printed are medians, and the ratios of each round with their spread.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

import process_tree

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20


def last_json(output):
    for line in reversed(output.splitlines()):
        if line.startswith("{"):
            return json.loads(line)
    raise SystemExit(f"no result in:\n{output[-2000:]}")


def run_peer(script, arguments, extra):
    command = [sys.executable, os.path.join(HERE, script), "--train", arguments.train, "--size", str(arguments.size), "--batch",
               str(arguments.batch), "--steps", str(arguments.steps), "--warmup", str(arguments.warmup)] + extra
    finished = process_tree.run(command, arguments.timeout)
    if finished.returncode != 0:
        raise SystemExit(f"{script} failed:\n{finished.output[-3000:]}")
    return {"images_per_second": last_json(finished.output)["images_per_second"], "peak_bytes": finished.peak_bytes}


def run_lockstep(arguments, model, folder):
    summary = os.path.join(folder, "summary.json")
    command = [os.path.join(arguments.bin, "lockstep"), "fit", model, "--train", arguments.train, "--batch", str(arguments.batch),
               "--steps", str(arguments.steps), "--replicas", "2", "--virtual-replicas", str(arguments.virtual_replicas),
               "--out", os.path.join(folder, "trained.keras"), "--summary", summary]
    finished = process_tree.run(command, arguments.timeout)
    if finished.returncode != 0:
        raise SystemExit(f"lockstep failed:\n{finished.output[-3000:]}")
    with open(summary) as file:
        return {"images_per_second": json.load(file)["images_per_second"], "peak_bytes": finished.peak_bytes}


def spread(values):
    return f"{statistics.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


def report(rounds):
    for name in ("lockstep", "keras", "ddp"):
        speed = [entry[name]["images_per_second"] for entry in rounds]
        memory = [entry[name]["peak_bytes"] / MIB for entry in rounds]
        print(f"{name:9} images/s {spread(speed)}   peak MiB {statistics.median(memory):.0f}")
    faster = [entry["lockstep"]["images_per_second"] / max(entry["keras"]["images_per_second"], entry["ddp"]["images_per_second"])
              for entry in rounds]
    smaller = [entry["lockstep"]["peak_bytes"] / min(entry["keras"]["peak_bytes"], entry["ddp"]["peak_bytes"]) for entry in rounds]
    print(f"lockstep / faster peer, images/s: {spread(faster)}")
    print(f"lockstep / smaller peer, peak memory: {spread(smaller)}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of the built programs")
    parser.add_argument("--train", required=True, help="folder of class folders")
    parser.add_argument("--architecture", default="MobileNetV2")
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--virtual-replicas", type=int, default=4)
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--warmup", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--timeout", type=float, default=900)
    parser.add_argument("--json", help="also write the figures of every round to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.keras")
        subprocess.run([sys.executable, os.path.join(HERE, "make_model.py"), "--architecture", arguments.architecture, "--size",
                        str(arguments.size), "--out", model], check=True, stderr=subprocess.DEVNULL)
        rounds = []
        for number in range(arguments.rounds):
            rounds.append({"lockstep": run_lockstep(arguments, model, folder),
                           "keras": run_peer("peer_keras.py", arguments, ["--model", model]),
                           "ddp": run_peer("peer_ddp.py", arguments, ["--architecture", arguments.architecture])})
            print(f"round {number + 1}: " + json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    print(f"{arguments.architecture}, {arguments.size} px, batch {arguments.batch}, V = {arguments.virtual_replicas}, "
          f"{arguments.steps - arguments.warmup} steps counted, {arguments.rounds} rounds")
    report(rounds)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(rounds, file, indent=1)


if __name__ == "__main__":
    main()
