"""Helpers for the tests of the commands in tools/."""

import ctypes
import json
import os
import struct
import subprocess
from pathlib import Path
from shlex import quote

import pytest

ROOT = Path(__file__).resolve().parents[2]

SECCOMP_ALLOW = 0x7FFF0000
SECCOMP_ERRNO = 0x00050000
PR_SET_NO_NEW_PRIVS = 38
PR_SET_SECCOMP = 22
SECCOMP_MODE_FILTER = 2
IO_URING_SETUP = 425


def instruction(code, if_true, if_false, value):
    return struct.pack("HBBI", code, if_true, if_false, value)


def filter_of(rules, default):
    """A BPF program: rules maps a system call's number to an action."""
    out = [instruction(0x20, 0, 0, 0)]  # load the number
    for number, action in rules.items():
        out.append(instruction(0x15, 0, 1, number))
        out.append(instruction(0x06, 0, 0, action))
    out.append(instruction(0x06, 0, 0, default))
    return out


def install_filter(program):
    """To be called between fork and exec."""

    class Fprog(ctypes.Structure):
        _fields_ = [("len", ctypes.c_ushort), ("filter", ctypes.c_void_p)]

    libc = ctypes.CDLL(None, use_errno=True)
    code = ctypes.create_string_buffer(b"".join(program))
    fprog = Fprog(len(program), ctypes.addressof(code))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        os._exit(97)
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.byref(fprog)) != 0:
        os._exit(98)


@pytest.fixture
def root():
    return ROOT


@pytest.fixture
def bash(tmp_path):
    """Runs a snippet with a command's functions loaded and DEPS, CACHE in a scratch directory."""

    def run(script, tool="deps", env=None):
        prelude = (
            f"source {quote(str(ROOT / 'tools' / tool))}\n"
            f"DEPS={tmp_path}/deps CACHE={tmp_path}/cache WORK={tmp_path}/work\n"
            "mkdir -p $DEPS/apt $DEPS/log $DEPS/tmp $CACHE/src $WORK\n"
        )
        return subprocess.run(
            ["bash", "-c", prelude + script],
            env={**os.environ, **(env or {})},
            capture_output=True,
            text=True,
            timeout=60,
        )

    return run


def load_profile():
    return json.loads((ROOT / "tools/deploy/seccomp.json").read_text())
