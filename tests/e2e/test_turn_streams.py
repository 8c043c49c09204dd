"""turn.md §20, checks 60 and 74 to 76: clients on TCP, and who is none. TLS is another door's, so
of check 75 only what a plain listener must do."""

import os
import random
import socket
import struct
import time

import pytest

from relay import SLOW, next_ip
from turn import (ALLOCATE, BINDING, UDP_TRANSPORT, Closed, TcpPath, UdpPeer, channel_data, header,
                  message)
from test_turn_allocate import port_is_bound

V10 = bytes.fromhex('000300082112a4420102030405060708090a0b0c0019000411000000')


@pytest.fixture
def far():
    with UdpPeer() as it:
        yield it


# ---- 60 -----------------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
@pytest.mark.parametrize('reset', [False, True], ids=['fin', 'rst'])
def test_turn_60_a_closed_connection_ends_its_allocation(turn_start, reset):
    """Within a second: the port is closed and the quota returned."""
    turnd = turn_start('--turn-max-per-user', 1)
    for _ in range(5):
        client = turnd.tcp().allocate()
        relayed = client.relayed
        assert port_is_bound(relayed)
        assert turnd.tcp().request(ALLOCATE, UDP_TRANSPORT).code == 486
        client.path.close(reset)
        turnd.relay.until(lambda: not port_is_bound(relayed), 1, 'a closed port')


def test_turn_60_a_half_closed_connection_is_closed(turnd):
    """A client that has nothing more to say has gone (RFC 8656 §3.1 has no half of a stream)."""
    client = turnd.tcp().allocate()
    client.path.sock.shutdown(socket.SHUT_WR)
    assert client.path.closed_within(1)
    turnd.relay.until(lambda: not port_is_bound(client.relayed), 1, 'a closed port')


# ---- 74: framing --------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_turn_74_a_request_byte_by_byte(turnd):
    client = turnd.tcp()
    for i in range(len(V10)):
        client.path.send(V10[i:i + 1])
        time.sleep(0.002)
    assert client.reply(V10).code == 401
    assert client.path.recv(0.05) is None, 'one answer'


@pytest.mark.sanitize
def test_turn_74_three_in_one_segment(turnd):
    client = turnd.tcp()
    requests = [message(BINDING), V10, message(BINDING, fingerprint=True)]
    client.path.send(b''.join(requests))
    got = [client.recv() for _ in requests]
    assert [m.tid for m in got] == [raw[8:20] for raw in requests], 'in order'
    assert [m.code for m in got] == [0, 401, 0]


@pytest.mark.sanitize
@pytest.mark.parametrize('n', [0, 1, 2, 3, 4])
def test_turn_74_padding_of_channel_data_is_consumed(turnd, far, n):
    """Whatever it holds; and STUN behind it is seen."""
    client = turnd.tcp().allocate()
    assert client.bind_channel(0x4000, far.at).code == 0
    probe = message(BINDING)
    client.path.send(channel_data(0x4000, b'x' * n, pad=b'\xEE' * (-n % 4)) * 2 + probe)
    assert client.reply(probe).code == 0
    for _ in range(2):
        assert far.recv() == (b'x' * n, client.relayed)


@pytest.mark.sanitize
@pytest.mark.tsan
def test_turn_74_cut_anywhere(turnd, far):
    """The same conversation, cut into pieces in many ways; what arrives is always the same."""
    client = turnd.tcp().allocate()
    assert client.bind_channel(0x4000, far.at).code == 0
    for seed in range(30):
        rng = random.Random(seed)
        units, want, probes = [], [], []
        for i in range(12):
            if rng.random() < 0.3:
                probes.append(message(BINDING))
                units.append(probes[-1])
            else:
                data = rng.randbytes(rng.choice((0, 1, 2, 3, 5, 100, 1200, 4000)))
                want.append(data)
                units.append(channel_data(0x4000, data, pad=bytes(-len(data) % 4)))
        stream, at = b''.join(units), 0
        while at < len(stream):
            n = rng.choice((1, 2, 3, 5, 19, 20, 21, 100, 2000, 8000))
            client.path.send(stream[at:at + n])
            at += n
            if rng.random() < 0.3:
                time.sleep(0.001)
        for data in want:
            assert far.recv() == (data, client.relayed), seed
        for probe in probes:
            assert client.reply(probe).code == 0, seed


BROKEN = {
    '0x80': b'\x80' + bytes(30),
    '0xff': b'\xff' * 31,
    'ChannelData first': channel_data(0x4000, b'x' * 40),
    'another cookie': header(BINDING, 0, bytes(12))[:4] + b'GET ' + bytes(12),
    'a length of 2': header(BINDING, 2, bytes(12)) + bytes(2),
    'an attribute beyond the end': header(BINDING, 4, bytes(12)) + b'\x80\x22\xff\xff',
    'http': b'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
    'tls': bytes.fromhex('160301020001') + bytes(300),
    'proxy v2': bytes.fromhex('0d0a0d0a000d0a515549540a2111000c7f0000017f00000112340d96'),
    'proxy v1': b'PROXY TCP4 8.8.8.8 127.0.0.1 1 3478\r\n' + V10,
    'ssh': b'SSH-2.0-OpenSSH_9.2\r\n',
}


@pytest.mark.sanitize
@pytest.mark.parametrize('what', BROKEN, ids=lambda what: what.replace(' ', '_'))
def test_turn_74_turn_75_what_does_not_begin_as_stun_is_closed(turnd, what):
    """At once, and with no answer but, for HTTP, one of its own. A PROXY header is not believed
    where none was asked for."""
    path = TcpPath(turnd.at)
    path.send(BROKEN[what])
    assert path.closed_within(2)
    assert not path.inbuf or bytes(path.inbuf).startswith(b'HTTP/1.1 400'), path.inbuf
    path.close()


@pytest.mark.sanitize
@pytest.mark.parametrize('what', ['0x80', '0xff', 'another cookie', 'a length of 2',
                                  'an attribute beyond the end'])
def test_turn_74_what_is_no_unit_ends_a_stream_and_its_allocation(turnd, what):
    """There is no finding the next one behind it (turn.md §2, §10)."""
    client = turnd.tcp().allocate()
    client.path.send(BROKEN[what])
    assert client.path.closed_within(2) and not client.path.inbuf
    turnd.relay.until(lambda: not port_is_bound(client.relayed), 1, 'a closed port')


POSTS = {
    'cve_2020_6061 a length that lies': b'POST / HTTP/1.1\r\nContent-Length: 4294967295\r\n\r\na=',
    'cve_2020_6061 no end': b'POST /login HTTP/1.1\r\nContent-Type: application/'
                            b'x-www-form-urlencoded\r\n\r\n' + b'a=' * 40,
    'cve_2020_6062 no body': b'POST / HTTP/1.1\r\n\r\n',
    'cve_2020_6062 empty pairs': b'POST / HTTP/1.0\r\nContent-Length: 3\r\n\r\n&&=',
    'cve_2018_4056 login': b'POST /logon HTTP/1.1\r\nContent-Length: 42\r\n\r\n'
                           b"uname=' OR 1=1 --&pwd=x&realm=&http_port=",
    'cve_2018_4059 telnet': b'\xff\xfd\x03psd\r\n',
}


@pytest.mark.sanitize
@pytest.mark.parametrize('what', POSTS, ids=lambda what: what.replace(' ', '_'))
def test_turn_75_there_is_no_http_and_no_console_on_the_door(turnd, what):
    """Whole, and in two parts."""
    for cut in (len(POSTS[what]), 7):
        path = TcpPath(turnd.at)
        path.send(POSTS[what][:cut])
        if cut < len(POSTS[what]):
            time.sleep(0.05)
            try:
                path.send(POSTS[what][cut:])
            except OSError:
                pass
        assert path.closed_within(2)
        assert not path.inbuf or bytes(path.inbuf).startswith(b'HTTP/1.1 400'), path.inbuf
        path.close()
    turnd.relay.check()


def test_turn_75_a_connection_without_a_word_is_no_error(turnd):
    """Load balancers do it to see whether the port is open."""
    before = turnd.relay.log()
    for _ in range(20):
        TcpPath(turnd.at).close()
        TcpPath(turnd.at).close(reset=True)
    assert turnd.udp().ask(BINDING).code == 0
    new = turnd.relay.log()[len(before):]
    assert 'ERROR' not in new and 'WARN' not in new, new


# ---- 76: slow ones ------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_turn_76_half_a_message_and_silence_is_closed(turn_start, far, tmp_path):
    """Within 10 s; who has an allocation too. One without an allocation is closed in 60 s. Real
    time, all at once."""
    turnd = turn_start()
    half, fresh = turnd.tcp().allocate(), turnd.tcp()
    half.path.send(V10[:19])
    fresh.path.send(V10[:3])
    drip = turnd.tcp()
    began = time.monotonic()
    whole = header(BINDING, 400, bytes(12)) + bytes(400)
    sent, closed = 0, {}
    while len(closed) < 3 and time.monotonic() - began < 16 * SLOW:
        if 'drip' not in closed:
            try:
                drip.path.sock.send(whole[sent:sent + 1])  # a byte now and then does not help
            except OSError:
                closed['drip'] = time.monotonic() - began
            sent += 1
        for name, client in (('half', half), ('fresh', fresh), ('drip', drip)):
            if name not in closed and client.path.closed_within(0.1 / SLOW):
                closed[name] = time.monotonic() - began
    assert len(closed) == 3, closed
    assert all(5 <= seconds <= 14 * SLOW for seconds in closed.values()), closed
    turnd.relay.until(lambda: not port_is_bound(half.relayed), 1, 'a closed port')


@pytest.mark.long
def test_turn_76_a_connection_without_an_allocation_is_closed_in_a_minute(turn_start):
    turnd = turn_start()
    silent, busy, user = turnd.tcp(), turnd.tcp(), turnd.tcp().allocate()
    began = time.monotonic()
    while not silent.path.closed_within(1):
        assert time.monotonic() - began < 70
        user.quiet()
        try:
            busy.path.send(message(BINDING))
        except (Closed, OSError):
            pass
    assert time.monotonic() - began > 30
    assert user.refresh().code == 0


@pytest.mark.sanitize
@pytest.mark.parametrize('how', ['data', 'answers'])
def test_turn_76_who_reads_nothing_costs_a_bounded_amount(turn_start, far, how):
    """64 MiB of data from a peer, or the answers to as many questions, to clients that do not read:
    data is dropped, memory does not follow, and others are served."""
    turnd = turn_start()
    readers = [turnd.tcp().allocate() for _ in range(4)]
    other = turnd.udp().allocate()
    assert other.permit(far.at[0]).code == 0
    for client in readers:
        client.path.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        assert client.permit(far.at[0]).code == 0
    far.send(bytes(1000), readers[0].relayed)
    assert readers[0].data() == (far.at, bytes(1000))
    before = turnd.relay.rss_kib()
    if how == 'data':
        block = os.urandom(8000)
        for i in range(2000):
            for client in readers:
                far.send(block, client.relayed)
            if i % 100 == 0:
                assert other.quiet()
    else:
        questions = message(BINDING, fingerprint=True) * 2000
        for client in readers:
            client.path.sock.setblocking(False)
        for _ in range(400):
            for client in readers:
                try:
                    client.path.sock.send(questions)
                except OSError:
                    pass
        assert other.quiet()
    grown = turnd.grown_kib(before)  # 16 MiB of it are the receive buffers of two shards
    assert grown < 40 * 1024, '%d KiB' % grown
    assert other.quiet()
    far.send(b'to who reads', other.relayed)
    assert other.data() == (far.at, b'to who reads')


def test_turn_76_who_reads_again_is_in_step(turn_start, far):
    """What was dropped was whole units: the stream goes on where one begins."""
    turnd = turn_start()
    client = turnd.tcp().allocate()
    client.path.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    assert client.bind_channel(0x4000, far.at).code == 0
    count = 6000
    for i in range(count):
        far.send(struct.pack('!I', i) + bytes(3001), client.relayed)
        if i % 200 == 0:
            time.sleep(0.001)
    got = []
    while True:
        unit = client.data(0.3)
        if unit is None:
            break
        assert unit[0] == 0x4000 and len(unit[1]) == 3005
        got.append(struct.unpack_from('!I', unit[1])[0])
    assert got == sorted(set(got)) and 0 < len(got) < count, len(got)
    far.send(b'in step', client.relayed)
    assert client.data() == (0x4000, b'in step')
    assert client.refresh().code == 0


def test_turn_76_connections_that_come_and_go(turn_start):
    """5000 of them, some in the middle of something: no descriptor and no memory is left behind
    (turn_start looks at what the daemon says of itself at its end)."""
    turnd = turn_start()
    for client in [turnd.tcp().allocate() for _ in range(10)]:
        client.close()
    turnd.relay.until(lambda: turnd.udp().ask(BINDING), 3, 'an answer')
    files, rss = open_files(turnd), None
    for i in range(2500):
        if i == 1000:  # receive buffers have all been touched
            turnd.relay.until(lambda: open_files(turnd) <= files, 5, 'closed descriptors')
            rss = turnd.relay.rss_kib()
        path = TcpPath(turnd.at, next_ip())
        if i % 5:
            path.send((V10, V10[:i % 27], b'\x80', message(BINDING) * 3)[i % 4])
        path.close(reset=i % 2 == 0)
    turnd.relay.until(lambda: open_files(turnd) <= files, 5, 'closed descriptors')
    assert turnd.grown_kib(rss) < 6 * 1024


def open_files(turnd):
    return len(os.listdir('/proc/%d/fd' % turnd.relay.proc.pid))
