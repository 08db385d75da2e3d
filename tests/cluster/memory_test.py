"""Memory as the kernel sees it: what is accounted, what is booked, what is refused, and what a limit holds."""

import contextlib
import os
import re
import unittest
import urllib.request

from tests.cluster import harness

MIB = 1 << 20
CATEGORIES = {
    "parameters", "gradients", "optimizer", "activations", "workspace", "allocator_slack", "communication", "input_pipeline",
    "checkpoint_copies", "runtime", "unaccounted"}  # fmt: skip
# Of resident memory, in steady state.
UNACCOUNTED = 0.03
LEAK = 50 * MIB
# What admission books for planning a tiny model.
PLANNING = 513 * MIB


def series(address, name):
    """{labels: value} of one family; labels as a frozenset of (name, value)."""
    with urllib.request.urlopen(f"http://{address}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    found = re.findall(rf"^{name}\{{(.*?)\}} (\S+)$", text, re.MULTILINE)
    return {frozenset(re.findall(r'(\w+)="(.*?)"', labels)): float(value) for labels, value in found}


def label(labels, name):
    return dict(labels).get(name)


def field(pid, file, name):
    """Bytes of a line "NAME:  123 kB" of /proc/PID/FILE; 0 once the process is gone."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/{file}", encoding="utf-8") as lines:
            for line in lines:
                if line.startswith(name + ":"):
                    return int(line.split()[1]) << 10
    return 0


class AccountTest(harness.ClusterTest):
    def memory_of(self, name, points=""):
        points_folder = self.path(name + ".points")
        os.mkdir(points_folder)
        environment = {**self.environment, "LOCKSTEP_FAILPOINTS": points, "LOCKSTEP_FAILPOINT_DIR": points_folder}
        fit = self.fit(name, "--steps", 300, "--validation", harness.VALIDATION, "--seed", 7, epochs=0, env=environment)
        return fit.summary["memory"]

    def test_a_leak_of_50_mb_shows_in_unaccounted(self):
        plain = self.memory_of("plain")
        leaking = self.memory_of("leaking", "trainer.leak=error@100")
        for name, memory in (("plain", plain), ("leaking", leaking)):
            share = memory["bytes_by_category"]["unaccounted"] / memory["resident"]
            print(f"{name}: unaccounted {memory['bytes_by_category']['unaccounted']} of {memory['resident']} bytes, {share:.2%}", flush=True)
        self.assertLess(plain["bytes_by_category"]["unaccounted"], UNACCOUNTED * plain["resident"])
        leaked = leaking["bytes_by_category"]["unaccounted"] - plain["bytes_by_category"]["unaccounted"]
        self.assertLess(abs(leaked - LEAK), 4 * MIB)
        for category in CATEGORIES - {"unaccounted"}:
            change = leaking["bytes_by_category"][category] - plain["bytes_by_category"][category]
            self.assertLess(abs(change), 4 * MIB, f"{category}: the leak is nobody else's")

    def test_live_series_beside_the_prediction(self):
        ready = self.path("worker.ready")
        cluster = harness.RunningCluster(self, worker_flags=("--ready-file", ready))
        job = cluster.submit("--batch", 16, "--epochs", 100000, "--validation", harness.VALIDATION)
        coordinator = cluster.ready["http"]
        self.wait_for("60 steps", lambda: any(v >= 60 for v in series(coordinator, "lockstep_job_steps_total").values()))
        self.assertEqual({label(labels, "category") for labels in series(coordinator, "lockstep_job_memory_predicted_bytes")}, CATEGORIES)
        seen = set()

        def several_reports():
            live = series(coordinator, "lockstep_trainer_memory_bytes")
            resident = max(series(coordinator, "lockstep_trainer_resident_bytes").values(), default=0)
            if not live or not resident:
                return False
            self.assertEqual({label(labels, "category") for labels in live}, CATEGORIES)
            unaccounted = max(value for labels, value in live.items() if label(labels, "category") == "unaccounted")
            seen.add((resident, unaccounted))
            return len(seen) >= 5

        self.wait_for("five reports", several_reports)
        for resident, unaccounted in seen:
            self.assertLess(unaccounted, UNACCOUNTED * resident * 1.05, "a report may come between two scrapes")
        worker = self.read_json("worker.ready")["metrics"]
        high = series(worker, "lockstep_trainer_memory_high_water_bytes")
        layers = {label(labels, "phase"): label(labels, "layer") for labels in high}
        self.assertEqual(set(layers), {"load", "forward", "backward", "update", "validate"})
        for phase in ("forward", "backward"):
            self.assertTrue(layers[phase], f"{phase}: {layers}")
        self.assertEqual(max(high.values()), max(series(worker, "lockstep_trainer_memory_peak_bytes").values()))
        cluster.succeed("cancel", job)


class AdmitTest(harness.ClusterTest):
    def fit_is_refused(self, *arguments):
        out = self.path("never.keras")
        outcome = self.run_lockstep("fit", harness.model("tiny.keras"), "--train", harness.TRAIN, "--batch", 64, "--epochs", 1, "--out", out,
                                    *arguments)  # fmt: skip
        self.assertEqual(outcome.code, 3, f"{outcome.out}\n{outcome.err}")
        self.assertRegex(outcome.err, "would fit|worker with|alone take")
        self.assertFalse(os.path.exists(out))
        return outcome.err

    def test_a_limit_that_is_too_small_is_refused_with_what_would_fit(self):
        print(self.fit_is_refused("--memory-limit", "50KiB"))

    def test_a_worker_that_is_too_small_is_refused_with_what_would_fit(self):
        cluster = harness.RunningCluster(self, worker_flags=("--memory", "150MiB"))
        print(self.fit_is_refused(*cluster.flags()))

    def submit(self, cluster):
        return cluster.submit("--batch", 16, "--epochs", 100000, "--replicas", 1, "--threads", 1, "--data-memory", "600MiB")

    def test_what_fits_later_waits_and_says_for_how_much(self):
        cluster = harness.RunningCluster(self, workers=0)
        coordinator = cluster.ready["http"]
        roomy = cluster.start_worker(0, slots=1)
        probe = self.submit(cluster)
        self.wait_for("it to run", lambda: cluster.state(probe) == "RUNNING")
        predicted = int(sum(series(coordinator, "lockstep_job_memory_predicted_bytes").values()))
        self.assertGreater(predicted, PLANNING + 100 * MIB, "or planning would be in the way of planning, and not the other job of it")
        cluster.succeed("cancel", probe)
        roomy.terminate()
        roomy.wait()
        cluster.worker_flags = ("--memory", f"{(predicted + PLANNING >> 20) + 30}MiB")
        cluster.start_worker(1, slots=4)
        first = self.submit(cluster)
        self.wait_for("the first to run", lambda: cluster.state(first) == "RUNNING")
        second = self.submit(cluster)
        self.wait_for("the second to be planned", lambda: cluster.state(second) == "QUEUED")
        reason = self.wait_for("a reason", lambda: text if "MiB" in (text := cluster.json("describe", second)["reason"]) else None)
        print(reason)
        self.assertIn(first, reason, "who has it")
        booked, offered = (max(series(coordinator, f"lockstep_worker_memory_{what}_bytes").values()) for what in ("booked", "offered"))
        self.assertGreaterEqual(booked, predicted)
        self.assertLessEqual(booked, offered)
        cluster.succeed("cancel", first)
        self.wait_for("the second to run", lambda: cluster.state(second) == "RUNNING")
        cluster.succeed("cancel", second)


if __name__ == "__main__":
    unittest.main(verbosity=2)
