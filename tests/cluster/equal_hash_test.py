"""The first law: the same bits with any number of replicas, in every step."""

import unittest

from tests.cluster import harness


class EqualHashTest(harness.ClusterTest):
    def table(self, *arguments, archive="tiny.keras", replicas=(1, 2, 3, 4), **options):
        runs = {n: self.fit(f"r{n}", "--replicas", n, *arguments, archive=archive, **options) for n in replicas}
        first = runs[replicas[0]]
        self.assertGreater(len(first.steps), 5)
        for n, run in runs.items():
            for step, (ours, theirs) in enumerate(zip(first.steps, run.steps, strict=True), start=1):
                self.assertEqual(ours["state_hash"], theirs["state_hash"], f"{n} replicas differ from {replicas[0]} in step {step}")
                self.assertEqual(ours["loss"], theirs["loss"], f"{n} replicas differ from {replicas[0]} in step {step}")
            self.assertEqual(run.summary["validation"], first.summary["validation"], f"{n} replicas validate differently")
        return first

    def test_eight_virtual_replicas(self):
        self.table("--virtual-replicas", 8, "--validation", harness.VALIDATION, "--seed", 11, epochs=2)

    def test_four_virtual_replicas_with_adam(self):
        self.table("--virtual-replicas", 4, "--seed", 12, archive="adam.keras", epochs=2)

    def test_threads_change_nothing(self):
        runs = [self.fit(f"t{n}", "--virtual-replicas", 4, "--threads", n, epochs=2) for n in (1, 2, 3)]
        for run in runs[1:]:
            self.assertEqual(run.hashes, runs[0].hashes)

    def test_the_seed_and_the_virtual_replicas_do_change_it(self):
        base = self.fit("a", "--virtual-replicas", 4, "--seed", 1)
        self.assertNotEqual(base.hashes, self.fit("b", "--virtual-replicas", 4, "--seed", 2).hashes)
        self.assertNotEqual(base.hashes, self.fit("c", "--virtual-replicas", 8, "--seed", 1).hashes)


if __name__ == "__main__":
    unittest.main(verbosity=2)
