"""Ctrl-C: once ends at a step, twice ends at once; either way nothing is left."""

import os
import shutil
import signal
import unittest

from tests.cluster import harness


class InterruptTest(harness.ClusterTest):
    def start_long_fit(self, *arguments):
        process = self.start(
            "lockstep", "fit", harness.model("tiny.keras"), "--train", harness.TRAIN, "--batch", 16, "--epochs", 100000, "--replicas", 2,
            "--out", self.path("a.keras"), "--step-log", self.path("a.jsonl"), "--summary", self.path("a.json"), *arguments)  # fmt: skip
        self.addCleanup(process.kill)
        self.wait_for("three steps", lambda: os.path.exists(self.path("a.jsonl")) and len(self.read_whole_lines()) >= 3)
        return process

    def read_whole_lines(self):
        with open(self.path("a.jsonl"), encoding="utf-8") as file:
            return [line for line in file if line.endswith("\n")]

    def test_once(self):
        process = self.start_long_fit()
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130, out + err)
        self.assertIn("cancelling", err)
        self.assertFalse(os.path.exists(self.path("a.keras")))
        summary = self.read_json("a.json")
        self.assertEqual(summary["state"], "CANCELLED")
        steps = self.read_steps("a.jsonl")
        self.assertEqual([step["step"] for step in steps], list(range(1, len(steps) + 1)), "a whole log, without gaps")
        self.assertEqual(summary["state_hash"], steps[-1]["state_hash"])

    def test_twice(self):
        process = self.start_long_fit()
        # All of them stopped: the job cannot end by itself.
        for pid, name in self.processes():
            if "lockstep-trainer" in name:
                os.kill(pid, signal.SIGSTOP)
        process.send_signal(signal.SIGINT)
        process.stderr.readline()
        self.wait_for("the first one to be heard", lambda: "cancelling" in process.stderr.readline())
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
        self.assertEqual(process.returncode, 130)

    def test_sigterm_is_the_same(self):
        process = self.start_long_fit()
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)

    def test_at_the_very_start(self):
        process = self.start(
            "lockstep", "fit", harness.model("tiny.keras"), "--train", harness.TRAIN, "--batch", 16, "--epochs", 100000, "--out",
            self.path("a.keras"))  # fmt: skip
        self.wait_for("the first child", lambda: len(self.processes()) > 1)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=60)
        self.assertEqual(process.returncode, 130)

    def test_when_it_is_killed_its_processes_end_with_it(self):
        process = self.start_long_fit()
        process.kill()
        process.communicate(timeout=60)
        self.wait_for("all processes to end", lambda: not self.processes())
        # Nobody was left to remove the folder.
        for name in os.listdir(self.temporary):
            shutil.rmtree(os.path.join(self.temporary, name))


if __name__ == "__main__":
    unittest.main(verbosity=2)
