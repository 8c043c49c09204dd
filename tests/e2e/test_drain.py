"""libp2p.md §19, check 67, and descord.md §10, check 18: going away politely."""

import signal
import subprocess
import time

import pytest

from circuit import dial, join, reserve, serve_stop
from rawp2p import Closed
from relay import SLOW
from wire import HOP, NO_RESERVATION, OK, PUSH, REFUSED, Identify, Key


def pushes(session):
    """Makes the session take identify pushes; their bodies gather in the list."""
    told = []

    def body(stream):
        got = stream.take_message()
        if got is not None:
            told.append(Identify(got))
            stream.hook = None
            stream.close_write()

    def handler(stream):
        stream.hook = body
        body(stream)
    session.protocols[PUSH] = handler
    return told


def ask(relay, how):
    if how == 'sluicectl':
        relay.ctl('drain')
    else:
        relay.proc.send_signal(how)
    relay.until(lambda: not accepts(relay), 3, 'a closed door')


def accepts(relay):
    try:
        relay.tcp().close()
        return True
    except OSError:
        return False


@pytest.mark.sanitize
@pytest.mark.parametrize('how', [signal.SIGTERM, signal.SIGINT, 'sluicectl'],
                         ids=['sigterm', 'ctrl-c', 'sluicectl'])
def test_libp2p_67_descord_18_drain(start, placement, how):
    relay = start(drain=8, preset='descord')
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target, relay.connect() as idle:
        told = pushes(target)
        for session in (target, idle):
            assert reserve(session).status == OK
        near, far = join(source, target)
        ask(relay, how)
        began = time.monotonic()
        for session in (source, target, idle):
            answer = reserve(session)
            assert answer.status == REFUSED, 'new or renewed: 200, never na'
        target.wait(lambda: told, 3)
        assert told and HOP not in told[0].protocols, 'identify push without hop'
        block = bytes(range(256)) * 2000
        near.send(block)
        assert far.recv(len(block)) == block
        assert dial(source, Key().peer_id)[0].status == NO_RESERVATION
        late, _ = join(source, target)  # existing reservations serve until the end
        late.reset()
        near.close_write()
        far.wait_eof()
        far.close_write()
        near.wait_eof()
        assert relay.proc.wait(8 * SLOW) == 0
        assert time.monotonic() - began < 7 * SLOW, 'nothing was left to wait for'
        for session in (source, target):
            assert session.wait_dead(2) and session.goaway == 0


def test_libp2p_67_a_circuit_that_stays_is_cut_at_the_deadline(start, placement):
    relay = start(drain=2)
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        near, far = join(source, target)
        relay.proc.send_signal(signal.SIGTERM)
        began = time.monotonic()
        with pytest.raises(Closed):
            while time.monotonic() - began < 10:
                near.send(b'tick')
                far.recv(4)
                time.sleep(0.02)
        seconds = time.monotonic() - began
        assert 1.0 <= seconds <= 3.5 * SLOW, seconds
        assert relay.proc.wait(5 * SLOW) == 0


def test_libp2p_67_a_second_sigterm_stops_now(start, placement):
    relay = start(drain=60)
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        join(source, target)
        relay.proc.send_signal(signal.SIGTERM)
        with pytest.raises(subprocess.TimeoutExpired):
            relay.proc.wait(1)
        relay.proc.send_signal(signal.SIGTERM)
        assert relay.proc.wait(3 * SLOW) == 0


def test_libp2p_67_an_idle_relay_stops_at_once(start):
    relay = start(drain=60)
    began = time.monotonic()
    assert relay.stop() == 0
    assert time.monotonic() - began < 3 * SLOW


@pytest.mark.sanitize
def test_libp2p_68_the_same_peer_at_the_same_port_after_a_restart(start, placement):
    relay = start()
    key = Key()
    with relay.connect(key, placement.target) as session:
        assert reserve(session).status == OK
        assert relay.stop() == 0
        assert session.wait_dead(2)
    again = start(data=relay.data, listen='127.0.0.1:%d' % relay.at[1])
    assert again.address == relay.address
    with again.connect(key, placement.target) as target, \
            again.connect(shard=placement.source) as source:
        assert reserve(target).status == OK
        near, far = join(source, serve_stop(target))
        near.send(b'again')
        assert far.recv(5) == b'again'


def test_libp2p_68_killed_in_the_middle_of_a_circuit_it_binds_again(start, placement):
    """Within a second: the kernel takes a ring apart, and with it the listening sockets, only
    after its process was waited for."""
    relay = start()
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        join(source, target)
        relay.kill()
    end = time.monotonic() + SLOW
    while True:
        try:
            again = start(data=relay.data, listen='127.0.0.1:%d' % relay.at[1])
            break
        except AssertionError:
            if time.monotonic() > end:
                raise
    with again.connect(shard=placement.target) as session:
        assert reserve(session).status == OK
