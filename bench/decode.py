"""JPEG files to 224 px floats, images a second and core: Lockstep's pipeline beside torchvision's DataLoader over PIL.

Interleaved rounds, each on one core; the medians, their spread and ratio, and the mean difference of the pixels, as one line of JSON.
Fails if the pixels differ by more than 1/255 on average.
"""
import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile

import numpy as np

HERE = os.path.dirname(os.path.abspath(__file__))


def one_core():
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})


def run(command):
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=one_core)
    return json.loads(done.stdout)


def difference(ours, theirs):
    a, b = np.fromfile(ours, np.float32), np.fromfile(theirs, np.float32)
    if a.size == 0 or a.size != b.size:
        sys.exit(f"ours gave {a.size} floats, theirs {b.size}")
    return float(np.abs(a - b).mean())


def summary(rates):
    return {"median": round(statistics.median(rates), 1), "lowest": round(min(rates), 1), "highest": round(max(rates), 1)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", default=os.path.join(HERE, "..", "build", "release", "bin"), help="where Lockstep's programs are")
    parser.add_argument("--folder", help="class folders of JPEGs; default: 200 generated ones of 500x375 pixels, quality 87")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--passes", type=int, default=3, help="over the folder, in a round")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder
        if folder is None:
            subprocess.run([os.path.join(arguments.bin, "lockstep-make-pictures"), "--out", scratch, "--train", "200", "--validation", "0",
                            "--size", "500x375", "--quality", "87"], check=True, stdout=subprocess.DEVNULL)
            folder = os.path.join(scratch, "train")
        same = ["--folder", folder, "--size", str(arguments.size)]
        ours = [os.path.join(arguments.bin, "lockstep-decode-bench")] + same
        theirs = [sys.executable, os.path.join(HERE, "peer_torchvision.py")] + same
        dumps = [os.path.join(scratch, name) for name in ("ours", "full", "theirs")]
        run(ours + ["--dump", dumps[0]])
        run(ours + ["--full-decode", "--dump", dumps[1]])
        run(theirs + ["--dump", dumps[2]])
        differences = {"scaled": difference(dumps[0], dumps[2]), "full_decode": difference(dumps[1], dumps[2])}
        rates = {"lockstep": [], "torchvision": []}
        for _ in range(arguments.rounds):
            for name, command in (("lockstep", ours), ("torchvision", theirs)):
                figures = run(command + ["--passes", str(arguments.passes)])
                rates[name].append(figures["images"] / figures["cpu_seconds"])
        ratios = [a / b for a, b in zip(rates["lockstep"], rates["torchvision"])]
        print(json.dumps({"images_per_core_second": {name: summary(values) for name, values in rates.items()},
                          "ratio": {"median": round(statistics.median(ratios), 2), "lowest": round(min(ratios), 2),
                                    "highest": round(max(ratios), 2), "goal": 2.5},
                          "mean_pixel_difference_in_255ths": {name: round(255 * value, 3) for name, value in differences.items()}}))
        if max(differences.values()) >= 1 / 255:
            sys.exit("the pixels differ by 1/255 or more on average")


if __name__ == "__main__":
    main()
