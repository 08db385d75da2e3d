"""Resident memory of a whole trainer, predicted and measured: models of keras.applications without a limit and within a part of what is booked
without one. The bound that is booked, what is expected, and the highest resident bytes that the kernel kept (VmHWM). Prints a table in Markdown."""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time

import process_tree

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20
# Of these were figures at hand while the prediction was written.
WRITTEN_WITH = ("MobileNetV2", "ResNet50", "DenseNet121", "EfficientNetB0", "VGG16")
# Model, pixels, batch.
JOBS = (
    ("MobileNetV2", 96, 64), ("MobileNetV2", 224, 32), ("ResNet50", 96, 64), ("ResNet50", 224, 32), ("DenseNet121", 96, 32),
    ("EfficientNetB0", 128, 32), ("VGG16", 96, 32), ("InceptionV3", 128, 32), ("ConvNeXtTiny", 96, 32), ("Xception", 128, 32))  # fmt: skip


def highest_resident(pid):
    """Of a process that trains, its VmHWM in bytes; else 0."""
    with contextlib.suppress(OSError):
        # Its scratch folder is JOB.TRAIN.GENERATION.RANK.
        if "TRAIN" not in os.path.basename(os.readlink(f"/proc/{pid}/cwd")).split("."):
            return 0
        with open(f"/proc/{pid}/status", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith("VmHWM:"):
                    return int(line.split()[1]) << 10
    return 0


def train(options, model, batch, limit, folder):
    """The memory of the job's summary, and the highest resident bytes of its trainers, the most that one had; None: it is refused."""
    summary = os.path.join(folder, "summary.json")
    command = [os.path.join(options.bin, "lockstep"), "fit", model, "--train", options.train, "--batch", str(batch), "--replicas",
               str(options.replicas), "--threads", str(options.threads), "--checkpoint-every", f"{max(options.steps // 2, 1)} steps", "--seed", "1",
               "--summary", summary, "--out", os.path.join(folder, "trained.keras")]  # fmt: skip
    command += ["--validation", options.validation, "--epochs", "1"] if options.validation else ["--steps", str(options.steps)]
    if limit:
        command += ["--memory-limit", f"{limit // MIB}MiB"]
    with open(os.path.join(folder, "log"), "w+", encoding="utf-8") as log:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        highest = 0
        while process.poll() is None:
            highest = max([highest, *map(highest_resident, process_tree.tree_of(process.pid))])
            time.sleep(0.02)
        if process.returncode == 3:
            return None, 0
        if process.returncode != 0:
            log.seek(0)
            raise SystemExit(f"{' '.join(command)}\n{log.read()[-3000:]}")
    with open(summary, encoding="utf-8") as file:
        return json.load(file)["memory"], highest


def line_of(name, size, batch, limit, memory, highest):
    bound, expected = memory["predicted_resident"], memory["expected_resident"]
    mark = " *" if name in WRITTEN_WITH else ""
    above = "" if highest <= bound else ", ABOVE THE BOUND"
    limit_text = f"{limit / MIB:,.0f}" if limit else "none"
    return (f"| {name}{mark} | {size} | {batch} | {limit_text} | {bound / MIB:,.0f} | {expected / MIB:,.0f} | {highest / MIB:,.0f} | "
            f"{expected / highest:.3f}{above} |")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of the built programs")
    parser.add_argument("--train", required=True, help="folder of class folders")
    parser.add_argument("--models", nargs="*", help="default: all")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--replicas", type=int, default=1, help="trainers; each is measured, and the largest said")
    parser.add_argument("--validation", help="folder of class folders: one epoch with an evaluation after it, in place of steps")
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--parts", nargs="*", type=float, default=[0, 0.7], help="limits, of what is booked without one; 0: none")
    parser.add_argument("--json", help="also write every figure to this file, a line of JSON each")
    options = parser.parse_args()
    print("| model | pixels | batch | limit, MiB | bound, MiB | expected, MiB | measured, MiB | expected to measured |\n" + "|---" * 8 + "|", flush=True)
    ratios = []
    with tempfile.TemporaryDirectory() as folder, open(options.json or os.devnull, "w", encoding="utf-8") as every:
        for name, size, batch in JOBS:
            if options.models and name not in options.models:
                continue
            model = os.path.join(folder, "model.keras")
            subprocess.run([sys.executable, os.path.join(HERE, "make_model.py"), "--out", model, "--architecture", name, "--size", str(size)],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            unlimited = 0
            for part in options.parts:
                limit = int(part * unlimited)
                memory, highest = train(options, model, batch, limit, folder)
                if memory is None:
                    print(f"| {name}{' *' if name in WRITTEN_WITH else ''} | {size} | {batch} | {limit / MIB:,.0f} | refused | | | |", flush=True)
                    continue
                unlimited = unlimited or memory["predicted_resident"]
                ratios.append(memory["expected_resident"] / highest)
                print(line_of(name, size, batch, limit, memory, highest), flush=True)
                every.write(json.dumps({"model": name, "size": size, "batch": batch, "limit": limit, "highest": highest, **memory}) + "\n")
                every.flush()
    print(f"\n{len(ratios)} predictions of what is expected, ratio to what was measured {min(ratios):.3f} to {max(ratios):.3f}")


if __name__ == "__main__":
    main()
