"""libp2p.md §19, checks 47-49: identify, its push, and ping."""

import os
import socket

import pytest

import rawp2p
from circuit import dial, get_identify, ping, reserve
from rawp2p import DATA, FIN, NotAvailable, Reset
from relay import SLOW
from wire import (HOP, IDENTIFY, NO_RESERVATION, OK, PING, PUSH, STOP, Identify, Key, identify, lp,
                  maddr_text, pb, peer_id_of, read_uv)


def split_message(data):
    size, at = read_uv(data)
    assert len(data) == at + size, 'more than one message'
    return data[at:]


def test_libp2p_47_identify_is_one_short_message_and_fin(relay, placement):
    with relay.connect(shard=placement.target) as session:
        body = split_message(get_identify(session))
        assert len(body) <= 2048
        told = Identify(body)
        assert peer_id_of(told.key) == relay.peer_id
        assert told.protocol_version == 'ipfs/0.1.0'
        assert told.agent.startswith('sluice/') and len(told.agent) <= 64
        assert STOP not in told.protocols and {HOP, IDENTIFY, PUSH, PING} <= set(told.protocols)
        assert maddr_text(told.observed) == '/ip4/%s/tcp/%d' % session.local


def test_libp2p_47_the_listed_protocols_are_the_accepted_ones(relay, placement):
    with relay.connect(shard=placement.target) as session:
        told = Identify(split_message(get_identify(session)))
        for protocol in told.protocols:
            session.open(protocol).reset()
        for protocol in (STOP, '/libp2p/circuit/relay/0.1.0', '/meshsub/1.1.0', HOP + '/'):
            with pytest.raises(NotAvailable):
                session.open(protocol)


def test_libp2p_47_identify_again_says_the_same(relay, placement):
    with relay.connect(shard=placement.target) as session:
        assert len({get_identify(session) for _ in range(20)}) == 1


def test_libp2p_47_announced_addresses_are_listed(start):
    public = '/ip4/9.9.9.9/tcp/9000'
    relay = start('--announce', public)
    with relay.connect() as session:
        told = Identify(split_message(get_identify(session)))
        assert [maddr_text(a) for a in told.listen] == [public]


def has_ipv6():
    try:
        socket.create_server(('::1', 0), family=socket.AF_INET6).close()
        return True
    except OSError:
        return False


@pytest.mark.skipif(not has_ipv6(), reason='this host has no IPv6 on loopback: enable it')
def test_libp2p_47_observed_address_of_ipv6_and_of_mapped_ipv4(start):
    relay = start(listen='[::]:0')
    port = relay.at[1]
    for at, family in ((('::1', port), 'ip6'), (('127.0.0.1', port), 'ip4')):
        with rawp2p.connect(None, tcp=relay.tcp(at=at)) as session:
            told = Identify(split_message(get_identify(session)))
            assert maddr_text(told.observed) == '/%s/%s/tcp/%d' % ((family,) + session.local)


def test_libp2p_48_push_is_accepted_and_a_big_one_only_resets_its_stream(relay, placement):
    with relay.connect(shard=placement.target) as session:
        push = session.open(PUSH)
        push.send(identify(session.key, [IDENTIFY]))
        push.close_write()
        push.wait_eof()
        assert push.inbuf == b''
        big = session.open(PUSH)
        try:
            big.send(lp(pb((6, b'x' * (9 * 1024)))))
            big.close_write()
        except Reset:
            pass
        assert big.wait_reset()
        assert session.alive()
        assert ping(session.open(PING))


def test_libp2p_49_a_thousand_echoes_on_one_stream(relay, placement):
    with relay.connect(shard=placement.target) as session:
        stream = session.open(PING)
        for _ in range(1000):
            assert ping(stream, os.urandom(32))


def test_libp2p_49_echoes_in_any_split(relay, placement):
    with relay.connect(shard=placement.target) as session:
        stream = session.open(PING)
        data = os.urandom(32 * 20)
        stream.send(data)  # twenty at once
        assert stream.recv(len(data)) == data
        for at in range(0, 64, 1):
            stream.send(data[at:at + 1])
        assert stream.recv(64) == data[:64]
        stream.send(data[:40], chunk=7)
        assert stream.recv(32) == data[:32]
        stream.close_write()  # with an echo half sent
        assert session.wait(lambda: stream.eof or stream.rst)


def test_libp2p_49_a_thousand_streams_of_one_echo(relay, placement):
    with relay.connect(shard=placement.target) as session:
        for _ in range(1000):
            stream = session.open(PING, b'p' * 32, style='data')
            assert stream.recv(32) == b'p' * 32
            stream.close_write()
            stream.wait_eof(10 * SLOW)
        assert not session.streams


def test_libp2p_49_the_third_ping_stream_is_reset(relay, placement):
    with relay.connect(shard=placement.target) as session:
        first, second = session.open(PING), session.open(PING)
        third = session.stream()
        with pytest.raises(Reset):
            third.negotiate(PING)
            third.send(bytes(32))
            third.recv(32)
        assert ping(first) and ping(second)
        first.close_write()
        first.wait_eof()
        assert ping(session.open(PING))


def test_libp2p_47_the_end_of_an_answer_has_a_frame_of_its_own(relay, placement):
    """go-yamux takes a frame's flags before its body: FIN beside the last bytes may be read as the end
    of an empty stream. Identify, a reservation, and a refusal."""
    with relay.connect(shard=placement.source) as session:
        assert get_identify(session)
        assert reserve(session).status == OK
        assert dial(session, Key().peer_id)[0].status == NO_RESERVATION
        ends = [frame for frame in session.frames if frame[0] == DATA and frame[1] & FIN]
        assert len(ends) >= 2 and all(length == 0 for _, _, _, length in ends), ends
