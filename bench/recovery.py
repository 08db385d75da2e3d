"""From SIGKILL of one of four trainers to the next committed step, beside elastic torchrun on the same work.

Lockstep: a job on four replicas; every now and then one is killed, the others go on, another joins. torchrun: DDP over gloo with four processes and
--max-restarts, a checkpoint every 10 steps; TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1, without which it often hangs. Figures are seconds from the
kill to the first step that is committed after it and was not before, minus the median step of the new membership; and the steps that were
committed and had to be computed again.
"""

import argparse
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from cluster import Cluster, wait_for

HERE = os.path.dirname(os.path.abspath(__file__))


def children(pid):
    out = subprocess.run(["ps", "-o", "pid=", "--ppid", str(pid)], capture_output=True, text=True, check=False).stdout
    return [int(word) for word in out.split()]


class Recovery:
    """What a kill cost: `commits` are (seconds since 1970, step), in order."""

    def __init__(self, killed, commits):
        done = [step for when, step in commits if when <= killed]
        last = max(done, default=0)
        after = [(when, step) for when, step in commits if when > killed]
        first = next((when for when, step in after if step > last), None)
        self.complete = first is not None and len(after) > 8
        if not self.complete:
            return
        fresh = [when for when, step in after if step > last][:8]
        self.step = statistics.median(b - a for a, b in zip(fresh, fresh[1:]))
        self.seconds = first - killed - self.step
        self.lost = max(0, last - min(step for _, step in after) + 1)


def lockstep(options, folder, model):
    with Cluster(options.bin, folder, slots=4) as cluster:
        job = cluster.submit(
            "{min: 1, max: 4, threads: 1}", model, "--train", options.train, "--batch", options.batch, "--steps", 1_000_000, "--image-size",
            options.size, "--virtual-replicas", 4, "--checkpoint-every", "10 steps")  # fmt: skip
        kills = []
        for _ in range(options.kills):
            after = cluster.step(job) + 10

            def four(after=after):
                status = cluster.describe(job)
                pids = [int(one.get("pid", 0)) for one in status.get("replicas", []) if one["state"] == "running"]
                return pids if len(pids) == 4 and all(pids) and int(status.get("latest", {}).get("step", 0)) > after else None

            victim = options.random.choice(wait_for(four, 120, "four replicas"))
            time.sleep(options.random.random() * 0.3)
            kills.append(time.time())
            os.kill(victim, signal.SIGKILL)
        after = cluster.step(job) + 30
        wait_for(lambda: cluster.step(job) > after, 120, "the last recovery")
        cluster.command("cancel", job)
        wait_for(lambda: cluster.describe(job)["state"] == "CANCELLED", 30, "the end")
        commits = [(step["committed_unix_us"] / 1e6, step["step"]) for step in cluster.steps(job)]
        return [Recovery(killed, commits) for killed in kills]


def torchrun(options, folder):
    steps = os.path.join(folder, "steps")
    open(steps, "w", encoding="utf-8").close()
    environment = {**os.environ, "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1", "OMP_NUM_THREADS": "1"}
    agent = subprocess.Popen([sys.executable, "-m", "torch.distributed.run", "--standalone", "--nnodes=1", "--nproc-per-node=4", "--max-restarts=1000",
                              os.path.join(HERE, "peer_torchrun.py"), "--train", options.train, "--batch", str(options.batch), "--size", str(options.size),
                              "--steps", steps, "--checkpoint", os.path.join(folder, "checkpoint.pt")], env=environment, stdin=subprocess.DEVNULL,
                             stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip

    def commits():
        with open(steps, encoding="utf-8") as file:
            return [(float(when), int(step)) for when, step in (line.split() for line in file if line.endswith("\n"))]

    try:
        kills = []
        for _ in range(options.kills):
            since = time.time()
            wait_for(lambda: len([1 for when, _ in commits() if when > since]) > 14, 180, "torchrun's steps")
            time.sleep(options.random.random() * 0.3)
            kills.append(time.time())
            os.kill(options.random.choice(children(agent.pid)), signal.SIGKILL)
        since = time.time()
        wait_for(lambda: len([1 for when, _ in commits() if when > since]) > 30, 180, "the last recovery")
        return [Recovery(killed, commits()) for killed in kills]
    finally:
        for pid in children(agent.pid):
            os.kill(pid, signal.SIGKILL)
        agent.kill()
        agent.wait()


def figures(recoveries):
    whole = [one for one in recoveries if one.complete]
    seconds = sorted(one.seconds for one in whole)
    return {
        "kills": len(recoveries), "measured": len(whole), "median_seconds": statistics.median(seconds),
        "p95_seconds": seconds[min(len(seconds) - 1, int(0.95 * len(seconds)))], "most_seconds": seconds[-1],
        "median_step_seconds": statistics.median(one.step for one in whole), "steps_lost": statistics.mean(one.lost for one in whole),
    }  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bin", required=True)
    parser.add_argument("--train", required=True, help="folder of class folders")
    parser.add_argument("--rounds", type=int, default=3, help="of each, in turn")
    parser.add_argument("--kills", type=int, default=8, help="a round")
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1 << 32))
    parser.add_argument("--json")
    parser.add_argument("--no-peer", action="store_true")
    options = parser.parse_args()
    print("seed", options.seed, flush=True)
    options.random = random.Random(options.seed)
    ours, theirs = [], []
    with tempfile.TemporaryDirectory() as folder:
        model = os.path.join(folder, "model.keras")
        subprocess.run([sys.executable, os.path.join(HERE, "make_model.py"), "--out", model, "--architecture", "MobileNetV2", "--size", str(options.size)],
                       check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # fmt: skip
        for round_number in range(options.rounds):
            os.mkdir(os.path.join(folder, str(round_number)))
            ours += lockstep(options, os.path.join(folder, str(round_number)), model)
            if not options.no_peer:
                theirs += torchrun(options, os.path.join(folder, str(round_number)))
    result = {"lockstep": figures(ours)} | ({"torchrun": figures(theirs)} if theirs else {})
    print("| | kills | median, s | 95th percentile, s | most, s | a step, s | steps lost |\n|---|---|---|---|---|---|---|")
    for name, one in result.items():
        print(f"| {name} | {one['kills']} | {one['median_seconds']:.3f} | {one['p95_seconds']:.3f} | {one['most_seconds']:.3f} | "
              f"{one['median_step_seconds']:.3f} | {one['steps_lost']:.1f} |")  # fmt: skip
    if options.json:
        with open(options.json, "w", encoding="utf-8") as file:
            json.dump(result, file, indent=1)


if __name__ == "__main__":
    main()
