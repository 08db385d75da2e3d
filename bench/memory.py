"""Predicted and measured peak of tensor memory of one virtual replica's step with its state, for models of keras.applications: micro-batches below,
at and above the change of regime at 16 samples, SGD and Adam, without and with recomputation. Prints a table in Markdown."""

import argparse
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
# All there are; pictures as small as each model takes them. The first two were used while the prediction was written, the others not.
WRITTEN_WITH = ("MobileNetV2", "ResNet50")
MODELS = {
    "MobileNetV2": 128, "ResNet50": 96, "VGG16": 64, "VGG19": 64, "ResNet101": 64, "ResNet152": 48, "ResNet50V2": 48, "ResNet101V2": 48,
    "ResNet152V2": 48, "DenseNet121": 48, "DenseNet169": 48, "DenseNet201": 48, "EfficientNetB0": 48, "EfficientNetB1": 48, "EfficientNetB2": 48,
    "EfficientNetB3": 48, "EfficientNetB4": 48, "EfficientNetV2B0": 48, "EfficientNetV2B1": 48, "EfficientNetV2B2": 48, "EfficientNetV2B3": 48,
    "EfficientNetV2S": 48, "InceptionV3": 80, "Xception": 72, "MobileNet": 64, "MobileNetV3Small": 64,
    "MobileNetV3Large": 64, "NASNetMobile": 64, "NASNetLarge": 64, "ConvNeXtTiny": 48, "ConvNeXtSmall": 48,
    "ConvNeXtBase": 48, "ConvNeXtLarge": 48, "ConvNeXtXLarge": 48, "EfficientNetB5": 48, "EfficientNetB6": 48, "EfficientNetB7": 48,
    "EfficientNetV2M": 48, "EfficientNetV2L": 48, "InceptionResNetV2": 80,
}  # fmt: skip


def rows_of(name, size, options, folder):
    model = os.path.join(folder, "model.keras")
    subprocess.run([sys.executable, os.path.join(HERE, "make_model.py"), "--out", model, "--architecture", name, "--size", str(size)],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    out = subprocess.run([os.path.join(options.bin, "lockstep-memory-bench"), model, "--size", str(size),
                          "--samples", *map(str, options.samples), "--parts", *map(str, options.parts), "--optimizers", "sgd", "adam",
                          "--rounds", str(options.rounds)], capture_output=True, text=True)  # fmt: skip
    if out.returncode != 0:
        raise SystemExit(f"{name}: {out.stderr}")
    sys.stderr.write(out.stderr)
    return [json.loads(line) for line in out.stdout.splitlines()]


def cell(row):
    return f"{row['predicted_bytes']} | {row['ratio']:.5f}"


def table_line(name, size, samples, rows):
    """Of one model and micro-batch: without and with recomputation, each with both optimizers."""
    by = {(row["segments"] > 0, row["optimizer"]): row for row in rows}
    cells = [cell(by[key]) if key in by else "- | -" for key in ((False, "sgd"), (False, "adam"), (True, "sgd"), (True, "adam"))]
    twice = by.get((True, "sgd"))
    share = f"{twice['step_bytes'] / twice['plain_step_bytes']:.2f}" if twice else "-"
    mark = " *" if name in WRITTEN_WITH else ""
    return f"| {name}{mark} | {size} | {samples} | {' | '.join(cells[:2])} | {share} | {' | '.join(cells[2:])} |"


HEADER = ("| model | pixels | samples | SGD, predicted bytes | ratio | Adam, predicted bytes | ratio | recomputed to | SGD, predicted bytes | ratio | "
          "Adam, predicted bytes | ratio |\n" + "|---" * 12 + "|")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of lockstep-memory-bench")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--samples", nargs="*", type=int, default=[8, 16, 40])
    parser.add_argument("--parts", nargs="*", type=float, default=[1, 0.6], help="of a step's memory without recomputation")
    parser.add_argument("--rounds", type=int, default=0, help="also compare the time of a step with and without, so often")
    parser.add_argument("--json", help="also write every figure to this file, a line of JSON each")
    options = parser.parse_args()
    print(HEADER, flush=True)
    ratios = []
    with tempfile.TemporaryDirectory() as folder, open(options.json or os.devnull, "w", encoding="utf-8") as every:
        for name in options.models:
            size = MODELS.get(name, 96)
            rows = rows_of(name, size, options, folder)
            for samples in options.samples:
                these = [row for row in rows if row["samples"] == samples]
                print(table_line(name, size, samples, these), flush=True)
            for row in rows:
                ratios.append(row["ratio"])
                every.write(json.dumps({"model": name, "size": size, **row}) + "\n")
                if options.rounds and row["segments"]:
                    print(f"  {name}, {row['samples']} samples, {row['optimizer']}: a step in {row['step_bytes'] / row['plain_step_bytes']:.2f} of the memory takes "
                          f"{row['time_ratio']:.2f} ({row['time_ratio_low']:.2f} to {row['time_ratio_high']:.2f}) of the time", file=sys.stderr, flush=True)  # fmt: skip
    print(f"\n{len(ratios)} predictions, ratio to what was measured {min(ratios):.5f} to {max(ratios):.5f}")


if __name__ == "__main__":
    main()
