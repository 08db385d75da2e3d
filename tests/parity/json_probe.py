"""Passes cases to one of our programs as JSON, and its results back."""
import json
import os
import subprocess


def run(program: str, request: dict) -> dict:
    """`program` is a target's name, as in CMakeLists.txt. Numbers travel whole: JSON has all of a float64's digits."""
    path = os.environ[f"LOCKSTEP_{program.upper()}"]
    done = subprocess.run([path], input=json.dumps(request), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 0, f"{program} ended with {done.returncode}: {done.stderr}"
    return json.loads(done.stdout)
