"""The soak of tests/soak, in short: the same code with fewer peers, so that it is known to work
when it is needed, and that it stays known that every count comes home."""

import os
import pathlib
import sys

import pytest

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / 'soak'))
import soak  # noqa: E402

SANITIZED = 'SLUICE_SANITIZER' in os.environ
# A small relay's tables find their size later in proportion; a leak of 100 bytes per connection is
# for the long one.
SLACK_KIB = 1 << 30 if SANITIZED else 1024


@pytest.mark.sanitize
@pytest.mark.tsan
def test_churn_loses_no_byte_and_no_count(start):
    relay = start(*soak.flags())
    o = soak.options(['--duration', '20', '--warm', '8', '--peers', '300', '--churn', '60',
                      '--dials', '80', '--circuits', '300', '--slack-kib', str(SLACK_KIB)])
    figures = soak.soak(relay, o)
    print('\n'.join(soak.describe(figures)) if figures.get('memory') else figures)
    wrong = figures['wrong'] + soak.ended(relay)
    assert not wrong, '\n'.join(wrong)
    load = figures['load']  # it was a soak, and not a calm
    assert load['circuits_clean'] > 100 and min(load['left']) > 20
    assert load['circuits_cut_by_churn'] > 20 and min(load['circuits_cut'][1:]) > 0
    assert sum(load['quit']) > 10 and min(load['clean_bytes']) > 1 << 20
