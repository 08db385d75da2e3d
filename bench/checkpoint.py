"""What a checkpoint costs the step loop, beside torch.save and fsync of the same bytes.

Lockstep: two jobs that differ in checkpoints alone, interleaved: every 5 steps, and never. Stall: what updates waited for copies, from the worker's metrics,
per checkpoint and 200 MB of state. Overhead: the medians of the step times, as a ratio with a bootstrap interval.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile

from cluster import Cluster, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))


STALL = "lockstep_trainer_checkpoint_stall_seconds_total"
WRITTEN = "lockstep_trainer_checkpoints_total"


class Run:
    """A job of so many steps: their times, and what the worker said of checkpoints while it ran."""

    def __init__(self, options, folder, model, every):
        self.stall = self.written = 0
        with Cluster(options.bin, folder, slots=1) as cluster:
            job = cluster.submit(
                "{min: 1, max: 1, threads: 2}", model, "--train", options.train, "--batch", options.batch, "--steps", options.steps,
                "--virtual-replicas", 2, "--image-size", options.size, "--optimizer", "adam", "--checkpoint-every", every)  # fmt: skip

            def ended():
                self.stall = max(self.stall, cluster.metric(STALL))
                self.written = max(self.written, cluster.metric(WRITTEN))
                return cluster.describe(job)["state"] in ("DONE", "FAILED", "REFUSED")

            wait_for(ended, 600, "the job's end")
            self.seconds = [step["phases"]["total"] for step in cluster.steps(job)][5:]


def torch_save(options, parameters, folder):
    code = f"""
import torch, time, os
state = {{"p": torch.rand({parameters}), "m": torch.rand({parameters}), "v": torch.rand({parameters})}}
times = []
for i in range({options.saves}):
    start = time.perf_counter()
    with open({os.path.join(folder, "torch.pt")!r}, "wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    times.append(time.perf_counter() - start)
print(sorted(times)[len(times) // 2], sum(t.numel() * 4 for t in state.values()))
"""
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    return float(out[0]), int(out[1])


# ResNet50 with ten classes: parameters, two slots of Adam, and statistics.
PARAMETERS = 23_528_522
STATISTICS = 53_120
STATE_BYTES = 4 * (3 * PARAMETERS + STATISTICS)


def interval(ratio_of, a, b, draws=1000):
    values = sorted(ratio_of([random.choice(a) for _ in a], [random.choice(b) for _ in b]) for _ in range(draws))
    return values[draws // 40], values[-draws // 40]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--train", required=True)
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--saves", type=int, default=5)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=96)
    parser.add_argument("--json")
    options = parser.parse_args()
    ratio_of = lambda a, b: statistics.median(a) / statistics.median(b)  # noqa: E731
    with_checkpoints, without = [], []
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.keras")
        subprocess.run([sys.executable, os.path.join(HERE, "make_model.py"), "--out", model, "--architecture", "ResNet50", "--size", str(options.size)],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        stall = written = 0
        for number in range(options.rounds):
            for every, times in (("5 steps", with_checkpoints), ("never", without)):
                own = os.path.join(folder, f"{number}.{every}")
                os.mkdir(own)
                run = Run(options, own, model, every)
                times += run.seconds
                stall += run.stall
                written += run.written
        seconds, size = torch_save(options, PARAMETERS, folder)
    low, high = interval(ratio_of, with_checkpoints, without)
    each = 1000 * stall / max(written, 1)
    result = {"ratio": ratio_of(with_checkpoints, without), "low": low, "high": high, "checkpoints": written, "stall_ms_each": each,
              "state_bytes": STATE_BYTES, "stall_ms_per_200_mb": each * 200e6 / STATE_BYTES, "torch_save_seconds": seconds,
              "torch_save_bytes": size}  # fmt: skip
    print(f"{written:.0f} checkpoints of {STATE_BYTES / 1e6:.0f} MB: updates waited {each:.2f} ms each, {result['stall_ms_per_200_mb']:.2f} ms for 200 MB")
    print(f"steps with a checkpoint every 5 over steps without: {result['ratio']:.3f} ({low:.3f} to {high:.3f}, 95 %)")
    print(f"torch.save and fsync of {size / 1e6:.0f} MB: {seconds:.2f} s, {1000 * seconds * 200e6 / size:.0f} ms for 200 MB")
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
