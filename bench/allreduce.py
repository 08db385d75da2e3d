"""The ordered all-reduce beside gloo's, between 2 processes of this host, in one run.

Each round runs both after one another; printed are medians over the rounds, and the ratios of each round with their spread.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys

HERE = os.path.dirname(os.path.abspath(__file__))
# What we want to be times faster than gloo.
GOALS = {1 << 10: 20, 64 << 10: 20, 1 << 20: 20, 100 << 20: 5}


def run(command, timeout):
    finished = subprocess.run(command, capture_output=True, text=True, timeout=timeout)
    lines = [line for line in finished.stdout.splitlines() if line.startswith("{")]
    if finished.returncode != 0 or not lines:
        raise SystemExit(f"{' '.join(command)} failed:\n{finished.stderr[-3000:]}")
    return {int(size): microseconds for size, microseconds in json.loads(lines[-1]).items()}


def name(size):
    return f"{size >> 20} MiB" if size >= 1 << 20 else f"{size >> 10} KiB"


def report(rounds):
    print(f"{'size':>8} {'ordered us':>11} {'gloo us':>10}   gloo / ordered (spread)   goal")
    for size, goal in GOALS.items():
        ours = [entry["ordered"][size] for entry in rounds]
        theirs = [entry["gloo"][size] for entry in rounds]
        ratios = [b / a for a, b in zip(ours, theirs)]
        spread = f"{statistics.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
        print(f"{name(size):>8} {statistics.median(ours):11.1f} {statistics.median(theirs):10.1f}   {spread:22}   {goal}")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of the built programs")
    parser.add_argument("--python", default=sys.executable, help="an interpreter that has torch, for gloo")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1, help="roughly, for each size, side and round")
    parser.add_argument("--timeout", type=float, default=300)
    parser.add_argument("--json", help="also write the figures of every round to this file")
    arguments = parser.parse_args()
    sizes = ["--sizes", ",".join(str(size) for size in GOALS), "--seconds", str(arguments.seconds)]
    rounds = []
    for _ in range(arguments.rounds):
        ordered = run([os.path.join(arguments.bin, "lockstep-allreduce-bench")] + sizes, arguments.timeout)
        gloo = run([arguments.python, os.path.join(HERE, "allreduce_gloo.py")] + sizes, arguments.timeout)
        rounds.append({"ordered": ordered, "gloo": gloo})
    report(rounds)
    if arguments.json:
        with open(arguments.json, "w") as file:
            json.dump(rounds, file, indent=1)


if __name__ == "__main__":
    main()
