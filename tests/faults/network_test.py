"""Hosts that lose each other: every worker has a network namespace of its own, and what dies is the network."""

import unittest

from tests.cluster import harness
from tests.faults import drills, hosts

SILENCE_MS = 3000
LEASE_MS = 4000
# What the job may stand still: a silence and a half, 2 s until a generation is formed of the same members, and if that breaks again as much once
# more; or a lease. With time to spare, as the machine has other work.
DEADLINE = 25


def setUpModule():
    if reason := hosts.move_into_a_namespace():
        raise unittest.SkipTest(reason)


class Cluster(harness.RunningCluster):
    def __init__(self, test, machines):
        self.machines = machines
        flags = ("--insecure", "--silence-ms", SILENCE_MS, "--lease-ms", LEASE_MS, "--heartbeat-ms", 300)
        super().__init__(test, workers=0, coordinator_flags=flags, listen="0.0.0.0:0")
        self.port = self.address.rsplit(":", 1)[1]
        self.address = f"127.0.0.1:{self.port}"

    def start_worker(self, number, slots, environment=None):
        machine = self.machines[number]
        return self._start(
            "lockstep-worker", "--coordinator", f"{machine.hub}:{self.port}", "--token-file", self.token_file, "--state-dir",
            self.test.path(f"worker{number}"), "--address", machine.address, "--slots", slots, "--metrics", "127.0.0.1:0",
            "--die-with-parent", "--insecure", environment=environment, within=machine.within)  # fmt: skip


class NetworkTest(drills.DrillTest):
    steps = 600

    def start_cluster(self):
        self.machines = []
        for number in range(2):
            self.machines.append(hosts.Host(number))
            self.addCleanup(self.machines[-1].end)
        self.cluster = Cluster(self, self.machines)
        pace = {"LOCKSTEP_FAILPOINTS": "trainer.pace=slow:20", "LOCKSTEP_FAILPOINT_DIR": self.temporary}
        for number, slots in enumerate((2, 1)):
            self.cluster.start_worker(number, slots, pace)

    def begin(self):
        job = self.submit()
        self.wait_for_members(job, 3)
        self.wait_for_step(job, self.random.randrange(20, 60))
        return job

    def assert_it_went_on(self, job, again):
        """While the network is broken; `again` mends it."""
        self.wait_for("a generation of those that are left", lambda: int(self.describe(job)["generation"]) > 1)
        self.wait_for_step(job, self.step(job) + 15, timeout=60)
        again()
        self.assert_undisturbed_bits(job, timeout=120)
        self.assertLess(drills.longest_standstill(self.events(job)), DEADLINE)
        self.assertGreater(int(self.describe(job)["generation"]), 1)

    def test_a_worker_s_link_goes_down_and_comes_back(self):
        job = self.begin()
        self.machines[1].set_link("down")
        self.assert_it_went_on(job, lambda: self.machines[1].set_link("up"))

    def test_traffic_between_workers_is_lost_both_reach_the_coordinator(self):
        job = self.begin()
        self.machines[0].lose(self.machines[1].address)
        self.assert_it_went_on(job, lambda: self.machines[0].lose(self.machines[1].address, "del"))

    def test_a_worker_loses_the_coordinator_but_not_its_peers(self):
        job = self.begin()
        self.machines[1].lose(self.machines[1].hub)
        self.assert_it_went_on(job, lambda: self.machines[1].lose(self.machines[1].hub, "del"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
