"""The coordinator is killed, and started again on the same folder and port: what it answered "yes" to is there, training went on
meanwhile, and the bits are those of an undisturbed run."""

import json
import os
import random
import signal
import unittest
import urllib.request

from tests.cluster import harness

STEPS = 500


class RestartTest(harness.ClusterTest):
    @classmethod
    def setUpClass(cls):
        cls.undisturbed = None

    def setUp(self):
        super().setUp()
        if RestartTest.undisturbed is None:
            fit = self.fit("alone", "--steps", STEPS, "--virtual-replicas", 4, "--seed", 3, epochs=0)
            RestartTest.undisturbed = fit.hashes
        self.cluster = harness.RunningCluster(self, worker_flags=("--ready-file", self.path("worker.ready")))

    def submit(self, replicas=1):
        return self.cluster.submit(
            "--batch", 16, "--steps", STEPS, "--virtual-replicas", 4, "--seed", 3, "--replicas", replicas)  # fmt: skip

    def kill_coordinator(self):
        self.cluster.coordinator.send_signal(signal.SIGKILL)
        self.cluster.coordinator.wait()

    def start_again(self):
        self.cluster.start_coordinator(self.cluster.address)

    def described(self, job):
        return self.cluster.json("describe", job)

    def step(self, job):
        return int(self.described(job).get("latest", {}).get("step", 0))

    def wait_for_step(self, job, step):
        self.wait_for(f"step {step}", lambda: self.step(job) >= step)

    def trainers(self):
        return sorted(pid for pid, command in self.processes() if "lockstep-trainer" in command)

    def assert_undisturbed_bits(self, job):
        """Done, every event and every step once and in order, each with the state's hash of the run that nobody disturbed."""
        events = [json.loads(line) for line in self.cluster.succeed("watch", job, "--json", timeout=180).out.splitlines()]
        self.assertEqual([int(event["sequence"]) for event in events], list(range(1, len(events) + 1)))
        steps = [event["step"] for event in events if "step" in event]
        self.assertEqual([int(step["step"]) for step in steps], list(range(1, STEPS + 1)))
        self.assertEqual([step["state_hash"] for step in steps], self.undisturbed)
        self.assertEqual(self.described(job)["state"], "DONE")
        self.cluster.succeed("download", job, "--out", self.path(f"{job}.keras"))

    def worker_steps(self):
        with open(self.path("worker.ready"), encoding="utf-8") as file:
            address = json.load(file)["metrics"]
        with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as page:
            lines = page.read().decode().splitlines()
        return max((float(line.split()[-1]) for line in lines if line.startswith("lockstep_trainer_steps_total{")), default=0)

    def test_training_goes_on_while_the_coordinator_is_away(self):
        job = self.submit()
        self.wait_for_step(job, 20)
        trainers = self.trainers()
        self.kill_coordinator()
        before = self.worker_steps()
        self.wait_for("steps without a coordinator", lambda: self.worker_steps() > before + 10)
        self.start_again()
        self.assertEqual(self.trainers(), trainers, "the trainer that ran goes on")
        self.assert_undisturbed_bits(job)
        self.assertEqual(int(self.described(job)["generation"]), 1)

    def test_a_trainer_that_dies_meanwhile_is_started_again(self):
        job = self.submit()
        self.wait_for_step(job, 20)
        self.kill_coordinator()
        for pid in self.trainers():
            os.kill(pid, signal.SIGKILL)
        self.start_again()
        self.assert_undisturbed_bits(job)
        self.assertEqual(int(self.described(job)["generation"]), 2)

    def test_a_submitted_job_is_there_after_a_kill_at_once(self):
        job = self.submit()
        self.kill_coordinator()
        self.start_again()
        self.assert_undisturbed_bits(job)

    def test_kills_at_random_moments_with_two_replicas(self):
        seed = int(os.environ.get("LOCKSTEP_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
        print("LOCKSTEP_TEST_SEED =", seed)
        moments = sorted(random.Random(seed).sample(range(1, STEPS * 3 // 4), 4))
        job = self.submit(replicas=2)
        for moment in moments:
            self.wait_for_step(job, moment)
            self.kill_coordinator()
            self.start_again()
        self.assert_undisturbed_bits(job)

    def test_sigterm_drains_and_a_restart_goes_on(self):
        job = self.submit()
        self.wait_for_step(job, 20)
        watch = self.start("lockstep", "watch", job, "--json", *self.cluster.flags())
        self.addCleanup(watch.kill)
        self.cluster.coordinator.send_signal(signal.SIGTERM)
        self.assertEqual(self.cluster.coordinator.wait(timeout=10), 0)
        self.assertFalse(os.path.exists(self.path("coordinator.ready")))
        self.start_again()
        out, err = watch.communicate(timeout=180)
        self.assertEqual(watch.returncode, 0, err)
        self.assertEqual([json.loads(line)["step"]["state_hash"] for line in out.splitlines() if '"step":{' in line], self.undisturbed)
        self.assert_undisturbed_bits(job)
        self.assertEqual(int(self.described(job)["generation"]), 1)

    def test_a_second_coordinator_on_the_same_folder_is_refused(self):
        second = self.start(
            "lockstep-coordinator", "--listen", "127.0.0.1:0", "--http", "", "--state-dir", self.path("coordinator"), "--token-file",
            self.cluster.token_file)  # fmt: skip
        _, err = second.communicate(timeout=30)
        self.assertEqual(second.returncode, 2)
        self.assertIn("in use by another coordinator", err)


if __name__ == "__main__":
    unittest.main(verbosity=2)
