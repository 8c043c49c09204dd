"""tools/demo: a line per step, and a status that tells."""

import os
import socket
import subprocess
import time
from pathlib import Path
from shlex import quote

import pytest
from conftest import ROOT

BUILD = Path(os.environ.get("SLUICE_BUILD") or ROOT / "build")


def demo(*arguments, cwd="/", env=None):
    if not (BUILD / "engine/sluice").exists() or not (BUILD / "tools/sluice-peer").exists():
        pytest.skip("nothing is built: tools/build")
    return subprocess.run([ROOT / "tools/demo", *arguments], cwd=cwd, capture_output=True, text=True,
                          timeout=60, env={**os.environ, "SLUICE_BUILD": str(BUILD), **(env or {})})


def test_it_shows_a_circuit_in_under_ten_seconds():
    began = time.monotonic()
    done = demo()
    assert done.returncode == 0, done.stdout + done.stderr
    assert time.monotonic() - began < 10
    lines = done.stdout.splitlines()
    assert len(lines) >= 6 and all(line.startswith("✔ ") for line in lines), done.stdout
    assert any("SHA-256" in line for line in lines)
    assert any("neither was told the other's address" in line for line in lines)
    assert any("STUN told a client" in line for line in lines)
    assert any("TURN carried 32 datagrams" in line and "SHA-256" in line for line in lines)
    assert any("two DIG nodes registered" in line for line in lines)
    assert any("each finds itself and the other" in line for line in lines)
    assert any("DIG relay carried 32 messages" in line and "SHA-256" in line for line in lines)
    assert any("was told when the other came and when it left" in line for line in lines)


def test_a_relay_that_is_not_there_is_a_failure():
    with socket.socket() as taken:  # bound, not listening: refused, and nobody else gets the port
        taken.bind(("127.0.0.1", 0))
        done = demo("--against", f"127.0.0.1:{taken.getsockname()[1]}")
    assert done.returncode == 1
    assert done.stdout.startswith("✘ a peer reserves a place")


def test_it_tries_a_relay_that_runs_elsewhere(tmp_path):
    relay = subprocess.Popen(
        [BUILD / "engine/sluice", "--listen-p2p", "127.0.0.1:0", "--listen-http", "off",
         "--listen-dig", "off", "--listen-turn", "off", "--data", tmp_path / "data",
         "--circuit-bandwidth-mb", "1", "--byte-count", "sum", "--drain-secs", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        address = next(x for x in relay.stdout if x.startswith("relay address: ")).split()[2]
        port = address.split("/")[4]
        for where in [address, f"127.0.0.1:{port}", f"localhost:{port}"]:
            done = demo("--against", where)
            assert done.returncode == 0, (where, done.stdout, done.stderr)
            assert "256 KiB" in done.stdout  # a quarter of what the relay allows
    finally:
        relay.terminate()
        assert relay.wait(20) == 0


def test_it_tries_a_turn_server_that_runs_elsewhere(tmp_path):
    data = tmp_path / "data"
    relay = subprocess.Popen(
        [BUILD / "engine/sluice", "--listen-p2p", "127.0.0.1:0", "--listen-http", "off",
         "--listen-dig", "off", "--listen-turn", "127.0.0.1:0", "--turn-secret", "north",
         "--turn-allow-peer", "127.0.0.0/8", "--data", data, "--drain-secs", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        said = []
        for line in relay.stdout:
            said.append(line.strip())
            if line.startswith("try it:"):
                break
        at = {line.split(": ")[0]: line.split(": ")[1] for line in said if " address: " in line}
        given = tmp_path / "credentials"
        given.write_bytes(subprocess.run([BUILD / "tools/sluicectl", "--data", data,
                                          "turn-credentials"], capture_output=True).stdout)
        flags = ["--against", at["relay address"], "--turn", at["turn address"]]
        done = demo(*flags, "--turn-credentials", given)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "TURN carried 32 datagrams" in done.stdout, done.stdout
        done = demo(*flags)
        assert done.returncode == 0 and "– TURN at" in done.stdout, done.stdout
        given.write_text('{"username":"a","password":"b"}')
        done = demo(*flags, "--turn-credentials", given)
        assert done.returncode == 1 and "✘ TURN carries" in done.stdout, done.stdout
        assert "the server says 401" in done.stdout
    finally:
        relay.terminate()
        assert relay.wait(20) == 0


def test_it_tries_a_dig_relay_that_runs_elsewhere(tmp_path):
    relay = subprocess.Popen(
        [BUILD / "engine/sluice", "--listen-p2p", "127.0.0.1:0", "--listen-http", "127.0.0.1:0",
         "--listen-dig", "127.0.0.1:0", "--listen-turn", "127.0.0.1:0", "--data", tmp_path / "data",
         "--drain-secs", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        said = []
        for line in relay.stdout:
            said.append(line.strip())
            if line.startswith("try it:"):
                break
        at = {line.split(": ")[0]: line.split(": ")[1] for line in said if " address: " in line}
        flags = ["--against", at["relay address"], "--turn", at["turn address"], "--dig"]
        done = demo(*flags, at["dig address"])
        assert done.returncode == 0, done.stdout + done.stderr
        assert "✔ the DIG relay carried 32 messages" in done.stdout, done.stdout
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            nobody = f"127.0.0.1:{taken.getsockname()[1]}"
            done = demo(*flags, nobody)
        assert done.returncode == 0 and f"– no DIG relay at {nobody}" in done.stdout, done.stdout
        done = demo(*flags, at["http address"])  # no WebSocket
        assert done.returncode == 1 and "✘ a node registers" in done.stdout, done.stdout
    finally:
        relay.terminate()
        assert relay.wait(20) == 0


def test_a_dig_relay_of_its_own_is_not_to_be_named():
    done = demo("--dig", "127.0.0.1:1")
    assert done.returncode == 2 and "go with --against" in done.stderr


def test_dig_messages_that_change_or_nodes_that_do_not_hear_are_a_failure():
    script = f"source {quote(str(ROOT))}/tools/demo; " \
             "compare_dig 1 \"$1\" \"$2\" \"$3\" \"$4\"; exit $FAILED"
    there = "\n".join(["registered peer=aa network=n connected=1", "connected peer=bb",
                       "peers count=2 ids=bb,aa",
                       "received messages=2 bytes=2 received-sha256=cc from=bb",
                       "disconnected peer=bb"])
    here = "\n".join(["registered peer=bb network=n connected=2", "peers count=2 ids=aa,bb",
                      "sent messages=2 bytes=2 sent-sha256=cc received-sha256=cc match=yes"])
    for first, second, status in [
        (there, here, 0),
        (there, here.replace("match=yes", "match=no"), 1),
        (there, here.replace("received-sha256=cc", "received-sha256=dd"), 1),
        (there.replace("received-sha256=cc", "received-sha256=dd"), here, 1),
        (there, here.replace("ids=aa,bb", "ids=bb"), 1),
        (there.replace("ids=bb,aa", "ids=bb,aa,ee"), here, 1),
        (there.replace("\nconnected peer=bb", ""), here, 1),
        (there.replace("disconnected", "gone"), here, 1),
        ("", "", 1),
    ]:
        done = subprocess.run(["bash", "-c", script, "x", "aa", "bb", first, second],
                              capture_output=True)
        assert done.returncode == status, (first, second, done.stdout.decode())


def test_turn_datagrams_that_change_are_a_failure():
    script = f"source {quote(str(ROOT))}/tools/demo; compare_turn 1 \"$1\" \"$2\"; exit $FAILED"
    allocated = "allocated client relayed=1.2.3.4:5 lifetime=600"
    good = "echo datagrams=1 bytes=1000 sent-sha256=aa received-sha256=aa match=yes"
    for echo, status in [(good, 0), (good.replace("=yes", "=no"), 1), ("", 1),
                         (good.replace("received-sha256=aa", "received-sha256=bb"), 1)]:
        done = subprocess.run(["bash", "-c", script, "x", allocated, echo], capture_output=True)
        assert done.returncode == status, (echo, done.stdout.decode())


def test_a_circuit_that_changes_bytes_or_tells_an_address_is_a_failure():
    script = f"source {quote(str(ROOT))}/tools/demo; compare 1024 1 \"$1\" \"$2\"; exit $FAILED"
    good = "circuit-closed X sent-sha256=aa received-sha256=aa match=yes addresses-seen=0"
    for source, target, status in [
        (good, good, 0),
        (good, good.replace("received-sha256=aa", "received-sha256=bb"), 1),
        (good.replace("match=yes", "match=no"), good, 1),
        (good, good.replace("seen=0", "seen=1"), 1),
        (good, "", 1),
    ]:
        done = subprocess.run(["bash", "-c", script, "x", source, target], capture_output=True)
        assert done.returncode == status, (source, target, done.stdout.decode())
