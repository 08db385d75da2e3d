"""Runs a command and measures the memory of its whole process tree from the kernel's side.

Peak resident memory is the highest sum, over all processes of the tree at one moment, of their proportional set sizes: a page that
several processes map counts once, shared libraries and shared memory included.
"""
import os
import subprocess
import threading
import time


def _children_by_parent():
    children = {}
    for name in os.listdir("/proc"):
        if not name.isdigit():
            continue
        try:
            with open(f"/proc/{name}/stat", "rb") as file:
                stat = file.read()
        except OSError:
            continue
        parent = int(stat[stat.rindex(b")") + 2:].split()[1])
        children.setdefault(parent, []).append(int(name))
    return children


def tree_of(root):
    """Process ids of `root` and all of its descendants, root first."""
    children = _children_by_parent()
    found, left = [], [root]
    while left:
        pid = left.pop()
        found.append(pid)
        left.extend(children.get(pid, []))
    return found


def proportional_bytes(pid):
    try:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            for line in file:
                if line.startswith("Pss:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


class Finished:
    def __init__(self, returncode, output, wall_seconds, peak_bytes, samples):
        self.returncode = returncode
        self.output = output
        self.wall_seconds = wall_seconds
        self.peak_bytes = peak_bytes
        # (seconds since the start, bytes), one a sample
        self.samples = samples


def run(command, timeout, env=None, every=0.25):
    """Runs `command` to its end, or raises TimeoutError after `timeout` seconds, having ended the whole tree."""
    start = time.monotonic()
    process = subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    samples, done = [], threading.Event()

    def watch():
        while not done.wait(every):
            total = sum(proportional_bytes(pid) for pid in tree_of(process.pid))
            samples.append((time.monotonic() - start, total))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        for pid in reversed(tree_of(process.pid)):
            try:
                os.kill(pid, 9)
            except ProcessLookupError:
                pass
        process.communicate()
        raise TimeoutError(f"{command[0]} did not end within {timeout} s")
    finally:
        done.set()
        watcher.join()
    wall = time.monotonic() - start
    return Finished(process.returncode, output, wall, max((b for _, b in samples), default=0), samples)
