"""Requests for memory fail at random, on real trainers: no job dies or hangs, every step has the bits of the undisturbed run, the ledger
is whole, and at the end every trainer holds as many bytes of each category as in a run that nobody disturbed.

LOCKSTEP_MEMORY_INJECTIONS   how many have to fire (default 20)
LOCKSTEP_TEST_SEED           everything that is random
"""

import json
import os
import re
import shutil
import time
import unittest

from tests.faults import drills

INJECTIONS = int(os.environ.get("LOCKSTEP_MEMORY_INJECTIONS", "20"))
OF_A_JOB = 12
# What a trainer with one virtual replica asks for in a step, and in the validation after the last step of an epoch: about. Those that are
# counted beyond never fire.
REQUESTS_OF_A_STEP = 110
REQUESTS_OF_VALIDATION = 60


class MemoryTest(drills.DrillTest):
    steps = 60

    def start_cluster(self):
        """Each job has a cluster of its own."""

    def submit_with(self, replicas, threads, failing):
        points = self.path("points")
        shutil.rmtree(points, ignore_errors=True)
        os.mkdir(points)
        self.cluster = drills.harness.RunningCluster(self, workers=0)
        environment = {"LOCKSTEP_FAIL_ALLOCATION": ",".join(failing), "LOCKSTEP_FAILPOINT_DIR": points}
        self.cluster.start_worker(0, replicas, environment)
        return self.submit(f"{{min: {replicas}, max: {replicas}, threads: {threads}}}")

    def play(self, replicas, threads, failing):
        """A job whose trainers have these requests fail: which of them did, and what each rank held at the end."""
        job = self.submit_with(replicas, threads, failing)
        self.assert_undisturbed_bits(job)
        self.assertEqual(int(self.describe(job)["generation"]), 1, "a trainer died")
        fired = os.listdir(self.path("points"))
        notes = [event["note"] for event in self.events(job) if "note" in event]
        retries = [note for note in notes if " ran out of memory on " in note]
        # The archive is tried again without a word, and two that fire in one step are one retry.
        self.assertLessEqual(len(retries), len(fired), notes)
        self.wait_for("the last words of its trainers", lambda: len(self.live(job)) == replicas)
        live = self.live(job)
        self.stop_cluster()
        return fired, retries, live

    def live(self, job):
        """What tensors held by category at the end, by rank, of those whose log has come."""
        lines = self.cluster.succeed("logs", job).out.splitlines()
        found = [re.match(r"\d+\.(\d+) .* event=live_tensors retries=\d+ refused=\d+ (.*)", line) for line in lines]
        return {int(match[1]): match[2] for match in found if match}

    def choose(self, replicas):
        failing = []
        for _ in range(OF_A_JOB):
            step = self.random.randrange(1, self.steps + 1)
            leaves = -(-5 // replicas)
            most = REQUESTS_OF_A_STEP * leaves + (REQUESTS_OF_VALIDATION * leaves if step % 4 == 0 else 0)
            rank, request = self.random.randrange(replicas), self.random.randrange(1, most)
            failing.append(f"{rank}:{step}:{request}")
            # What fails while the step is taken again.
            while self.random.random() < 0.25:
                request = self.random.randrange(1, most)
                failing.append(f"{self.random.randrange(replicas)}:{step}:{request}")
        return failing

    def test_a_step_that_never_has_memory_ends_the_job_with_what_was_missing(self):
        job = self.submit_with(2, 2, [f"1:9:{request}" for request in range(1, 200)])
        watched = self.run_lockstep("watch", job, "--json", *self.cluster.flags())
        self.assertEqual(watched.code, 3, watched.out + watched.err)
        described = self.describe(job)
        self.assertEqual(described["state"], "FAILED")
        self.assertIn("step 9 ran out of memory on rank 1; rank 1: forward", described["reason"])
        self.assertIn("nothing that keeps the bits is left to do about it", described["reason"])
        self.assertEqual(self.step(job), 8)
        events = [json.loads(line) for line in watched.out.splitlines()]
        notes = [event["note"] for event in events if "step 9 ran out of memory" in event.get("note", "")]
        for remedy in ("after kept memory was given back", "on 1 thread, and so from now on", "as it is, try 3 of 3"):
            self.assertEqual(sum(note.endswith(remedy) for note in notes), 1, notes)

    def test_random_requests_fail(self):
        begun = time.monotonic()
        undisturbed = {}
        fired = jobs = retries = in_validation = 0
        while fired < INJECTIONS:
            replicas, threads = self.random.choice((2, 3)), self.random.choice((1, 2))
            if replicas not in undisturbed:
                _, _, undisturbed[replicas] = self.play(replicas, threads, [])
            failing = self.choose(replicas)
            print(f"replicas={replicas} threads={threads} LOCKSTEP_FAIL_ALLOCATION={','.join(failing)}", flush=True)
            hit, notes, live = self.play(replicas, threads, failing)
            self.assertEqual(live, undisturbed[replicas], "bytes were leaked")
            self.assertGreater(len(notes), 0)
            fired += len(hit)
            retries += len(notes)
            in_validation += sum(note.startswith("validation") for note in notes)
            jobs += 1
            print(f"jobs={jobs} fired={fired} retries={retries} in_validation={in_validation} seconds={time.monotonic() - begun:.0f}", flush=True)
            self.assertLess(jobs, INJECTIONS, "too few of them fire")


if __name__ == "__main__":
    unittest.main(verbosity=2)
