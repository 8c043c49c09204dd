"""turn.md §20, checks 46 to 59: allocations, their relayed addresses, and how long they live."""

import errno
import itertools
import socket
import struct

import pytest

from turn import (ADDITIONAL_ADDRESS_FAMILY, ADDRESS_ERROR_CODE, ALLOCATE, ALTERNATE_SERVER,
                  DONT_FRAGMENT, EVEN_PORT, LIFETIME, REFRESH, REQUEST, REQUESTED_ADDRESS_FAMILY,
                  REQUESTED_TRANSPORT, RESERVATION_TOKEN, TCP_TRANSPORT, UDP_TRANSPORT, Message,
                  UdpPeer, channel_data, ephemeral, family, message, peer, read_address, type_of,
                  u32)
from turnd import SECRET, Clock, own_ip

V4_RELAY, V6_RELAY = (family(REQUESTED_ADDRESS_FAMILY, n) for n in (1, 2))
BOTH_RELAYS = family(ADDITIONAL_ADDRESS_FAMILY, 2)
EVEN, PAIR = (EVEN_PORT, b'\0'), (EVEN_PORT, b'\x80')


def port_is_bound(at):
    """Is the relay's socket still there? Looked at from outside: nobody else can bind it."""
    with socket.socket(socket.AF_INET6 if ':' in at[0] else socket.AF_INET,
                       socket.SOCK_DGRAM) as sock:
        try:
            sock.bind(at)
        except OSError as error:
            assert error.errno == errno.EADDRINUSE
            return True
        return False


# ---- 46 to 48 -----------------------------------------------------------------------------------

@pytest.mark.parametrize('name, attrs, code', [
    ('absent', (), 400),
    ('too short', ((REQUESTED_TRANSPORT, b'\x11'),), 400),
    ('too long', ((REQUESTED_TRANSPORT, b'\x11' + bytes(7)),), 400),
    ('icmp', ((REQUESTED_TRANSPORT, b'\1\0\0\0'),), 442),
    ('zero', ((REQUESTED_TRANSPORT, bytes(4)),), 442),
    ('sctp', ((REQUESTED_TRANSPORT, b'\x84\0\0\0'),), 442),
], ids=lambda value: value.replace(' ', '_') if isinstance(value, str) else '')
def test_turn_46_the_transport_is_udp(turnd, name, attrs, code):
    client = turnd.udp()
    assert client.request(ALLOCATE, *attrs).code == code
    client.allocate()


@pytest.mark.parametrize('on, code', [('on', 400), ('off', 442)])
def test_turn_46_streams_are_not_relayed_for_who_comes_by_udp(turn_start, on, code):
    turnd = turn_start('--turn-tcp-relay', on)
    assert turnd.udp().request(ALLOCATE, TCP_TRANSPORT).code == code
    if on == 'off':
        assert turnd.tcp().request(ALLOCATE, TCP_TRANSPORT).code == 442


@pytest.mark.sanitize
@pytest.mark.tsan
@pytest.mark.parametrize('kind', ['udp', 'tcp'])
def test_turn_47_turn_48_a_retransmission_gets_the_same_and_another_437(turnd, kind):
    client = turnd.client(kind)
    client.challenge()
    raw = client.make(ALLOCATE, UDP_TRANSPORT)
    first = client.exchange(raw)
    assert first.code == 0
    for _ in range(3):
        again = client.exchange(raw)
        assert again.relayed == first.relayed and again.address() == first.address()
        assert again.lifetime in (599, 600) and again.signed_by(client.key)
    assert client.ask(ALLOCATE, UDP_TRANSPORT).code == 437
    assert client.exchange(raw).relayed == first.relayed
    other = turnd.client(kind, user='bob', password='word')
    other.challenge()
    assert other.ask(ALLOCATE, UDP_TRANSPORT, tid=first.tid).relayed != first.relayed


def test_turn_47_impatient_retransmissions_make_one_allocation(turnd):
    """Five copies in a row, before the first is answered."""
    client = turnd.udp()
    client.challenge()
    raw = client.make(ALLOCATE, UDP_TRANSPORT)
    for _ in range(5):
        client.path.send(raw)
    first = client.reply(raw)
    assert first.code == 0
    while True:
        again = client.reply(raw, 0.1)
        if again is None:
            break
        assert again.relayed == first.relayed
    assert client.refresh(0).code == 0 and client.refresh().code == 437


# ---- 49: lifetimes ------------------------------------------------------------------------------

@pytest.mark.parametrize('asked, granted', [(0, 600), (1, 600), (None, 600), (600, 600),
                                            (601, 601), (3600, 3600), (99999, 3600),
                                            (0xFFFFFFFF, 3600)])
def test_turn_49_lifetimes_are_granted_within_bounds(turnd, asked, granted):
    """In an Allocate, and, but for 0, in a Refresh."""
    attrs = () if asked is None else (u32(LIFETIME, asked),)
    client = turnd.udp().allocate(*attrs)
    assert client.granted.lifetime == granted
    if asked != 0:
        assert client.refresh(asked).lifetime == granted


def test_turn_49_the_maximum_is_the_operators(turn_start):
    turnd = turn_start('--turn-lifetime-secs', 900)
    assert turnd.udp().allocate(u32(LIFETIME, 99999)).granted.lifetime == 900


def test_turn_49_an_allocation_ends_with_its_lifetime(turn_start, tmp_path):
    """Not before; and then its port is closed and its 5-tuple free."""
    clock = Clock(tmp_path)
    turnd = turn_start('--shards', 1, env=clock.env)
    short, long = turnd.udp().allocate(), turnd.udp().allocate(u32(LIFETIME, 1000))
    clock.step(595)
    assert short.quiet() and port_is_bound(short.relayed)
    clock.step(10)
    assert long.request(REFRESH, u32(LIFETIME, 1000)).code == 0
    assert short.request(REFRESH).code == 437
    turnd.relay.until(lambda: not port_is_bound(short.relayed), 3, 'a closed port')
    assert port_is_bound(long.relayed)
    short.allocate()


# ---- 50, 51, 59: families -----------------------------------------------------------------------

@pytest.fixture(scope='module')
def dual(tmp_path_factory):
    from turnd import Turnd
    live = Turnd(tmp_path_factory.mktemp('dual'), listen=['127.0.0.1:0', '[::1]:0'],
                 allow=('127.0.0.0/8', '::1/128')).start()
    yield live
    live.finish()


def test_turn_50_the_family_is_as_asked_for(dual):
    client = dual.udp()
    assert client.allocate(V6_RELAY).relayed[0] == '::1'
    assert dual.udp().allocate(V4_RELAY).relayed[0] == '127.0.0.1'
    assert dual.udp().allocate().relayed[0] == '127.0.0.1'
    for value in (0, 3, 255):
        got = dual.udp().request(ALLOCATE, UDP_TRANSPORT, family(REQUESTED_ADDRESS_FAMILY, value))
        assert got.code == 440
    got = dual.udp().request(ALLOCATE, UDP_TRANSPORT, V4_RELAY, BOTH_RELAYS)
    assert got.code == 400


def test_turn_50_a_family_that_is_not_there_is_440(turn_start):
    turnd = turn_start(listen=['127.0.0.1:0'])
    got = turnd.udp().request(ALLOCATE, UDP_TRANSPORT, V6_RELAY)
    if got.code == 0:
        assert got.relayed[0].count(':'), 'an IPv6 relay, then'
    else:
        assert got.code == 440


@pytest.mark.sanitize
def test_turn_51_two_relayed_addresses(dual):
    """Each carries data of its family."""
    client = dual.udp().allocate(BOTH_RELAYS)
    four, six = sorted(client.granted.relays)
    assert (four[0], six[0]) == ('127.0.0.1', '::1')
    assert not client.granted.has(ADDRESS_ERROR_CODE)
    for relayed, ip in ((four, None), (six, '::1')):
        with UdpPeer(ip) as far:
            assert client.permit(far.at[0]).code == 0
            client.send(far.at, b'out')
            assert far.recv() == (b'out', relayed)
            far.send(b'in', relayed)
            assert client.data() == (far.at, b'in')


def test_turn_51_one_and_the_reason_why_not_the_other(turn_start):
    turnd = turn_start(listen=['127.0.0.1:0'])
    got = turnd.udp().ok(ALLOCATE, UDP_TRANSPORT, BOTH_RELAYS)
    if len(got.relays) == 1:
        value = got.get(ADDRESS_ERROR_CODE)
        assert value[:2] == b'\2\0' and value[2] * 100 + value[3] in (440, 508)
    else:
        assert not got.has(ADDRESS_ERROR_CODE)


@pytest.mark.parametrize('value', [0, 1, 3])
def test_turn_51_only_ipv6_is_additional(dual, value):
    got = dual.udp().request(ALLOCATE, UDP_TRANSPORT, family(ADDITIONAL_ADDRESS_FAMILY, value))
    assert got.code == 400


def test_turn_59_refresh_knows_the_families(dual):
    client = dual.udp().allocate()
    assert client.request(REFRESH, V6_RELAY).code == 443
    assert client.request(REFRESH, V4_RELAY).code == 0
    both = dual.udp().allocate(BOTH_RELAYS)
    four, six = sorted(both.granted.relays)
    assert both.refresh(0, V6_RELAY).lifetime == 0
    assert both.request(REFRESH, V6_RELAY).code == 443
    assert not port_is_bound(six) and port_is_bound(four)
    assert both.request(REFRESH).lifetime == 600
    assert both.refresh(0).code == 0 and both.request(REFRESH).code == 437
    assert not port_is_bound(four)


# ---- 52 to 54: even ports -----------------------------------------------------------------------

def test_turn_52_an_even_port(turnd):
    for _ in range(12):
        assert turnd.udp().allocate(EVEN).relayed[1] % 2 == 0


@pytest.mark.sanitize
@pytest.mark.tsan
def test_turn_52_a_pair_by_a_token(turnd):
    """From 5-tuples enough that some of them are on another shard. Single use, and its owner's."""
    for _ in range(12):
        first = turnd.udp().allocate(PAIR)
        token = first.granted.get(RESERVATION_TOKEN)
        assert first.relayed[1] % 2 == 0 and len(token) == 8
        bob = turnd.udp(user='bob', password='word')
        assert bob.request(ALLOCATE, UDP_TRANSPORT, (RESERVATION_TOKEN, token)).code == 508
        second = turnd.udp().allocate((RESERVATION_TOKEN, token))
        assert second.relayed == (first.relayed[0], first.relayed[1] + 1)
        third = turnd.udp()
        assert third.request(ALLOCATE, UDP_TRANSPORT, (RESERVATION_TOKEN, token)).code == 508
        third.allocate()
        with UdpPeer() as far:  # it is a relay like any other
            assert second.permit(far.at[0]).code == 0
            second.send(far.at, b'rtcp')
            assert far.recv() == (b'rtcp', second.relayed)
            far.send(b'report', second.relayed)
            assert second.data() == (far.at, b'report')


@pytest.mark.sanitize
@pytest.mark.tsan
def test_turn_52_turn_74_what_is_behind_a_token_goes_with_it(turnd):
    """On streams: the Allocate belongs to the shard of the token, and so does all that came in the
    same segment, a unit cut in two included; answers come in order."""
    for _ in range(8):
        first = turnd.tcp().allocate(PAIR)
        second = turnd.tcp()
        second.challenge()
        with UdpPeer() as far:
            allocate = second.make(ALLOCATE, UDP_TRANSPORT, (RESERVATION_TOKEN, first.granted.get(
                RESERVATION_TOKEN)))
            bind = second.make(0x009, (0x000C, b'\x40\0\0\0'), peer(*far.at))
            data = channel_data(0x4000, b'right behind', pad=b'')
            probe = message(0x0001)
            whole = allocate + bind + data + second.make(REFRESH) + probe
            second.path.send(whole[:-7])
            assert far.recv() == (b'right behind', (first.relayed[0], first.relayed[1] + 1))
            second.path.send(whole[-7:])
            got = [second.recv() for _ in range(4)]
            assert [m.type for m in got] == [0x0103, 0x0109, 0x0104, 0x0101]
            assert got[0].relayed == (first.relayed[0], first.relayed[1] + 1)
            far.send(b'and back', got[0].relayed)
            assert second.data() == (0x4000, b'and back')


def test_turn_47_turn_52_a_retransmission_has_the_same_token(turnd):
    for kind in ('udp', 'tcp'):
        client = turnd.client(kind)
        client.challenge()
        raw = client.make(ALLOCATE, UDP_TRANSPORT, PAIR)
        first, again = client.exchange(raw), client.exchange(raw)
        assert first.get(RESERVATION_TOKEN) == again.get(RESERVATION_TOKEN) is not None
        assert first.relayed == again.relayed


def test_turn_52_unknown_tokens_are_508(turnd):
    for token in (bytes(8), b'\xff' * 8, b'tokentok'):
        got = turnd.udp().request(ALLOCATE, UDP_TRANSPORT, (RESERVATION_TOKEN, token))
        assert got.code == 508
    for token in (b'', b'7 bytes', b'9 bytes..'):
        got = turnd.udp().request(ALLOCATE, UDP_TRANSPORT, (RESERVATION_TOKEN, token))
        assert got.code in (400, 508)


def test_turn_52_a_reservation_ends_after_30_s(turn_start, tmp_path):
    """And its port is free then, also when nobody came for it."""
    clock = Clock(tmp_path)
    turnd = turn_start('--shards', 1, env=clock.env)
    for step, code in ((25, 0), (31, 508)):
        first = turnd.udp().allocate(PAIR)
        odd = first.relayed[0], first.relayed[1] + 1
        assert port_is_bound(odd), 'kept for who has the token'
        clock.step(step)
        second = turnd.udp()
        got = second.request(ALLOCATE, UDP_TRANSPORT,
                             (RESERVATION_TOKEN, first.granted.get(RESERVATION_TOKEN)))
        assert got.code == code
        if code:
            turnd.relay.until(lambda: not port_is_bound(odd), 3, 'a closed port')


def test_turn_53_cve_2026_73215_even_ports_come_back(turn_start, tmp_path):
    """20 000 times, with and without the odd port, out of a range of 500 pairs. A freed port rests;
    the clock lets it."""
    clock = Clock(tmp_path)
    turnd = turn_start('--turn-ports', '50000-50999', '--turn-relay-ip', own_ip(), env=clock.env)
    clients = [turnd.udp() for _ in range(40)]
    for client in clients:
        client.challenge()
    done, rounds = 0, 0
    while done < 20000:
        wish = PAIR if rounds % 10 == 9 else EVEN
        for method, attrs in ((ALLOCATE, (UDP_TRANSPORT, wish)), (REFRESH, (u32(LIFETIME, 0),))):
            asked = []
            for client in clients:
                raw = client.make(method, *attrs)
                client.path.send(raw)
                asked.append((client, raw))
            for client, raw in asked:
                got = client.reply(raw)
                if got.code == 438:
                    got = client.take(got).ask(method, *attrs)
                assert got.code == 0, 'after %d: %r' % (done, got)
                if method == ALLOCATE:
                    assert got.relayed[1] % 2 == 0 and 50000 <= got.relayed[1] < 51000
        done += len(clients)
        rounds += 1
        if rounds % 5 == 0:
            clock.step(151)  # reservations end, ports have rested
    with_all = [turnd.udp().allocate(EVEN) for _ in range(400)]
    assert len({client.relayed for client in with_all}) == 400


@pytest.mark.parametrize('attrs', [
    (PAIR, (RESERVATION_TOKEN, bytes(8))),
    (EVEN, (RESERVATION_TOKEN, bytes(8))),
    ((RESERVATION_TOKEN, bytes(8)), V4_RELAY),
    ((RESERVATION_TOKEN, bytes(8)), BOTH_RELAYS),
    (PAIR, BOTH_RELAYS),
    ((EVEN_PORT, b''),),
], ids=['pair+token', 'even+token', 'token+family', 'token+additional', 'pair+additional', 'empty'])
def test_turn_54_what_does_not_go_together_is_400(dual, attrs):
    assert dual.udp().request(ALLOCATE, UDP_TRANSPORT, *attrs).code == 400


def test_turn_46_dont_fragment_is_supported_or_420(turnd):
    got = turnd.udp().request(ALLOCATE, UDP_TRANSPORT, (DONT_FRAGMENT, b''))
    assert got.code == 0 or (got.code == 420 and got.unknown == [DONT_FRAGMENT])


# ---- 55, 56: ports and quotas -------------------------------------------------------------------

def test_turn_55_cve_2025_69217_ports_follow_no_order(turn_start):
    """1000 allocations: inside the range, no two alike, spread over all of it, and neither rising
    nor stepping evenly."""
    turnd = turn_start('--turn-ports', '40000-47999', '--turn-relay-ip', own_ip())
    ports = []
    for _ in range(1000):
        client = turnd.udp()
        ports.append(client.allocate().relayed[1])
        if len(ports) % 250 == 0:
            turnd.forget()
    assert all(40000 <= port <= 47999 for port in ports) and len(set(ports)) == 1000
    steps = [b - a for a, b in zip(ports, ports[1:])]
    assert 420 <= sum(step > 0 for step in steps) <= 580, 'as often up as down'
    assert len(set(steps)) > 800
    eighths = [sum(40000 + 1000 * i <= port < 41000 + 1000 * i for port in ports) for i in range(8)]
    assert all(80 <= count <= 175 for count in eighths), eighths


def test_turn_55_a_range_that_is_used_up_is_508(turn_start):
    """Until one ends and its port has rested; or 300, where another server is named."""
    for flags, code in (((), 508), (('--turn-redirect', '9.9.9.9:3478'), 300)):
        turnd = turn_start('--turn-ports', '50000-50003', '--turn-relay-ip', own_ip(), *flags)
        clients = [turnd.udp().allocate() for _ in range(4)]
        assert sorted(client.relayed[1] for client in clients) == [50000, 50001, 50002, 50003]
        for attrs in ((), (EVEN,), (PAIR,)):
            got = turnd.udp().request(ALLOCATE, UDP_TRANSPORT, *attrs)
            assert got.code == code
            if code == 300:
                assert read_address(got.get(ALTERNATE_SERVER)) == ('9.9.9.9', 3478)
        assert all(client.refresh().code == 0 for client in clients)


@pytest.mark.sanitize
def test_turn_56_the_quota_of_a_user(turn_start):
    """Exact across shards; freed by a delete, by a closed stream and by nothing else; each user's
    own, and an ephemeral name's by its id."""
    turnd = turn_start('--turn-max-per-user', 6)
    clients = [turnd.client(kind).allocate() for kind in ('udp', 'tcp', 'udp', 'udp', 'tcp', 'udp')]
    extra = turnd.udp()
    for _ in range(3):
        assert extra.request(ALLOCATE, UDP_TRANSPORT).code == 486
    turnd.udp(user='bob', password='word').allocate()
    assert clients[0].refresh(0).code == 0
    extra.allocate()
    assert turnd.udp().request(ALLOCATE, UDP_TRANSPORT).code == 486
    clients[1].close()
    turnd.relay.until(lambda: turnd.udp().request(ALLOCATE, UDP_TRANSPORT).code == 0, 3, 'a place')
    for i in range(7):
        user, password = ephemeral(SECRET, 100 + i, name='carol')
        got = turnd.udp(user=user, password=password).request(ALLOCATE, UDP_TRANSPORT)
        assert got.code == (486 if i == 6 else 0), 'names of one id share it'


def test_turn_56_the_quota_of_an_address_and_of_all(turn_start):
    turnd = turn_start('--turn-max-per-ip', 3, '--turn-max-allocations', 5)
    for _ in range(3):
        turnd.udp(source='127.5.5.5').allocate()
    assert turnd.udp(source='127.5.5.5').request(ALLOCATE, UDP_TRANSPORT).code == 486
    for _ in range(2):
        turnd.udp().allocate()
    assert turnd.udp().request(ALLOCATE, UDP_TRANSPORT).code in (486, 508)


def test_turn_56_refused_requests_cost_no_quota(turn_start):
    """A quota unit is taken once for each allocation, and never for an error."""
    turnd = turn_start('--turn-max-per-user', 2)
    first, second = turnd.udp().allocate(), turnd.udp()
    for attrs, code in itertools.product([((RESERVATION_TOKEN, b'unknown!'),)], [508]):
        for _ in range(5):
            assert second.request(ALLOCATE, UDP_TRANSPORT, *attrs).code == code
    for _ in range(5):
        assert first.request(ALLOCATE, UDP_TRANSPORT).code == 437
    second.allocate()
    assert turnd.udp().request(ALLOCATE, UDP_TRANSPORT).code == 486


# ---- 57, 58 -------------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.parametrize('kind', ['udp', 'tcp'])
def test_turn_57_refresh_with_0_ends_it(turnd, kind):
    client = turnd.client(kind).allocate()
    with UdpPeer() as far:
        assert client.permit(far.at[0]).code == 0
        assert port_is_bound(client.relayed)
        assert client.refresh(0).lifetime == 0
        assert client.refresh(0).code == 437 and client.permit(far.at[0]).code == 437
        assert not port_is_bound(client.relayed)
        far.send(b'late', client.relayed)
        client.send(far.at, b'late')
        assert client.quiet()
        client.allocate()
        client.send(far.at, b'without a permission')
        assert client.permit(far.at[0]).code == 0
        client.send(far.at, b'with one')
        assert far.recv()[0] == b'with one', 'permissions are the allocation\'s'


@pytest.mark.parametrize('method', ['refresh', 'permit', 'bind_channel'])
def test_turn_58_another_valid_user_is_441(turnd, method):
    client = turnd.udp().allocate()
    calls = {'refresh': lambda: client.refresh(0), 'permit': lambda: client.permit('127.9.9.9'),
             'bind_channel': lambda: client.bind_channel(0x4000, ('127.9.9.9', 9))}
    client.user, client.password = 'bob', 'word'
    assert calls[method]().code == 441
    client.user, client.password = 'user', 'pass'
    assert client.refresh().code == 0


def test_turn_58_allocate_of_another_user_on_the_same_5_tuple_is_437(turnd):
    client = turnd.udp().allocate()
    client.user, client.password = 'bob', 'word'
    assert client.request(ALLOCATE, UDP_TRANSPORT).code == 437
    assert client.request(ALLOCATE, UDP_TRANSPORT, tid=client.granted.tid).code == 437


def test_turn_58_the_tuple_has_the_transport_in_it(turnd):
    """UDP and TCP from one address and port are two clients."""
    udp = turnd.udp(source='127.6.6.6').allocate()
    tcp = turnd.tcp(*udp.path.local)
    assert tcp.path.local == udp.path.local
    assert tcp.request(REFRESH).code == 437
    assert tcp.allocate().relayed != udp.relayed
    assert tcp.refresh(0).code == 0 and udp.refresh().code == 0


def test_turn_37_an_indication_is_no_request(turnd):
    """Allocate, Refresh and the others as indications: nothing, not even an error."""
    client = turnd.udp().allocate()
    for method in (ALLOCATE, REFRESH, 0x008, 0x009, 0x00A, 0x00B):
        client.quiet(client.make(method, UDP_TRANSPORT, u32(LIFETIME, 0), cls=1))
    assert client.refresh().code == 0


def test_turn_84_garbage_between_keeps_an_allocation(turnd):
    client = turnd.udp().allocate()
    client.quiet(b'\x80' * 40, b'\xff' * 40, b'\x16\xfe\xfd' + bytes(40), struct.pack('!HH', 1, 2),
                 message(type_of(REFRESH, REQUEST))[:-1])
    assert isinstance(client.refresh(), Message)
