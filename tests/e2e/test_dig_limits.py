"""dig.md §20, checks 50-52 and 60: limits per source and per connection (§14), slow heads (D4)."""

import struct
import time

import pytest

from dig import PING, TEXT, Ended, Silence, frame, fresh_id, fresh_net, request, written
from relay import SLOW, next_ip


def refused(conn):
    """Closed at accept: not a byte, whatever it sends."""
    try:
        conn.send(request())
    except OSError:
        pass
    conn.gone()


# ---- 50: connections of a source -----------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_50_the_cap_of_a_source(dig_start):
    digd = dig_start(max_connections_per_ip=2)
    source = '127.0.0.1'
    first = digd.peer(source=source)
    second = digd.tcp(source=source)
    second.send(b'GET /')  # a page that is still asked for counts
    time.sleep(0.1 * SLOW)
    for _ in range(4):
        refused(digd.tcp(source=source))
    digd.peer(source='127.0.0.2').alive()
    second.close()

    def again():
        conn = digd.tcp(source=source)
        try:
            conn.upgrade()
            return True
        except (Ended, OSError):
            return False
    digd.settle(again)
    refused(digd.tcp(source=source))
    first.alive()


def test_dig_50_after_every_end_the_count_is_right(dig_start):
    """Ends of every kind, 60 of them at a cap of three: nothing is counted twice or forgotten."""
    digd = dig_start(max_connections_per_ip=3)
    source = next_ip()
    for n in range(60):
        conn = digd.tcp(source=source)

        def tried(conn=conn, n=n):
            if n % 6 == 0:
                conn.close()
            elif n % 6 == 1:
                conn.send(b'GET /stats.json HTTP/1.1\r\n\r\n')
                conn.head()
            elif n % 6 == 2:
                conn.upgrade().register().registered().leave()
            elif n % 6 == 3:
                conn.upgrade().send(frame(3))
                conn.closing()
            elif n % 6 == 4:
                conn.send(b'x' * 16385)
                conn.gone()
            else:
                conn.upgrade().register().registered()
                conn.raw.setsockopt(1, 13, b'\1\0\0\0\0\0\0\0')
        try:
            tried()
        except (Ended, OSError):
            pass
        conn.close()
        time.sleep(0.01)
    kept = []

    def three():
        try:
            kept.append(digd.ws(source=source))
        except (Ended, OSError):
            pass
        return len(kept) == 3
    digd.settle(three)
    refused(digd.tcp(source=source))


def test_dig_50_ipv6_counts_by_64_bits(dig_start):
    """::1 is all that is here; IPv4 on a dual-stack listener is a source of its own."""
    digd = dig_start(host='[::]', max_connections_per_ip=1)
    digd.peer()
    refused(digd.tcp())
    at = ('127.0.0.1', digd.at[1])
    digd.peer(at=at, source='127.0.0.1')
    refused(digd.tcp(at, source='127.0.0.1'))


# ---- 51: what one connection may say -------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_51_messages_per_second(dig_start):
    """Valid or not, of any kind; the first five are answered, then the Close."""
    digd = dig_start(messages_per_conn_per_sec=5)
    for said in ('{"type":"ping","timestamp":1}', 'junk', '{"type":"pong","timestamp":1}'):
        peer = digd.peer()
        watch = digd.peer(net=peer.net)
        time.sleep(1.1)  # the register was one
        peer.send(frame(TEXT, said.encode()) * 7)
        answers, _ = peer.closing()
        answers = [m for m in answers if m['type'] not in ('peer_connected',)]
        assert len(answers) == (0 if 'pong' in said else 5), answers
        watch.told('peer_disconnected', peer.id)
    steady = digd.peer()
    for _ in range(8):
        time.sleep(0.25)
        steady.alive()
    fragments = digd.peer()
    time.sleep(1.1)
    fragments.send(frame(TEXT, b'', fin=False) + frame(0, b' ', fin=False) * 20 +
                   frame(0, b'{"type":"ping","timestamp":1}'))
    fragments.expect('pong')


@pytest.mark.sanitize
def test_dig_51_bytes_per_second(dig_start):
    digd = dig_start(bytes_per_conn_per_sec=1000)
    for size, passes in ((1000, True), (1001, False)):
        peer = digd.peer()
        time.sleep(1.2)
        text = '{"type":"ping","timestamp":1,"x":"%s"}'
        peer.text(text % ('x' * (size - len(text) + 2)))
        if passes:
            peer.expect('pong')
        else:
            assert peer.closing()[0] == []


@pytest.mark.sanitize
def test_dig_51_bytes_over_a_life(dig_start):
    """The register among them; breached when the total exceeds it."""
    digd = dig_start(max_relayed_bytes_per_conn=2000)
    for more in (0, 1):
        conn = digd.ws()
        conn.id = fresh_id()
        register = written({'type': 'register', 'peer_id': conn.id, 'network_id': fresh_net(),
                            'protocol_version': 1})
        conn.text(register)
        conn.registered()
        left = 2000 + more - len(register)
        text = '{"type":"ping","timestamp":1,"x":"%s"}'
        conn.text(text % ('x' * (left - 300 - len(text) + 2)))
        conn.expect('pong')
        conn.text(text % ('x' * (300 - len(text) + 2)))
        if more:
            assert conn.closing()[0] == []
        else:
            conn.expect('pong')
            conn.ping(b'x')  # control frames are not counted here
            conn.pong(b'x')
            conn.text('x')
            assert conn.closing()[0] == []


@pytest.mark.sanitize
def test_dig_51_defaults_of_the_original(dig_start):
    """256 messages at once pass; a flood ends."""
    digd = dig_start(loose=False)
    peer = digd.peer()
    peer.send(frame(TEXT, b'{"type":"ping","timestamp":1}') * 250)
    for _ in range(250):
        peer.expect('pong')
    peer.send(frame(TEXT, b'{"type":"ping","timestamp":1}') * 600)
    said, _ = peer.closing()
    assert len(said) < 512


def pinged(digd, count):
    """So many Pings of 125 bytes, of whose Pongs few are read; whether it was ended for it."""
    flood = digd.peer()
    piece = frame(PING, bytes(125)) * 1000
    try:
        for _ in range(count // 1000):
            flood.send(piece)
            try:
                while flood.fill(time.monotonic()):
                    flood.buffer.clear()
            except Silence:
                pass
            if flood.ended:
                return True
        while flood.fill(time.monotonic() + 0.5):  # what it was answered
            flood.buffer.clear()
    except OSError:
        return True
    except Silence:
        pass
    return flood.ended


@pytest.mark.sanitize
def test_dig_51_control_frames_are_counted(dig_start, digd):
    """§21: floods of WS Ping pass no limit in the original. Here they have a budget like that of
    messages; where nothing is limited, all are answered and others are served. (What of it is not
    read: test_dig_hostile.py.)"""
    strict = dig_start(messages_per_conn_per_sec=256)
    held = strict.peer()
    for _ in range(200):
        held.ping(b'x')
        held.pong(b'x')
    held.alive()
    assert pinged(strict, 2000)
    peer = digd.peer()
    assert not pinged(digd, 50000)
    peer.alive()


# ---- 52: bans ------------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_52_two_strikes(dig_start):
    digd = dig_start(ban_threshold=2, max_connections_per_ip=1)
    held = digd.peer(source='127.0.0.1')
    for _ in range(2):
        refused(digd.tcp(source='127.0.0.1'))
    held.alive()
    held.close()
    digd.settle(lambda: digd.json('/stats.json')['active_reservations'] == 0)
    for _ in range(5):
        refused(digd.tcp(source='127.0.0.1'))
    digd.peer(source='127.0.0.2').alive()


@pytest.mark.sanitize
def test_dig_52_a_ban_ends(dig_start):
    digd = dig_start(ban_threshold=2, ban_duration_secs=2, max_connections_per_ip=1)
    source = next_ip()
    held = digd.peer(source=source)
    for _ in range(2):
        refused(digd.tcp(source=source))
    held.close()
    time.sleep(0.5)
    refused(digd.tcp(source=source))
    time.sleep(2)
    digd.peer(source=source).alive()


def test_dig_52_strikes_that_are_old(dig_start):
    """One later than the window restarts it."""
    digd = dig_start(ban_threshold=2, ban_strike_window_secs=1, max_connections_per_ip=1)
    source = next_ip()
    held = digd.peer(source=source)
    for _ in range(3):
        refused(digd.tcp(source=source))
        time.sleep(1.3)
    held.close()
    digd.settle(lambda: digd.json('/stats.json')['active_reservations'] == 0)
    digd.peer(source=source).alive()


@pytest.mark.sanitize
@pytest.mark.parametrize('why', ['flood', 'rate', 'concurrent'])
def test_dig_52_what_is_a_strike(dig_start, why):
    options = {'flood': {'messages_per_conn_per_sec': 5},
               'rate': {'registrations_per_ip_per_sec': 1},
               'concurrent': {'max_registrations_per_ip': 1}}[why]
    digd = dig_start(ban_threshold=2, **options)
    source = next_ip()
    held = digd.peer(source=source)
    struck = 0
    for _ in range(6):
        if struck == 2:
            break
        conn = digd.ws(source=source)
        if why == 'flood':
            conn.send(frame(TEXT, b'x') * 8)
            conn.closing()
            struck += 1
        else:
            conn.register()
            said, _ = conn.closing()
            struck += said[-1]['code'] == 7
    assert struck == 2
    held.alive()
    refused(digd.tcp(source=source))


def test_dig_52_what_is_none(dig_start):
    """Faults of framing, too large messages, refusals for other reasons: closed, but no strike."""
    digd = dig_start(ban_threshold=2)
    source = next_ip()
    a = digd.peer()
    for _ in range(2):
        for raw in (frame(3), frame(TEXT, length=262145), frame(TEXT, b'\xff')):
            conn = digd.ws(source=source)
            conn.send(raw)
            conn.closing()
        digd.ws(source=source).register(a.id, a.net).refused(5)
    digd.peer(source=source).alive()


# ---- 60: heads -----------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_dig_60_slow_heads(dig_start):
    """D4: one deadline for all up to registration; drips do not move it."""
    digd = dig_start(register_timeout_secs=2)
    conns = {'eight bytes': b'GET / HT', 'nothing': b'', 'drips': b'GET / HTTP/1.1\r\n',
             'all but the end': request()[:-2]}
    conns = {name: (digd.tcp(), raw) for name, raw in conns.items()}
    began = time.monotonic()
    for conn, raw in conns.values():
        conn.send(raw)
    while time.monotonic() - began < 1.5:
        conns['drips'][0].send(b'X: y\r\n')
        digd.fetch('/health')
        time.sleep(0.1)
    for name, (conn, _) in conns.items():
        try:
            while conn.fill(time.monotonic() + 5 * SLOW):
                pass
        except ConnectionError:
            pass
        assert not conn.buffer or conn.buffer.startswith(b'HTTP/1.1 408'), name
        assert 1.5 < time.monotonic() - began < 4 * SLOW, name


@pytest.mark.sanitize
def test_dig_60_long_and_odd_heads(digd):
    for raw, ok in ((b'GET /health HTTP/1.1\r\nX: ' + b'x' * (16384 - 100) + b'\r\n\r\n', True),
                    (b'GET /' + b'x' * 16385, False), (b'x' * 16385, False),
                    (b'GET /health HTTP/1.1\r\nX: \xff\xfe\r\n\r\n', False),
                    (b' /health HTTP/1.1\r\n\r\n', False), (b'\r\n\r\n', False),
                    (b'GET\r\n\r\n', False),
                    (b'GET /health HTTP/1.1\r\nX: ' + b'x' * 20000 + b'\r\n\r\n', False),
                    (bytes(range(256)) * 70, False), (struct.pack('!I', 1) * 5000, False)):
        conn = digd.tcp()
        try:
            conn.send(raw)
            while conn.fill(conn.until()):
                pass
        except (OSError, Ended):
            pass
        got = bytes(conn.buffer[:12])
        assert got.startswith(b'HTTP/1.1 ' + (b'200' if ok else b'4')) or got == b'' and not ok, (
            raw[:60], got)


def test_dig_60_the_redirect_port(dig_start):
    """It has a deadline and a cap of its own (D4): 200 who say nothing are gone in time."""
    digd = dig_start(register_timeout_secs=2)
    at = digd.door('dashboard-listen')
    conns = [digd.tcp(at) for _ in range(200)]

    def answered():  # who comes in the midst of such a burst may be sent away with it
        try:
            return digd.fetch('/', door='dashboard-listen')[0] == 301
        except (Ended, OSError):
            return False
    digd.settle(answered, timeout=3)
    for conn in conns:
        try:
            assert not conn.fill(time.monotonic() + 13 * SLOW)
        except ConnectionError:
            pass
    assert digd.fetch('/', door='dashboard-listen')[0] == 301
