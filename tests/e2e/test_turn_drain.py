"""turn.md §20, check 82 (and 84, in test_turn_auth.py): going away, and what operators see."""

import json
import signal
import time

import pytest

from relay import SLOW
from turn import ALLOCATE, ALTERNATE_SERVER, UDP_TRANSPORT, UdpPeer, read_address
from test_turn_allocate import port_is_bound


def ask(turnd, how):
    if how == 'sluicectl':
        turnd.relay.ctl('drain')
    else:
        turnd.relay.proc.send_signal(how)


def ready(turnd):
    try:
        return turnd.relay.get('/ready')[0]
    except OSError:
        return None


@pytest.mark.sanitize
@pytest.mark.tsan
@pytest.mark.parametrize('how', [signal.SIGTERM, 'sluicectl'], ids=['sigterm', 'sluicectl'])
def test_turn_82_drain(turn_start, how):
    """New Allocates are 403 or 300; those that are there are refreshed, permitted and carried;
    readiness fails; the process ends with the last of them, before its deadline, by status 0."""
    turnd = turn_start(drain=30)
    before = ready(turnd)
    clients = [turnd.udp().allocate(), turnd.tcp().allocate()]
    ask(turnd, how)

    def refused():  # by every shard; what came before the order did goes again
        got = [fresh.request(ALLOCATE, UDP_TRANSPORT).code or fresh.refresh(0).code
               for fresh in [turnd.udp() for _ in range(6)]]
        return all(code == 403 for code in got)
    turnd.relay.until(refused, 3, 'a refusal')
    assert before == 200 and ready(turnd) != 200
    with UdpPeer() as far:
        for client in clients:
            assert client.refresh().lifetime == 600
            assert client.permit(far.at[0]).code == 0
            client.send(far.at, b'still carried')
            assert far.recv() == (b'still carried', client.relayed)
            far.send(b'both ways', client.relayed)
            assert client.data() == (far.at, b'both ways')
    assert clients[0].refresh(0).code == 0
    time.sleep(0.2)
    assert turnd.relay.running(), 'one is left'
    began = time.monotonic()
    clients[1].close()
    assert turnd.relay.proc.wait(5 * SLOW) == 0
    assert time.monotonic() - began < 3 * SLOW


@pytest.mark.sanitize
def test_turn_82_the_deadline_ends_it(turn_start):
    turnd = turn_start(drain=1)
    client = turnd.udp().allocate()
    began = time.monotonic()
    turnd.relay.proc.send_signal(signal.SIGTERM)
    assert turnd.relay.proc.wait(10 * SLOW) == 0
    assert 0.8 <= time.monotonic() - began <= 3 * SLOW
    assert not port_is_bound(client.relayed)
    assert 'left behind' not in turnd.relay.log()


def test_turn_82_a_second_signal_ends_it_now(turn_start):
    turnd = turn_start(drain=60)
    turnd.udp().allocate()
    turnd.relay.proc.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert turnd.relay.running()
    turnd.relay.proc.send_signal(signal.SIGTERM)
    assert turnd.relay.proc.wait(5 * SLOW) == 0


def test_turn_82_without_allocations_it_ends_at_once(turn_start):
    turnd = turn_start(drain=60)
    idle = turnd.tcp()
    idle.challenge()
    began = time.monotonic()
    turnd.relay.proc.send_signal(signal.SIGTERM)
    assert turnd.relay.proc.wait(10 * SLOW) == 0
    assert time.monotonic() - began < 5 * SLOW


def test_turn_82_what_a_door_without_credentials_serves(turn_start):
    """STUN only: Binding is answered, Allocate refused, and the log says so once."""
    turnd = turn_start(users=(), secrets=())
    client = turnd.udp()
    assert client.ask(1).address() == client.path.local
    got = client.ask(ALLOCATE, UDP_TRANSPORT)
    assert got.code in (401, 403)
    if got.code == 401:
        assert client.take(got).ask(ALLOCATE, UDP_TRANSPORT, verify=False).code in (401, 403)
    turnd.relay.wait_log('(?i)stun only')
    assert turnd.relay.log().lower().count('stun only') == 1


def test_turn_82_a_port_that_is_taken_is_said_at_start(turn_start):
    turnd = turn_start()
    with pytest.raises(AssertionError, match='ended at start with 1'):
        turn_start(listen=['127.0.0.1:%d' % turnd.at[1]])


def test_turn_43_session_lines_name_bytes_and_no_credential(turn_start):
    turnd = turn_start('--log-format', 'json')
    client = turnd.udp().allocate()
    with UdpPeer() as far:
        assert client.permit(far.at[0]).code == 0
        client.send(far.at, bytes(1234))
        far.recv()
    assert client.refresh(0).code == 0
    turnd.relay.until(lambda: '1234' in turnd.relay.log(), 3, 'a line with the bytes')
    for line in turnd.relay.log().splitlines():
        if line.startswith('{'):
            json.loads(line)
    assert 'pass"' not in turnd.relay.log() and ':pass' not in turnd.relay.log()


def test_turn_82_new_clients_are_sent_on_while_it_drains(turn_start):
    """300, with another server of the client's family; over IPv6 there is none, so 403."""
    turnd = turn_start('--turn-redirect', '9.9.9.9:3478', drain=30, listen=['[::]:0'])
    four, six = ('127.0.0.1', turnd.at[1]), ('::1', turnd.at[1])
    held = turnd.udp(at=four).allocate()
    turnd.relay.proc.send_signal(signal.SIGTERM)

    def answers(at):
        got = turnd.udp(at=at).request(ALLOCATE, UDP_TRANSPORT)
        return got if got.code else None
    got = turnd.relay.until(lambda: answers(four), 3, 'a refusal')
    assert got.code == 300
    assert read_address(got.get(ALTERNATE_SERVER)) == ('9.9.9.9', 3478)
    assert turnd.relay.until(lambda: answers(six), 3, 'a refusal').code == 403
    assert held.refresh().code == 0
    turnd.relay.proc.send_signal(signal.SIGTERM)
    assert turnd.relay.proc.wait(5 * SLOW) == 0
