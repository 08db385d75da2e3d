"""Trainers, workers and the coordinator are killed and stopped at random moments: the others go on in their processes, from live state,
the dead come back, and the state has the bits of the undisturbed run in every step."""

import os
import signal
import unittest

from tests.faults import drills


class KillTest(drills.DrillTest):
    def start_cluster(self):
        # Steps that take some time: else the job ends before all are killed.
        self.start_with("trainer.pace=slow:6")

    def kill_in_turn(self, job, kills, at_once=1):
        survivors_ever = None
        for _ in range(kills):
            members = self.wait_for_members(job, 3)
            step = self.step(job) + self.random.randrange(1, 25)
            self.wait_for_step(job, step)
            victims = self.random.sample(members, at_once)
            for victim in victims:
                self.kill(victim)
            survivors_ever = set(members) - set(victims)
            self.wait_for("the dead to be missed", lambda: not set(victims) & set(self.members(job)))
            self.assertLessEqual(survivors_ever, set(self.trainers()), "survivors stay in their processes")

    def test_one_of_three_again_and_again(self):
        job = self.submit()
        self.kill_in_turn(job, 4)
        states = self.assert_undisturbed_bits(job)
        self.assertTrue(any("of them new" in state for state in states), states)

    def test_two_of_three_at_once(self):
        job = self.submit()
        self.kill_in_turn(job, 2, at_once=2)
        self.assert_undisturbed_bits(job)

    def test_while_they_load_and_meet(self):
        job = self.submit()
        trainers = self.wait_for("three trainers", lambda: [] if len(self.trainers()) < 3 else self.trainers())
        self.kill(self.random.choice(trainers))
        self.assert_undisturbed_bits(job)

    def test_all_at_once(self):
        job = self.submit()
        members = self.wait_for_members(job, 3)
        self.wait_for_step(job, self.random.randrange(1, 50))
        for pid in members:
            self.kill(pid)
        self.assert_undisturbed_bits(job)

    def test_below_the_fewest_the_job_waits_for_a_replacement(self):
        job = self.submit("{min: 3, max: 3, threads: 1}")
        members = self.wait_for_members(job, 3)
        self.wait_for_step(job, 10)
        self.kill(members[1])
        states = self.assert_undisturbed_bits(job)
        self.assertTrue(any(state.startswith("waiting: 3 replicas wanted at least, 2 left") for state in states), states)


class StopTest(drills.DrillTest):
    coordinator_flags = ("--silence-ms", 3000)

    def test_a_stopped_trainer_is_evicted_and_cannot_come_back(self):
        job = self.submit()
        members = self.wait_for_members(job, 3)
        self.wait_for_step(job, 10)
        victim = self.random.choice(members)
        self.kill(victim, signal.SIGSTOP)
        self.wait_for("it to be evicted", lambda: victim not in self.members(job), timeout=15)
        self.kill(victim, signal.SIGCONT)
        self.wait_for("it to be gone", lambda: victim not in self.trainers())
        self.wait_for_members(job, 3)
        self.assert_undisturbed_bits(job)


class CoordinatorTest(drills.DrillTest):
    def test_a_trainer_dies_while_the_coordinator_is_away(self):
        job = self.submit()
        members = self.wait_for_members(job, 3)
        self.wait_for_step(job, 20)
        self.cluster.coordinator.kill()
        self.cluster.coordinator.wait()
        self.kill(self.random.choice(members))
        self.cluster.start_coordinator(self.cluster.address)
        self.assert_undisturbed_bits(job)

    def test_killed_again_and_again(self):
        job = self.submit()
        for _ in range(3):
            self.wait_for_step(job, self.step(job) + self.random.randrange(1, 60))
            self.cluster.coordinator.kill()
            self.cluster.coordinator.wait()
            self.cluster.start_coordinator(self.cluster.address)
        states = self.assert_undisturbed_bits(job)
        self.assertEqual([state for state in states if "replicas" in state], ["running on 3 replicas"], "nobody was disturbed")


class WorkerTest(drills.DrillTest):
    workers = 2
    slots = 2
    coordinator_flags = ("--lease-ms", 3000, "--heartbeat-ms", 300)

    def test_a_killed_worker_takes_its_trainers_along_and_another_brings_new_ones(self):
        job = self.submit()
        members = self.wait_for_members(job, 3)
        self.wait_for_step(job, 20)
        victim = self.cluster.processes[self.random.choice([1, 2])]
        victim.kill()
        victim.wait()
        self.wait_for("its trainers to be missed", lambda: len(self.members(job)) < 3, timeout=15)
        self.assertTrue(set(self.members(job)) & set(members), "survivors stay in their processes")
        self.cluster.start_worker(2, 2)
        self.wait_for_members(job, 3)
        self.assert_undisturbed_bits(job)

    def test_a_stopped_worker_wakes_to_find_that_the_job_went_on(self):
        job = self.submit()
        self.wait_for_members(job, 3)
        self.wait_for_step(job, 20)
        victim = self.cluster.processes[self.random.choice([1, 2])]
        theirs = [pid for pid in self.trainers() if os.stat(f"/proc/{pid}") and parent_of(pid) == victim.pid]
        for pid in [victim.pid, *theirs]:
            self.kill(pid, signal.SIGSTOP)
        self.wait_for("its trainers to be missed", lambda: not set(theirs) & set(self.members(job)), timeout=20)
        for pid in [victim.pid, *theirs]:
            self.kill(pid, signal.SIGCONT)
        self.assert_undisturbed_bits(job)


class ReportTest(drills.DrillTest):
    """What people are told when a step does not end, or kills its trainers again and again."""

    def start_cluster(self):
        """Each test has one of its own, with what goes wrong in it."""

    def test_whom_the_others_wait_for_is_named(self):
        self.start_with("trainer.step=delay:9000@30")
        job = self.submit()
        hang = self.wait_for("the report", lambda: self.describe(job).get("hang"), timeout=20)
        self.assertRegex(hang, r"replicas wait for \d+\.\d s: rank \d on \S+ is in begin of step 30 for \d+\.\d s")
        text = self.cluster.succeed("describe", job).out
        self.assertIn("hang       replicas wait for", text)
        self.assertIn("reduce of step 29: 0.0", text)
        self.assert_undisturbed_bits(job)

    def test_a_crash_loop_fails_the_job_and_names_step_and_samples(self):
        # So slow that what was committed is on record when the next step kills.
        self.start_with("trainer.step=delay:400@1x99,trainer.before_update=kill@3x99")
        job = self.submit("{min: 1, max: 1, threads: 1}")
        self.wait_for("its end", lambda: self.has_ended(job), timeout=60)
        described = self.describe(job)
        self.assertEqual(described["state"], "FAILED")
        self.assertRegex(described["reason"], r"6 generations broke off in step 3 \((\S+/\S+ ){16}and 4 more\), and none got further; "
                                              r"the last one: the trainer of rank 0 on worker \S+ was killed by signal 9")  # fmt: skip


class ScaleTest(drills.DrillTest):
    def test_down_to_one_and_up_to_three(self):
        job = self.submit()
        members = self.wait_for_members(job, 3)
        self.wait_for_step(job, 20)
        self.cluster.succeed("scale", job, "--replicas", 1)
        self.assertEqual(self.wait_for_members(job, 1), members[:1])
        self.wait_for("the others to leave", lambda: len(self.trainers()) == 1)
        self.wait_for_step(job, self.step(job) + 20)
        self.cluster.succeed("scale", job, "--min", 1, "--max", 3)
        self.assertEqual(self.wait_for_members(job, 3)[0], members[0])
        self.assert_undisturbed_bits(job)

    def test_mistakes_are_refused(self):
        job = self.submit()
        for arguments, words in (
            (("--replicas", 6), "more than the 5 virtual replicas"),
            (("--min", 3, "--max", 2), "make no sense together"),
            ((), "--replicas, or --min and --max"),
            (("--min", 1), "--max"),
        ):
            if arguments == ("--replicas", 6):
                self.wait_for_members(job, 3)
            outcome = self.run_lockstep("scale", job, *arguments, *self.cluster.flags())
            self.assertEqual(outcome.code, 2, outcome.err)
            self.assertIn(words, outcome.err)
        self.cluster.succeed("cancel", job)


def parent_of(pid):
    with open(f"/proc/{pid}/stat", encoding="utf-8") as file:
        return int(file.read().rsplit(")", 1)[1].split()[1])


if __name__ == "__main__":
    unittest.main(verbosity=2)
