"""tools/run: what it says where the kernel refuses a ring, before anything is downloaded."""

import errno
import json
import os
import re
import subprocess
import time
from pathlib import Path

import pytest
from conftest import (
    IO_URING_SETUP,
    ROOT,
    SECCOMP_ALLOW,
    SECCOMP_ERRNO,
    filter_of,
    install_filter,
    load_profile,
)

PROBE = "$p = pack('LLLx108', 0, 0, 3 << 12); exit(syscall(425, 1, $p) < 0 ? $! + 0 : 0)"


def refused(error, command=("tools/run",), cwd=ROOT):
    program = filter_of({IO_URING_SETUP: SECCOMP_ERRNO | error}, SECCOMP_ALLOW)
    began = time.monotonic()
    done = subprocess.run(
        command, cwd=cwd, capture_output=True, text=True, timeout=20,
        preexec_fn=lambda: install_filter(program),
    )
    return done, time.monotonic() - began


@pytest.mark.parametrize(
    "error, cure",
    [
        (errno.EPERM, "--security-opt seccomp="),
        (errno.EINVAL, "Linux 6.1 or newer"),
        (errno.ENOSYS, "CONFIG_IO_URING"),
    ],
)
def test_a_refused_ring_ends_in_one_line_with_its_cure(error, cure):
    done, seconds = refused(error)
    assert done.returncode == 1
    assert seconds < 1
    assert done.stdout == ""
    assert done.stderr.count("\n") == 1, done.stderr
    assert cure in done.stderr
    assert errno.errorcode[error] in done.stderr


def test_nothing_is_fetched_before_the_kernel_was_asked(tmp_path):
    (tmp_path / "a tree").mkdir()
    subprocess.run(["cp", "-a", ROOT / "tools", tmp_path / "a tree"], check=True)
    done, _ = refused(errno.EPERM, command=["a tree/tools/run"], cwd=tmp_path)
    assert done.returncode == 1
    assert sorted(p.name for p in (tmp_path / "a tree").iterdir()) == ["tools"]
    # The path is quoted, so that the line can be pasted.
    assert r"seccomp=a\ tree/tools/deploy/seccomp.json" in done.stderr


def test_a_switched_off_io_uring_is_told_from_a_seccomp_profile(tmp_path):
    switch = Path("/proc/sys/kernel/io_uring_disabled")
    fake = tmp_path / "switch"
    fake.write_text("2\n")
    if not switch.exists():
        return  # a kernel before 6.6 has no such switch to be told from anything
    script = f'mount --bind {fake} {switch} && exec "$@"'
    wrap = ["unshare", "-m" if os.geteuid() == 0 else "-rm", "sh", "-c", script, "sh"]
    if subprocess.run([*wrap, "true"], capture_output=True).returncode:
        pytest.skip("may not make a mount namespace: run as root, or allow user namespaces")
    done, _ = refused_inside(wrap, errno.EPERM)
    assert done.returncode == 1
    assert "kernel.io_uring_disabled=0 (it is 2)" in done.stderr
    assert done.stderr.count("\n") == 1


def refused_inside(wrap, error):
    helper = (
        "import sys, os; sys.path.insert(0, sys.argv[1]);"
        "from conftest import *;"
        f"install_filter(filter_of({{IO_URING_SETUP: SECCOMP_ERRNO | {error}}}, SECCOMP_ALLOW));"
        "os.execv(sys.argv[2], sys.argv[2:])"
    )
    command = [*wrap, "/usr/bin/python3", "-c", helper, str(ROOT / "tests/tools"),
               str(ROOT / "tools/run")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=20)
    return done, 0


def numbers():
    header = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not header.exists():
        pytest.skip("checked on x86-64 only: run it there, with linux-libc-dev installed")
    found = re.findall(r"#define __NR_(\w+)\s+(\d+)", header.read_text())
    return {name: int(number) for name, number in found}


def allowed_without_capabilities(profile):
    """Names allowed whatever their arguments are; and those allowed for some arguments."""
    plain, some = set(), set()
    for rule in profile["syscalls"]:
        if rule["action"] != "SCMP_ACT_ALLOW" or rule.get("includes"):
            continue
        (some if rule.get("args") else plain).update(rule["names"])
    return plain, some


def test_the_shipped_profile_allows_rings_and_a_build():
    known = numbers()
    plain, some = allowed_without_capabilities(load_profile())
    rules = {known[n]: SECCOMP_ALLOW for n in sorted(plain | some) if n in known}
    # clone3 says ENOSYS there, so that libc falls back to clone, whose flags a filter can see.
    rules[known["clone3"]] = SECCOMP_ERRNO | errno.ENOSYS
    program = filter_of(rules, SECCOMP_ERRNO | errno.EPERM)

    def confined(command):
        return subprocess.run(command, capture_output=True, text=True, timeout=60,
                              preexec_fn=lambda: install_filter(program))

    assert confined(["perl", "-e", PROBE]).returncode == 0
    source = "int main(void){return 0;}"
    assert confined(["bash", "-c", f"echo '{source}' | gcc -x c -o /dev/null -"]).returncode == 0
    assert confined(["apt-get", "--version"]).returncode == 0
    assert confined(["unshare", "-n", "true"]).returncode != 0


def test_the_shipped_profile_keeps_back_what_reaches_past_a_container():
    plain, some = allowed_without_capabilities(load_profile())
    for name in ["mount", "umount2", "pivot_root", "setns", "unshare", "kexec_load", "bpf",
                 "init_module", "finit_module", "open_by_handle_at", "perf_event_open", "ptrace",
                 "keyctl", "add_key", "userfaultfd", "reboot", "swapon", "chroot", "iopl"]:
        assert name not in plain | some, name
    for name in ["clone", "socket", "personality"]:
        assert name in some and name not in plain, name


def test_the_profile_is_json_that_docker_reads():
    profile = load_profile()
    assert profile["defaultAction"] == "SCMP_ACT_ERRNO"
    for rule in profile["syscalls"]:
        assert set(rule) <= {"names", "action", "args", "includes", "excludes", "comment",
                             "errnoRet"}
        assert len(rule["names"]) == len(set(rule["names"]))
    json.dumps(profile)
