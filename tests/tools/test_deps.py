"""tools/deps: what it does on hosts that lack something, and what it refuses to build."""

import hashlib
import http.server
import io
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
import threading
import time
from pathlib import Path
from shlex import quote

import pytest
from conftest import ROOT

DEPS = str(ROOT / "tools/deps")
NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]


def tool(directory, name, text):
    path = directory / name
    path.write_text("#!/bin/bash\n" + text)
    path.chmod(0o755)
    return path


@pytest.fixture
def tmp_path():
    """pytest's own is closed to other users, and some tests become nobody."""
    with tempfile.TemporaryDirectory(prefix="sluice-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture
def bin_dir(tmp_path):
    """A directory before all others on PATH, where dpkg-query denies that meson is installed."""
    directory = tmp_path / "bin"
    directory.mkdir()
    tool(directory, "dpkg-query", "/usr/bin/dpkg-query \"$@\" | grep -vx 'installed meson'")
    return directory


def run(command, bin_dir=None, tmp_path=None, path="/usr/sbin:/usr/bin:/sbin:/bin"):
    env = {"PATH": f"{bin_dir}:{path}" if bin_dir else path, "HOME": str(tmp_path or "/nonexistent"),
           "SLUICE_CACHE": str(tmp_path / "cache") if tmp_path else "/nonexistent"}
    return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60)


def need_root():
    if os.geteuid() != 0:
        pytest.skip("changes to another user: run as root")


def test_nothing_missing_needs_no_second():
    began = time.monotonic()
    done = run([DEPS, "--test"])
    assert (done.returncode, done.stdout) == (0, "Nothing is missing.\n")
    assert time.monotonic() - began < 1


def test_nothing_missing_needs_no_network_and_no_root():
    prefix = ["unshare", "-n" if os.geteuid() == 0 else "-rn"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        pytest.skip("may not make a network namespace: run as root, or allow user namespaces")
    assert run([*prefix, DEPS]).stdout == "Nothing is missing.\n"
    if os.geteuid() == 0 and not any(p in str(ROOT) for p in ["/root"]):
        assert run([*NOBODY, DEPS]).stdout == "Nothing is missing.\n"


def test_list_names_what_is_missing_and_changes_nothing(bin_dir, tmp_path):
    done = run([DEPS, "--list"], bin_dir, tmp_path)
    assert done.returncode == 1
    assert "missing Debian packages: meson\n" in done.stdout
    assert not (tmp_path / "cache").exists()


def copied_tree(tmp_path):
    """Its own .deps, for those tests that let tools/deps write."""
    tree = tmp_path / "a tree"
    (tree / ".deps").mkdir(parents=True)
    shutil.copytree(ROOT / "tools", tree / "tools")
    for path in [tmp_path, *tree.rglob("*"), tree]:
        os.chown(path, 65534, 65534)
    return tree


def test_without_root_and_sudo_it_prints_the_one_line_to_run(bin_dir, tmp_path):
    need_root()
    tree = copied_tree(tmp_path)
    # A PATH without sudo: links to everything but it.
    for place in ["/usr/bin", "/usr/sbin"]:
        for name in os.listdir(place):
            if name not in ("sudo", "dpkg-query") and not (bin_dir / name).exists():
                (bin_dir / name).symlink_to(f"{place}/{name}")
    done = run([*NOBODY, str(tree / "tools/deps")], bin_dir, tmp_path, path="/nonexistent")
    assert done.returncode == 1
    lines = [x for x in done.stdout.splitlines() if "apt-get" in x]
    assert lines == [
        "    apt-get update && apt-get install -y --no-install-recommends meson"
    ], done.stdout + done.stderr


def test_with_sudo_only_apt_runs_as_root(bin_dir, tmp_path):
    need_root()
    tree = copied_tree(tmp_path)
    log = tmp_path / "sudo.log"
    tool(bin_dir, "sudo", f'echo "$*" >>"{log}"; [[ $1 == -v ]] || exit 1')
    done = run([*NOBODY, str(tree / "tools/deps")], bin_dir, tmp_path)
    assert done.returncode == 1  # this sudo installs nothing
    assert "    sudo sh -c 'apt-get update && apt-get install" in done.stdout
    calls = log.read_text().splitlines()
    assert calls[0] == "-v"
    assert len(calls) > 1
    for call in calls[1:]:
        assert re.match(r"-n env DEBIAN_FRONTEND=noninteractive apt-get ", call), call


def test_a_failed_step_shows_the_end_of_its_log_and_what_to_type(bin_dir, tmp_path):
    need_root()
    tree = copied_tree(tmp_path)
    tool(bin_dir, "apt-get", 'for i in {1..30}; do echo "apt says $i"; done; exit 100')
    done = run([str(tree / "tools/deps"), "--test"], bin_dir, tmp_path)
    assert done.returncode == 1
    assert re.search(r"^\[1/6\] \d+ Debian packages? … failed after \d+ s", done.stdout, re.M)
    assert "apt says 11\n" in done.stdout and "apt says 10\n" not in done.stdout
    assert re.search(r"^To try again.*: .*a\\ tree/tools/deps --test$", done.stdout, re.M)
    assert "apt says 30" in (tree / ".deps/log/apt.log").read_text()


def test_too_little_disk_is_said_before_anything_is_fetched(bin_dir, tmp_path):
    need_root()
    tree = copied_tree(tmp_path)
    tool(bin_dir, "df", "echo head; echo 'dev 1 1 100000 1% /'")
    tool(bin_dir, "apt-get", f"touch {tmp_path}/called; exit 1")
    done = run([str(tree / "tools/deps")], bin_dir, tmp_path)
    assert done.returncode == 1
    assert "97 MB free; 1500 MB are needed" in done.stderr
    assert not (tmp_path / "called").exists()


def test_an_unknown_argument_is_a_usage_error():
    for name in ["deps", "build", "test", "demo"]:
        if (ROOT / "tools" / name).exists():
            done = run([str(ROOT / "tools" / name), "--no-such-thing"])
            assert done.returncode == 2, name
            assert "--no-such-thing" in done.stderr


# ---- sources: a mirror of our own, which lacks what a test wants it to lack ---------------------


class Mirror:
    def __init__(self, directory):
        self.directory = directory
        self.index = []

        class Handler(http.server.SimpleHTTPRequestHandler):
            def __init__(self, *args):
                super().__init__(*args, directory=str(directory))

            def log_message(self, *args):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def archive(self, version, kind, files, there=True):
        """A tar archive in the index, on the mirror unless it shall be missing."""
        name = f"yyjson_{version}.{kind}.tar.gz"
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
            for path, text in files.items():
                info = tarfile.TarInfo(path)
                info.size = len(text)
                tar.addfile(info, io.BytesIO(text.encode()))
        data = buffer.getvalue()
        if there:
            (self.directory / name).write_bytes(data)
        self.index.append(
            f"yyjson {version} http://127.0.0.1:{self.server.server_port}/{name} {name} "
            f"{len(data)} {hashlib.sha256(data).hexdigest()}"
        )
        return name


PATCH = "--- a/x\n+++ b/x\n@@ -1 +1 @@\n-one\n+two\n"


@pytest.fixture
def mirror(tmp_path):
    directory = tmp_path / "mirror"
    directory.mkdir()
    mirror = Mirror(directory)
    yield mirror
    mirror.server.shutdown()


def unpack(bash, tmp_path, mirror, version, extra=""):
    (tmp_path / "deps/apt").mkdir(parents=True)
    (tmp_path / "deps/apt/files").write_text("\n".join(mirror.index) + "\n")
    (tmp_path / "deps/apt/apt.conf").write_text('Acquire::Retries "0";\nAPT::Sandbox::User "root";\n')
    done = bash(f"{extra} unpack_source yyjson {version} $WORK/y; echo status=$?; cat $WORK/y/x $WORK/y/.patches")
    return done.stdout + done.stderr


def test_the_patch_series_is_applied_and_counted(bash, tmp_path, mirror):
    mirror.archive("1-1+deb13u1", "orig", {"y-1/x": "one\n"})
    mirror.archive("1-1+deb13u1", "debian",
                   {"debian/patches/series": "# why\n\nfix.patch\n", "debian/patches/fix.patch": PATCH})
    out = unpack(bash, tmp_path, mirror, "1-1+deb13u1")
    assert "status=0\ntwo\n1\n" in out, out


def test_a_missing_patch_archive_of_a_security_update_stops_and_is_named(bash, tmp_path, mirror):
    mirror.archive("1-1+deb13u1", "orig", {"y-1/x": "one\n"})
    name = mirror.archive("1-1+deb13u1", "debian", {"debian/patches/series": ""}, there=False)
    out = unpack(bash, tmp_path, mirror, "1-1+deb13u1")
    assert "status=1" in out and f"does not have {name}" in out, out


def test_allow_unpatched_goes_on_without(bash, tmp_path, mirror):
    mirror.archive("1-1+deb13u1", "orig", {"y-1/x": "one\n"})
    mirror.archive("1-1+deb13u1", "debian", {"debian/patches/series": ""}, there=False)
    out = unpack(bash, tmp_path, mirror, "1-1+deb13u1", "ALLOW_UNPATCHED=1;")
    assert "status=0\none\n0\n" in out, out


def test_without_a_security_update_missing_packaging_does_not_stop(bash, tmp_path, mirror):
    mirror.archive("1-1", "orig", {"y-1/x": "one\n"})
    name = mirror.archive("1-1", "debian", {"debian/patches/series": ""}, there=False)
    out = unpack(bash, tmp_path, mirror, "1-1")
    assert "status=0\none\n0\n" in out and f"does not have {name}" in out, out


def test_a_security_update_without_a_series_stops(bash, tmp_path, mirror):
    mirror.archive("1-1+deb13u1", "orig", {"y-1/x": "one\n"})
    mirror.archive("1-1+deb13u1", "debian", {"debian/control": ""})
    out = unpack(bash, tmp_path, mirror, "1-1+deb13u1")
    assert "status=1" in out and "no patch series" in out, out


def test_a_patch_that_does_not_apply_stops(bash, tmp_path, mirror):
    mirror.archive("1-1+deb13u1", "orig", {"y-1/x": "three\n"})
    mirror.archive("1-1+deb13u1", "debian",
                   {"debian/patches/series": "fix.patch\n", "debian/patches/fix.patch": PATCH})
    assert "status=1" in unpack(bash, tmp_path, mirror, "1-1+deb13u1")


def test_a_file_other_than_the_index_says_is_refused(bash, tmp_path, mirror):
    name = mirror.archive("1-1", "orig", {"y-1/x": "one\n"})
    (mirror.directory / name).write_bytes(b"something else")
    out = unpack(bash, tmp_path, mirror, "1-1")
    assert "status=1" in out and f"does not have {name}" in out, out


def test_the_newest_version_that_will_do_is_taken(bash, tmp_path, mirror):
    for version in ["0.9-1", "0.10-1", "0.10-1+deb13u2", "0.10-1+deb13u10"]:
        mirror.archive(version, "orig", {"y-1/x": "one\n"})
    (tmp_path / "deps/apt").mkdir(parents=True)
    (tmp_path / "deps/apt/files").write_text("\n".join(mirror.index) + "\n")
    assert bash("newest_version yyjson 0.10").stdout == "0.10-1+deb13u10\n"
    assert bash("newest_version yyjson 0.11; echo $?").stdout == "1\n"


def test_a_kept_build_stands_in_when_the_newest_cannot_be_had(bash, tmp_path, mirror):
    mirror.archive("2-1+deb13u1", "orig", {"y-1/x": "one\n"}, there=False)
    (tmp_path / "deps/apt").mkdir(parents=True)
    (tmp_path / "deps/apt/files").write_text("\n".join(mirror.index) + "\n")
    (tmp_path / "deps/apt/apt.conf").write_text('Acquire::Retries "0";\n')
    done = bash(
        "HOST_KEY=x; UPDATE=1; slot=$CACHE/deps/yyjson-$(library_key yyjson)/1-1; mkdir -p $slot\n"
        "echo yyjson 1-1 0 >$slot/done\n"
        "build_step 6 yyjson 0.10 yyjson; echo status=$?; library_dir yyjson"
    )
    assert "staying with 1-1" in done.stdout, done.stdout + done.stderr
    assert "MISSING FILE: the mirror does not have yyjson_2-1+deb13u1.orig.tar.gz" in done.stdout
    assert re.search(r"status=0\n.*/1-1\n$", done.stdout)


def test_the_index_is_read_whole(bash, tmp_path):
    tool_dir = tmp_path / "bin"
    tool_dir.mkdir()
    sources = (
        "Package: yyjson\nVersion: 3-1\nDirectory: pool/main/y/yyjson\nFiles:\n abc 3 ignored\n"
        "Checksums-Sha256:\n " + "a" * 64 + " 12 y.dsc\n " + "b" * 64 + " 13 y.orig.tar.gz\n"
        "Standards: 4\n\nPackage: yyjson-other\nVersion: 1\nDirectory: x\nChecksums-Sha256:\n "
        + "c" * 64 + " 1 z\n"
    )
    (tmp_path / "Sources").write_text(sources)
    done = bash(
        "private_apt() { if [[ $1 == apt-get ]]; then echo \"http://m/debian/|f\"; "
        f"else cat {tmp_path}/Sources; fi; }}\nparse_sources"
    )
    assert done.stdout.splitlines() == [
        f"yyjson 3-1 http://m/debian/pool/main/y/yyjson/y.dsc y.dsc 12 {'a' * 64}",
        f"yyjson 3-1 http://m/debian/pool/main/y/yyjson/y.orig.tar.gz y.orig.tar.gz 13 {'b' * 64}",
    ], done.stderr


def test_a_heartbeat_says_that_a_long_step_lives(bash):
    done = bash('step_run "[3/6] thing" /dev/null sleep 10.4; echo status=$STEP_STATUS')
    assert done.stdout == "[3/6] thing … 10 s so far\nstatus=0\n"


def test_a_stopped_command_leaves_no_process_behind(bash, tmp_path):
    script = (
        f"source {quote(str(ROOT))}/tools/lib.sh; step_traps\n"
        "step_run thing /dev/null bash -c 'sleep 54.321 & wait'\n"
    )
    process = subprocess.Popen(["bash", "-c", script])
    time.sleep(0.7)
    found = subprocess.run(["pgrep", "-f", "^sleep 54.321"], capture_output=True).stdout
    assert found
    process.terminate()
    assert process.wait(timeout=5) == 143
    time.sleep(0.2)
    assert not subprocess.run(["pgrep", "-f", "^sleep 54.321"], capture_output=True).stdout


def test_the_hosts_apt_is_never_written(root):
    for name in ["deps", "build", "run", "test", "lib.sh"]:
        text = (root / "tools" / name).read_text()
        assert not re.search(r">+\s*/etc|(tee|cp|mv|rm)\b.* /etc|sysctl -w|systemctl", text), name


# ---- packages that would start a server ----------------------------------------------------------


def make_deb(directory, touched):
    """A package whose installation would be seen: its script touches a file."""
    tree = directory / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / "DEBIAN/control").write_text(
        "Package: served\nVersion: 1\nArchitecture: all\nMaintainer: x <x@y>\nDescription: x\n")
    tool(tree / "DEBIAN", "postinst", f"touch {touched}\n")
    tool(tree / "usr/bin", "wanted", "echo wanted\n")
    tool(tree / "usr/bin", "server", "echo server\n")
    deb = directory / "served_1_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, deb], check=True,
                   capture_output=True)
    return deb


@pytest.mark.parametrize("path, there", [("usr/bin/wanted", ["wanted"]), ("", ["server", "wanted"])])
def test_a_package_with_a_server_is_unpacked_not_installed(bash, tmp_path, mirror, path, there):
    touched = tmp_path / "installed"
    deb = make_deb(mirror.directory, touched)
    sha = hashlib.sha256(deb.read_bytes()).hexdigest()
    line = f"'http://127.0.0.1:{mirror.server.server_port}/{deb.name}' {deb.name} 9 SHA256:{sha}"
    done = bash(f'apt-get() {{ echo "{line}"; }}\n'
                f'step_run x $DEPS/log/x unpack_packages "{path}" served; echo $STEP_STATUS; cat $DEPS/log/x')
    assert done.stdout.startswith("0\n"), done.stdout
    assert sorted(p.name for p in (tmp_path / "deps/root/usr/bin").iterdir()) == there
    assert not touched.exists()


def test_a_file_still_to_be_unpacked_is_missing(bash, tmp_path):
    there = tmp_path / "deps/root/usr/bin"
    there.mkdir(parents=True)
    for name in ["promtool", "turnserver"]:
        (there / name).touch()
    assert bash("TEST=1; have() { false; }; missing_files").stdout == ""
    (there / "promtool").unlink()
    assert bash("TEST=1; have() { false; }; missing_files").stdout == "prometheus usr/bin/promtool\n"
    (there / "turnserver").unlink()
    assert bash("TEST=1; have() { [[ $1 == promtool ]]; }; missing_files").stdout == (
        "coturn usr/bin/turnserver whole\n")


def test_a_whole_package_comes_with_the_libraries_it_lacks(bash):
    done = bash("apt-get() { [[ $* == *' -s '*' served' ]] || exit 1\n"
                "printf '%s\\n' 'Inst telnet (1 x)' 'Inst libone1 [0] (1 x)' 'Conf libone1 (1 x)' 'Inst served (1 x)'; }\n"
                "unpack_packages() { printf '<%s>' \"$@\"; }\n"
                "unpack_whole served")
    assert done.stdout == "<><served><libone1>", done


def test_what_is_unpacked_runs_before_what_is_installed(bash, tmp_path):
    (tmp_path / "deps/root/usr/bin").mkdir(parents=True)
    tool(tmp_path / "deps/root/usr/bin", "nproc", "echo ours $* $LD_LIBRARY_PATH\n")
    done = bash("unpacked nproc --x")
    assert done.stdout.startswith(f"ours --x {tmp_path}/deps/root/usr/lib/"), done
