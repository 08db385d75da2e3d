"""All trainers are killed, or the job is paused: it goes on from the newest whole checkpoint, to the same bits."""

import glob
import os
import unittest

from tests.faults import drills


class CheckpointTest(drills.DrillTest):
    every = 25

    def job_flags(self):
        return (*super().job_flags(), "--checkpoint-every", f"{self.every} steps")

    def checkpoints(self, job):
        return [name for name in self.describe(job)["artifacts"] if name.startswith("checkpoint-")]

    def wait_for_checkpoint(self, job, step):
        self.wait_for(f"a checkpoint of step {step}", lambda: any(int(name[11:20]) >= step for name in self.checkpoints(job)))

    def kill_all(self, job):
        members = self.wait_for_members(job, 3)
        for pid in members:
            self.kill(pid)
        self.wait_for("all to be missed", lambda: not set(members) & set(self.members(job)))

    def test_all_die_again_and_again(self):
        job = self.submit()
        for step in (50, 150, 250):
            self.wait_for_checkpoint(job, step)
            self.kill_all(job)
        states = self.assert_undisturbed_bits(job)
        restarts = [state for state in states if state.startswith("starting again")]
        self.assertEqual(len(restarts), 3, states)
        for state in restarts:
            self.assertIn("starting again from the checkpoint of step", state)
        self.assertEqual(len(self.checkpoints(job)), 2)

    def test_a_damaged_one_is_passed_over(self):
        job = self.submit()
        self.wait_for_checkpoint(job, 100)
        for process in self.cluster.processes[1:]:
            process.kill()
            process.wait()
        newest = max(glob.glob(self.path("coordinator", "**", "checkpoint-*"), recursive=True))
        with open(newest, "r+b") as file:
            file.seek(os.path.getsize(newest) // 2)
            byte = file.read(1)
            file.seek(-1, os.SEEK_CUR)
            file.write(bytes([byte[0] ^ 16]))
        self.cluster.start_worker(1, 3)
        self.assert_undisturbed_bits(job)
        notes = [event["note"] for event in self.events(job) if "note" in event]
        name = ".".join(os.path.basename(newest).split(".")[:2])
        self.assertTrue(any(note.startswith("passed over a damaged checkpoint: ") and name in note for note in notes), notes)

    def test_in_storage_of_the_jobs_own(self):
        folder = self.path("storage")
        os.mkdir(folder)
        job = self.submit(flags=("--checkpoint-folder", "storage", "--keep-checkpoints", 3))
        kept = os.path.join(folder, job)
        self.wait_for_checkpoint(job, 100)
        for pid in self.wait_for_members(job, 3):
            self.kill(pid)
        for process in self.cluster.processes[1:]:
            process.kill()
            process.wait()
        left = os.path.join(kept, "checkpoint-000000099.safetensors.1.part")
        stranger = os.path.join(kept, "notes.txt")
        for path in (left, stranger):
            with open(path, "w"):
                pass
        newest, middle, _ = sorted(self.checkpoints(job), reverse=True)
        os.truncate(os.path.join(kept, newest), 1000)
        self.cluster.start_worker(1, 3)
        states = self.assert_undisturbed_bits(job)
        self.assertTrue(any("starting again from the checkpoint of step" in state for state in states), states)
        notes = [event["note"] for event in self.events(job) if "note" in event]
        self.assertTrue(any(note.startswith("passed over a damaged checkpoint: ") for note in notes), notes)
        self.assertFalse(any(middle in note for note in notes), notes)
        self.assertEqual(sorted(os.listdir(kept)), sorted([*self.checkpoints(job), "notes.txt"]))
        self.assertEqual(len(self.checkpoints(job)), 3)
        self.assertEqual(glob.glob(self.path("coordinator", "**", "checkpoint-*"), recursive=True), [])
        refused = self.run_lockstep("download", job, "--artifact", self.checkpoints(job)[0], *self.cluster.flags())
        self.assertNotEqual(refused.code, 0)
        self.assertIn(kept, refused.err)

    def test_storage_that_no_worker_can_write_to(self):
        missing = self.path("not mounted")
        job = self.submit(flags=("--checkpoint-folder", missing))
        self.wait_for("a refusal", lambda: self.describe(job)["state"] == "REFUSED")
        self.assertIn(f"checkpoint.folder: the worker that plans cannot write to {missing}", self.describe(job)["reason"])
        self.assertFalse(os.path.exists(missing))

    def test_pause_and_resume(self):
        job = self.submit()
        self.wait_for_step(job, self.random.randrange(1, 100))
        self.cluster.succeed("pause", job)
        self.wait_for("it to be paused", lambda: self.describe(job)["state"] == "PAUSED")
        self.wait_for("its trainers to leave", lambda: not self.trainers())
        step = self.step(job)
        other = self.submit()
        self.wait_for("another job to have its slots", lambda: len(self.members(other)) == 3)
        self.cluster.succeed("resume", job)
        self.assert_undisturbed_bits(other)
        self.assert_undisturbed_bits(job)
        events = self.events(job)
        paused = next(event["state"]["reason"] for event in events if event.get("state", {}).get("state") == "PAUSED")
        self.assertEqual(paused, f"paused after step {step}")


if __name__ == "__main__":
    unittest.main(verbosity=2)
