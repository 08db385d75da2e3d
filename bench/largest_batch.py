"""The largest batch that trains within a given resident memory: Lockstep, Keras and PyTorch DDP, one replica each.

A peer is run with more and more samples, by bisection, until the peak of its process tree (bench/process_tree.py) is above the memory. Lockstep
is asked: `lockstep plan` says the largest batch for that limit, and it is run once to see that it stays within. With one virtual replica, whose
samples go through the graph together as a peer's do; and with the eight of the default, one after another.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile

import process_tree

HERE = os.path.dirname(os.path.abspath(__file__))
MIB = 1 << 20
# Of the limit, for the client, the coordinator and the worker of a run on one machine.
AROUND = 160 * MIB


def peer_peak(script, arguments, extra, batch):
    command = [sys.executable, os.path.join(HERE, script), "--train", arguments.train, "--size", str(arguments.size), "--batch", str(batch),
               "--steps", "3", "--warmup", "1", "--replicas", "1"] + extra  # fmt: skip
    finished = process_tree.run(command, arguments.timeout)
    if finished.returncode != 0:
        raise SystemExit(f"{script} failed:\n{finished.output[-3000:]}")
    return finished.peak_bytes


def largest_of_peer(name, script, arguments, extra):
    fits, above, peak = 0, None, 0
    batch = arguments.first
    while above is None or above - fits > max(1, fits // 8):
        took = peer_peak(script, arguments, extra, batch)
        print(f"  {name}: {batch} samples take {took / MIB:.0f} MiB", file=sys.stderr, flush=True)
        if took <= arguments.memory * MIB:
            fits, peak = batch, took
        else:
            above = batch
        batch = fits * 2 if above is None else (fits + above) // 2
        if above is not None and batch in (fits, above):
            break
    return {"batch": fits, "peak_mib": round(peak / MIB)}


def lockstep(arguments, *command):
    return [os.path.join(arguments.bin, "lockstep"), *command]


def largest_of_lockstep(arguments, model, virtual_replicas, folder):
    limit = arguments.memory * MIB - AROUND
    # The regime in which the answer is expected, so that it is recorded first.
    shared = ["--train", arguments.train, "--virtual-replicas", str(virtual_replicas), "--replicas", "1", "--memory-limit", str(limit)]
    planned = subprocess.run(lockstep(arguments, "plan", model, *shared, "--batch", str(16 * virtual_replicas), "--json"), capture_output=True, text=True)
    if planned.returncode != 0:
        raise SystemExit(f"lockstep plan failed:\n{planned.stderr[-3000:]}")
    batch = json.loads(planned.stdout)["largest_batch"]
    print(f"  lockstep: {batch} samples are said to fit, V = {virtual_replicas}", file=sys.stderr, flush=True)
    # A step has no more samples than there are pictures.
    pictures = sum(len(files) for _, _, files in os.walk(arguments.train))
    batch = min(batch, pictures // virtual_replicas * virtual_replicas)
    finished = process_tree.run(
        lockstep(arguments, "fit", model, *shared, "--batch", str(batch), "--steps", "1", "--out", os.path.join(folder, "trained.keras")),
        arguments.timeout)  # fmt: skip
    if finished.returncode != 0:
        raise SystemExit(f"lockstep fit failed:\n{finished.output[-3000:]}")
    return {"batch": batch, "peak_mib": round(finished.peak_bytes / MIB)}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--bin", required=True, help="folder of the built programs")
    parser.add_argument("--train", required=True, help="folder of class folders")
    parser.add_argument("--architecture", default="ResNet50")
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--memory", type=int, default=4096, help="MiB of resident memory, of all processes together")
    parser.add_argument("--first", type=int, default=16, help="the batch with which peers begin")
    parser.add_argument("--peers", nargs="*", choices=["keras", "ddp"], default=["keras", "ddp"])
    parser.add_argument("--virtual-replicas", type=int, nargs="*", default=[1, 8])
    parser.add_argument("--timeout", type=float, default=3600)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.keras")
        subprocess.run([sys.executable, os.path.join(HERE, "make_model.py"), "--architecture", arguments.architecture, "--size",
                        str(arguments.size), "--out", model], check=True, stderr=subprocess.DEVNULL)  # fmt: skip
        peers = {"keras": ("peer_keras.py", ["--model", model]), "ddp": ("peer_ddp.py", ["--architecture", arguments.architecture])}
        best = 0
        for name in arguments.peers:
            peer = largest_of_peer(name, peers[name][0], arguments, peers[name][1])
            best = max(best, peer["batch"])
            print(f"{arguments.architecture}, {arguments.size} px, {arguments.memory} MiB, {name}: {json.dumps(peer)}", flush=True)
        for virtual_replicas in arguments.virtual_replicas:
            ours = largest_of_lockstep(arguments, model, virtual_replicas, folder)
            within = "" if ours["peak_mib"] <= arguments.memory else ", ABOVE THE MEMORY"
            times = f", {ours['batch'] / best:.1f} times the better peer" if best else ""
            print(f"lockstep, V = {virtual_replicas}: {json.dumps(ours)}{times}{within}", flush=True)


if __name__ == "__main__":
    main()
