"""Predicted and measured peak of tensor memory of one virtual replica's step, for models of keras.applications and micro-batches below, at and above
the change of regime at 16 samples. Prints a table in Markdown."""

import argparse
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
# Beside MobileNetV2 and ResNet50, on which the prediction was written.
MODELS = {
    "MobileNetV2": 128, "ResNet50": 96, "VGG16": 96, "DenseNet121": 96, "EfficientNetB0": 96, "InceptionV3": 128, "Xception": 96, "ConvNeXtTiny": 96,
}  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of lockstep-memory-bench")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--samples", nargs="*", type=int, default=[8, 16, 40])
    options = parser.parse_args()
    print("| model | pixels | samples | predicted, bytes | measured, bytes | ratio | at the peak | planned in, s |\n|---|---|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name in options.models:
            size = MODELS.get(name, 96)
            model = os.path.join(folder, "model.keras")
            subprocess.run([sys.executable, os.path.join(HERE, "make_model.py"), "--out", model, "--architecture", name, "--size", str(size)],
                           check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
            for samples in options.samples:
                out = subprocess.run(
                    [os.path.join(options.bin, "lockstep-memory-bench"), model, "--size", str(size), "--samples", str(samples)],
                    check=True, capture_output=True, text=True)  # fmt: skip
                row = json.loads(out.stdout)
                print(f"| {name} | {size} | {samples} | {row['predicted_bytes']} | {row['measured_bytes']} | {row['ratio']:.5f} | {row['place']} | "
                      f"{row['predict_seconds']:.1f} |{' ' + row['note'] if row['note'] else ''}", flush=True)  # fmt: skip


if __name__ == "__main__":
    main()
