"""Real processes for tests: the programs of LOCKSTEP_BIN, each in folders of the test's own, and nothing of them left behind."""

import contextlib
import dataclasses
import glob
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import unittest

BIN = os.environ["LOCKSTEP_BIN"]
DATA = os.environ["LOCKSTEP_CLUSTER_DATA"]
TRAIN = os.path.join(DATA, "pictures", "train")
VALIDATION = os.path.join(DATA, "pictures", "validation")
TOKEN = "a token for tests"


def model(name):
    return os.path.join(DATA, "models", name)


@dataclasses.dataclass
class Outcome:
    code: int
    out: str
    err: str
    seconds: float


class ClusterTest(unittest.TestCase):
    """A test with a folder of its own, self.folder, and a check at its end that no process and no file of it is left."""

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="lockstep-cluster-test-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.temporary = self.path("tmp")
        os.mkdir(self.temporary)
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("LOCKSTEP_")}
        # Ours alone, so that what runs in its name can be found, whoever its parent is.
        self.environment["LOCKSTEP_TEST_MARK"] = self.folder
        self.environment["TMPDIR"] = self.temporary
        self.addCleanup(self.assert_nothing_is_left)

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def processes(self):
        """Pids and command lines of everything alive that this test started, directly or not."""
        found = []
        for entry in glob.glob("/proc/[0-9]*/environ"):
            with contextlib.suppress(OSError):
                with open(entry, "rb") as environ:
                    if f"LOCKSTEP_TEST_MARK={self.folder}".encode() not in environ.read().split(b"\0"):
                        continue
                with open(os.path.join(os.path.dirname(entry), "cmdline"), "rb") as cmdline:
                    found.append((int(entry.split("/")[2]), cmdline.read().replace(b"\0", b" ").decode()))
        return found

    def assert_nothing_is_left(self):
        deadline = time.monotonic() + 5
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.05)
        left = self.processes()
        for pid, _ in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        self.assertEqual(left, [], "processes are left")
        self.assertEqual(os.listdir(self.temporary), [], "temporary files are left")

    def start(self, program, *arguments, **options):
        options.setdefault("env", self.environment)
        return subprocess.Popen(
            [os.path.join(BIN, program), *map(str, arguments)],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=self.folder, **options)  # fmt: skip

    def run_lockstep(self, *arguments, timeout=120, **options):
        start = time.monotonic()
        process = self.start("lockstep", *arguments, **options)
        try:
            out, err = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            out, err = process.communicate()
            self.fail(f"lockstep {' '.join(map(str, arguments))} took over {timeout} s\n{out}\n{err}")
        return Outcome(process.returncode, out, err, time.monotonic() - start)

    def succeed(self, *arguments, **options):
        outcome = self.run_lockstep(*arguments, **options)
        self.assertEqual(outcome.code, 0, f"lockstep {' '.join(map(str, arguments))}\n{outcome.out}\n{outcome.err}")
        return outcome

    def fit(self, name, *arguments, archive="tiny.keras", batch=16, epochs=1, **options):
        """Trains on self.path(name + …); the summary and the step log come back."""
        outcome = self.succeed(
            "fit", model(archive), "--train", TRAIN, "--batch", batch, *(("--epochs", epochs) if epochs else ()), "--out",
            self.path(name + ".keras"), "--summary", self.path(name + ".json"), "--step-log", self.path(name + ".jsonl"), *arguments,
            **options)  # fmt: skip
        return Fit(outcome, self.read_json(name + ".json"), self.read_steps(name + ".jsonl"))

    def read_json(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return json.load(file)

    def read_steps(self, name):
        with open(self.path(name), encoding="utf-8") as file:
            return [json.loads(line) for line in file]

    def wait_for(self, what, condition, timeout=60):
        """Looks again and again until `condition` gives something true, which comes back."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if value := condition():
                return value
            time.sleep(0.02)
        self.fail(f"waited {timeout} s for {what}")


@dataclasses.dataclass
class Fit:
    outcome: Outcome
    summary: dict
    steps: list

    @property
    def hashes(self):
        return [step["state_hash"] for step in self.steps]


class RunningCluster:
    """A coordinator and workers that stay, for tests of the commands that speak to one. Ends with the test."""

    def __init__(self, test, workers=1, slots=2, coordinator_flags=(), worker_flags=(), listen="127.0.0.1:0"):
        self.test = test
        self.token_file = test.path("token")
        with open(self.token_file, "w", encoding="utf-8") as file:
            file.write(TOKEN)
        self.coordinator_flags = coordinator_flags
        self.worker_flags = worker_flags
        self.processes = []
        self.start_coordinator(listen)
        for i in range(workers):
            self.start_worker(i, slots)

    def start_coordinator(self, listen="127.0.0.1:0", environment=None):
        ready = self.test.path("coordinator.ready")
        with contextlib.suppress(FileNotFoundError):
            os.unlink(ready)
        self.coordinator = self._start(
            "lockstep-coordinator", "--listen", listen, "--http", "127.0.0.1:0", "--state-dir", self.test.path("coordinator"), "--token-file",
            self.token_file, "--ready-file", ready, "--die-with-parent", *self.coordinator_flags, environment=environment)  # fmt: skip
        self.test.wait_for("the coordinator to serve", lambda: os.path.exists(ready) or self.coordinator.poll() is not None)
        with open(ready, encoding="utf-8") as file:
            self.ready = json.load(file)
        self.address = self.ready["grpc"]

    def start_worker(self, number, slots, environment=None):
        """Each as if on a host of its own: another loopback address, another folder."""
        return self._start(
            "lockstep-worker", "--coordinator", self.address, "--token-file", self.token_file, "--state-dir",
            self.test.path(f"worker{number}"), "--address", f"127.0.0.{number + 2}", "--slots", slots, "--metrics", "127.0.0.1:0",
            "--die-with-parent", *self.worker_flags, environment=environment)  # fmt: skip

    def _start(self, program, *arguments, environment=None, within=()):
        """`within`: a command that becomes the program, in a namespace for example."""
        with open(self.test.path(program + ".log"), "a", encoding="utf-8") as log:
            process = subprocess.Popen(
                [*within, os.path.join(BIN, program), *map(str, arguments)],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env={**self.test.environment, **(environment or {})})  # fmt: skip
        self.processes.append(process)
        self.test.addCleanup(self._end, process)
        return process

    def _end(self, process):
        process.terminate()
        try:
            process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            self.test.fail(f"{process.args[0]} does not end on SIGTERM")

    def flags(self):
        return ("--coordinator", self.address, "--token-file", self.token_file)

    def succeed(self, command, *arguments, **options):
        return self.test.succeed(command, *arguments, *self.flags(), **options)

    def json(self, command, *arguments):
        return json.loads(self.succeed(command, *arguments, "--json").out)

    def submit(self, *arguments, archive="tiny.keras", pictures=TRAIN):
        return self.succeed("submit", model(archive), "--train", pictures, *arguments).out.strip()

    def state(self, job):
        return self.json("describe", job)["state"]
