"""Predicted and measured peak of tensor memory of one virtual replica's step with its state, for models of keras.applications: micro-batches below,
at and above the change of regime at 16 samples, SGD and Adam, without and with recomputation. Prints a table in Markdown."""

import argparse
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
# Pictures as small as each model takes them. The first two were used while the prediction was written, the others not.
WRITTEN_WITH = ("MobileNetV2", "ResNet50")
MODELS = {
    "MobileNetV2": 128, "ResNet50": 96, "VGG16": 64, "VGG19": 64, "ResNet101": 64, "ResNet152": 64, "ResNet50V2": 64, "ResNet101V2": 64,
    "ResNet152V2": 64, "DenseNet121": 64, "DenseNet169": 64, "DenseNet201": 64, "EfficientNetB0": 64, "EfficientNetB1": 64, "EfficientNetB2": 64,
    "EfficientNetB3": 64, "EfficientNetB4": 64, "EfficientNetV2B0": 64, "EfficientNetV2B1": 64, "EfficientNetV2B2": 64, "EfficientNetV2B3": 64,
    "EfficientNetV2S": 64, "InceptionV3": 96, "InceptionResNetV2": 96, "Xception": 80, "MobileNet": 96, "MobileNetV3Small": 96,
    "MobileNetV3Large": 96, "NASNetMobile": 96, "ConvNeXtTiny": 64, "ConvNeXtSmall": 64,
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


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of lockstep-memory-bench")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--samples", nargs="*", type=int, default=[8, 16, 40])
    parser.add_argument("--parts", nargs="*", type=float, default=[1, 0.6], help="of a step's memory without recomputation")
    parser.add_argument("--rounds", type=int, default=0, help="also compare the time of a step with and without, so often")
    options = parser.parse_args()
    times = " | time, ratio | lowest | highest" if options.rounds else ""
    print(f"| model | pixels | samples | optimizer | recomputed | predicted, bytes | measured, bytes | ratio | at the peak{times} |")
    print("|---" * (9 + (3 if options.rounds else 0)) + "|")
    ratios = []
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            size = MODELS.get(name, 96)
            for row in rows_of(name, size, options, folder):
                ratios.append(row["ratio"])
                share = f"{row['step_bytes'] / row['plain_step_bytes']:.2f} of the step" if row["segments"] else "no"
                times = f" | {row['time_ratio']:.2f} | {row['time_ratio_low']:.2f} | {row['time_ratio_high']:.2f}" if options.rounds else ""
                mark = " *" if name in WRITTEN_WITH else ""
                note = "" if row["method"].startswith("steps of") else f" {row['method']}"
                print(f"| {name}{mark} | {size} | {row['samples']} | {row['optimizer']} | {share} | {row['predicted_bytes']} | {row['measured_bytes']} | "
                      f"{row['ratio']:.5f} | {row['place']}{times} |{note}", flush=True)  # fmt: skip
    print(f"\n{len(ratios)} rows, ratio {min(ratios):.5f} to {max(ratios):.5f}")


if __name__ == "__main__":
    main()
