"""What must never happen at the DIG door, one rule each, and told at once: behind what must not have
an effect something is said that has one, so that a relay that breaks the rule is not waited for.
tests/mutations breaks them."""

import time

import pytest

from dig import PING, TEXT, Ended, frame, written
from relay import next_ip


def test_dig_rule_a_message_stays_in_its_network(digd):
    here, there = digd.peer(), digd.peer()
    here.relay(there, [1])
    here.say('ping', timestamp=1)
    here.error(3)
    here.expect('pong')
    there.alive()


def test_dig_rule_a_broadcast_is_for_others_and_not_for_the_excluded(digd):
    sender, left_out, other = digd.group(3)
    sender.say('broadcast', from_='x', payload=[1], exclude=[left_out.id])
    sender.say('broadcast', from_='x', payload=[2], exclude=[])
    left_out.expect('broadcast', payload=[2])
    other.expect('broadcast', payload=[1])
    other.expect('broadcast', payload=[2])
    sender.alive()


def test_dig_rule_who_has_not_registered_is_told_nothing(digd):
    digd.peer()
    conn = digd.ws()
    conn.say('get_peers')
    conn.error(1)


def test_dig_rule_another_network_is_not_listed(digd):
    here, there = digd.peer(), digd.peer()
    assert here.peers(there.net) == {}
    assert list(here.peers()) == [here.id]


def test_dig_rule_who_has_left_is_gone(digd):
    one, other = digd.group(2)
    one.leave()
    other.told('peer_disconnected', one.id, timeout=3)
    other.relay(one, [1])
    other.say('ping', timestamp=1)
    other.error(3)
    other.expect('pong')
    assert list(other.peers()) == [other.id]


def test_dig_rule_room_in_a_queue_is_given_back(digd):
    """Ten times what may wait for a node, read as it comes."""
    sender, reader = digd.group(2)
    for first in range(0, 10000, 100):
        sender.send(b''.join(frame(TEXT, written({
            'type': 'relay_message', 'from': 'x', 'to': reader.id, 'payload': [], 'seq': n
        }).encode()) for n in range(first, first + 100)))
        for n in range(first, first + 100):
            reader.expect('relay_message', seq=n, timeout=3)


def test_dig_rule_nothing_moves_the_deadline_of_registration(dig_start):
    digd = dig_start(register_timeout_secs=1)
    conn, began = digd.ws(), time.monotonic()
    try:
        while time.monotonic() - began < 2:
            conn.send(frame(PING, b'x'))
            conn.say('ping', timestamp=1)
            time.sleep(0.1)
    except OSError:
        pass
    assert conn.has_ended()


def test_dig_rule_bytes_are_counted(dig_start):
    digd = dig_start(bytes_per_conn_per_sec=1000)
    peer = digd.peer()
    time.sleep(1.1)
    peer.text('{"type":"ping","timestamp":1,"x":"%s"}' % ('x' * 1000))
    with pytest.raises(Ended):
        peer.next()


def test_dig_rule_who_is_banned_stays_out(dig_start):
    digd = dig_start(ban_threshold=2, messages_per_conn_per_sec=5)
    source = next_ip()
    for _ in range(2):
        peer = digd.peer(source=source)
        peer.send(frame(TEXT, b'x') * 10)
        peer.closing()
    late = digd.tcp(source=source)
    with pytest.raises((Ended, OSError)):
        late.upgrade()
    digd.peer(source=next_ip()).alive()
