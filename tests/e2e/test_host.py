"""libp2p.md §19, checks 76 to 78: what the machine does to the relay. It runs out of descriptors, its
wall clock jumps, and the process is killed."""

import pathlib
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

import figures
from circuit import dial, join, ping, reserve
from rawp2p import Closed
from relay import SLOW, next_ip
from wire import NO_RESERVATION, OK, Key, open_voucher
from wire import PING as PING_PROTOCOL

HOUR = 3600


# ---- 76: descriptors ----------------------------------------------------------------------------

def answers(sock, seconds):
    """Does the relay answer the first bytes of a client?"""
    sock.settimeout(seconds)
    try:
        sock.sendall(b'\x13/multistream/1.0.0\n')
        return sock.recv(100).startswith(b'\x13/multistream')
    except OSError:
        return False


def open_files(relay):
    return len(list(pathlib.Path('/proc/%d/fd' % relay.proc.pid).iterdir()))


@pytest.mark.sanitize
def test_libp2p_76_without_descriptors_accept_pauses_and_recovers(start, placement):
    relay = start('--handshake-timeout-secs', 60, nofile=120)
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        assert reserve(target).status == OK
        near, far = join(source, target)
        crowd = [socket.create_connection(relay.at, source_address=(next_ip(), 0))
                 for _ in range(160)]
        relay.until(lambda: open_files(relay) >= 120, 3, 'no descriptor left')
        before, began = relay.cpu_ticks(), time.monotonic()
        late = socket.create_connection(relay.at)  # by the kernel, into the backlog
        assert not answers(late, 1)

        block = bytes(range(256)) * 1024  # those who are there go on as ever
        near.send(block)
        assert far.recv(len(block)) == block
        far.send(block)
        assert near.recv(len(block)) == block
        assert ping(source.open(PING_PROTOCOL)) and target.alive()
        assert reserve(target).status == OK
        another, its_far = join(source, target)
        another.send(b'new')
        assert its_far.recv(3) == b'new'
        seconds = time.monotonic() - began
        assert relay.cpu_ticks() - before <= (20 + 20 * seconds) * SLOW, 'it spins'

        for sock in crowd:
            sock.close()
        assert answers(late, 3 * SLOW), 'who waited is served'
        late.close()
        with relay.connect(shard=placement.target) as fresh:
            assert reserve(fresh).status == OK
            near.send(b'still')
            assert far.recv(5) == b'still'
        seconds = time.monotonic() - began
        errors = relay.metrics()['sluice_accept_errors_total']
        # each of the two listeners asks again each 100 ms
        assert 1 <= errors <= 2 * (2 + seconds * 1000 / figures.ACCEPT_RETRY_MS), errors
        assert 1 <= relay.log().count('cannot accept') <= 2, 'a line for each shard, not each attempt'
        relay.until(lambda: relay.metrics()['sluice_connections{transport="tcp"}'] == 2, 5,
                    'the crowd forgotten')


# ---- 77: the wall clock -------------------------------------------------------------------------

class Clock:
    """The wall clock of relays that run with `env`, by tests/shim/clock_shift.c."""

    def __init__(self, directory):
        source = pathlib.Path(__file__).resolve().parents[1] / 'shim' / 'clock_shift.c'
        library, self.path = directory / 'clock_shift.so', directory / 'clock_shift'
        subprocess.run(['cc', '-shared', '-fPIC', '-O1', '-o', str(library), str(source)],
                       check=True)
        self.path.write_bytes(bytes(8))
        self.env = {'LD_PRELOAD': str(library), 'CLOCK_SHIFT': str(self.path)}

    def step(self, seconds):
        with open(self.path, 'r+b') as f:
            f.write(struct.pack('=q', seconds))


def expires_in(answer):
    """What the reservation and its voucher say, against this process's clock."""
    assert answer.status == OK
    assert open_voucher(answer.voucher)[2] == answer.expire
    return answer.expire - time.time()


@pytest.mark.parametrize('step', [HOUR, -HOUR])
def test_libp2p_77_expire_follows_the_wall_clock_and_nothing_else_does(start, placement, tmp_path,
                                                                       step):
    """Reservations and circuits of half an hour survive a step of an hour either way."""
    clock = Clock(tmp_path)
    relay = start('--reservation-secs', HOUR // 2, '--circuit-duration-secs', HOUR // 2,
                  '--idle-timeout-secs', 600, env=clock.env)
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target, relay.connect() as idle:
        assert abs(expires_in(reserve(target)) - HOUR // 2) <= 2
        near, far = join(source, target)
        clock.step(step)
        time.sleep(1.2)  # timers run meanwhile
        near.send(b'after the step')
        assert far.recv(14) == b'after the step'
        assert not near.rst and idle.alive()
        join(source, target)[0].reset()  # the reservation holds
        assert abs(expires_in(reserve(target)) - (HOUR // 2 + step)) <= 2
        metrics = relay.metrics()
        assert metrics['relay_uptime_seconds'] < 60 * SLOW
        assert metrics['relay_peers_with_reservations'] == 1
        relay.until(lambda: relay.metrics()['relay_active_circuits'] == 1, 3, 'one circuit')
        clock.step(0)
        assert abs(expires_in(reserve(target)) - HOUR // 2) <= 2
        assert source.alive()


def test_libp2p_77_what_is_due_ends_on_time_whatever_the_wall_clock_says(start, tmp_path):
    """Across a step back, which would stretch a deadline kept by the wall clock to an hour."""
    clock = Clock(tmp_path)
    relay = start('--reservation-secs', 3, '--circuit-duration-secs', 2, '--idle-timeout-secs', 2,
                  '--handshake-timeout-secs', 2, '--log-format', 'json', env=clock.env)
    with relay.connect(shard=0) as source, relay.connect(shard=1) as target, \
            relay.connect() as idle:
        reserve(target)
        near, far = join(source, target)
        silent, began = relay.tcp(), time.monotonic()
        clock.step(-HOUR)
        ends = {}
        for name, wait in (('circuit', lambda: near.wait_reset(4)),
                           ('idle', lambda: idle.wait_dead(4)),
                           ('silent', lambda: silent.closed_within(4)),
                           ('expired', lambda: relay.wait_events('reservation_timeout', 1, 4))):
            assert wait() is not None, name
            ends[name] = time.monotonic() - began
        assert 1.5 <= ends['circuit'] <= 2.6 and ends['silent'] <= 3, ends
        assert ends['idle'] <= 3 and 2 <= ends['expired'] <= 4, ends
        assert far.rst


# ---- 78: killed ---------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_libp2p_78_killed_in_mid_circuit_it_binds_again_at_once(start, placement):
    """While it carried data at full speed, and its clients still hold their ends of the
    connections; three times in a row, at the same ports, in the same data directory."""
    relay, keys = start(), (Key(), Key())
    port, http, peer = relay.at[1], relay.http, relay.peer
    for _ in range(3):
        source = relay.connect(keys[0], placement.source)
        target = relay.connect(keys[1], placement.target)
        assert reserve(target).status == OK, 'at once'
        near, far = join(source, target)
        far.sink = len
        pump = threading.Thread(target=pump_until_closed, args=(near,))
        pump.start()
        source.wait(lambda: far.rx_bytes > 4 << 20, 10)
        assert far.rx_bytes > 4 << 20, 'the circuit was idle'
        relay.proc.send_signal(signal.SIGKILL)
        relay.proc.wait()
        began = time.monotonic()
        relay = start(data=relay.data, listen='127.0.0.1:%d' % port, http=http)
        assert time.monotonic() - began < 4 * SLOW
        assert relay.at[1] == port and relay.http == http and relay.peer == peer
        pump.join()
        assert source.wait_dead(3) and target.wait_dead(3)
        assert relay.ctl('status')
        with relay.connect(shard=placement.source) as other:
            assert dial(other, keys[1].peer_id)[0].status == NO_RESERVATION


def pump_until_closed(stream):
    try:
        while True:
            stream.send(bytes(1 << 20))
    except Closed:
        pass
