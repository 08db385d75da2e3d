"""The ledger convicts: a batch that is fed again, a file that changed; and it holds through kills."""

import json
import os
import shutil
import unittest

from tests.cluster import harness
from tests.faults import drills


class LedgerTest(drills.DrillTest):
    steps = 40
    slots = 2

    def start_cluster(self):
        """Each test has one of its own, with what goes wrong in it."""

    def run_job(self, *flags, pictures=harness.TRAIN, **options):
        with open(self.path("job.yaml"), "w", encoding="utf-8") as file:
            file.write("replicas: {min: 2, max: 2, threads: 1}\n")
        job = self.cluster.submit(*self.job_flags(), "--batch", 20, "--job", self.path("job.yaml"), *flags, pictures=pictures, **options)
        self.wait_for("its end", lambda: self.has_ended(job))
        self.assertEqual(self.describe(job)["state"], "DONE")
        return job

    def ledger(self, job, *flags):
        return self.run_lockstep("ledger", job, *flags, *self.cluster.flags())

    def test_every_sample_once_and_printed(self):
        self.start_with("trainer.step=kill@15")
        job = self.run_job()
        self.assertTrue(os.listdir(self.path("points")), "a trainer was killed in between")
        verified = self.ledger(job, "--verify", "--data", harness.TRAIN)
        self.assertEqual(verified.code, 0, verified.out)
        self.assertTrue(verified.out.endswith("verified: every sample once\n"), verified.out)
        listed = self.ledger(job, "--epoch", 2).out
        pictures = sorted(word for line in listed.splitlines() if line.startswith("  virtual replica") for word in line.split(":")[1].split())
        files = sorted(os.path.join(name, file) for name in os.listdir(harness.TRAIN) for file in os.listdir(os.path.join(harness.TRAIN, name)))
        self.assertEqual(pictures, files)
        # Elsewhere, without a coordinator.
        with open(self.path("ledger.jsonl"), "w", encoding="utf-8") as file:
            file.write(self.ledger(job, "--json").out)
        self.cluster.succeed("download", job, "--artifact", "train.index", "--out", self.path("train.index"))
        offline = ("ledger", "--from", self.path("ledger.jsonl"), "--index", self.path("train.index"), "--verify", "--json")
        self.assertTrue(json.loads(self.succeed(*offline).out)["verified"])
        with open(self.path("ledger.jsonl"), encoding="utf-8") as file:
            lines = file.read().splitlines()
        with open(self.path("ledger.jsonl"), "w", encoding="utf-8") as file:
            file.write("\n".join(lines[:3] + lines[4:]) + "\n")
        outcome = self.run_lockstep(*offline)
        self.assertEqual(outcome.code, 1)
        self.assertGreater(json.loads(outcome.out)["violation_count"], 1)

    def test_a_previous_batch_fed_again_is_convicted(self):
        self.start_with("dataset.previous_batch=error@3")
        job = self.run_job()
        outcome = self.ledger(job, "--verify")
        self.assertEqual(outcome.code, 1)
        self.assertIn("is used twice in epoch 1: in step", outcome.out)
        self.assertIn("is not used in epoch 1, and nothing says why", outcome.out)

    def test_a_file_that_changed_while_it_trained_is_convicted(self):
        pictures = self.path("pictures")
        shutil.copytree(harness.TRAIN, pictures)
        self.start_with()
        job = self.run_job(pictures=pictures)
        self.assertEqual(self.ledger(job, "--verify", "--data", pictures).code, 0)
        victim = next(os.path.join(folder, name) for folder, _, names in os.walk(pictures) for name in names)
        with open(victim, "ab") as file:
            file.write(b"\0")
        outcome = self.ledger(job, "--verify", "--data", pictures)
        self.assertEqual(outcome.code, 1)
        self.assertIn("what was read is not what the files hold now", outcome.out)
        self.assertIn(os.path.basename(victim), outcome.out)

    def test_dropped_and_bad_samples_have_their_reasons(self):
        pictures = self.path("pictures")
        shutil.copytree(harness.TRAIN, pictures)
        victim = next(os.path.join(folder, name) for folder, _, names in os.walk(pictures) for name in names)
        with open(victim, "wb") as file:
            file.write(b"no picture")
        self.start_with()
        job = self.run_job("--last-batch", "drop", "--skip-bad", 3, pictures=pictures)
        outcome = self.ledger(job, "--verify")
        self.assertEqual(outcome.code, 0, outcome.out)
        self.assertRegex(outcome.out, r"epoch \d+: 3 steps, 5\d samples used once, 1 left out: cannot be decoded, 10 dropped with the last batch|10 dropped")

    def test_mistakes(self):
        self.start_with()
        job = self.run_job()
        for arguments, words in (
            (("no-such-job",), "no job is called"),
            ((job, "--epoch", 99), "has come to epoch"),
            ((job, "--data", "/"), "--verify"),
            ((), "JOB, or --from and --index"),
            (("--from", "/no/such/file", "--index", "/no/such/index"), "/no/such/file"),
        ):
            outcome = self.run_lockstep("ledger", *arguments, *self.cluster.flags())
            self.assertEqual(outcome.code, 2, f"{arguments}: {outcome.err}")
            self.assertIn(words, outcome.err)


if __name__ == "__main__":
    unittest.main(verbosity=2)
