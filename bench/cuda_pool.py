"""What the pool of a CUDA device takes for training models of keras.applications (float32, Adam, one virtual replica), without a GPU: by the model
of the allocator, and by c10's own allocator over a runtime without a device, which must say the same after every event. Prints a table in Markdown."""

import argparse
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
# Not used while the model of the allocator was written; it was written from its source.
MODELS = ("ResNet50", "MobileNetV2", "VGG16", "DenseNet121", "InceptionV3", "EfficientNetB0", "ConvNeXtTiny", "NASNetMobile")


def rows_of(name, options, folder):
    model = os.path.join(folder, "model.keras")
    subprocess.run([sys.executable, os.path.join(HERE, "make_model.py"), "--out", model, "--architecture", name, "--size", str(options.size)],
                   check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
    out = subprocess.run([os.path.join(options.bin, "lockstep-cuda-pool-bench"), model, "--size", str(options.size),
                          "--samples", *map(str, options.samples)], capture_output=True, text=True)  # fmt: skip
    if out.returncode != 0:
        raise SystemExit(f"{name}: {out.stderr}")
    return [json.loads(line) for line in out.stdout.splitlines()]


def line_of(name, row):
    same = row["difference"] or "none"
    if not row["difference"] and (row["allocated_bytes"], row["reserved_bytes"]) != (row["real_allocated_bytes"], row["real_reserved_bytes"]):
        same = "peaks"
    elsewhere = row["highest_reserved_bytes"] / row["reserved_bytes"] - 1
    return (f"| {name} | {row['samples']} | {row['events']:,} | {row['allocated_bytes']} | {row['reserved_bytes']} | "
            f"{row['reserved_bytes'] / row['allocated_bytes']:.3f} | {same} | {row['settled_after_steps']} | {100 * elsewhere:+.2f} % |")  # fmt: skip


HEADER = ("| model | samples | events | allocated | reserved | ratio | difference to c10's own | steps until it settles | reserved, placed highest |\n"
          + "|---" * 9 + "|")  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of lockstep-cuda-pool-bench")
    parser.add_argument("--models", nargs="*", default=list(MODELS))
    parser.add_argument("--size", type=int, default=224, help="of a square picture")
    parser.add_argument("--samples", nargs="*", type=int, default=[8, 32, 64])
    parser.add_argument("--json", help="also write every figure to this file, a line of JSON each")
    options = parser.parse_args()
    print(HEADER, flush=True)
    failed = 0
    with tempfile.TemporaryDirectory() as folder, open(options.json or os.devnull, "w", encoding="utf-8") as every:
        for name in options.models:
            for row in rows_of(name, options, folder):
                line = line_of(name, row)
                failed += " none |" not in line
                print(line, flush=True)
                every.write(json.dumps({"model": name, "size": options.size, **row}) + "\n")
    if failed:
        raise SystemExit(f"{failed} of them differ from c10's own allocator")


if __name__ == "__main__":
    main()
