"""A trainer is killed at a random moment: the others go on in their processes, from live state, in one more generation, and the state has
the bits of the undisturbed run in every step."""

import json
import os
import random
import signal
import unittest

from tests.cluster import harness

# So many that a kill that is meant for the first third does not come after the last.
STEPS = 600
RUNS = 3


class KillTest(harness.ClusterTest):
    undisturbed = None

    def setUp(self):
        super().setUp()
        self.seed = int(os.environ.get("LOCKSTEP_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
        print("LOCKSTEP_TEST_SEED =", self.seed)
        self.random = random.Random(self.seed)
        if KillTest.undisturbed is None:
            KillTest.undisturbed = self.fit("alone", *self.job(), batch=20, epochs=0)
        self.cluster = harness.RunningCluster(self, slots=3)

    @staticmethod
    def job():
        """Several epochs, each with a validation; five virtual replicas over three, two and one."""
        return ("--validation", harness.VALIDATION, "--steps", STEPS, "--virtual-replicas", 5, "--seed", 3)

    def trainers(self):
        return sorted(pid for pid, command in self.processes() if "lockstep-trainer" in command)

    def described(self, job):
        return self.cluster.json("describe", job)

    def step(self, job):
        return int(self.described(job).get("latest", {}).get("step", 0))

    def submit(self):
        with open(self.path("job.yaml"), "w", encoding="utf-8") as file:
            file.write("replicas: {min: 1, max: 3, threads: 1}\n")
        return self.cluster.submit(*self.job(), "--batch", 20, "--job", self.path("job.yaml"))

    def assert_undisturbed_bits(self, job, generation):
        events = [json.loads(line) for line in self.cluster.succeed("watch", job, "--json", timeout=100).out.splitlines()]
        described = self.described(job)
        self.assertEqual(described["state"], "DONE", described)
        steps = [event["step"] for event in events if "step" in event]
        self.assertEqual([int(step["step"]) for step in steps], list(range(1, STEPS + 1)))
        self.assertEqual([step["state_hash"] for step in steps], self.undisturbed.hashes)
        epochs = [event["epoch"]["epoch"] for event in events if "epoch" in event]
        self.assertEqual(epochs, list(range(1, len(epochs) + 1)))
        states = [event["state"].get("reason") for event in events if "state" in event]
        last = [int(step["generation"]) for step in steps].index(max(int(step["generation"]) for step in steps)) + 1
        self.assertEqual(int(described["generation"]), generation, f"first step of the newest generation: {last}; states: {states}")

    def kill(self, job, pid, survivors):
        os.kill(pid, signal.SIGKILL)
        self.wait_for(
            "a smaller generation", lambda: len(self.described(job).get("replicas", [])) == len(survivors) or self.state_of(job) == "DONE")
        self.assertLessEqual(set(self.trainers()), set(survivors), "nobody was started anew")

    def state_of(self, job):
        return self.described(job)["state"]

    def test_one_of_three_at_a_random_step(self):
        for _ in range(RUNS):
            job = self.submit()
            moment = self.random.randrange(1, STEPS // 3)
            self.wait_for(f"step {moment}", lambda: self.step(job) >= moment)
            trainers = self.trainers()
            self.assertEqual(len(trainers), 3)
            victim = self.random.choice(trainers)
            self.kill(job, victim, [pid for pid in trainers if pid != victim])
            self.assert_undisturbed_bits(job, generation=2)

    def test_two_of_three_one_after_the_other(self):
        job = self.submit()
        for left in (2, 1):
            moment = self.step(job) + self.random.randrange(10, 40)
            self.wait_for(f"step {moment}", lambda: self.step(job) >= moment)
            trainers = self.trainers()
            victim = self.random.choice(trainers)
            self.kill(job, victim, [pid for pid in trainers if pid != victim])
            self.assertLessEqual(len(self.trainers()), left)
        self.assert_undisturbed_bits(job, generation=3)

    def test_while_they_load_and_meet(self):
        job = self.submit()
        trainers = self.wait_for("three trainers", lambda: [] if len(self.trainers()) < 3 else self.trainers())
        os.kill(self.random.choice(trainers), signal.SIGKILL)
        self.assert_undisturbed_bits(job, generation=2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
