"""What all fault drills share: an undisturbed run to compare with, a job on a cluster, and ways to hurt it."""

import contextlib
import json
import os
import random
import shutil
import signal

from tests.cluster import harness


def longest_standstill(events):
    """Seconds between two steps that were committed one after the other, at most."""
    moments = [event["step"]["committed_unix_us"] / 1e6 for event in events if "step" in event]
    return max(after - before for before, after in zip(moments, moments[1:]))


class DrillTest(harness.ClusterTest):
    """A job of several epochs, each with a validation; five virtual replicas, so that no number of replicas but one divides them."""

    steps = 400
    slots = 3
    replicas = "{min: 1, max: 3, threads: 1}"
    workers = 1
    coordinator_flags = ()
    undisturbed = {}

    def setUp(self):
        super().setUp()
        self.seed = int(os.environ.get("LOCKSTEP_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
        print("LOCKSTEP_TEST_SEED =", self.seed)
        self.random = random.Random(self.seed)
        if self.steps not in DrillTest.undisturbed:
            DrillTest.undisturbed[self.steps] = self.fit("alone", *self.job_flags(), batch=20, epochs=0)
        self.start_cluster()

    def start_cluster(self):
        self.cluster = harness.RunningCluster(
            self, workers=self.workers, slots=self.slots, coordinator_flags=self.coordinator_flags)

    def start_with(self, points=""):
        """A cluster whose trainers have these fail-points."""
        os.mkdir(self.path("points"))
        self.cluster = harness.RunningCluster(self, workers=0, coordinator_flags=self.coordinator_flags)
        self.cluster.start_worker(0, self.slots, {"LOCKSTEP_FAILPOINTS": points, "LOCKSTEP_FAILPOINT_DIR": self.path("points")})

    def stop_cluster(self):
        """As before it was started: no process, no folder."""
        for pid, _ in self.processes():
            self.kill(pid, signal.SIGCONT)
        for process in self.cluster.processes[1:] + self.cluster.processes[:1]:
            process.kill()
            process.wait()
        self.wait_for("all processes to be gone", lambda: not self.processes())
        for name in os.listdir(self.folder):
            if name == "coordinator" or (name.startswith("worker") and os.path.isdir(self.path(name))):
                shutil.rmtree(self.path(name))

    def job_flags(self):
        return ("--validation", harness.VALIDATION, "--steps", self.steps, "--virtual-replicas", 5, "--seed", 3)

    def submit(self, replicas=None, flags=()):
        with open(self.path("job.yaml"), "w", encoding="utf-8") as file:
            file.write(f"replicas: {replicas or self.replicas}\n")
        return self.cluster.submit(*self.job_flags(), "--batch", 20, "--job", self.path("job.yaml"), *flags)

    def trainers(self, role="lockstep-trainer"):
        return sorted(pid for pid, command in self.processes() if role in command)

    def describe(self, job):
        return self.cluster.json("describe", job)

    def step(self, job):
        return int(self.describe(job).get("latest", {}).get("step", 0))

    def wait_for_step(self, job, step, timeout=60):
        self.wait_for(f"step {step}", lambda: self.step(job) >= step or self.has_ended(job), timeout)

    def has_ended(self, job):
        return self.describe(job)["state"] in ("DONE", "FAILED", "CANCELLED", "REFUSED")

    def members(self, job):
        """Pids of those that train, by rank."""
        return [int(replica.get("pid", 0)) for replica in self.describe(job).get("replicas", []) if replica["state"] == "running"]

    def wait_for_members(self, job, count, timeout=60):
        def there():
            members = self.members(job)
            return members if len(members) == count and all(members) else None

        return self.wait_for(f"{count} replicas", there, timeout)

    @staticmethod
    def kill(pid, how=signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, how)

    def events(self, job, timeout=100):
        return [json.loads(line) for line in self.cluster.succeed("watch", job, "--json", timeout=timeout).out.splitlines()]

    def assert_undisturbed_bits(self, job, timeout=100):
        """The job ends well, every step of it once, and in every step it had the state of the undisturbed run."""
        events = self.events(job, timeout)
        described = self.describe(job)
        states = [event["state"].get("reason") for event in events if "state" in event]
        self.assertEqual(described["state"], "DONE", states)
        steps = [event["step"] for event in events if "step" in event]
        self.assertEqual([int(step["step"]) for step in steps], list(range(1, self.steps + 1)))
        self.assertEqual([step["state_hash"] for step in steps], DrillTest.undisturbed[self.steps].hashes, states)
        epochs = [event["epoch"]["epoch"] for event in events if "epoch" in event]
        self.assertEqual(epochs, list(range(1, len(epochs) + 1)))
        self.assertEqual([int(event["sequence"]) for event in events], list(range(1, len(events) + 1)))
        self.assertEqual(described["result"]["state_hash"], DrillTest.undisturbed[self.steps].summary["state_hash"])
        ledger = self.run_lockstep("ledger", job, "--verify", "--data", harness.TRAIN, *self.cluster.flags())
        self.assertEqual(ledger.code, 0, ledger.out + ledger.err)
        return states
