# SPDX-License-Identifier: GPL-3.0-or-later
"""A loopback of its own whose TCP connections use cubic, both ends and whoever opens them: the local
routes say so. The host's choice is nobody's business here, and BBR, which paces, makes figures of
loopback swing by a factor of two.

    bench/macro/loop.py     prints the congestion control of both ends of a connection
"""
import os
import pathlib
import socket
import subprocess
import sys

ALGORITHM = "cubic"
HOST = pathlib.Path("/proc/sys/net/ipv4/tcp_congestion_control")


def both_ends():
    with socket.socket() as door, socket.socket() as one:
        door.bind(("127.0.0.1", 0))
        door.listen()
        one.connect(door.getsockname())
        other, _ = door.accept()
        with other:
            return [s.getsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, 16).split(b"\0")[0].decode()
                    for s in (one, other)]


class Loop:
    """Where the host pins it already, the host's loopback."""

    def __init__(self):
        self.space = None
        if HOST.read_text().strip() == ALGORITHM:
            return
        space = f"slb-c{os.getpid() % 10000}"
        self._run("ip", "netns", "add", space)
        self.space = space
        try:
            self._run("ip", "-n", space, "link", "set", "lo", "up")
            for at in "127.0.0.0/8", "127.0.0.1":
                self._run("ip", "-n", space, "route", "replace", "local", at, "dev", "lo", "table",
                          "local", "proto", "kernel", "scope", "host", "src", "127.0.0.1", "congctl",
                          ALGORITHM)
            got = self._run(*self.enter(), sys.executable, __file__).split()
            if got != [ALGORITHM] * 2:
                raise OSError(f"congestion control is {got}, not {ALGORITHM}")
        except (OSError, subprocess.CalledProcessError):
            self.close()
            raise

    @staticmethod
    def _run(*command):
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout

    def enter(self):
        return ["ip", "netns", "exec", self.space] if self.space else []

    def close(self):
        if self.space:
            subprocess.run(["ip", "netns", "del", self.space], capture_output=True)


if __name__ == "__main__":
    print(*both_ends())
