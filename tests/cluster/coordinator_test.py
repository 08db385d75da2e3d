"""The commands against a coordinator that stays, with workers as on several hosts."""

import json
import os
import shutil
import signal
import subprocess
import unittest

from tests.cluster import harness


class CoordinatorTest(harness.ClusterTest):
    def test_a_job_from_submit_to_download(self):
        cluster = harness.RunningCluster(self)
        job = cluster.submit("--batch", 16, "--epochs", 2, "--name", "first")
        events = [json.loads(line) for line in cluster.succeed("watch", job, "--json").out.splitlines()]
        self.assertEqual([event["sequence"] for event in events], list(range(1, len(events) + 1)))
        self.assertEqual(len([event for event in events if "step" in event]), 10)
        late = [json.loads(line) for line in cluster.succeed("watch", job, "--json", "--after", 5).out.splitlines()]
        self.assertEqual(late, events[5:])
        described = cluster.json("describe", job)
        self.assertEqual(described["state"], "DONE")
        self.assertIn("trained.keras", described["artifacts"])
        self.assertEqual([entry["job_id"] for entry in cluster.json("list")], [job])
        cluster.succeed("download", job, "--out", self.path("a.keras"))
        self.succeed("evaluate", self.path("a.keras"), "--data", harness.VALIDATION, "--batch", 8)
        for command in (("list",), ("describe", job), ("workers",), ("version",), ("watch", job)):
            self.assertNotEqual(cluster.succeed(*command).out, "")
        by_environment = {**self.environment, "LOCKSTEP_COORDINATOR": cluster.address, "LOCKSTEP_TOKEN": harness.TOKEN}
        self.assertIn(job, self.succeed("list", env=by_environment).out)
        workers = cluster.json("workers")
        self.assertEqual([worker["state"] for worker in workers], ["connected"])

    def test_logs(self):
        pictures = self.path("pictures")
        shutil.copytree(harness.TRAIN, pictures)
        with open(os.path.join(pictures, sorted(os.listdir(pictures))[0], "empty.jpg"), "wb"):
            pass
        cluster = harness.RunningCluster(self)
        job = cluster.submit("--batch", 16, "--epochs", 1, "--skip-bad", 1, pictures=pictures)
        cluster.succeed("watch", job)
        lines = cluster.succeed("logs", job, "--follow").out.splitlines()
        self.assertTrue(any(line.startswith("1.0 ") and "empty.jpg" in line for line in lines), lines)

    def test_workers_as_on_several_hosts_have_the_same_bits(self):
        alone = self.fit("alone", "--virtual-replicas", 4, "--seed", 5, epochs=2)
        cluster = harness.RunningCluster(self, workers=2, slots=1)
        self.succeed(
            "fit", harness.model("tiny.keras"), "--train", harness.TRAIN, "--batch", 16, "--epochs", 2, "--virtual-replicas", 4, "--seed", 5,
            "--replicas", 2, "--out", self.path("both.keras"), "--step-log", self.path("both.jsonl"), *cluster.flags())  # fmt: skip
        both = self.read_steps("both.jsonl")
        self.assertEqual([step["state_hash"] for step in both], alone.hashes)

    def test_cancel(self):
        cluster = harness.RunningCluster(self)
        job = cluster.submit("--batch", 16, "--epochs", 100000)
        self.wait_for("it to run", lambda: cluster.state(job) == "RUNNING")
        cluster.succeed("cancel", job)
        self.wait_for("it to end", lambda: cluster.state(job) == "CANCELLED")
        self.assertEqual(self.run_lockstep("watch", job, *cluster.flags()).code, 130)

    def test_a_restarted_coordinator_knows_everything_and_watching_goes_on(self):
        cluster = harness.RunningCluster(self)
        job = cluster.submit("--batch", 16, "--steps", 400)
        watch = self.start("lockstep", "watch", job, "--json", *cluster.flags())
        self.addCleanup(watch.kill)
        self.wait_for("it to run", lambda: cluster.state(job) == "RUNNING")
        cluster.coordinator.send_signal(signal.SIGKILL)
        cluster.coordinator.wait()
        cluster.start_coordinator(cluster.address)
        out, err = watch.communicate(timeout=120)
        self.assertEqual(watch.returncode, 0, err)
        events = [json.loads(line) for line in out.splitlines()]
        self.assertEqual([event["sequence"] for event in events], list(range(1, len(events) + 1)))
        self.assertEqual([event["step"]["step"] for event in events if "step" in event], list(range(1, 401)))
        self.assertEqual(cluster.state(job), "DONE")

    def test_a_wrong_token_and_an_unknown_job(self):
        cluster = harness.RunningCluster(self, workers=0)
        with open(self.path("wrong"), "w", encoding="utf-8") as file:
            file.write("wrong")
        outcome = self.run_lockstep("list", "--coordinator", cluster.address, "--token-file", self.path("wrong"))
        self.assertEqual(outcome.code, 2)
        self.assertIn("token", outcome.err)
        outcome = self.run_lockstep("describe", "no-such-job", *cluster.flags())
        self.assertEqual(outcome.code, 2)
        self.assertIn("no-such-job", outcome.err)

    @unittest.skipUnless(shutil.which("openssl"), "makes its certificate with openssl")
    def test_over_tls(self):
        certificate, key = self.path("certificate.pem"), self.path("key.pem")
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=lockstep.test", "-addext",
             "subjectAltName=DNS:lockstep.test", "-keyout", key, "-out", certificate], check=True, capture_output=True)  # fmt: skip
        cluster = harness.RunningCluster(
            self, coordinator_flags=("--tls-certificate", certificate, "--tls-key", key),
            worker_flags=("--ca-certificate", certificate, "--server-name", "lockstep.test"))  # fmt: skip
        tls = ("--ca-certificate", certificate, "--server-name", "lockstep.test")
        self.succeed(
            "fit", harness.model("tiny.keras"), "--train", harness.TRAIN, "--batch", 16, "--epochs", 1, "--replicas", 2, "--out",
            self.path("a.keras"), *cluster.flags(), *tls)  # fmt: skip
        self.assertNotEqual(self.run_lockstep("list", *cluster.flags()).code, 0, "answered without TLS")

    def test_a_port_in_use_is_named(self):
        cluster = harness.RunningCluster(self, workers=0)
        second = subprocess.run(
            [os.path.join(harness.BIN, "lockstep-coordinator"), "--listen", cluster.address, "--http", "127.0.0.1:0", "--state-dir",
             self.path("second"), "--token-file", cluster.token_file],
            capture_output=True, text=True, timeout=30, check=False, env=self.environment)  # fmt: skip
        self.assertNotEqual(second.returncode, 0)
        self.assertIn(cluster.address, second.stderr)


if __name__ == "__main__":
    unittest.main(verbosity=2)
