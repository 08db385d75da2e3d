"""A coordinator and a worker for a benchmark, in a folder of its own; gone with it."""

import json
import os
import subprocess
import time
import urllib.request


def wait_for(condition, seconds, what):
    """What `condition` gives once it is true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise SystemExit(f"bench: waited {seconds} s for {what}")


class Cluster:
    def __init__(self, programs, folder, slots):
        self.programs, self.folder = programs, folder
        token = self.path("token")
        with open(token, "w", encoding="utf-8") as file:
            file.write("bench")
        with open(self.path("log"), "w", encoding="utf-8") as log:
            self.quiet = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self.coordinator = self.start(
                "lockstep-coordinator", "--listen", "127.0.0.1:0", "--http", "", "--state-dir", self.path("c"), "--token-file", token, "--ready-file",
                self.path("ready"), "--die-with-parent")  # fmt: skip
            self.flags = ["--coordinator", self.read_json("ready")["grpc"], "--token-file", token]
            self.worker = self.start(
                "lockstep-worker", *self.flags, "--state-dir", self.path("w"), "--address", "127.0.0.1", "--slots", str(slots), "--metrics",
                "127.0.0.1:0", "--ready-file", self.path("worker.ready"), "--die-with-parent")  # fmt: skip
            self.metrics_address = self.read_json("worker.ready")["metrics"]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for process in (self.worker, self.coordinator):
            process.terminate()
            process.wait()

    def path(self, name):
        return os.path.join(self.folder, name)

    def start(self, program, *arguments):
        return subprocess.Popen([os.path.join(self.programs, program), *arguments], **self.quiet)

    def read_json(self, name):
        wait_for(lambda: os.path.exists(self.path(name)), 20, name)
        with open(self.path(name), encoding="utf-8") as file:
            return json.load(file)

    def command(self, *words):
        done = subprocess.run([os.path.join(self.programs, "lockstep"), *map(str, words), *self.flags], capture_output=True, text=True, check=False)
        if done.returncode not in (0, 130):
            raise SystemExit(f"bench: lockstep {words}: {done.stderr}")
        return done.stdout

    def submit(self, replicas, *words):
        with open(self.path("job.yaml"), "w", encoding="utf-8") as file:
            file.write(f"replicas: {replicas}\n")
        return self.command("submit", *words, "--job", self.path("job.yaml")).strip()

    def describe(self, job):
        return json.loads(self.command("describe", job, "--json"))

    def step(self, job):
        return int(self.describe(job).get("latest", {}).get("step", 0))

    def steps(self, job):
        """The records of all committed steps, once the job has ended."""
        events = map(json.loads, self.command("watch", job, "--json").splitlines())
        return [event["step"] for event in events if "step" in event]

    def metric(self, name):
        """The sum of a metric of the worker's over its trainers."""
        with urllib.request.urlopen(f"http://{self.metrics_address}/metrics", timeout=5) as page:
            lines = page.read().decode().splitlines()
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith((name + "{", name + " ")))
