"""Plays the drill matrix (matrix.py) and random kills. In each run every step has the hash of the undisturbed single-replica run, the
ledger is verified, and the job never stands still for longer than the cell's deadline.

LOCKSTEP_SOAK_CELLS   how many cells, at random (default 6; "all")
LOCKSTEP_SOAK_KILLS   how many random kills (default 8)
LOCKSTEP_SOAK_TABLE   a file for the table of what was done
LOCKSTEP_SOAK_LOGS    a folder for the programs' logs of each
LOCKSTEP_TEST_SEED    everything that is random
"""

import os
import shutil
import signal
import time
import unittest

from tests.faults import drills, matrix

CELLS = os.environ.get("LOCKSTEP_SOAK_CELLS", "6")
KILLS = int(os.environ.get("LOCKSTEP_SOAK_KILLS", "8"))
# Of one job.
KILLS_OF_A_JOB = 20
# Steps that take some time: else a job ends before it is hurt.
PACE = "trainer.pace=slow:15"


class SoakTest(drills.DrillTest):
    coordinator_flags = ("--silence-ms", 3000, "--lease-ms", 4000, "--heartbeat-ms", 300)
    steps = 160
    rows = []

    def job_flags(self):
        return (*super().job_flags(), "--checkpoint-every", "15 steps")

    def start_cluster(self):
        """Each drill has a cluster of its own."""

    @classmethod
    def tearDownClass(cls):
        lines = ["| who | what | when | replicas | kills | longest standstill, s | generations |", "|---|---|---|---|---|---|---|", *cls.rows]
        print("\n".join(lines))
        if path := os.environ.get("LOCKSTEP_SOAK_TABLE"):
            with open(path, "w", encoding="utf-8") as file:
                file.write("\n".join(lines) + "\n")

    def play(self, cell):
        points = self.path("points")
        shutil.rmtree(points, ignore_errors=True)
        os.mkdir(points)
        self.points = points
        self.cell = cell
        self.stopped = []
        self.cluster = drills.harness.RunningCluster(self, workers=0, coordinator_flags=self.coordinator_flags)
        if cell.coordinator:
            self.cluster.coordinator.kill()
            self.cluster.coordinator.wait()
            self.cluster.start_coordinator(self.cluster.address, self.points_of(cell.coordinator))
        slots = -(-cell.replicas // cell.workers)
        self.workers_running = [self.cluster.start_worker(i, slots, self.points_of(cell.trainers)) for i in range(cell.workers)]
        job = self.submit(f"{{min: 1, max: {cell.replicas}, threads: 1}}")
        self.wait_for("step 20", lambda: self.quietly(lambda: self.step(job) >= 20) or self.coordinator_died(), timeout=60)
        for action in cell.hurt:
            getattr(self, action.replace(" ", "_"))(job)
        self.wait_for("the end", lambda: self.quietly(lambda: self.has_ended(job)), timeout=100)
        self.assert_undisturbed_bits(job)
        longest = drills.longest_standstill(self.events(job))
        self.assertLess(longest, cell.deadline)
        generation = int(self.describe(job)["generation"])
        kills = len(os.listdir(points)) + sum("kill" in action for action in cell.hurt)
        SoakTest.rows.append(f"| {cell.who} | {cell.what} | {cell.when} | {cell.replicas} | {kills} | {longest:.1f} | {generation} |")
        hit = {name.rsplit(".", 1)[0] for name in os.listdir(points)}
        wanted = {point.split("=")[0] for point in f"{cell.trainers},{cell.coordinator}".split(",") if point}
        self.assertLessEqual(wanted, hit, "a fail-point was not hit")
        if any("worker" in action or "trainer" in action for action in cell.hurt):
            self.assertGreater(generation, 1, "nothing was hurt")

    def points_of(self, points):
        return {"LOCKSTEP_FAILPOINTS": ",".join(filter(None, (points, PACE))), "LOCKSTEP_FAILPOINT_DIR": self.points}

    def quietly(self, look):
        """What `look` gives; nothing where the coordinator is away."""
        try:
            return look()
        except AssertionError:
            if self.cluster.coordinator.poll() is None:
                raise
            return None

    def coordinator_died(self):
        return self.cluster.coordinator.poll() is not None

    # What a cell may do.
    def kill_a_trainer(self, job):
        victims = [pid for pid in self.trainers()]
        self.kill(self.random.choice(victims))

    def kill_two_trainers(self, job):
        for pid in self.random.sample(self.wait_for_members(job, self.cell.replicas), 2):
            self.kill(pid)

    def kill_all_trainers(self, job):
        for pid in self.trainers():
            self.kill(pid)

    def wake_the_stopped(self, job):
        def stopped():
            """Those that the drill stopped, or, by their notes, those that a fail-point did."""
            return self.stopped or [int(read(os.path.join(self.points, name)) or 0) for name in os.listdir(self.points)]

        pids = self.wait_for("somebody to be stopped", stopped)
        self.wait_for("the stopped to be evicted", lambda: self.has_ended(job) or not set(pids) & set(self.members(job)), timeout=20)
        for pid in pids:
            self.kill(pid, signal.SIGCONT)

    def kill_the_coordinator(self, job):
        del job
        self.cluster.coordinator.kill()
        self.cluster.coordinator.wait()

    def restart_the_coordinator(self, job):
        del job
        self.wait_for("the coordinator to be dead", self.coordinator_died)
        time.sleep(self.random.random())
        self.cluster.start_coordinator(self.cluster.address)

    def restart_the_poisoned_coordinator(self, job):
        """A full disk: it acknowledges nothing more, and answers reads; an operator restarts it."""
        self.wait_for("the disk to be full", lambda: os.listdir(self.points))
        step = self.step(job)
        time.sleep(1)
        self.assertEqual(self.step(job), step, "nothing is acknowledged")
        refused = self.run_lockstep("cancel", job, *self.cluster.flags())
        self.assertIn("must be restarted", refused.err)
        self.kill_the_coordinator(job)
        self.restart_the_coordinator(job)

    def kill_a_worker(self, job):
        del job
        victim = self.random.choice(self.workers_running)
        victim.kill()
        victim.wait()

    def stop_a_worker(self, job):
        del job
        victim = self.random.choice(self.workers_running)
        self.stopped = [*children_of(victim.pid), victim.pid]
        for pid in self.stopped:
            self.kill(pid, signal.SIGSTOP)

    def start_another_worker(self, job):
        del job
        self.workers_running.append(self.cluster.start_worker(9, 2, self.points_of("")))

    def test_cells(self):
        cells = list(matrix.CELLS)
        self.random.shuffle(cells)
        for cell in cells if CELLS == "all" else cells[: int(CELLS)]:
            with self.subTest(cell.name):
                try:
                    self.play(cell)
                finally:
                    self.clean_up(cell)

    def clean_up(self, cell):
        self.stop_cluster()
        if folder := os.environ.get("LOCKSTEP_SOAK_LOGS"):
            for program in ("coordinator", "worker"):
                log = self.path(f"lockstep-{program}.log")
                os.replace(log, os.path.join(folder, f"{cell.name}.{program}".replace(" ", "-")))

    def test_random_kills(self):
        """Of trainers, now and then of the worker or the coordinator, at any instruction."""
        left = KILLS
        while left > 0:
            kills = min(left, KILLS_OF_A_JOB)
            self.cell = matrix.Cell("trainers, worker, coordinator", "SIGKILL", "at random moments", self.random.choice((2, 3, 4)))
            with self.subTest(left=left, replicas=self.cell.replicas):
                try:
                    # A job may end before it has suffered all of them.
                    left -= max(1, self.play_kills(kills))
                finally:
                    self.clean_up(self.cell)

    def play_kills(self, kills):
        self.cluster = drills.harness.RunningCluster(self, workers=0, coordinator_flags=self.coordinator_flags)
        replicas = self.cell.replicas
        self.points = self.path("points")
        os.makedirs(self.points, exist_ok=True)
        worker = self.cluster.start_worker(0, replicas, self.points_of(""))
        job = self.submit(f"{{min: 1, max: {replicas}, threads: 1}}")
        done = 0
        number = 0
        while done < kills and not self.quietly(lambda: self.has_ended(job)):
            moment = self.step(job) + self.random.randrange(1, max(2, 2 * self.steps // kills - 2))
            self.wait_for_step(job, min(moment, self.steps))
            whom = self.random.random()
            if whom < 0.05:
                self.kill_the_coordinator(job)
                self.cluster.start_coordinator(self.cluster.address)
            elif whom < 0.1:
                worker.kill()
                worker.wait()
                number += 1
                worker = self.cluster.start_worker(number, replicas, self.points_of(""))
            else:
                time.sleep(self.random.random() * 0.01)
                if trainers := self.trainers():
                    self.kill(self.random.choice(trainers))
            done += 1
        self.wait_for("the end", lambda: self.has_ended(job), timeout=100)
        self.assert_undisturbed_bits(job)
        longest = drills.longest_standstill(self.events(job))
        generation = self.describe(job)["generation"]
        SoakTest.rows.append(
            f"| {self.cell.who} | {self.cell.what} | {self.cell.when} | {replicas} | {done} | {longest:.1f} | {generation} |")
        return done


def read(path):
    with open(path, encoding="utf-8") as file:
        return file.read()


def children_of(parent):
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8") as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) == parent:
                    found.append(int(entry))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


if __name__ == "__main__":
    unittest.main(verbosity=2)
