"""Seconds that `lockstep plan` takes, and the peak of its processes (proportional set sizes): ResNet50 at 224 px, without a limit, within one whose
largest batch is computed with other kernels, and for a CUDA device; and a model of a billion parameters.
A cluster is started and taken down each time, as a user's command does. The cases take turns."""

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
# Eleven Dense layers: 1,002,130,010 parameters.
BILLION = """
import sys, keras
from keras import layers
stack = [keras.Input((8, 8, 3)), layers.Flatten()] + [layers.Dense(10000, activation="relu") for _ in range(11)] + [layers.Dense(10, activation="softmax")]
model = keras.Sequential(stack)
model.compile(optimizer=keras.optimizers.SGD(0.01), loss="sparse_categorical_crossentropy")
assert model.count_params() == 1_002_130_010
model.save(sys.argv[1])
"""
CASES = {
    "no limit": ["--batch", "32", "--optimizer", "adam"],
    "1500 MiB": ["--batch", "64", "--optimizer", "adam", "--memory-limit", "1500MiB"],
    "4 GiB, one virtual replica": ["--batch", "32", "--virtual-replicas", "1", "--memory-limit", "4GiB"],
    "cuda, 4 GiB": ["--batch", "256", "--optimizer", "adam", "--device", "cuda", "--memory-limit", "4GiB"],
}


def plan(options, model, flags):
    finished = process_tree.run([os.path.join(options.bin, "lockstep"), "plan", model, "--train", options.train, "--json", *flags], options.timeout)
    if finished.returncode not in (0, 3):
        raise SystemExit(f"lockstep plan failed:\n{finished.output[-3000:]}")
    said = json.loads(finished.output[finished.output.index("{"):finished.output.rindex("}") + 1])
    return finished.wall_seconds, finished.peak_bytes, said


def report(name, runs):
    seconds, peaks, said = [run[0] for run in runs], [run[1] for run in runs], runs[-1][2]
    print(f"{name}: {statistics.median(seconds):.1f} s ({min(seconds):.1f} to {max(seconds):.1f}), at most {max(peaks) / MIB:,.0f} MiB; a trainer takes "
          f"{said['trainer_bytes'] / MIB:,.0f} MiB, largest batch {said['largest_batch']}", flush=True)  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of the built programs")
    parser.add_argument("--train", required=True, help="folder of ten class folders")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-billion", action="store_true", help="leave out the model of a billion parameters, a file of 3.7 GiB")
    parser.add_argument("--timeout", type=float, default=600)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.keras")
        subprocess.run([sys.executable, os.path.join(HERE, "make_model.py"), "--architecture", "ResNet50", "--size", "224", "--out", model],
                       check=True, stderr=subprocess.DEVNULL)  # fmt: skip
        runs = {name: [] for name in CASES}
        for _ in range(options.rounds):
            for name, flags in CASES.items():
                runs[name].append(plan(options, model, flags))
        for name, of_case in runs.items():
            report(f"ResNet50, {name}", of_case)
        if options.no_billion:
            return
        subprocess.run([sys.executable, "-c", BILLION, model], check=True, stderr=subprocess.DEVNULL)
        report("a billion parameters, no limit", [plan(options, model, ["--batch", "32"])])


if __name__ == "__main__":
    main()
