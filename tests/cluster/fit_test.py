"""lockstep fit, evaluate and predict, end to end on an embedded cluster."""

import csv
import os
import unittest
import zipfile

from tests.cluster import harness

SUMMARY_KEYS = "steps epochs images_per_second wall_seconds loss metrics validation state_hash generations memory".split()


class FitTest(harness.ClusterTest):
    def test_trains_and_leaves_what_it_promised(self):
        fit = self.fit("a", "--validation", harness.VALIDATION, "--replicas", 2, "--seed", 7, epochs=3)
        self.assertLessEqual(set(SUMMARY_KEYS), set(fit.summary))
        # 70 pictures in batches of 16: the last one has 6.
        self.assertEqual(fit.summary["steps"], 15)
        self.assertEqual(fit.summary["epochs"], 3)
        self.assertEqual([step["step"] for step in fit.steps], list(range(1, 16)))
        self.assertEqual([step["epoch"] for step in fit.steps], [1] * 5 + [2] * 5 + [3] * 5)
        self.assertEqual(set(fit.steps[0]), {"step", "epoch", "loss", "state_hash", "generation"})
        self.assertEqual(fit.summary["state_hash"], fit.hashes[-1])
        self.assertEqual(len(set(fit.hashes)), 15, "the state changes in every step")
        self.assertIn("accuracy", fit.summary["metrics"])
        self.assertIn("accuracy", fit.summary["validation"])
        memory = fit.summary["memory"]
        self.assertGreater(memory["peak"], 0)
        by_category = memory["bytes_by_category"]
        self.assertGreater(by_category["parameters"], 0)
        self.assertGreater(by_category["communication"], 0)
        self.assertLess(by_category["unaccounted"], 0.03 * memory["resident"])
        self.assertLess(abs(sum(by_category.values()) / memory["resident"] - 1), 0.03)
        for name in ("config.json", "metadata.json", "model.weights.h5"):
            self.assertIn(name, zipfile.ZipFile(self.path("a.keras")).namelist())
        self.assertIn(self.path("a.keras"), fit.outcome.out)
        self.assertIn("epoch 3/3", fit.outcome.out)
        self.assertNotIn("\x1b", fit.outcome.out)

    def test_every_sample_once_in_every_epoch(self):
        fit = self.fit("a", "--log-samples", epochs=2)
        everything = sorted(
            os.path.relpath(os.path.join(folder, name), harness.TRAIN) for folder, _, names in os.walk(harness.TRAIN) for name in names)
        for epoch in (1, 2):
            used = [path for step in fit.steps if step["epoch"] == epoch for path in step["samples"]]
            self.assertEqual(sorted(used), everything)
        orders = [[path for step in fit.steps if step["epoch"] == epoch for path in step["samples"]] for epoch in (1, 2)]
        self.assertNotEqual(orders[0], orders[1], "each epoch has an order of its own")

    def test_evaluate_says_what_the_last_validation_said(self):
        fit = self.fit("a", "--validation", harness.VALIDATION, epochs=2)
        self.succeed("evaluate", self.path("a.keras"), "--data", harness.VALIDATION, "--batch", 16, "--summary", self.path("e.json"))
        evaluated = self.read_json("e.json")
        self.assertAlmostEqual(evaluated["loss"], fit.summary["validation"]["loss"], places=5)
        self.assertAlmostEqual(evaluated["metrics"]["accuracy"], fit.summary["validation"]["accuracy"], places=6)

    def test_predict_says_the_same_as_evaluate(self):
        self.succeed("predict", harness.model("tiny.keras"), "--data", harness.VALIDATION, "--batch", 5, "--out", self.path("p.csv"))
        self.succeed("evaluate", harness.model("tiny.keras"), "--data", harness.VALIDATION, "--batch", 5, "--summary", self.path("e.json"))
        with open(self.path("p.csv"), newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        classes = sorted(os.listdir(harness.VALIDATION))
        self.assertEqual(list(rows[0]), ["path", "class", *classes])
        self.assertEqual(len(rows), 18)
        for row in rows:
            probabilities = [float(row[name]) for name in classes]
            self.assertAlmostEqual(sum(probabilities), 1, places=4)
            self.assertEqual(row["class"], classes[probabilities.index(max(probabilities))])
        right = sum(row["class"] == os.path.dirname(row["path"]) for row in rows) / len(rows)
        self.assertAlmostEqual(right, self.read_json("e.json")["metrics"]["accuracy"], places=6)

    def test_steps_in_place_of_epochs(self):
        fit = self.fit("a", "--steps", 7, epochs=None)
        self.assertEqual(fit.summary["steps"], 7)
        self.assertEqual([step["epoch"] for step in fit.steps], [1] * 5 + [2] * 2)

    def test_best_and_early_stopping(self):
        fit = self.fit(
            "a", "--validation", harness.VALIDATION, "--best-out", self.path("best.keras"), "--stop-early", "val_loss", "--patience", 1,
            "--min-delta", 1000, epochs=9)  # fmt: skip
        self.assertEqual(fit.summary["epochs"], 2)
        self.assertIn("stopped early after epoch 2", fit.summary["note"])
        self.assertTrue(zipfile.is_zipfile(self.path("best.keras")))

    def test_the_job_file(self):
        with open(self.path("job.yaml"), "w", encoding="utf-8") as file:
            file.write(f"""
model: {harness.model("tiny.keras")}
data:
  train: {{folder: {harness.TRAIN}}}
  last_batch: drop
batch: 8
epochs: 5
seed: 3
replicas: {{max: 2}}
optimizer: {{class_name: Adam, config: {{learning_rate: 0.01}}}}
""")
        self.succeed("fit", "--job", self.path("job.yaml"), "--epochs", 1, "--out", self.path("a.keras"), "--summary", self.path("a.json"))
        self.assertEqual(self.read_json("a.json")["steps"], 8)


if __name__ == "__main__":
    unittest.main(verbosity=2)
