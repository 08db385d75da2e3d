"""Hosts of a test's own: network namespaces, joined by pairs of virtual interfaces through the namespace that this process moves into. Every
packet between two of them passes through here, where links can be taken down and routes made to lose what comes."""

import ctypes
import os
import subprocess
import time

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000


def move_into_a_namespace():
    """This process, and whatever it starts, into a network of its own. Says why not, where that is not allowed."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(CLONE_NEWNET) != 0:
        if libc.unshare(CLONE_NEWUSER | CLONE_NEWNET) != 0:
            return f"no network namespaces here: {os.strerror(ctypes.get_errno())}"
        for name, text in (("setgroups", "deny"), ("uid_map", f"0 {user} 1"), ("gid_map", f"0 {group} 1")):
            with open(f"/proc/self/{name}", "w", encoding="utf-8") as file:
                file.write(text)
    try:
        ip("link", "set", "lo", "up")
        with open("/proc/sys/net/ipv4/ip_forward", "w", encoding="utf-8") as file:
            file.write("1")
        # So that there is room for a rule before those of our own addresses.
        ip("rule", "add", "priority", 100, "lookup", "local")
        ip("rule", "del", "priority", 0)
    except (OSError, subprocess.CalledProcessError) as error:
        return f"no network namespaces here: {error}"
    return ""


def ip(*arguments, within=()):
    subprocess.run([*within, "ip", *map(str, arguments)], check=True, stdin=subprocess.DEVNULL)


class Host:
    """One namespace; `hub` is this process's address on the way to it, `address` its own."""

    def __init__(self, number):
        self.link = f"host{number}"
        self.hub, self.address = f"10.111.{number}.1", f"10.111.{number}.2"
        # It ends when its input does, with this process at the latest.
        self.holder = subprocess.Popen(["unshare", "--net", "cat"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        ours = os.readlink("/proc/self/ns/net")
        deadline = time.monotonic() + 10
        while os.readlink(f"/proc/{self.holder.pid}/ns/net") == ours:
            assert time.monotonic() < deadline, "unshare does not come"
            time.sleep(0.01)
        self.within = ("nsenter", f"--net=/proc/{self.holder.pid}/ns/net", "--")
        ip("link", "add", self.link, "type", "veth", "peer", "name", "eth0", "netns", self.holder.pid)
        ip("address", "add", f"{self.hub}/24", "dev", self.link)
        ip("link", "set", self.link, "up")
        ip("address", "add", f"{self.address}/24", "dev", "eth0", within=self.within)
        ip("link", "set", "lo", "up", within=self.within)
        ip("link", "set", "eth0", "up", within=self.within)
        ip("route", "add", "default", "via", self.hub, within=self.within)

    def set_link(self, state):
        ip("link", "set", self.link, state)

    def lose(self, destination, how="add"):
        """What this host sends there vanishes, and nobody is told; `del` ends that."""
        ip("rule", how, "priority", 1, "iif", self.link, "to", f"{destination}/32", "blackhole")

    def end(self):
        ip("link", "del", self.link)
        self.holder.stdin.close()
        self.holder.wait()
