"""tools/test: it counts cases, and nothing that went wrong is lost."""

import subprocess

from conftest import ROOT

MESON_LOG = """Log of Meson test suite run

==================================== 1/5 =====================================
test:         cur
result:       exit status 0
----------------------------------- stderr -----------------------------------
[====] Synthesis: Tested: 7 | Passing: 7 | Failing: 0 | Crashing: 0 
==============================================================================

==================================== 2/5 =====================================
test:         sluice:unit / yamux
result:       exit status 1
----------------------------------- stderr -----------------------------------
[====] Synthesis: Tested: 6 | Passing: 3 | Failing: 2 | Crashing: 1 
==============================================================================

==================================== 3/5 =====================================
test:         leaky
result:       exit status 23
----------------------------------- stderr -----------------------------------
[====] Synthesis: Tested: 4 | Passing: 4 | Failing: 0 | Crashing: 0 
==============================================================================

==================================== 4/5 =====================================
test:         replay_cur
result:       exit status 0
==============================================================================

==================================== 5/5 =====================================
test:         purity
result:       killed by signal 11 SIGSEGV
==============================================================================
"""

JUNIT = """<?xml version="1.0"?><testsuites><testsuite>
<testcase classname="e2e.test_a" name="good" time="0.1" />
<testcase classname="e2e.test_a" name="good[x]" time="0.1"><system-out>failure</system-out></testcase>
<testcase classname="e2e.test_a" name="bad"><failure message="x &gt; y">trace</failure></testcase>
<testcase classname="e2e.test_a" name="worse"><error message="set-up">trace</error></testcase>
<testcase classname="e2e.test_a" name="none"><skipped type="pytest.skip" message="no &quot;go&quot;: apt-get install go" /></testcase>
</testsuite></testsuites>
"""


def count(bash, tmp_path, function, text):
    (tmp_path / "input").write_text(text)
    done = bash(f"RESULT={tmp_path}/result; {function} {tmp_path}/input; cat $RESULT", tool="test")
    return done.stdout.splitlines()


def test_every_criterion_case_counts(bash, tmp_path):
    lines = count(bash, tmp_path, "count_meson", MESON_LOG)
    assert sum(int(x.split()[1]) for x in lines if x.startswith("ok")) == 7 + 3 + 4 + 1
    failed = [x for x in lines if x.startswith("failed")]
    assert failed.count("failed yamux") == 3
    assert any("leaky (exit status 23)" in x for x in failed)
    assert any("purity (killed by signal 11" in x for x in failed)
    assert len(failed) == 5


def test_every_pytest_case_counts_and_a_skip_says_its_cure(bash, tmp_path):
    lines = count(bash, tmp_path, "count_pytest", JUNIT)
    assert "ok 2" in lines
    assert "failed e2e.test_a.bad" in lines
    assert "failed e2e.test_a.worse" in lines
    assert 'skipped e2e.test_a.none: no "go": apt-get install go' in lines


def run_suites(bash, tmp_path, strict):
    script = (
        f"LOGS={tmp_path} STRICT={strict}\n"
        "suite_one() { result ok 3; result 'skipped thing: install it'; }\n"
        "suite_two() { result ok 1; false; }\n"
        "suite_three() { sleep 30; }\n"
        "run_suite one 9; run_suite two 9; run_suite three 1\n"
        'echo "$PASSED $FAILED $SKIPPED"'
    )
    return bash(script, tool="test").stdout


def test_a_suite_that_ends_early_or_late_is_a_failure(bash, tmp_path):
    out = run_suites(bash, tmp_path, 0)
    assert out.endswith("\n4 2 1\n"), out
    assert "– skipped thing: install it" in out
    assert "three was stopped after 1 s" in out


def test_skips_for_one_reason_share_a_line(bash, tmp_path):
    (tmp_path / "r").write_text("ok 3\nskipped a.b: no go: apt-get install golang\n"
                                "skipped c: run as root\nskipped d: no go: apt-get install golang\n")
    assert bash(f"list_skipped {tmp_path}/r", tool="test").stdout.splitlines() == [
        "    – skipped a.b and 1 more: no go: apt-get install golang",
        "    – skipped c: run as root",
    ]


def test_the_names_of_suites_are_known():
    listed = subprocess.run([ROOT / "tools/test", "--list"], capture_output=True, text=True)
    text = (ROOT / "tools/test").read_text()
    for name in listed.stdout.split():
        assert f"suite_{name.replace('-', '_')}() {{" in text
    assert subprocess.run([ROOT / "tools/test", "nonesuch"], capture_output=True).returncode == 2
