"""dusk.md §13, checks 1-26, on the dusk preset: the host and circuits. What other files show for
every preset bears the number there (`grep -rn dusk_17 tests`)."""

import concurrent.futures
import hashlib
import os
import struct
import time

import pytest

import noise
import rawp2p
from circuit import (accept_stop, auto_stop, dial, get_identify, hop_request, join, ping, reserve,
                     serve_stop)
from rawp2p import ACK, DATA, HEADER, PING, SYN, NotAvailable, Reset, read_mss
from relay import SLOW, Relay
from test_handshake import ls
from turnd import Clock
from wire import PING as PING_PROTOCOL
from wire import (CONNECT, DENIED, FAILED, HOP, IDENTIFY, LIMIT, MSS, NO_RESERVATION, NOISE, OK,
                  PUSH, STOP, YAMUX, HopMessage, Identify, Key, WireError, hop_connect, hop_reserve,
                  lp, maddr_text, mss, pb, peer_id_of)

KAD = '/ipfs/kad/1.0.0'
# dusk.md §3; without TURN there are no credentials.
SERVED = {HOP, IDENTIFY, PUSH, PING_PROTOCOL, '/rendezvous/1.0.0', '/dusk/directory/1.0.0',
          '/dusk/gif/1.0.0', '/meshsub/1.1.0', '/meshsub/1.0.0'}


@pytest.fixture(scope='module')
def dusk_shared(tmp_path_factory):
    live = Relay(tmp_path_factory.mktemp('dusk'), preset='dusk').start()
    yield live
    live.check()
    assert live.stop() == 0


@pytest.fixture
def dusk(dusk_shared):
    yield dusk_shared
    dusk_shared.check()


# ---- 1 to 14: the host --------------------------------------------------------------------------

def test_dusk_01_message_1_in_the_segment_of_both_names(dusk):
    began = time.monotonic()
    tcp, initiator = dusk.tcp(), noise.Initiator(Key())
    tcp.send(mss(MSS, NOISE) + noise.frame(initiator.msg1()))
    assert [read_mss(tcp), read_mss(tcp)] == [MSS, NOISE]
    message = tcp.recv(struct.unpack('>H', tcp.recv(2))[0])
    initiator.read2(message)
    # message 3, the muxer's names and the first frame, in one flight too (§2 "Pipelining")
    tcp.send(noise.frame(initiator.msg3()) + initiator.seal(mss(MSS, YAMUX)) +
             initiator.seal(HEADER.pack(0, PING, SYN, 0, 7)))
    secured = rawp2p.Secured(tcp, initiator)
    assert [read_mss(secured), read_mss(secured)] == [MSS, YAMUX]
    while True:  # its gossip may come first
        head = secured.recv(12)
        kind, length = head[1], struct.unpack_from('>I', head, 8)[0]
        if kind == PING:
            break
        if kind == DATA:
            secured.recv(length)
    assert head == HEADER.pack(0, PING, ACK, 0, 7)
    assert time.monotonic() - began < 1 * SLOW
    assert initiator.remote_id == dusk.peer_id
    tcp.close()


def test_dusk_02_tls_is_declined_then_noise_agreed(dusk):
    tcp = dusk.tcp()
    tcp.send(mss(MSS, '/tls/1.0.0'))
    assert [read_mss(tcp), read_mss(tcp)] == [MSS, 'na']
    tcp.send(mss(NOISE))
    assert read_mss(tcp) == NOISE
    tcp.close()


def test_dusk_04_a_hundred_pings_a_hundred_replies_in_order(dusk):
    with dusk.connect() as session:
        for nonce in range(100):
            session.frame(PING, SYN, 0, 1000 + nonce)
        assert session.wait(lambda: len(session.pongs) >= 100 or session.dead, 10 * SLOW)
        assert session.alive()  # and one more behind them all
        values = [value for value, flags, _ in session.pongs[:100]]
        assert values == list(range(1000, 1100))
        assert all(flags == ACK for _, flags, _ in session.pongs)
        assert len(session.pongs) == 101, 'exactly once each'


def test_dusk_05_ack_comes_first_and_600_streams_in_a_row_work(dusk):
    with dusk.connect() as session:
        for i in range(600):
            stream = session.open(PING_PROTOCOL, style='data' if i % 2 else 'window')
            assert ping(stream)
            stream.close_write()
            stream.wait_eof()
        first = {}
        for kind, flags, sid, _ in session.frames:
            if sid:
                first.setdefault(sid, flags)
        # frames keeps the newest: of the streams whose beginning is there
        assert all(flags & ACK for sid, flags in list(first.items())[1:])
        assert session.alive()


def test_dusk_06_a_body_of_more_than_a_mebibyte(dusk):
    """One byte over the window: libp2p_33 in test_yamux.py; the 513th stream: libp2p_32."""
    with dusk.connect() as session:
        stream = session.stream()
        with session.cond:
            session.out += session.noise.seal(
                HEADER.pack(0, DATA, 0, stream.sid, (1 << 20) + 1))
            session._flush()
        assert session.wait_dead(5 * SLOW)
        assert session.goaway in (1, None)


def test_dusk_07_kad_is_declined_and_all_else_served(dusk):
    with dusk.connect() as session:
        for _ in range(3):
            with pytest.raises(NotAvailable):
                session.open(KAD)
        assert reserve(session).status == OK
        assert get_identify(session) and ping(session.open(PING_PROTOCOL))


def test_dusk_08_ls_names_what_is_served(dusk):
    with dusk.connect() as session:
        stream = session.stream()
        stream.send(mss(MSS, 'ls'))
        names = set(ls(stream))
        assert names == SERVED
        assert set(Identify(unframed(get_identify(session))).protocols) == names


def unframed(data):
    """The one message of a stream."""
    size, used = data[0], 1
    if size & 0x80:
        size, used = size & 0x7f | data[1] << 7, 2
    assert len(data) == used + size
    return data[used:]


def test_dusk_09_identify(dusk):
    with dusk.connect() as session:
        data = get_identify(session)
        assert len(data) <= 4096
        told = Identify(unframed(data))
        assert told.protocol_version == '/dusk/relay/1.0.0'
        assert peer_id_of(told.key) == dusk.peer_id
        assert maddr_text(told.observed) == '/ip4/%s/tcp/%d' % session.local
        assert told.listen and all('/p2p/' not in maddr_text(a) for a in told.listen)
        assert SERVED == set(told.protocols)


def test_dusk_10_pushes_of_3_and_of_5_kib(dusk):
    with dusk.connect() as session:
        push = session.open(PUSH, lp(pb((6, b'x' * 3072))))
        push.close_write()
        push.wait_eof()
        assert not push.rst
        big = session.open(PUSH)
        try:
            big.send(lp(pb((6, b'x' * 5120))))
        except Reset:
            pass
        assert big.wait_reset(3 * SLOW)
        assert session.alive() and ping(session.open(PING_PROTOCOL))


def test_dusk_11_half_a_block_and_fin_leave_the_connection(dusk):
    """A thousand echoes: libp2p_49 in test_identify.py."""
    with dusk.connect() as session:
        stream = session.open(PING_PROTOCOL, bytes(31))
        stream.close_write()
        stream.wait_eof()
        assert stream.inbuf == b'' and session.alive()
        assert ping(session.open(PING_PROTOCOL))


def test_dusk_12_a_ping_alone_keeps_nobody_for_300_s(start, tmp_path):
    clock = Clock(tmp_path)
    relay = start(preset='dusk', shards=1, env=clock.env)
    with relay.connect() as pinging, relay.connect() as reserved, relay.connect() as other, \
            relay.connect() as asking:
        stream = pinging.open(PING_PROTOCOL)
        assert ping(stream) and ping(asking.open(PING_PROTOCOL))
        assert reserve(reserved).status == OK
        near, far = join(other, reserved)  # a stream of another kind
        clock.step(11)  # the relay's own, which asks for gossip in vain, has ended
        assert other.alive() and ping(stream) and pinging.alive()
        clock.step(280)
        assert other.alive() and ping(stream) and pinging.alive()
        assert get_identify(asking)  # from now on another 300 s
        clock.step(30)  # 310 s since that
        assert reserved.alive(), 'whatever wakes the shard'
        assert pinging.wait_dead(5 * SLOW) and pinging.goaway == 0
        assert asking.alive()
        clock.step(400)
        near.send(b'still there')
        assert far.recv(11) == b'still there'
        assert reserved.alive() and other.alive()


def test_dusk_13_the_connection_cap(start):
    relay = start(preset='dusk', env={'DUSK_MAX_CONNECTIONS': '2'})
    first, second = relay.connect(), relay.connect()
    with pytest.raises((rawp2p.Closed, OSError, WireError)):
        with relay.connect() as third:  # dropped without a word: it may have been secured
            assert third.wait_dead(5 * SLOW) and third.goaway is None
            raise rawp2p.Closed('the third')
    assert first.alive() and second.alive()
    relay.wait_log(r'WARN dusk_relay\] capacity reached')
    first.close()
    relay.until(lambda: len(relay.conns()) == 1, 5, 'the first gone')
    with relay.connect() as third:
        assert reserve(third).status == OK
    second.close()


def handshake_bytes(dusk):
    """All that a client sends, as far as it can be known beforehand: the names and message 1."""
    return mss(MSS, NOISE) + noise.frame(noise.Initiator(Key()).msg1())


def test_dusk_14_a_thousand_slow_handshakes_are_cut_and_hinder_nobody(dusk):
    sent = handshake_bytes(dusk)
    began, slow = time.monotonic(), []
    for i in range(1000):
        tcp = rawp2p.Tcp(dusk.at)
        tcp.send(sent[:i % (len(sent) + 1)])
        slow.append(tcp)
    opened = time.monotonic()
    for _ in range(5):
        with dusk.connect() as good:
            assert reserve(good).status == OK
    assert time.monotonic() - opened < 5 * SLOW, 'a good client waits for them'
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        ends = list(pool.map(lambda tcp: tcp.closed_within(10 + 5 * SLOW), slow))
    assert all(end is not None for end in ends), 'the deadline is of the whole handshake'
    assert time.monotonic() - began < 15 + (opened - began) + 10 * SLOW
    for tcp in slow:
        tcp.close()


# ---- 15 to 26: circuits -------------------------------------------------------------------------

def test_dusk_15_reserve(dusk):
    with dusk.connect() as session:
        answer = reserve(session)
        assert answer.status == OK and answer.reserved
        assert answer.addrs
        assert all(maddr_text(a).endswith('/p2p/' + dusk.peer) for a in answer.addrs)
        assert abs(answer.expire - time.time() - 3600) <= 5 * SLOW


def test_dusk_16_the_external_address_with_and_without_an_id(start):
    address = '/dns4/relay.example.org/tcp/4001'
    for tail in ('', '/p2p/12D3KooWA4Xop1JaT3MHxwYMkCepYsv4iPVopMXwCz5iHYdBfeSB'):
        relay = start(preset='dusk', env={'DUSK_RELAY_EXTERNAL_ADDR': address + tail})
        with relay.connect() as session:
            addrs = [maddr_text(a) for a in reserve(session).addrs]
        assert addrs == [address + '/p2p/' + relay.peer], addrs


@pytest.mark.sanitize
def test_dusk_18_a_mebibyte_each_way(dusk):
    """And dusk_17: no reservation is 204, libp2p_53 in test_relay.py."""
    with dusk.connect() as source, dusk.connect() as target:
        assert reserve(target).status == OK
        serve_stop(target)
        stream = source.open(HOP, hop_connect(target.key.peer_id))
        message, far = accept_stop(target)
        assert message.peer == source.key.peer_id
        answer = HopMessage(stream.message())
        assert answer.status == OK and answer.limit is None, 'unlimited: the field is left out'
        blob = [os.urandom(1 << 20), os.urandom(1 << 20)]
        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            sends = [pool.submit(stream.send, blob[0]), pool.submit(far.send, blob[1])]
            there = pool.submit(far.recv, 1 << 20, 30 * SLOW)
            back = pool.submit(stream.recv, 1 << 20, 30 * SLOW)
            assert hashlib.sha256(there.result()).digest() == hashlib.sha256(blob[0]).digest()
            assert hashlib.sha256(back.result()).digest() == hashlib.sha256(blob[1]).digest()
            for send in sends:
                send.result()


def test_dusk_19_bytes_glued_behind_connect_and_behind_the_status(dusk):
    with dusk.connect() as source, dusk.connect() as target:
        reserve(target)
        serve_stop(target)
        stream = source.open(HOP, hop_connect(target.key.peer_id) + b'from the source')
        _, far = accept_stop(target, behind=b'from the target')
        assert HopMessage(stream.message()).status == OK
        assert far.recv(15) == b'from the source'
        assert stream.recv(15) == b'from the target'
        stream.close_write()  # dusk_20: and B still talks
        far.wait_eof()
        far.send(b'after your FIN')
        assert stream.recv(14) == b'after your FIN'


def test_dusk_21_limits_when_they_are_wanted(start):
    """To the byte: libp2p_59 in test_limits.py; busy ones: libp2p_60."""
    relay = start('--circuit-duration-secs', 2, preset='dusk')
    with relay.connect() as source, relay.connect() as target:
        reserve(target)
        near, far = join(source, target)
        began = time.monotonic()
        assert near.wait_reset(5 * SLOW) and far.wait_reset(5 * SLOW)
        assert 1 <= time.monotonic() - began <= 3 * SLOW
        assert source.alive() and target.alive()


def test_dusk_22_what_the_target_says(dusk):
    """Silence is 203 after 10 s here, not 60 (presets.md): libp2p_55 in test_relay.py."""
    with dusk.connect() as source, dusk.connect() as target:
        reserve(target)
        auto_stop(target, status=DENIED)
        assert dial(source, target.key.peer_id)[0].status == DENIED
        target.protocols.pop(STOP)
        assert dial(source, target.key.peer_id)[0].status == FAILED


def test_dusk_23_another_reservation_of_the_peer_takes_over(dusk):
    key = Key()
    first, second = dusk.connect(key), dusk.connect(key)
    with dusk.connect() as source:
        for session in first, second:
            assert reserve(session).status == OK
            auto_stop(session)
        second.close()
        dusk.until(lambda: dial(source, key.peer_id)[0].status == OK and not second.circuits, 5,
                   'a circuit by the other connection')
        first.close()
        dusk.until(lambda: dial(source, key.peer_id)[0].status == NO_RESERVATION, 5, '204')


def test_dusk_24_renewals_at_full_capacity_and_the_end_of_the_refused(start):
    """presets.md: 201, then the connection is closed after a second, or the client never asks
    again (§1.1)."""
    relay = start('--max-reservations', 2, preset='dusk')
    with relay.connect() as one, relay.connect() as two, relay.connect() as three:
        assert reserve(one).status == reserve(two).status == OK
        answer, stream = hop_request(three, hop_reserve())
        began = time.monotonic()
        assert answer.status == LIMIT and not answer.reserved
        assert reserve(one).status == reserve(two).status == OK, 'renewals are exempt'
        assert three.wait_dead(5 * SLOW)
        assert 0.8 <= time.monotonic() - began <= 3 * SLOW
        assert one.alive() and two.alive()


def test_dusk_25_the_31st_reservation_of_a_peer(start):
    """With upstream's bucket; here a renewal is free (check 24), so each is of a connection of its
    own."""
    relay = start('--reservation-rate-per-peer', '30/120', preset='dusk')
    key, statuses = Key(), []
    for _ in range(31):
        with relay.connect(key) as session:
            statuses.append(reserve(session).status)
    assert statuses == [OK] * 30 + [LIMIT], statuses


@pytest.mark.parametrize('what', ['garbage', 'too long', 'empty', 'nothing'])
def test_dusk_26_malformed_hop_messages(dusk, what):
    """Each kind of malformed: libp2p_53 in test_relay.py."""
    message = {'garbage': lp(os.urandom(60)), 'too long': lp(pb((1, CONNECT), (9, bytes(4093)))),
               'empty': lp(b''), 'nothing': b''}[what]
    with dusk.connect() as session:
        stream = session.open(HOP, message)
        stream.close_write()
        try:
            stream.recv_to_eof()
        except Reset:
            pass
        assert session.alive()
        assert reserve(session).status == OK
