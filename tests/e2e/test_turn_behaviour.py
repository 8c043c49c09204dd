"""turn.md §20, checks 21 to 24: discovery of a NAT's behaviour (RFC 5780), off and on."""

import contextlib
import random
import socket

import pytest

from turn import (BINDING, CHANGE_REQUEST, OTHER_ADDRESS, PADDING, RESPONSE_ORIGIN, RESPONSE_PORT,
                  UdpPath, bound, message, read_address, u32, unit)


def change(bits):
    return u32(CHANGE_REQUEST, bits)


def response_port(port):
    return RESPONSE_PORT, port.to_bytes(2, 'big') + bytes(2)


class Anywhere(UdpPath):
    """Takes answers from everywhere, and says where they came from."""

    def recv(self, timeout):
        self.sock.settimeout(max(timeout, 0.001))
        try:
            raw, self.came_from = self.sock.recvfrom(65536)
        except socket.timeout:
            return None
        return raw


def is_free(port, alternate):
    """At both addresses, for datagrams and for streams."""
    try:
        with contextlib.ExitStack() as held:
            for host in '127.0.0.1', alternate:
                for kind in socket.SOCK_DGRAM, socket.SOCK_STREAM:
                    held.enter_context(bound(kind, host, port))
    except OSError:
        return False
    return True


def ports_of_two(alternate):
    """Two numbers that are free at both addresses, and that no other test's socket is given by
    the kernel in the meantime: below the ephemeral range."""
    return random.sample([port for port in random.sample(range(20000, 32000), 50)
                          if is_free(port, alternate)], 2)


@pytest.fixture(scope='module')
def two(tmp_path_factory):
    """A server with two addresses and two ports."""
    from turnd import Turnd
    port, other = ports_of_two('127.0.0.2')
    live = Turnd(tmp_path_factory.mktemp('two'), '--turn-alternate', '127.0.0.2:%d' % other,
                 listen=['127.0.0.1:%d' % port]).start()
    live.alternate = '127.0.0.2', other
    yield live
    live.finish()


def everywhere(two, at=None):
    client = two.udp()
    client.path.close()
    client.path = Anywhere(at or two.at)
    return client


# ---- 21 -----------------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.parametrize('bits', [0, 2, 4, 6])
def test_turn_21_the_answer_comes_from_where_it_is_wanted(two, bits):
    """Asked at each of the four addresses."""
    for ip in (0, 1):
        for port in (0, 1):
            ips, ports = (two.at[0], two.alternate[0]), (two.at[1], two.alternate[1])
            client = everywhere(two, (ips[ip], ports[port]))
            got = client.ask(BINDING, *((change(bits),) if bits else ()))
            origin = ips[ip ^ (bits >> 2 & 1)], ports[port ^ (bits >> 1 & 1)]
            assert got.code == 0 and client.path.came_from == origin
            assert read_address(got.get(RESPONSE_ORIGIN)) == origin
            assert read_address(got.get(OTHER_ADDRESS)) == (ips[1 - ip], ports[1 - port])
            assert got.address() == client.path.local
            client.close()


def test_turn_21_change_request_6_comes_from_the_other_address(two):
    client = everywhere(two)
    got = client.ask(BINDING, change(6))
    assert client.path.came_from == two.alternate == read_address(
        client.ask(BINDING).get(OTHER_ADDRESS))
    assert read_address(got.get(RESPONSE_ORIGIN)) == two.alternate


def test_turn_21_allocations_have_none_of_it(two):
    client = two.udp().allocate()
    assert not client.granted.has(RESPONSE_ORIGIN) and not client.granted.has(OTHER_ADDRESS)
    got = two.udp(at=two.alternate).allocate().granted
    assert got.code == 0, 'all four are doors'


# ---- 22 -----------------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.parametrize('bits', [2, 4, 6])
def test_turn_22_without_a_second_address_it_is_420(turnd, bits):
    got = turnd.udp().ask(BINDING, change(bits))
    assert got.code == 420 and got.unknown == [CHANGE_REQUEST]


def test_turn_22_a_change_of_nothing_is_as_if_absent(turnd, two):
    for where in (turnd, two):
        assert where.udp().ask(BINDING, change(0)).code == 0
    got = turnd.udp().ask(BINDING)
    assert not got.has(RESPONSE_ORIGIN) and not got.has(OTHER_ADDRESS)


def test_turn_22_the_others_are_420_too(turnd):
    client = turnd.udp()
    for attr in (response_port(9), (PADDING, bytes(64))):
        got = client.ask(BINDING, attr)
        assert got.code == 420 and got.unknown == [attr[0]]


# ---- 23, 24 -------------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_turn_23_padding_with_response_port_is_400(two):
    client = two.udp()
    with bound(socket.SOCK_DGRAM, client.path.local[0]) as elsewhere:
        elsewhere.settimeout(0.1)
        port = elsewhere.getsockname()[1]
        got = client.ask(BINDING, (PADDING, bytes(64)), response_port(port))
        assert got.code == 400
        assert client.ask(BINDING, response_port(0)).code == 400
        with pytest.raises(socket.timeout):
            elsewhere.recv(100)


def test_turn_23_response_port_is_a_port_of_the_source(two):
    client = two.udp()
    with bound(socket.SOCK_DGRAM, client.path.local[0]) as elsewhere:
        elsewhere.settimeout(3)
        raw = message(BINDING, [response_port(elsewhere.getsockname()[1])])
        client.path.send(raw)
        got, source = elsewhere.recvfrom(1000)
        assert source == two.at and unit(got).tid == raw[8:20]
        assert unit(got).address() == client.path.local
    assert client.quiet()


def test_turn_23_padding_is_answered_by_padding_and_never_amplified(two):
    client = two.udp()
    for size in (0, 4, 60, 64, 900, 1400):
        raw = message(BINDING, [(PADDING, bytes(size))])
        got = client.exchange(raw)
        assert got.code == 0 and len(got.raw) <= max(len(raw), 80)
        if size >= 900:
            assert got.has(PADDING) and len(got.get(PADDING)) % 4 == 0


@pytest.mark.sanitize
@pytest.mark.parametrize('attr', [response_port(9), (PADDING, bytes(8)), change(2), change(6)],
                         ids=['turn_24', 'padding', 'change_2', 'change_6'])
def test_turn_24_on_a_stream_it_is_400(two, attr):
    client = two.tcp()
    assert client.ask(BINDING, attr).code == 400
    assert client.ask(BINDING).address() == client.path.local


def test_turn_21_what_it_sends_elsewhere_is_limited_too(tmp_path):
    """RESPONSE-PORT and CHANGE-REQUEST stand under the limit for replies."""
    from turnd import Turnd
    port, other = ports_of_two('127.0.0.3')
    turnd = Turnd(tmp_path / 'limited', '--turn-alternate', '127.0.0.3:%d' % other, replies=10,
                  listen=['127.0.0.1:%d' % port]).start()
    source = everywhere(turnd)
    for _ in range(100):
        source.path.send(message(BINDING, [change(6)]))
    count = 0
    while source.path.recv(0.2) is not None:
        count += 1
    assert 1 <= count <= 14, count
    turnd.finish()
