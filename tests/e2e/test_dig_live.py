"""dig.md §20, checks 35-37: who is still there (§9), and D15: how a relay goes."""

import signal
import struct
import threading
import time

import pytest

from dig import PONG, Ended, frame
from relay import SLOW

SWEPT = {'health_check_interval_secs': 1, 'liveness_deadline_secs': 2}


# ---- 35, 36: the sweep ---------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_35_36_who_says_nothing_is_swept(dig_start):
    """WS Ping and Pong are no message; junk and JSON pings are; whoever is swept is closed (D1)."""
    digd = dig_start(**SWEPT)
    watch = digd.peer()
    silent, pinging, ponging, junk, talker = (digd.peer(net=watch.net) for _ in range(5))
    began, ends = time.monotonic(), {}
    while time.monotonic() - began < (4.6 if len(ends) == 3 else 5 * SLOW):
        for conn, word in ((pinging, b'\x89'), (ponging, b'\x8a')):
            if conn not in ends:
                try:
                    conn.send(frame(word[0] & 15, b'x'))
                except OSError:
                    pass
        junk.text('junk')
        junk.error(2)
        talker.alive()
        watch.alive()
        for said in watch.pushed:
            if said['type'] == 'peer_disconnected':
                ends.setdefault(said['peer_id'], time.monotonic() - began)
        time.sleep(0.2)
    assert ends.keys() == {silent.id, pinging.id, ponging.id}
    for seconds in ends.values():
        assert 1.9 < seconds < 4.6 * SLOW, ends  # a sweep each 2 s, looked at each 0.2 s
    for conn in (silent, pinging, ponging):
        conn.closing()
    assert watch.peers().keys() == {watch.id, junk.id, talker.id}


@pytest.mark.sanitize
def test_dig_36_idle_timeout(dig_start):
    """No frame at all, or half of one: an end within the time, and peers are told. (Who sends
    messages is not idle, and who sends only Pings is swept before; the deadline must be the
    shorter, §16.)"""
    digd = dig_start(idle_timeout_secs=3, health_check_interval_secs=2, liveness_deadline_secs=2)
    watch, idle = digd.group(2)
    half = digd.peer(net=watch.net)
    began, ends = time.monotonic(), {}
    half.send(frame(1, b'{"type":"ping","timestamp":5}')[:10])
    while time.monotonic() - began < 5 * SLOW and len(ends) < 2:
        watch.alive()
        for said in watch.pushed:
            if said['type'] == 'peer_disconnected':
                ends.setdefault(said['peer_id'], time.monotonic() - began)
        time.sleep(0.1)
    assert ends.keys() == {idle.id, half.id}
    assert all(1.9 < seconds < 3.6 * SLOW for seconds in ends.values()), ends
    for conn in (idle, half):
        assert conn.closing()[0] == [] or conn is half


# ---- 37: successors ------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_37_the_successor_of_a_swept_one(dig_start):
    """D1: the end of the old connection is not the end of the new registration."""
    digd = dig_start(**SWEPT)
    a, b = digd.group(2)
    began = time.monotonic()
    gone = False
    while not gone:
        b.alive()
        gone = any(m['type'] == 'peer_disconnected' for m in b.pushed)
        assert time.monotonic() - began < 6 * SLOW
        time.sleep(0.05)
    b.pushed.clear()
    again = digd.peer(a.id, a.net)
    b.told('peer_connected', a.id)
    a.close()
    for _ in range(3):
        time.sleep(0.05)
        b.relay(a.id, [1])
        again.expect('relay_message', payload=[1])
        again.alive()
    assert not b.alive().pushed
    assert b.peers().keys() == {a.id, b.id}


@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_37_many_successors(digd):
    """An id that goes from connection to connection, the old ones ending in every way: each time
    the new one is who is reached, and there is one of it."""
    watch = digd.peer()
    old = digd.peer(net=watch.net)
    watch.told('peer_connected', old.id)
    for n in range(30):
        if n % 3 == 0:
            old.close()
        elif n % 3 == 1:
            old.say('unregister', peer_id='')
        else:
            old.leave()
        new = digd.ws()
        while True:  # until the end of the old one was seen
            new.register(old.id, old.net)
            said = new.next()
            if said['success']:
                break
            new.closing()
            new = digd.ws()
        watch.relay(old.id, [n])
        assert new.next()['payload'] == [n]
        assert watch.peers().keys() == {watch.id, old.id}
        old = new


# ---- D15: the drain ------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_dig_d15_drain(dig_start):
    """SIGTERM: no new connections, a Close 1001 for everybody, spread over the time, exit 0."""
    digd = dig_start(drain=3)
    conns = [digd.peer() for _ in range(30)] + [digd.ws() for _ in range(5)]
    ends = []

    def wait(conn):
        try:
            while True:
                conn.next(timeout=10)
        except Ended as end:
            ends.append((time.monotonic() - began, end.close))
    threads = [threading.Thread(target=wait, args=(conn,)) for conn in conns]
    began = time.monotonic()
    digd.proc.send_signal(signal.SIGTERM)
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    late = digd.tcp if digd.running() else None
    if late:
        with pytest.raises(OSError):
            late().upgrade()
    for thread in threads:
        thread.join(10 * SLOW)
    assert digd.proc.wait(10 * SLOW) == 0
    assert len(ends) == len(conns)
    assert {close for _, close in ends} == {struct.pack('!H', 1001)}, ends
    times = sorted(seconds for seconds, _ in ends)
    assert times[-1] < 4 * SLOW and times[-1] - times[0] > 0.5, times
