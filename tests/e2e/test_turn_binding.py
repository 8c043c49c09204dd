"""turn.md §20, checks 1 to 20: what is STUN and what is not, and Binding."""

import random
import struct

import pytest

from turn import (ALLOCATE, BINDING, DATA, FINGERPRINT, ICE_CONTROLLED, INDICATION, MAPPED_ADDRESS,
                  PRIORITY, REQUEST, SOFTWARE, UDP_TRANSPORT, USE_CANDIDATE, XOR_MAPPED_ADDRESS,
                  UdpPeer, attr, channel_data, fingerprint_attr, header, message, peer,
                  read_address, type_of)

TID = bytes(range(1, 13))
V8 = bytes.fromhex('000100002112a4420102030405060708090a0b0c')


# ---- 1 to 8, 13, 19 -----------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
@pytest.mark.parametrize('kind', ['udp', 'tcp'])
def test_turn_01_turn_19_binding_is_answered_with_the_source_and_nothing_else(turnd, kind):
    """The path takes answers from the addressed port only."""
    client = turnd.client(kind)
    got = client.exchange(V8)
    assert len(got.raw) == 32 and got.raw[:8].hex() == '0101000c2112a442' and got.tid == TID
    assert got.numbers() == [XOR_MAPPED_ADDRESS]
    assert not got.has(SOFTWARE) and not got.has(MAPPED_ADDRESS)
    assert got.address() == client.path.local


SILENT = {
    'turn_02 a trailing byte': V8 + b'\0',
    'turn_02 four of them': V8 + bytes(4),
    'turn_02 a byte less': V8[:-1],
    'turn_03 length 4 without a body': header(1, 4, TID),
    'turn_04 length 2': header(1, 2, TID) + bytes(2),
    'turn_05 an unknown channel': header(0x4001, 0, TID),
    'turn_05 an unknown channel, well formed': channel_data(0x4001, b'abcd'),
    'turn_06 another cookie': V8[:4] + bytes.fromhex('2112a443') + V8[8:],
    'turn_07 a success': message(0x0101),
    'turn_07 an error': message(0x0111),
    'turn_08 an indication': message(0x0011),
    'turn_10 a fingerprint off by a bit': message(1, tid=TID, fingerprint=True)[:-1] +
                                          bytes((message(1, tid=TID, fingerprint=True)[-1] ^ 1,)),
    'turn_15 an attribute beyond the end': header(1, 4, TID) + bytes.fromhex('8022ffff'),
    'an unknown method': message(0x0002),
    'a Data indication': message(0x0017, [peer('127.9.9.9', 9), (DATA, b'x')]),
    'a fingerprint that is not the last': header(1, 16, TID) + fingerprint_attr(
        header(1, 0, TID)) + attr(SOFTWARE, b'abcd'),
    'nothing': b'',
}


@pytest.mark.sanitize
@pytest.mark.parametrize('what', SILENT, ids=lambda what: what.replace(' ', '_').replace(',', ''))
def test_turn_02_to_turn_15_is_silent_for(turnd, what):
    assert turnd.udp().quiet(SILENT[what])


def test_turn_06_rfc_3489_is_spoken_when_asked_for(turn_start):
    """Then a classic request gets MAPPED-ADDRESS, and its 16 bytes back."""
    turnd = turn_start('--turn-classic')
    client = turnd.udp()
    request = bytes.fromhex('00010000') + bytes(range(16))
    client.path.send(request)
    raw = client.path.recv(3)
    assert raw[:4].hex() == '0101000c' and raw[4:20] == request[4:]
    assert raw[20:24].hex() == '00010008' and read_address(raw[24:]) == client.path.local
    assert client.ask(BINDING).address() == client.path.local
    assert client.quiet(bytes.fromhex('00030000') + bytes(range(16))), 'Binding only'


# ---- 9 to 15 ------------------------------------------------------------------------------------

@pytest.mark.parametrize('kind', ['udp', 'tcp'])
def test_turn_09_turn_10_fingerprint_is_mirrored(turnd, kind):
    """Message computes it; Client demands it exactly where the request had one."""
    got = turnd.client(kind, fingerprint=True).ask(BINDING)
    assert got.numbers() == [XOR_MAPPED_ADDRESS, FINGERPRINT] and len(got.raw) == 40
    assert not turnd.client(kind).ask(BINDING).has(FINGERPRINT)


def test_turn_11_turn_12_unknown_attributes_are_listed(turnd):
    client = turnd.udp()
    one = client.ask(BINDING, (0x7FFF, b''))
    assert one.type == 0x0111 and one.code == 420 and one.unknown == [0x7FFF]
    two = client.ask(BINDING, (0x7FFE, b'abc'), (0x7FFD, b''))
    assert two.code == 420 and sorted(two.unknown) == [0x7FFD, 0x7FFE]
    assert len(two.get(0x000A)) == 4


def test_turn_13_unknown_optional_attributes_are_ignored(turnd):
    assert turnd.udp().ask(BINDING, (0xFFFF, b''), (0x8ABC, b'hello')).code == 0


def test_turn_14_attributes_of_ice_do_no_harm(turnd):
    client = turnd.udp()
    assert client.ask(BINDING, (PRIORITY, b'\x6e\0\1\xff'), (USE_CANDIDATE, b'')).code in (0, 420)
    assert client.ask(BINDING, (ICE_CONTROLLED, bytes(8))).code == 0
    assert client.ask(BINDING, (0x0007, b'password')).code == 0, 'what old clients attach'


@pytest.mark.sanitize
def test_turn_16_cve_2026_40613_attributes_of_odd_length_at_every_place(turnd):
    """Values of 0 to 5 bytes, in every order of three, of types that are read as words; garbage in
    the padding, which is ignored."""
    client, answered = turnd.udp(), 0
    for lengths in [(a, b, c) for a in range(6) for b in range(6) for c in range(6)]:
        for kinds in ((0x8022, 0x8029, 0xFFFF), (0x000C, 0x0012, 0x000D)):
            raw = message(type_of(BINDING, REQUEST), [
                attr(kind, bytes((0xAA,)) * n, pad=b'\xEE') for kind, n in zip(kinds, lengths)])
            client.path.send(raw)
            answered += client.reply(raw) is not None
    assert answered == 2 * 216, 'each is well formed, so each has an answer'
    turnd.relay.check()


@pytest.mark.sanitize
def test_turn_15_turn_16_every_cut_and_every_length_is_survived(turnd):
    """An Allocate with everything in it, cut everywhere; then each of its length fields made each
    wrong. A datagram's size tells, so nearly all of them are silence; none is a crash."""
    client = turnd.udp(fingerprint=False)
    client.challenge()
    whole = client.make(ALLOCATE, UDP_TRANSPORT, (0x8022, b'abc'), (0x0018, b'\0'),
                        (0x000D, b'abc'))
    assert client.quiet(*(whole[:n] for n in range(len(whole)) if n != 20))
    rng = random.Random(20)
    at = 20
    spoilt = []
    while at < len(whole):
        size = struct.unpack_from('!H', whole, at + 2)[0]
        for value in (size + 4, size + 8, 0x7FFF, 0xFFFC, 0xFFFF, rng.randrange(len(whole), 65536)):
            spoilt.append(whole[:at + 2] + struct.pack('!H', value) + whole[at + 4:])
        at += 4 + size + -size % 4
    for raw in spoilt:  # those that still parse get an error
        client.path.send(raw)
        got = client.wait(lambda u: True, 0.01)
        assert got is None or got.code in (400, 401, 420, 437, 438), got
    for _ in range(2000):
        raw = bytearray(whole)
        for _ in range(rng.randrange(1, 4)):
            raw[rng.randrange(len(raw))] ^= 1 << rng.randrange(8)
        client.path.send(raw)
        while client.path.recv(0) is not None:
            pass
    turnd.relay.check()


# ---- 17, 18: addresses --------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.parametrize('kind', ['udp', 'tcp'])
def test_turn_17_over_ipv6(turn_start, kind):
    turnd = turn_start(listen=['[::1]:0'])
    client = turnd.client(kind)
    got = client.exchange(V8)
    assert len(got.raw) == 44 and got.get(XOR_MAPPED_ADDRESS)[1] == 2
    assert got.address() == client.path.local


@pytest.mark.parametrize('kind', ['udp', 'tcp'])
def test_turn_18_an_ipv4_client_of_a_dual_stack_socket_is_ipv4(turn_start, kind):
    turnd = turn_start(listen=['[::]:0'])
    client = turnd.client(kind, at=('127.0.0.1', turnd.at[1]))
    got = client.exchange(V8)
    assert got.get(XOR_MAPPED_ADDRESS)[1] == 1 and got.address() == client.path.local
    six = turnd.client(kind, at=('::1', turnd.at[1]))
    assert six.exchange(V8).address() == six.path.local


def test_turn_01_the_answer_leaves_from_the_address_that_was_asked(turn_start):
    """Also where one wildcard socket has many (turn.md §2); the path looks at the source."""
    turnd = turn_start(listen=['0.0.0.0:0'])
    for host in ('127.0.0.1', '127.77.0.1', '127.200.0.9'):
        client = turnd.udp(at=(host, turnd.at[1]))
        assert client.exchange(V8).address() == client.path.local


# ---- 20: padding --------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.parametrize('kind', ['udp', 'tcp'])
def test_turn_20_cve_2020_4067_padding_is_zero(turnd, kind):
    """Message looks at the padding of each answer. Here after garbage has gone through the buffers,
    in answers with values of each length, and in data of each length."""
    client = turnd.client(kind)
    junk = message(type_of(BINDING, INDICATION), [(0x8022, b'\xEE' * 900)])
    for n in range(9):  # UNKNOWN-ATTRIBUTES of each length
        client.path.send(junk)
        assert client.ask(BINDING, *((0x7F00 + i, b'\xEE') for i in range(n))).code == 420 * bool(n)
    client.path.send(junk)
    client.challenge()
    assert len(client.realm) % 4, 'or it needs no padding'
    client.path.send(junk)
    client.allocate()
    with UdpPeer() as far:
        assert client.permit(far.at[0]).code == 0
        for name in (far.at, 0x4000):
            for n in (1, 2, 3, 4, 5, 900, 6, 7):
                far.send(b'\xEE' * n, client.relayed)
                assert client.data() == (name, b'\xEE' * n)
            assert client.bind_channel(0x4000, far.at).code == 0
