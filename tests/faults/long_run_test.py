"""Several thousand steps with a kill about every twenty: the right hash at the end, flat memory, and nothing left behind."""

import os
import unittest

from tests.faults import drills

STEPS = int(os.environ.get("LOCKSTEP_LONG_STEPS", "6000"))
# From here on the coordinator keeps as many events in memory as it ever will (kTailEvents in coordinator/coordinator.cc).
SETTLED = 2200
A_KILL_EVERY = 20


def resident(pid):
    with open(f"/proc/{pid}/statm", encoding="utf-8") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def descriptors(pid):
    return len(os.listdir(f"/proc/{pid}/fd"))


class LongRunTest(drills.DrillTest):
    steps = STEPS

    def job_flags(self):
        return (*super().job_flags(), "--checkpoint-every", "100 steps")

    def figures(self):
        """Resident bytes and open files of those that live through all of it."""
        coordinator, worker = (process.pid for process in self.cluster.processes[:2])
        return [resident(coordinator), resident(worker)], [descriptors(coordinator), descriptors(worker)]

    def start_cluster(self):
        """Steps of a usual length: else there are hundreds of them until a trainer has joined."""
        self.start_with("trainer.step=slow:30")

    def test_a_kill_every_twenty_steps(self):
        segments = set(os.listdir("/dev/shm"))
        job = self.submit()
        kills = 0
        early = late = None
        oldest = None
        while not self.has_ended(job):
            step = self.step(job)
            target = step + self.random.randrange(A_KILL_EVERY // 2, 3 * A_KILL_EVERY // 2)
            if target >= self.steps:
                break
            self.wait_for_step(job, target)
            trainers = self.trainers()
            # One is spared: its memory is looked at, too.
            oldest = oldest or trainers[0]
            victims = [pid for pid in trainers if pid != oldest]
            if victims:
                self.kill(self.random.choice(victims))
                kills += 1
            if early is None and step > SETTLED:
                early = (*self.figures(), resident(oldest), descriptors(oldest))
            late = (*self.figures(), resident(oldest), descriptors(oldest))
        self.assert_undisturbed_bits(job, timeout=600)
        print(f"{kills} kills in {self.steps} steps; resident bytes of coordinator, worker and the oldest trainer after {SETTLED} steps: {early[0]}, {early[2]}, "
              f"at the end: {late[0]}, {late[2]}; open files {early[1]}, {early[3]}, then {late[1]}, {late[3]}")  # fmt: skip
        self.assertGreater(kills, self.steps // A_KILL_EVERY // 2)
        for before, after in (*zip(early[0], late[0]), (early[2], late[2])):
            self.assertLess(after, 1.02 * before + (2 << 20))
        for before, after in (*zip(early[1], late[1]), (early[3], late[3])):
            self.assertLess(after, before + 12)
        self.wait_for("all trainers to be gone", lambda: not self.trainers())
        left = {name for name in set(os.listdir("/dev/shm")) - segments if not name.startswith("lockstep-test-")}  # another test's folder
        self.assertEqual(left, set(), "shared memory is left")
        scratch = os.path.join(self.path("worker0"), "scratch")
        self.assertEqual(os.listdir(scratch) if os.path.isdir(scratch) else [], [], "scratch folders are left")


if __name__ == "__main__":
    unittest.main(verbosity=2)
