"""Fixtures of the end-to-end tests. Each test that takes `placement` runs twice: once with
both legs on one shard, once across two (a test with one connection has it on shard 0, then 1)."""

import collections
import os

import pytest

import relay as relay_module
from digd import Digd
from relay import Relay
from turnd import Turnd

Placement = collections.namedtuple('Placement', 'name source target')


def pytest_configure(config):
    for marker in ('interop: needs the clients of tests/interop',
                   'long: minutes; only with SLUICE_TEST_ALL=1',
                   'sanitize: also run with AddressSanitizer and UBSan',
                   'tsan: also run with ThreadSanitizer'):
        config.addinivalue_line('markers', marker)


def pytest_collection_modifyitems(config, items):
    if os.environ.get('SLUICE_TEST_ALL') == '1' or config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker('long'):
            item.add_marker(pytest.mark.skip(reason='takes minutes: set SLUICE_TEST_ALL=1'))


def pytest_sessionstart(session):
    if not relay_module.SLUICE.exists():
        pytest.exit('no %s: run tools/build, or name a build directory in SLUICE_BUILD' %
                    relay_module.SLUICE, 3)


@pytest.fixture(params=['same', 'cross'])
def placement(request):
    return Placement(request.param, 0, 0 if request.param == 'same' else 1)


@pytest.fixture(scope='module')
def shared(tmp_path_factory):
    """One relay with default limits for the tests of a file that leave it as they found it."""
    live = Relay(tmp_path_factory.mktemp('relay')).start()
    yield live
    live.check()
    assert live.stop() == 0


@pytest.fixture
def relay(shared):
    yield shared
    shared.check()


@pytest.fixture
def start(tmp_path):
    """Starts relays with flags of their own; each must end with status 0."""
    started = []

    def make(*flags, **options):
        directory = tmp_path / ('r%d' % len(started))
        live = Relay(directory, *flags, **options)
        started.append(live)
        return live.start()
    yield make
    for live in started:
        if live.proc and live.running():
            live.check()
            assert live.stop() == 0, live.log()[-4000:]
        live.kill()


@pytest.fixture(scope='module')
def turn_shared(tmp_path_factory):
    """One TURN server for the tests of a file that leave it as they found it."""
    live = Turnd(tmp_path_factory.mktemp('turn')).start()
    yield live
    live.finish()


@pytest.fixture
def turnd(turn_shared):
    yield turn_shared
    turn_shared.forget()
    turn_shared.relay.check()


@pytest.fixture
def turn_start(tmp_path):
    """Starts TURN servers with flags of their own; see turnd.Turnd."""
    started = []

    def make(*flags, **options):
        live = Turnd(tmp_path / ('t%d' % len(started)), *flags, **options)
        started.append(live)
        return live.start()
    yield make
    for live in started:
        live.finish()


@pytest.fixture(scope='module')
def dig_shared(tmp_path_factory):
    """One DIG relay for the tests of a file that leave it as they found it."""
    live = Digd(tmp_path_factory.mktemp('dig')).start()
    yield live
    live.finish()


@pytest.fixture
def digd(dig_shared):
    yield dig_shared
    dig_shared.forget()
    dig_shared.check()


@pytest.fixture
def dig_start(tmp_path):
    """Starts DIG relays with flags of their own; see digd.Digd."""
    started = []

    def make(*flags, **options):
        live = Digd(tmp_path / ('d%d' % len(started)), *flags, **options)
        started.append(live)
        return live.start()
    yield make
    for live in started:
        live.finish()
