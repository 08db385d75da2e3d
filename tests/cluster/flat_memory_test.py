"""Memory does not grow: not with the number of files, and not with the number of steps."""

import glob
import os
import unittest

from tests.cluster import harness

ALLOWED = 0.03


class FlatMemoryTest(harness.ClusterTest):
    def linked(self, name, count):
        """A folder of class folders of `count` files in all, which are links to the few pictures that there are."""
        classes = sorted(os.listdir(harness.TRAIN))
        for label in classes:
            os.makedirs(self.path(name, label))
            pictures = sorted(glob.glob(os.path.join(harness.TRAIN, label, "*")))
            for i in range(count // len(classes)):
                target = self.path(name, label, f"a_picture_with_a_name_of_usual_length_{i:06d}{os.path.splitext(pictures[0])[1]}")
                os.symlink(pictures[i % len(pictures)], target)
        return self.path(name)

    def resident(self, name, folder, steps):
        outcome = self.succeed("fit", harness.model("tiny.keras"), "--train", folder, "--batch", 16, "--steps", steps, "--replicas", 2, "--out",
                               self.path(name + ".keras"), "--summary", self.path(name + ".json"), timeout=600)  # fmt: skip
        self.assertIn("Trained", outcome.out)
        return self.read_json(name + ".json")["memory"]["resident"]

    def assert_flat(self, what, small, large):
        print(f"{what}: resident bytes of a trainer {small} and {large}, {large / small - 1:+.1%}", flush=True)
        self.assertLess(abs(large / small - 1), ALLOWED)

    def test_from_500_to_50000_files(self):
        few, many = self.linked("few", 500), self.linked("many", 50_000)
        self.assert_flat("500 and 50,000 files", self.resident("few", few, 400), self.resident("many", many, 400))

    def test_over_2000_steps(self):
        folder = self.linked("few", 500)
        self.assert_flat("200 and 2,000 steps", self.resident("short", folder, 200), self.resident("long", folder, 2000))


if __name__ == "__main__":
    unittest.main(verbosity=2)
