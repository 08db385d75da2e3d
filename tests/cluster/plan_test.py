"""lockstep plan: what a job would take, by the real programs, and nothing trained."""

import json
import os
import re
import unittest
import xml.etree.ElementTree

from tests.cluster import harness

SVG = "{http://www.w3.org/2000/svg}"


class PlanTest(harness.ClusterTest):
    def plan(self, *arguments, code=0, archive="tiny.keras", batch=16):
        outcome = self.run_lockstep("plan", harness.model(archive), "--train", harness.TRAIN, "--batch", batch, *arguments)
        self.assertEqual(outcome.code, code, f"{outcome.out}\n{outcome.err}")
        return outcome

    def plan_json(self, *arguments, **options):
        return json.loads(self.plan("--json", *arguments, **options).out)

    def test_says_what_it_takes_and_trains_nothing(self):
        svg = self.path("memory.svg")
        plan = self.plan_json("--svg", svg, "--threads", 2, "--replicas", 2)
        self.assertTrue(plan["fits"])
        self.assertEqual(plan["state"], "DONE")
        self.assertEqual((plan["batch"], plan["virtual_replicas"], plan["trainers"]), (16, 4, 2))
        profile = plan["profile"]
        self.assertGreater(profile["bytes_by_category"]["parameters"], 0)
        self.assertGreater(profile["bytes_by_category"]["activations"], 0)
        self.assertEqual(sum(profile["bytes_by_category"].values()), plan["trainer_bytes"])
        self.assertLess(plan["expected_trainer_bytes"], plan["trainer_bytes"], "the pipeline will not use all of its budget")
        self.assertEqual(plan["host_bytes"], 2 * plan["trainer_bytes"])
        self.assertRegex(plan["at_peak"], "^(forward|backward) ")
        self.assertEqual(len(profile["timeline_bytes"]), len(profile["timeline_places"]))
        self.assertLess(max(profile["timeline_places"]), len(profile["places"]))
        picture = xml.etree.ElementTree.parse(svg).getroot()
        self.assertEqual(picture.tag, SVG + "svg")
        texts = [text.text for text in picture.iter(SVG + "text")]
        self.assertIn("forward", texts)
        self.assertIn("backward", texts)
        self.assertTrue(any(text.endswith(plan["at_peak"]) for text in texts), texts)
        self.assertEqual(sorted(os.listdir(self.folder)), ["memory.svg", "tmp"], "nothing but the picture")

    def test_people_read_the_same(self):
        outcome = self.plan()
        for part in ("tiny.keras: batch 16 as 4 virtual replicas of 4 samples", "parameters", "in all", "At the peak: ", "It fits"):
            self.assertIn(part, outcome.out)
        self.assertNotIn("\x1b", outcome.out)
        self.assertEqual(outcome.err, "")

    def test_a_limit_that_fits_and_one_that_does_not(self):
        plan = self.plan_json("--memory-limit", "64GiB")
        self.assertTrue(plan["fits"])
        self.assertEqual(plan["limit_bytes"], 64 << 30)
        outcome = self.plan("--memory-limit", "50KiB", "--svg", self.path("memory.svg"), code=3)
        self.assertIn("memory.limit", outcome.err)
        self.assertIn("It does not fit.", outcome.out)
        self.assertIn("activations", outcome.out)
        self.assertTrue(list(xml.etree.ElementTree.parse(self.path("memory.svg")).iter(SVG + "path")))
        refused = self.plan_json("--memory-limit", "50KiB", code=3)
        self.assertFalse(refused["fits"])
        self.assertEqual(refused["failure"], "OUT_OF_MEMORY")

    def test_bad_input(self):
        outcome = self.run_lockstep("plan", harness.model("unknown_layer.keras"), "--train", harness.TRAIN, "--batch", 16, "--json")
        self.assertEqual(outcome.code, 2)
        self.assertIn("LSTM", outcome.err)
        self.assertEqual(outcome.out, "")
        self.assertEqual(self.plan("--device", "tpu", code=2).out, "")
        outcome = self.run_lockstep("fit", harness.model("tiny.keras"), "--train", harness.TRAIN, "--batch", 16, "--epochs", 1,
                                    "--device", "cuda")
        self.assertEqual(outcome.code, 2)
        self.assertIn("nothing can be run on cuda yet", outcome.err)

    def test_a_cuda_device_is_planned_without_one(self):
        svg = self.path("memory.svg")
        plan = self.plan_json("--device", "cuda", "--svg", svg, "--replicas", 2)
        self.assertEqual((plan["device"], plan["fits"], plan["threads"], plan["trainers"]), ("cuda", True, 1, 2))
        device, host = plan["profile"]["bytes_by_category"], plan["profile"]["host"]["bytes_by_category"]
        self.assertEqual(sum(device.values()), plan["device_bytes"])
        self.assertEqual(sum(host.values()), plan["trainer_bytes"])
        self.assertEqual(plan["host_bytes"], 2 * plan["trainer_bytes"])
        for category in ("parameters", "gradients", "activations", "workspace", "communication", "runtime"):
            self.assertGreater(device[category], 0, category)
        self.assertEqual((host["activations"], device["checkpoint_copies"]), (0, 0))
        texts = [text.text for text in xml.etree.ElementTree.parse(svg).getroot().iter(SVG + "text")]
        self.assertTrue(any("CUDA device" in text for text in texts), texts)
        self.assertTrue(any(text.startswith("On the host") for text in texts), texts)
        outcome = self.plan("--device", "cuda")
        for part in ("with a CUDA device", "Predicted memory of the device", "Predicted memory of its process on the host", "It fits."):
            self.assertIn(part, outcome.out)

    def test_the_limit_is_the_devices(self):
        plan = self.plan_json("--device", "cuda", "--memory-limit", "2GiB")
        self.assertTrue(plan["fits"])
        self.assertGreater(plan["largest_batch"], 0)
        self.assertGreater(plan["trainer_bytes"], plan["limit_bytes"], "the host is not held to it")
        refused = self.plan("--device", "cuda", "--memory-limit", "1GiB", code=3)
        self.assertIn("It does not fit.", refused.out)
        self.assertRegex(refused.err, r"memory.limit: .* bytes of the device .* a limit of \d+MiB")
        enough = re.search(r"a limit of (\d+MiB)", refused.err).group(1)
        self.assertTrue(self.plan_json("--device", "cuda", "--memory-limit", enough)["fits"])

    def test_on_a_running_cluster_it_is_a_job_without_trainers(self):
        cluster = harness.RunningCluster(self)
        with open(self.path("job.yaml"), "w", encoding="utf-8") as file:
            file.write(f"model: {harness.model('tiny.keras')}\ndata: {{train: {harness.TRAIN}}}\nbatch: 16\nmemory: auto\n")
        plan = cluster.json("plan", "--job", self.path("job.yaml"))
        status = cluster.json("describe", plan["job_id"])
        self.assertEqual((status["state"], status["reason"], status["generation"]), ("DONE", "planned", 0))
        self.assertEqual(status["replicas"], [])
        self.assertEqual(status["profile"], plan["profile"])
        self.assertNotIn("trained.keras", status["artifacts"])
        cuda = cluster.json("plan", "--job", self.path("job.yaml"), "--device", "cuda")
        self.assertEqual(cluster.json("describe", cuda["job_id"])["profile"], cuda["profile"])
        self.assertIn("Memory of the CUDA device", cluster.succeed("describe", cuda["job_id"]).out)
        self.assertEqual(cluster.json("list")[0]["profile"]["timeline_bytes"], [])
        fit = cluster.submit("--batch", 16, "--epochs", 1)
        cluster.succeed("watch", fit)
        described = cluster.json("describe", fit)
        self.assertEqual(described["profile"]["bytes_by_category"].keys(), plan["profile"]["bytes_by_category"].keys())
        self.assertIn("predicted", cluster.succeed("describe", fit).out)


if __name__ == "__main__":
    unittest.main(verbosity=2)
