# SPDX-License-Identifier: GPL-3.0-or-later
"""Two network namespaces and a wire between them whose ends merge what they receive: rx GRO on, and
threaded NAPI, so that the work of receiving has a thread of its own that can be pinned and counted.

    bench/macro/veth.py DEVICE     what `ethtool -K DEVICE gro on tso off` does, without ethtool

Without tso off the other end believes that nothing is to be gained and does not merge datagrams
(veth_skb_is_eligible_for_gro in drivers/net/veth.c); segmentation of UDP is another feature.
"""
import array
import fcntl
import os
import pathlib
import socket
import struct
import subprocess
import sys
import time

SIOCETHTOOL = 0x8946
ETHTOOL_STSO = 0x1f
ETHTOOL_SGRO = 0x2c


def merge(device):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
        for command, on in (ETHTOOL_SGRO, 1), (ETHTOOL_STSO, 0):
            value = array.array("B", struct.pack("II", command, on))
            fcntl.ioctl(s, SIOCETHTOOL,
                        struct.pack("16sP16x", device.encode(), value.buffer_info()[0]))


def napi_thread(device):
    """The kernel's thread that receives for this device."""
    for comm in pathlib.Path("/proc").glob("[0-9]*/comm"):
        try:
            name = comm.read_text().strip()
        except OSError:
            continue
        if name.startswith(f"napi/{device}"[:15]):
            return int(comm.parent.name)
    return None


class Veth:
    """ends: server and generator; each has a namespace, a device, an address, a NAPI thread."""

    def __init__(self, cores):
        tag = os.getpid() % 10000
        self.space = {"server": f"slb-s{tag}", "load": f"slb-l{tag}"}
        self.device = {"server": f"sbs{tag}", "load": f"sbl{tag}"}
        self.address = {"server": "10.66.0.1", "load": "10.66.0.2"}
        self.napi = {}
        made = False
        try:
            for space in self.space.values():
                self._run("ip", "netns", "add", space)
            made = True
            queue = ["numtxqueues", "1", "numrxqueues", "1"]  # so that there is one thread each
            self._run("ip", "-n", self.space["server"], "link", "add", self.device["server"], *queue,
                      "type", "veth", "peer", "name", self.device["load"], *queue,
                      "netns", self.space["load"])
            for end, space in self.space.items():
                device = self.device[end]
                self.inside(end, sys.executable, __file__, device)
                self._run("ip", "-n", space, "link", "set", "lo", "up")
                self._run("ip", "-n", space, "address", "add", self.address[end] + "/24", "dev", device)
                self._run("ip", "-n", space, "link", "set", device, "up")
            for end in self.space:
                self.inside(end, "sh", "-c", f"echo 1 > /sys/class/net/{self.device[end]}/threaded")
            time.sleep(0.3)
            for end, core in cores.items():
                self.napi[end] = napi_thread(self.device[end])
                if not self.napi[end]:
                    raise OSError(f"no NAPI thread of {self.device[end]}")
                os.sched_setaffinity(self.napi[end], core)
        except (OSError, subprocess.CalledProcessError):
            if made:
                self.close()
            raise

    @staticmethod
    def _run(*command):
        subprocess.run(command, check=True, capture_output=True)

    def inside(self, end, *command):
        self._run(*self.enter(end), *command)

    def enter(self, end):
        return ["ip", "netns", "exec", self.space[end]]

    def close(self):
        for space in self.space.values():
            subprocess.run(["ip", "netns", "del", space], capture_output=True)


if __name__ == "__main__":
    merge(sys.argv[1])
