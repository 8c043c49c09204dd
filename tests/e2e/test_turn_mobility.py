"""turn.md §20, check 81: an allocation that follows its client (RFC 8016)."""

import pytest

from turn import (ALLOCATE, BINDING, LIFETIME, MOBILITY_TICKET, REFRESH, UDP_TRANSPORT, UdpPeer,
                  u32)
from turnd import Turnd
from test_turn_allocate import port_is_bound

WANTED = MOBILITY_TICKET, b''


@pytest.fixture(scope='module')
def mobile(tmp_path_factory):
    live = Turnd(tmp_path_factory.mktemp('mobile'), '--turn-mobility').start()
    yield live
    live.finish()


@pytest.fixture
def far():
    with UdpPeer() as it:
        yield it


def ticket_of(got):
    ticket = got.get(MOBILITY_TICKET)
    assert ticket and len(ticket) >= 16, 'nobody guesses 128 bits'
    return MOBILITY_TICKET, ticket


def moving(mobile, far, kind='udp'):
    """A client with a ticket, a channel to `far` and its permission."""
    client = mobile.client(kind).allocate(WANTED)
    assert client.bind_channel(0x4000, far.at).code == 0
    return client, ticket_of(client.granted)


def resume(mobile, ticket, kind='udp', **options):
    client = mobile.client(kind, **options)
    got = client.request(REFRESH, ticket)
    return client, got


# ---- off, and what may be asked -----------------------------------------------------------------

def test_turn_81_off_is_405(turnd):
    client = turnd.udp()
    assert client.request(ALLOCATE, UDP_TRANSPORT, WANTED).code == 405
    assert client.request(ALLOCATE, UDP_TRANSPORT, (MOBILITY_TICKET, b'x' * 32)).code == 405
    client.allocate()
    assert client.request(REFRESH, (MOBILITY_TICKET, b'x' * 32)).code == 405


def test_turn_81_a_ticket_for_who_asks_with_an_empty_one(mobile):
    got = mobile.udp().request(ALLOCATE, UDP_TRANSPORT, (MOBILITY_TICKET, b'x' * 32))
    assert got.code == 400
    first = ticket_of(mobile.udp().allocate(WANTED).granted)
    second = ticket_of(mobile.udp().allocate(WANTED).granted)
    assert first != second
    assert not mobile.udp().allocate().granted.has(MOBILITY_TICKET)


# ---- moving -------------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
@pytest.mark.parametrize('kinds', [('udp', 'udp'), ('tcp', 'tcp'), ('udp', 'tcp'),
                                   ('tcp', 'udp')], ids='-'.join)
def test_turn_81_from_a_new_path_data_continues(mobile, far, kinds):
    """Several times, so that some new paths lead to another shard. Relayed address, permission and
    channel are the same; a new ticket comes with each move, and peers notice nothing."""
    for _ in range(6):
        old, ticket = moving(mobile, far, kinds[0])
        relayed = old.relayed
        far.send(b'on the old path', relayed)
        assert old.data() == (0x4000, b'on the old path')
        new, got = resume(mobile, ticket, kinds[1])
        assert got.code == 0 and got.lifetime == 600
        another = ticket_of(got)
        assert another != ticket
        new.send_channel(0x4000, b'from the new path')
        assert far.recv() == (b'from the new path', relayed)
        far.send(b'to the new path', relayed)
        assert new.data() == (0x4000, b'to the new path')
        if kinds[0] == 'udp':
            assert old.request(REFRESH).code == 437, 'the old path leads nowhere'
            old.send_channel(0x4000, b'from the old path')
        else:
            assert old.path.closed_within(2)
        new.send_channel(0x4000, b'again')
        assert far.recv() == (b'again', relayed)
        assert new.refresh(0).code == 0
        mobile.relay.until(lambda: not port_is_bound(relayed), 1, 'a closed port')


@pytest.mark.sanitize
def test_turn_81_the_old_path_serves_until_the_new_one_is_heard(mobile, far):
    for _ in range(6):
        old, ticket = moving(mobile, far)
        new, got = resume(mobile, ticket)
        assert got.code == 0
        far.send(b'still there?', old.relayed)
        assert old.data() == (0x4000, b'still there?')
        old.send_channel(0x4000, b'still here')
        assert far.recv() == (b'still here', old.relayed)
        new.send(far.at, b'now here')
        assert far.recv() == (b'now here', old.relayed)
        far.send(b'well then', old.relayed)
        assert new.data() == (0x4000, b'well then') and old.quiet()


def test_turn_81_a_ticket_serves_once(mobile, far):
    old, ticket = moving(mobile, far)
    new, got = resume(mobile, ticket)
    assert got.code == 0
    second = ticket_of(got)
    for _ in range(4):
        assert resume(mobile, ticket)[1].code == 437
    third, got = resume(mobile, second)
    assert got.code == 0
    third.send_channel(0x4000, b'moved twice')
    assert far.recv() == (b'moved twice', old.relayed)
    assert resume(mobile, second)[1].code == 437


def test_turn_81_a_lost_answer_is_given_again(mobile, far):
    """The same request once more, while its ticket is spent: the same ticket comes back."""
    for _ in range(4):
        old, ticket = moving(mobile, far)
        new = mobile.udp()
        new.challenge()
        raw = new.make(REFRESH, ticket)
        first, again = new.exchange(raw), new.exchange(raw)
        assert first.code == again.code == 0
        assert ticket_of(first) == ticket_of(again)
        assert resume(mobile, ticket_of(again))[1].code == 0
        assert old


@pytest.mark.sanitize
def test_coturn_4_15_turn_81_another_user_is_441(mobile, far):
    """Although his credentials are good; and a wrong password is 401. Neither spends it."""
    for _ in range(4):
        old, ticket = moving(mobile, far)
        assert resume(mobile, ticket, user='bob', password='word')[1].code == 441
        assert resume(mobile, ticket, password='wrong')[1].code == 401
        assert resume(mobile, ticket)[1].code == 0
        assert old


@pytest.mark.sanitize
def test_turn_81_forged_tickets_are_437(mobile, far):
    old, (number, ticket) = moving(mobile, far)
    for at in range(0, len(ticket), 3):
        forged = ticket[:at] + bytes((ticket[at] ^ 1,)) + ticket[at + 1:]
        assert resume(mobile, (number, forged))[1].code == 437
    for forged in (ticket[:-1], ticket + b'\0', b'\0', bytes(32), b'\xff' * 32, bytes(700)):
        assert resume(mobile, (number, forged))[1].code == 437
    assert old.refresh().code == 0
    immobile = mobile.udp().allocate()
    assert immobile.request(REFRESH, (number, ticket)).code in (437, 441)
    assert resume(mobile, (number, ticket))[1].code == 0


def test_turn_81_a_ticket_ends_with_its_allocation(mobile, far):
    old, ticket = moving(mobile, far)
    assert old.refresh(0).code == 0
    assert resume(mobile, ticket)[1].code == 437
    old, ticket = moving(mobile, far)
    new, got = resume(mobile, ticket)
    ticket = ticket_of(got)
    assert new.refresh(0).code == 0
    assert resume(mobile, ticket)[1].code == 437


# ---- lost streams -------------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_turn_81_a_lost_connection_keeps_its_allocation(mobile, far):
    for _ in range(6):
        old, ticket = moving(mobile, far, 'tcp')
        relayed = old.relayed
        old.path.close(reset=True)
        far.send(b'to nobody', relayed)
        new, got = resume(mobile, ticket, 'tcp')
        assert got.code == 0, got
        far.send(b'welcome back', relayed)
        data = new.data()
        if data == (0x4000, b'to nobody'):  # it was not read before somebody was there again
            data = new.data()
        assert data == (0x4000, b'welcome back')
        assert new.refresh(0).code == 0
        mobile.relay.until(lambda: not port_is_bound(relayed), 1, 'a closed port')


@pytest.mark.sanitize
def test_turn_81_cve_2026_73216_a_lost_connection_stays_charged(turn_start):
    """Disconnect and reconnect as often as you like: the quota is never exceeded."""
    turnd = turn_start('--turn-mobility', '--turn-max-per-user', 3)
    tickets, held = [], []
    for _ in range(12):
        client = turnd.tcp()
        got = client.request(ALLOCATE, UDP_TRANSPORT, WANTED)
        if got.code == 0:
            tickets.append(ticket_of(got))
            held.append(got.relayed)
        else:
            assert got.code == 486
        client.close()
        turnd.udp().quiet()
    assert len(tickets) == 3 and all(port_is_bound(at) for at in held)
    new, got = resume(turnd, tickets[0], 'tcp')
    assert got.code == 0
    assert turnd.udp().request(ALLOCATE, UDP_TRANSPORT).code == 486
    assert new.refresh(0).code == 0
    turnd.udp().allocate()
    assert turnd.udp().request(ALLOCATE, UDP_TRANSPORT).code == 486


def test_turn_81_resuming_with_0_deletes(mobile, far):
    old, ticket = moving(mobile, far, 'tcp')
    relayed = old.relayed
    old.close()
    new = mobile.udp()
    got = new.request(REFRESH, ticket, u32(LIFETIME, 0))
    assert got.code == 0 and got.lifetime == 0
    mobile.relay.until(lambda: not port_is_bound(relayed), 1, 'a closed port')
    assert new.ask(BINDING).address() == new.path.local


def test_turn_81_an_allocation_without_a_ticket_goes_with_its_connection(mobile):
    client = mobile.tcp().allocate()
    relayed = client.relayed
    client.close()
    mobile.relay.until(lambda: not port_is_bound(relayed), 1, 'a closed port')
