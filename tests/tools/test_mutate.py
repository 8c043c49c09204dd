"""tools/mutate: what proves nothing is a failure, and says why."""

import subprocess

import pytest

from conftest import ROOT

MUTATE = ROOT / 'tools/mutate'

BUILD = '''#!/bin/bash
set -e
cd "$(dirname "$0")/.."
[[ -f $2/build.ninja ]] || meson setup "$2" . >/dev/null
ninja -C "$2" >/dev/null
'''
MESON = '''project('tiny', 'c')
subdir('tests')
'''
TESTS_MESON = '''executable('test_tiny', '../proto/add.c', 'test_tiny.c')
'''
ADD = '''int calls;
int add(int a, int b)
{
    calls++;
    return a + b;
}
int twice(int a)
{
    return a + a;
}
int same(int a)
{
    return a + a - a;
}
'''
TEST = '''#include <stdio.h>
#include <stdlib.h>
int add(int a, int b);
int main(void)
{
    int sum = add(2, 2);

    if (sum == 99)
        return 3; /* no case failed, and yet */
    while (sum == 98)
        ;
    fprintf(stderr, "[====] Synthesis: Tested: 1 | Passing: %d | Failing: %d | Crashing: 0 \\n", sum == 4,
            sum != 4);
    return sum != 4;
}
'''
HEAD = '''invariant: credit
what: {0}
file: proto/add.c
red: test_tiny
@@
{1}
'''
MUTATIONS = {
    'good': ('red', '-    return a + b;\n+    return a - b - 1;'),
    'context': ('red', '     calls++;\n-    return a + b;\n+    return a * b * 2;'),
    'green': ('stays green: test_tiny', '-    return a + b;\n+    return b + a;'),
    'uncompiled': ('does not compile', '-    return a + b;\n+    return a + c;'),
    'gone': ('its text is no longer in proto/add.c', '-    return a + b + 1;\n+    return 0;'),
    'within': ('its text is no longer in proto/add.c', '-    return a + a -\n+    return 0;'),
    'thrice': ('its text is 3 times in proto/add.c', '-{\n+{;'),
    'ended': ('test_tiny ended with status 3 and 0 failed cases', '-    return a + b;\n+    return 99;'),
}


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def make_tree(root, mutations=MUTATIONS):
    write(root / 'tools/build', BUILD)
    (root / 'tools/build').chmod(0o755)
    write(root / 'meson.build', MESON)
    write(root / 'tests/meson.build', TESTS_MESON)
    write(root / 'proto/add.c', ADD)
    write(root / 'tests/test_tiny.c', TEST)
    for name, (what, hunk) in mutations.items():
        write(root / 'tests/mutations' / (name + '.mut'), HEAD.format(what, hunk))
    return root


def mutate(root, *args):
    return subprocess.run([MUTATE, '--root', root, *args], capture_output=True, text=True, timeout=120)


@pytest.fixture(scope='module')
def tree(tmp_path_factory):
    return make_tree(tmp_path_factory.mktemp('mutate'))


@pytest.fixture(scope='module')
def whole(tree):
    """One run of all, with the results that tools/test reads."""
    return mutate(tree, '--jobs', '2', '--result', tree / 'result')


@pytest.mark.parametrize('name', MUTATIONS)
def test_each_mutation_is_told_by_what_became_of_it(tree, whole, name):
    want = MUTATIONS[name][0]
    line, = [x for x in whole.stdout.splitlines() if x.split()[1:2] == [name]]
    assert line.startswith('✔' if want == 'red' else '✘'), line
    assert want in line
    written = [x for x in (tree / 'result').read_text().splitlines() if x.startswith('failed %s: ' % name)]
    assert bool(written) == (want != 'red')


def test_the_last_line_counts_and_the_status_tells(tree, whole):
    # six of these eight, and seventeen invariants that none of them breaks
    assert whole.stdout.splitlines()[-1] == '2 passed, 23 failed'
    assert whole.returncode == 1
    assert 'ping priority' in whole.stdout
    assert (tree / 'result').read_text().splitlines().count('ok 1') == 2


def test_the_checkout_is_not_touched(tree, whole):
    assert (tree / 'proto/add.c').read_text() == ADD


def test_one_by_name_is_enough_and_what_an_interrupted_run_left_is_undone(tree, whole):
    copy = tree / 'build-test/mutate/0/tree/proto/add.c'
    copy.write_text(copy.read_text().replace('a + b', 'a - b'))
    done = mutate(tree, 'good')
    assert done.stdout.splitlines()[-1] == '1 passed, 0 failed', done.stdout
    assert done.returncode == 0


def test_an_unknown_name_is_refused(tree):
    done = mutate(tree, 'good', 'nonesuch')
    assert done.returncode == 2
    assert "unknown mutation 'nonesuch'" in done.stderr


def test_a_tree_that_is_red_without_any_mutation_proves_nothing(tmp_path):
    root = make_tree(tmp_path, {'one': ('red', '-    calls++;\n+    calls += 2;')})
    write(root / 'proto/add.c', ADD.replace('return a + b', 'return a + b + (calls > 0)'))
    done = mutate(root, 'one')
    assert done.returncode == 1
    assert '1 of 1 cases fail without any mutation' in done.stdout
    assert done.stdout.splitlines()[-1] == '0 passed, 1 failed'


@pytest.mark.parametrize('line, why', [
    ('invariant: beauty', "unknown invariant 'beauty'"),
    ('file: proto/add.c', 'needs one line `file: …`'),
    ('red: make test', 'not a test'),
    ('colour: red', 'not `key: value`'),
])
def test_a_file_that_is_none_is_told_by_name(tmp_path, line, why):
    text = HEAD.format('x', '-    calls++;')
    if line.startswith('invariant'):
        text = text.replace('invariant: credit\n', '')
    write(tmp_path / 'tests/mutations/odd.mut', line + '\n' + text)
    done = mutate(tmp_path, '--list')
    assert done.returncode == 1
    assert 'odd.mut' in done.stderr and why in done.stderr


def test_every_mutation_of_this_tree_finds_its_text_and_every_invariant_is_broken():
    done = subprocess.run([MUTATE, '--check'], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].endswith(' 0 failed')
