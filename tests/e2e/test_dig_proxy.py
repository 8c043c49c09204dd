"""dig.md §20, check 49: PROXY protocol v2 (§13), and what counts per source behind a proxy."""

import socket
import struct
import time

import pytest

from dig import Ended, request
from relay import SLOW

SIGNATURE = b'\r\n\r\n\0\r\nQUIT\n'
ADDRS = ['[::]:9']


def header(command=1, family=0x11, source='203.0.113.7', port=40001, block=None, tlvs=b'',
           version=2,
           length=None):
    if block is None:
        six = ':' in source
        pack = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET, source)
        local = socket.inet_pton(socket.AF_INET6 if six else socket.AF_INET,
                                 '2001:db8::1' if six else '192.0.2.1')
        block = pack + local + struct.pack('!HH', port, 9450)
    block += tlvs
    return SIGNATURE + bytes([version << 4 | command, family]) + struct.pack(
        '!H', len(block) if length is None else length) + block


@pytest.fixture(scope='module')
def proxied(tmp_path_factory):
    from digd import Digd
    live = Digd(tmp_path_factory.mktemp('dig'), env={
        'DIG_RELAY_TRUSTED_PROXY_CIDRS': '127.0.0.1, ,127.77.0.0/16,2001:db8::/32'}).start()
    yield live
    live.finish()


def seen(digd, prelude, source='127.0.0.1'):
    """The dialable addresses of a peer that comes so."""
    peer = digd.peer(source=source, prelude=prelude, listen_addrs=ADDRS)
    return peer.peers()[peer.id]['addresses'], peer


@pytest.mark.sanitize
@pytest.mark.parametrize('prelude, at', [
    (header(), '203.0.113.7:9'), (header(tlvs=bytes(300)), '203.0.113.7:9'),
    (header(tlvs=bytes(1024 - 12)), '203.0.113.7:9'),
    (header(family=0x21, source='2001:db8:7::9'), '[2001:db8:7::9]:9'),
    (header(family=0x21, source='::ffff:203.0.113.8'), '203.0.113.8:9'),
    (header(command=0), '127.0.0.1:9'), (header(command=0, family=0, block=b''), '127.0.0.1:9'),
    (header(family=0x12), '127.0.0.1:9'), (header(family=0x22, source='2001:db8::5'),
                                           '127.0.0.1:9'),
    (header(family=0x31, block=bytes(216)), '127.0.0.1:9'), (header(family=0), '127.0.0.1:9'),
    (header(block=bytes(11)), '127.0.0.1:9'), (header(family=0x21, block=bytes(35)), '127.0.0.1:9'),
    (b'', '127.0.0.1:9'),
], ids=lambda v: v if isinstance(v, str) else '')
def test_dig_49_trusted(proxied, prelude, at):
    assert seen(proxied, prelude)[0] == [at]


def test_dig_49_the_observed_address_is_used_everywhere(proxied):
    """In PEX with its source port, too; and by the other trusted ones."""
    addrs, a = seen(proxied, header(source='203.0.113.50', port=1234), '127.77.3.4')
    assert addrs == ['203.0.113.50:9']
    b = proxied.peer(net=a.net, source='127.0.0.1', prelude=header(source='198.51.100.1', port=5))
    b.say('pex_handshake', version=1, network_id=b.net, interval=60)
    b.expect('pex_handshake')
    assert b.expect('pex_snapshot')['peers'][0]['addresses'] == [
        {'host': '203.0.113.50', 'port': 1234, 'kind': 'reflexive'}]


@pytest.mark.sanitize
def test_dig_49_split_everywhere(proxied):
    raw = header(tlvs=b'x' * 9)
    for at in range(1, len(raw), 3):
        conn = proxied.tcp(source='127.0.0.1')
        conn.send(raw[:at])
        time.sleep(0.005)
        conn.send(raw[at:])
        conn.upgrade().register(listen_addrs=ADDRS).registered()
        assert conn.peers()[conn.id]['addresses'] == ['203.0.113.7:9']


def dies(digd, raw, source='127.0.0.1'):
    conn = digd.tcp(source=source)
    conn.send(raw + request())
    try:
        while conn.fill(conn.until()):
            pass
    except Ended:
        pass
    assert not conn.buffer or conn.buffer.startswith(b'HTTP/1.1 4'), bytes(conn.buffer[:100])


@pytest.mark.sanitize
def test_dig_49_headers_that_are_none(proxied):
    """Another version, another command, too long: payload, which is bad HTTP. So is every header of
    somebody who is not trusted, and the text of version 1."""
    for raw in (header(version=1), header(version=3), header(command=2), header(command=15),
                header(tlvs=bytes(1025 - 12)), header(length=65535),
                b'PROXY TCP4 203.0.113.7 192.0.2.1 1 2\r\n'):
        dies(proxied, raw)
    for source in ('127.0.0.2', '127.78.0.1'):
        dies(proxied, header(), source)
    assert seen(proxied, b'', '127.0.0.2')[0] == ['127.0.0.2:9']


@pytest.mark.sanitize
def test_dig_49_silence(proxied):
    """Closed at 5 s, half a header and half a block too, and others are not delayed."""
    conns = [proxied.tcp(source='127.0.0.1') for _ in range(3)]
    conns[1].send(SIGNATURE)
    conns[2].send(header()[:20])
    began = time.monotonic()
    for _ in range(5):
        start = time.monotonic()
        seen(proxied, header())
        assert time.monotonic() - start < 1 * SLOW
    for conn in conns:
        try:
            while conn.fill(time.monotonic() + 8 * SLOW):
                pass
        except ConnectionError:
            pass
        assert not conn.buffer
        assert 4.5 < time.monotonic() - began < 6.5 * SLOW


@pytest.mark.sanitize
def test_dig_49_limits_of_whom_it_stands_for(dig_start):
    """The cap per source counts those behind the proxy, each for himself."""
    digd = dig_start(max_connections_per_ip=1, env={'DIG_RELAY_TRUSTED_PROXY_CIDRS': '127.0.0.1'})
    one = digd.peer(source='127.0.0.1', prelude=header(source='203.0.113.1'))
    digd.peer(source='127.0.0.1', prelude=header(source='203.0.113.2'))
    late = digd.tcp(source='127.0.0.1', prelude=header(source='203.0.113.1', port=7))
    late.send(request())
    late.gone()
    one.alive()


def test_dig_49_on_a_dual_stack_listener(dig_start):
    """Remote addresses are unmapped before they are matched."""
    digd = dig_start(host='[::]', env={'DIG_RELAY_TRUSTED_PROXY_CIDRS': '127.0.0.1/32'})
    peer = digd.peer(at=('127.0.0.1', digd.at[1]), source='127.0.0.1', prelude=header(),
                     listen_addrs=ADDRS)
    assert peer.peers()[peer.id]['addresses'] == ['203.0.113.7:9']
