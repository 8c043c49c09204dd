"""libp2p.md §19, checks 3, 7-15 and 17-22: everything before the first stream."""

import concurrent.futures
import re
import socket
import ssl
import struct
import time

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import noise
import rawp2p
from circuit import join, reserve, serve_stop
from rawp2p import ACK, DATA, HEADER, PING, SYN, read_mss
from wire import (HOP, IDENTIFY, MSS, NOISE, OK, YAMUX, Key, lp, mss, pb, peer_id_of, uv)

CLOSE_AT_ONCE = 1.0


def pings(tcp):
    """The connection is good for a whole handshake from here on."""
    with rawp2p.muxed(tcp) as session:
        assert session.alive()


def hung_up_silently(tcp, seconds=CLOSE_AT_ONCE):
    """The relay closes and says nothing more."""
    end = time.monotonic() + seconds
    while True:
        tcp.sock.settimeout(max(0.01, end - time.monotonic()))
        try:
            got = tcp.sock.recv(65536)
        except socket.timeout:
            return False
        except OSError:
            return True
        assert not got, 'answered %r' % got
        return True


# ---- 3: who may come in -------------------------------------------------------------------------

@pytest.mark.parametrize('inline', [False, True], ids=['mss', 'inline'])
@pytest.mark.parametrize('kind', ['ed25519', 'secp256k1', 'ecdsa', 'rsa'])
def test_libp2p_03_each_kind_of_key_connects_and_reserves(relay, placement, kind, inline):
    key = Key(kind)
    with relay.connect(key, placement.target, inline=inline) as session:
        assert reserve(session).status == OK


class ManyPrimeKey:
    """An RSA key of any size in no time: a product of many primes signs as well as one of two."""

    def __init__(self, bits, prime_bits=512):
        primes, n, phi = [], 1, 1
        while n.bit_length() < bits - 1:
            numbers = rsa.generate_private_key(65537, 2 * prime_bits).private_numbers()
            for p in (numbers.p, numbers.q):
                if n.bit_length() < bits - 1:
                    primes.append(p)
                    n, phi = n * p, phi * (p - 1)
        self.n, self.d, self.primes = n, pow(65537, -1, phi), primes
        spki = rsa.RSAPublicNumbers(65537, n).public_key().public_bytes(
            Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.pb = pb((1, 0), (2, spki))
        self.peer_id = peer_id_of(self.pb)

    def sign(self, data):
        import hashlib
        size = (self.n.bit_length() + 7) // 8
        info = bytes.fromhex('3031300d060960864801650304020105000420')
        tail = b'\x00' + info + hashlib.sha256(data).digest()
        m = int.from_bytes(b'\x00\x01' + b'\xff' * (size - 2 - len(tail)) + tail, 'big')
        s = 0
        for p in self.primes:  # the Chinese remainder theorem, or a 16384-bit power takes seconds
            rest = self.n // p
            s += pow(m % p, self.d % (p - 1), p) * rest * pow(rest, -1, p)
        return (s % self.n).to_bytes(size, 'big')


def test_libp2p_03_rsa_of_a_bearable_size_is_the_only_one_let_in(relay, placement):
    """The same key made of many primes passes at 4096 bits, so that what refuses the two others is
    their size, not their shape."""
    with relay.connect(ManyPrimeKey(4096), placement.target) as session:
        assert session.alive()
    for bits, prime_bits in ((1024, 512), (16384, 1024)):
        key = ManyPrimeKey(bits, prime_bits)  # takes longer than the relay waits for a handshake
        tcp = relay.tcp(placement.target)
        rawp2p.secure(tcp, key)
        assert hung_up_silently(tcp, 3), '%d bits' % bits


# ---- 7 to 15: multistream-select ----------------------------------------------------------------

def test_libp2p_07_unknown_name_gets_na(relay, placement):
    tcp = relay.tcp(placement.target)
    tcp.send(mss(MSS, '/plaintext/2.0.0'))
    assert tcp.recv(20) == mss(MSS)
    assert tcp.recv(4) == bytes.fromhex('036e610a')
    tcp.send(mss(NOISE))
    assert tcp.recv(8) == mss(NOISE)


def test_libp2p_07_nothing_is_said_before_the_first_three_bytes(relay, placement):
    """A browser that comes for a WebSocket must not see the multistream header (libp2p.md §2)."""
    tcp = relay.tcp(placement.target)
    tcp.sock.settimeout(0.3)
    with pytest.raises(socket.timeout):
        tcp.recv(1)
    tcp.sock.settimeout(10)
    pings(rawp2p.secure(tcp, Key()))


class SlowTcp(rawp2p.Tcp):
    """Everything byte by byte."""

    def send(self, data):
        self.send_slowly(data)


def test_libp2p_08_all_of_the_handshake_byte_by_byte(relay, placement):
    tcp = relay.tcp(placement.target)
    pings(rawp2p.secure(SlowTcp(None, sock=tcp.sock), Key()))


@pytest.mark.parametrize('step', [2, 3, 7, 19, 20, 21, 29, 100])
def test_libp2p_08_the_handshake_in_pieces(relay, placement, step):
    class Pieces(rawp2p.Tcp):
        def send(self, data):
            self.send_slowly(data, step)
    tcp = relay.tcp(placement.target)
    pings(rawp2p.secure(Pieces(None, sock=tcp.sock), Key()))


def test_libp2p_09_header_noise_and_msg1_in_one_segment(relay, placement):
    tcp, initiator = relay.tcp(placement.target), noise.Initiator(Key())
    tcp.send(mss(MSS, NOISE) + noise.frame(initiator.msg1()))
    assert [read_mss(tcp), read_mss(tcp)] == [MSS, NOISE]
    initiator.read2(tcp.recv(struct.unpack('>H', tcp.recv(2))[0]))
    # and msg3 with the muxer's negotiation behind it, and the first yamux frame behind that
    tcp.send(noise.frame(initiator.msg3()) + initiator.seal(
        mss(MSS, YAMUX) + HEADER.pack(0, PING, SYN, 0, 77)))
    secured = rawp2p.Secured(tcp, initiator)
    assert [read_mss(secured), read_mss(secured)] == [MSS, YAMUX]
    assert secured.recv(12) == HEADER.pack(0, PING, ACK, 0, 77)


def ls(source):
    """The names in the answer to `ls`: one frame of frames and a newline (libp2p.md §3)."""
    assert read_mss(source) == MSS
    size = source.recv(1)[0]
    if size >= 0x80:
        size = (size & 0x7f) | source.recv(1)[0] << 7
    body, names = source.recv(size), []
    while body != b'\n':
        names.append(body[1:1 + body[0] - 1].decode())
        assert body[body[0]:body[0] + 1] == b'\n'
        body = body[1 + body[0]:]
    return names


def test_libp2p_10_ls_lists_what_is_served(relay, placement):
    tcp = relay.tcp(placement.target)
    tcp.send(mss(MSS, 'ls'))
    assert NOISE in ls(tcp)
    tcp.send(mss(NOISE))
    assert read_mss(tcp) == NOISE
    with relay.connect(shard=placement.target) as session:
        stream = session.stream()
        stream.send(mss(MSS, 'ls'))
        names = ls(stream)
        assert {HOP, IDENTIFY, '/ipfs/ping/1.0.0'} <= set(names)
        stream.send(mss(IDENTIFY))  # and the negotiation goes on
        stream.expect_mss(IDENTIFY)
        assert stream.recv_to_eof()


def test_libp2p_11_a_frame_of_1025_bytes_ends_the_connection(relay, placement):
    """1024 bytes, newline included, are the longest frame: an unknown name, no more."""
    fits = b'/' + b'x' * 1022 + b'\n'
    tcp = relay.tcp(placement.target)
    tcp.send(mss(MSS) + lp(fits))
    assert tcp.recv(20) == mss(MSS) and tcp.recv(4) == mss('na')
    tcp.send(lp(b'x' + fits))
    assert tcp.closed_within(CLOSE_AT_ONCE) is not None
    tcp = relay.tcp(placement.target)  # the length alone tells
    tcp.send(mss(MSS) + uv(1025))
    assert tcp.closed_within(CLOSE_AT_ONCE) is not None


def test_libp2p_12_simultaneous_connect_is_declined(relay, placement):
    tcp = relay.tcp(placement.target)
    tcp.send(mss(MSS, '/libp2p/simultaneous-connect', NOISE))
    assert tcp.recv(20 + 4 + 8) == mss(MSS, 'na', NOISE)
    pings(rawp2p.secure(ReadAhead(tcp), Key(), hello=False))


class ReadAhead:
    """A connection whose multistream answers were read already: says them again."""

    def __init__(self, tcp):
        self.tcp, self.again = tcp, mss(MSS, NOISE)
        self.sock, self.send = tcp.sock, tcp.send

    def recv(self, n):
        if self.again:
            out, self.again = self.again[:n], self.again[n:]
            return out
        return self.tcp.recv(n)

    @property
    def buf(self):
        return self.tcp.buf

    @property
    def local(self):
        return self.tcp.local


def silent_stages(relay, shard):
    """Connections that stop talking at each stage of the handshake."""
    def after(*steps):
        tcp = relay.tcp(shard)
        for step in steps:
            step(tcp)
        return tcp

    def noise1(tcp):
        tcp.send(noise.frame(noise.Initiator(Key()).msg1()))
    hello, half = (lambda tcp: tcp.send(mss(MSS, NOISE))), (lambda tcp: tcp.send(b'\x13/m'))
    return {'nothing': after(), 'a byte': after(lambda tcp: tcp.send(b'\x13')),
            'half a header': after(half), 'header': after(lambda tcp: tcp.send(mss(MSS))),
            'security': after(hello), 'message 1': after(hello, noise1),
            'noise': after(lambda tcp: rawp2p.secure(tcp, Key()))}


def test_libp2p_13_a_silent_client_is_gone_in_15_s(relay, placement):
    stages = silent_stages(relay, placement.target)
    with concurrent.futures.ThreadPoolExecutor(len(stages)) as pool:
        ends = dict(zip(stages, pool.map(lambda tcp: tcp.closed_within(17), stages.values())))
    for stage, seconds in ends.items():
        assert seconds is not None and seconds <= 15, (stage, ends)
        assert seconds >= 3, 'a slow client needs time too: %s %s' % (stage, ends)


def test_libp2p_13_a_trickling_client_is_gone_in_15_s(relay, placement):
    """The deadline is for the whole handshake, not for each byte."""
    tcp = relay.tcp(placement.target)
    began = time.monotonic()
    with pytest.raises(OSError):
        for byte in mss(MSS, NOISE) + bytes(100):
            tcp.send(bytes([byte]))
            if time.monotonic() - began > 17:
                break
            time.sleep(0.5)
    assert time.monotonic() - began <= 16


def test_libp2p_14_a_hundred_bad_names_end_the_connection(relay, placement):
    tcp = relay.tcp(placement.target)
    tcp.send(mss(MSS))
    declined = 0
    try:
        for i in range(100):
            tcp.send(mss('/nothing/%d' % i))
            if i == 0:
                read_mss(tcp)
            assert read_mss(tcp) == 'na'
            declined += 1
    except (OSError, rawp2p.Closed):
        pass
    assert 4 <= declined < 100


def client_hello():
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(incoming, outgoing, server_hostname='example.org')
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


def test_libp2p_15_http_without_upgrade_is_refused(relay, placement):
    tcp = relay.tcp(placement.target)
    tcp.send(b'GET / HTTP/1.1\r\nHost: example.org\r\n\r\n')
    answer = b''
    try:
        while b'\r\n' not in answer:
            answer += tcp.recv(1)
    except (OSError, rawp2p.Closed):
        pass
    assert re.match(rb'HTTP/1\.1 (400|426) ', answer), answer
    assert tcp.closed_within(3) is not None


@pytest.mark.parametrize('first', [
    client_hello(), b'\x16\x03\x01', b'SSH-2.0-OpenSSH_9\r\n', bytes(64), b'\xff' * 4096,
    b'\x13/m' + b'x' * 40, b'POST / HTTP/1.1\r\n\r\n'],
    ids=['clienthello', 'tls', 'ssh', 'zeroes', 'ones', 'almost', 'post'])
def test_libp2p_15_what_is_not_libp2p_is_closed(relay, placement, first):
    tcp = relay.tcp(placement.target)
    tcp.send(first)
    assert tcp.closed_within(3) is not None
    with relay.connect(shard=placement.target) as session:
        assert session.alive()


# ---- 17 to 22: Noise ----------------------------------------------------------------------------

def wrong_payloads():
    key, other = Key(), Key()
    static = noise.X25519PrivateKey.generate()
    mine = noise.raw_public(static)
    good = key.sign(noise.SIGNED + mine)
    flipped = bytes([good[0] ^ 1]) + good[1:]
    return static, {
        'another static key': noise.payload(key, b'\x07' * 32),
        'a flipped bit': noise.payload(key, mine, signature=flipped),
        'another prefix': noise.payload(key, mine, signature=key.sign(b'noise-libp2p' + mine)),
        'another identity': pb((1, other.pb), (2, good)),
        'no signature': pb((1, key.pb)),
        'an empty signature': pb((1, key.pb), (2, b'')),
        'no key': pb((2, good)),
        'an unknown kind of key': pb((1, pb((1, 9), (2, bytes(32)))), (2, good)),
        'a cut key': pb((1, key.pb[:-1]), (2, good)),
        'no payload': b'',
        'no protobuf': b'\xff' * 80,
    }


def test_libp2p_17_a_wrong_identity_is_closed_without_reply(relay, placement):
    """And dusk_03."""
    static, payloads = wrong_payloads()
    for what, body in payloads.items():
        tcp = relay.tcp(placement.target)
        initiator = noise.Initiator(Key(), static)
        tcp.send(mss(MSS, NOISE) + noise.frame(initiator.msg1()))
        assert tcp.recv(28) == mss(MSS, NOISE)
        initiator.read2(tcp.recv(struct.unpack('>H', tcp.recv(2))[0]))
        tcp.send(noise.frame(initiator.msg3(body=body)))
        assert hung_up_silently(tcp), what


@pytest.mark.parametrize('size', [1, 16, 1000, 60000])
def test_libp2p_18_a_payload_in_message_1_harms_nothing(relay, placement, size):
    """rust refuses it, others tolerate it; here either is right."""
    tcp, initiator = relay.tcp(placement.target), noise.Initiator(Key())
    tcp.send(mss(MSS, NOISE) + noise.frame(initiator.msg1(bytes(size))))
    try:
        assert tcp.recv(28) == mss(MSS, NOISE)
        initiator.read2(tcp.recv(struct.unpack('>H', tcp.recv(2))[0]))
        tcp.send(noise.frame(initiator.msg3()))
        pings(rawp2p.Secured(tcp, initiator))
    except (OSError, rawp2p.Closed):
        pass
    relay.check()


@pytest.mark.parametrize('message1', [b'', bytes(31), bytes(32)], ids=['empty', 'short', 'low'])
def test_libp2p_18_a_malformed_message_1_is_closed(relay, placement, message1):
    """A low-order point would make the shared secret zero (libp2p.md §4)."""
    tcp = relay.tcp(placement.target)
    tcp.send(mss(MSS, NOISE) + noise.frame(message1))
    assert tcp.closed_within(CLOSE_AT_ONCE) is not None


def test_libp2p_19_the_longest_record_and_the_empty_one(relay, placement):
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        assert reserve(target).status == OK
        near, far = join(source, target)
        for _ in range(3):
            body = bytes(range(251)) * 262
            body = body[:noise.PLAIN_MAX - 12]
            near.credit -= len(body)
            source.sealed(HEADER.pack(0, DATA, 0, near.sid, len(body)) + body)
            source.sealed(b'')
            assert far.recv(len(body)) == body
        for size in (65535 - 12, 65536, 100000):  # and what the relay makes of long frames
            far.send(b'y' * size)
            assert near.recv(size) == b'y' * size
        assert source.alive() and target.alive()


def test_libp2p_19_records_end_anywhere_in_a_frame(relay, placement):
    """Many frames in one record, and one frame over many."""
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        near, far = join(source, target)
        frames = b''.join(HEADER.pack(0, DATA, 0, near.sid, n) + bytes([n]) * n
                          for n in range(1, 60))
        want = b''.join(bytes([n]) * n for n in range(1, 60))
        near.credit -= 3 * len(want)
        source.sealed(frames)
        for step in (1, 13):
            for at in range(0, len(frames), step):
                source.sealed(frames[at:at + step])
        assert far.recv(3 * len(want)) == want * 3


@pytest.mark.parametrize('at', [0, 5, 12, -1, -16])
def test_libp2p_20_a_flipped_bit_ends_the_connection(relay, placement, at):
    with relay.connect(shard=placement.target) as session:
        record = bytearray(session.noise.seal(HEADER.pack(0, PING, SYN, 0, 1) * 3))
        record[2 + at if at >= 0 else at] ^= 0x10
        session.raw(record)
        assert session.wait_dead(CLOSE_AT_ONCE)
        assert not session.pongs


def test_libp2p_20_a_flipped_bit_in_message_3_ends_the_connection(relay, placement):
    tcp, initiator = relay.tcp(placement.target), noise.Initiator(Key())
    tcp.send(mss(MSS, NOISE) + noise.frame(initiator.msg1()))
    tcp.recv(28)
    initiator.read2(tcp.recv(struct.unpack('>H', tcp.recv(2))[0]))
    message = bytearray(initiator.msg3())
    message[60] ^= 1
    tcp.send(noise.frame(message))
    assert hung_up_silently(tcp)


def test_libp2p_20_a_record_too_short_for_its_tag_ends_the_connection(relay, placement):
    for size in (0, 1, 15):
        with relay.connect(shard=placement.target) as session:
            session.raw(struct.pack('>H', size) + bytes(size))
            assert session.wait_dead(CLOSE_AT_ONCE), size


@pytest.mark.parametrize('inline', [False, True], ids=['mss', 'inline'])
def test_libp2p_21_muxer_by_either_way(relay, placement, inline):
    """With the list in message 3 no multistream may follow; without it one must."""
    tcp = relay.tcp(placement.target)
    secured = rawp2p.secure(tcp, Key(), ['/mplex/6.7.0', YAMUX] if inline else [])
    assert secured.noise.remote_muxers == [YAMUX]
    session = rawp2p.Session(secured) if inline else rawp2p.muxed(secured)
    with session:
        assert session.alive()


def test_libp2p_21_no_common_muxer_falls_back_to_multistream(relay, placement):
    secured = rawp2p.secure(relay.tcp(placement.target), Key(), ['/mplex/6.7.0'])
    with rawp2p.muxed(secured) as session:
        assert session.alive()


def test_libp2p_22_length_prefixes_in_two_pieces(relay, placement):
    with relay.connect(shard=placement.target) as session:
        for value in range(20):
            record = session.noise.seal(HEADER.pack(0, PING, SYN, 0, value))
            for piece in (record[:1], record[1:2], record[2:3], record[3:]):
                session.raw(piece)
                time.sleep(0.002)
        assert session.wait(lambda: len(session.pongs) == 20)
        two = b''.join(session.noise.seal(HEADER.pack(0, PING, SYN, 0, v)) for v in (20, 21))
        session.raw(two[:len(two) // 2 + 1])  # the first byte of the second length
        time.sleep(0.05)
        session.raw(two[len(two) // 2 + 1:])
        assert session.wait(lambda: [p[0] for p in session.pongs] == list(range(22)))


def test_libp2p_22_many_records_in_one_segment(relay, placement):
    with relay.connect(shard=placement.target) as session:
        serve_stop(session)
        session.raw(b''.join(session.noise.seal(HEADER.pack(0, PING, SYN, 0, v))
                             for v in range(40)))
        assert session.wait(lambda: len(session.pongs) == 40)
