"""Unmodified js-, rust- and go-libp2p, and a client shaped like Descord's, through the relay."""

import struct
import time

import pytest

from clients import ALL, NAMES, Client, Refused, move
from placer import Placer
from relay import next_ip

pytestmark = pytest.mark.interop

TRANSFER = 64 << 20


@pytest.fixture(scope='module', params=['same', 'cross'])
def field(request, shared):
    """One client of each kind with a reservation, on the target's shard."""
    target_shard = 0 if request.param == 'same' else 1
    with Placer(shared, 0) as source, Placer(shared, target_shard) as target:
        targets = {}
        try:
            for name in ALL:
                client = Client(name)
                targets[name] = client
                client.event = client.reserve(target)
            yield shared, source, targets
        finally:
            for client in targets.values():
                client.quit()


@pytest.mark.parametrize('target', ALL)
@pytest.mark.parametrize('source', ALL)
def test_libp2p_66_every_pairing_moves_64_mib_both_ways(field, source, target):
    live, through, targets = field
    with Client(source) as client:
        seed = 16 * ALL.index(source) + ALL.index(target) + 1
        move(client, targets[target], through, TRANSFER, seed)
    live.check()


@pytest.mark.parametrize('name', ALL)
def test_libp2p_66_each_client_reserves(field, name):
    live, _, targets = field
    event = targets[name].event
    assert event['relay'] == live.peer
    assert event['addrs'], event
    for address in event['addrs']:
        assert '/p2p/%s/p2p-circuit' % live.peer in address


@pytest.mark.parametrize('name', ['go'])
def test_libp2p_05_voucher_satisfies_go(field, name):
    """go-libp2p checks the envelope, the domain, relay, peer and expiration, and refuses the whole
    reservation if one is wrong."""
    event = field[2][name].event
    assert event['voucher'] and event['voucher_ok'], event


@pytest.mark.parametrize('name', ALL)
def test_interop_target_gone_is_204(relay, placement, name):
    with Placer(relay, placement.source) as source, Placer(relay, placement.target) as target:
        callee = Client('go')
        try:
            callee.reserve(target)
            with Client(name) as caller:
                caller.dial(source, callee.peer)
                callee.kill()
                relay.until(lambda: not {row['remote'] for row in relay.conns()} &
                            set(target.upstreams), what='the end of the target')
                with Client(name) as again:
                    with pytest.raises(Refused) as refused:
                        again.dial(source, callee.peer)
                    assert refused.value.status == 204, refused.value
        finally:
            callee.kill()


def noise_frames(data, at):
    """Sizes of the Noise frames from offset `at` on."""
    sizes = []
    while at + 2 <= len(data):
        size = struct.unpack_from('>H', data, at)[0]
        sizes.append(size)
        at += 2 + size
    return sizes


@pytest.mark.parametrize('name, inline', [('js', True), ('go', True), ('rust', False),
                                          ('descord', False)])
def test_libp2p_21_muxer_inside_noise_or_by_multistream(relay, placement, name, inline):
    """go and js take yamux from the Noise extension; rust asks by multistream, so that the relay's
    first record answers with the header (20 bytes) or header and name (34), sizes that no yamux
    frame of the beginning has. rust 0.57 sends its first yamux frame right behind the name, 0.56
    waits."""
    with Placer(relay, placement.target) as through, Client(name) as client:
        client.reserve(through)
        up, down = through.seen[-1]
        # before the handshake: header and /noise, in any number of writes, from both ends
        hello = len(b'\x13/multistream/1.0.0\n\x07/noise\n')
        sizes = noise_frames(up, hello)
        answers = noise_frames(down, hello)
        assert sizes[0] == 32, sizes[:4]
        assert (answers[1] in (20 + 16, 34 + 16)) != inline, (sizes[:5], answers[:5])
        if not inline:
            assert sizes[2] - 16 == {'rust': 34 + 12, 'descord': 34}[name], sizes[:5]


def test_descord_06_25_its_own_client_reserves_without_a_peer_id_and_stays(start, placement):
    """It opens Kademlia and gossipsub at once, has neither identify nor ping, and must not be
    closed for any of that (descord.md §7)."""
    relay = start(preset='descord')
    with Placer(relay, placement.target) as target, Placer(relay, placement.source) as source, \
            Client('descord') as callee, Client('descord') as caller:
        assert '/p2p/' not in callee.relay_address(target)
        event = callee.reserve(target)
        assert event['relay'] == relay.peer and event['addrs']
        caller.say('dial', caller.relay_address(source))
        assert caller.wait('dialed')['peer'] == relay.peer
        time.sleep(3)
        assert not [e for e in callee.events + caller.events if e['ev'] == 'disconnected']
        move(caller, callee, source, 1 << 20)


@pytest.mark.parametrize('name', ['go', 'js'])
@pytest.mark.parametrize('preset', [None, 'descord'])
def test_libp2p_64_limited_only_where_a_limit_is_set(start, placement, name, preset):
    """go and js refuse applications that did not opt in when they are told of any limit, even of
    zeroes; so none is told where there is none."""
    relay = start(preset=preset)
    with Placer(relay, placement.target) as target, Placer(relay, placement.source) as source, \
            Client('rust') as callee, Client(name) as caller:
        callee.reserve(target)
        assert caller.dial(source, callee.peer)['limited'] == (preset == 'descord')
        move(caller, callee, source, 1 << 20)


@pytest.mark.parametrize('name', ALL)
def test_interop_the_byte_limit_ends_a_transfer(start, placement, name):
    relay = start('--circuit-bandwidth-mb', 1, preset='descord')
    with Placer(relay, placement.target) as target, Placer(relay, placement.source) as source, \
            Client('go') as callee, Client(name) as caller:
        callee.reserve(target)
        move(caller, callee, source, 1 << 19)
        caller.transfer(source, callee.peer, 4 << 20, 5)
        with pytest.raises(Refused):
            caller.wait('transferred')
        with pytest.raises(Refused):
            callee.wait('transferred')
    assert 'limit' in relay.wait_log('🔌.*')[0]


def test_interop_a_target_never_learns_the_sources_address(relay, placement):
    """descord.md 19 with real clients: the log at info level says nothing of that address."""
    ip = next_ip()
    with Placer(relay, placement.source, source=ip) as source, \
            Placer(relay, placement.target) as target:
        with Client('rust') as callee, Client('go') as caller:
            callee.reserve(target)
            move(caller, callee, source, 1 << 20)
            assert ip in ' '.join(source.upstreams)
            assert not any(ip in str(event) for event in callee.events)
    assert ip not in relay.log()


class TestRenewal:
    """Lifetimes of 40 s: rust renews after three quarters, js after its minimum of 30 s, go when
    told."""

    def test_interop_each_client_renews(self, start, placement):
        relay = start('--reservation-secs', 40)
        with Placer(relay, placement.target) as through:
            clients = [Client(name) for name in ALL]
            try:
                began = time.monotonic()
                for client in clients:
                    client.reserve(through)
                go = clients[ALL.index('go')]
                go.say('renew', through.address)
                for client in clients:
                    renewed = client.wait('renewed', timeout=45)
                    assert renewed['relay'] == relay.peer
                # past the first lifetime, everybody is still reachable
                time.sleep(max(0, began + 42 - time.monotonic()))
                go.say('renew', through.address)
                with Placer(relay, placement.source) as source, Client('rust') as caller:
                    for client in clients:
                        if client.name != 'go':
                            move(caller, client, source, 4096)
            finally:
                for client in clients:
                    client.quit()


def test_libp2p_68_clients_come_back_after_a_restart(start, placement, tmp_path):
    """The relay keeps identity and port; every client reserves again at the same address."""
    relay = start()
    port = relay.at[1]
    with Placer(relay, placement.target) as through, Placer(relay, placement.source) as source:
        clients = [Client(name) for name in ALL]
        try:
            for client in clients:
                client.reserve(through)
            before = relay.peer
            assert relay.stop() == 0
            for client in clients:
                client.wait('disconnected', timeout=20)
            again = start(data=relay.data, listen='127.0.0.1:%d' % port)
            assert again.peer == before
            assert any(line.startswith('identity: loaded') for line in again.lines)
            through.relay = source.relay = again
            for client in clients:
                reserve_again(client, through)
            with Client('rust') as caller:
                for client in clients:
                    move(caller, client, source, 65536)
        finally:
            for client in clients:
                client.quit()


def reserve_again(client, through):
    """js may have come back by itself (it keeps relays alive by a tag), and then says so."""
    for attempt in range(5):
        try:
            return client.reserve(through)
        except Refused as e:
            if 'already reserved' in str(e):
                return None
            time.sleep(1)
    raise AssertionError('%s does not come back: %s' % (client.name, client.events[-6:]))


@pytest.mark.parametrize('name', NAMES)
def test_libp2p_67_a_refused_client_says_so(start, placement, name):
    """A full table answers 200, and each client understands it as a refusal."""
    relay = start('--max-reservations', 1)
    with Placer(relay, placement.target) as through, Client('go') as first, Client(name) as second:
        first.reserve(through)
        with pytest.raises(Refused) as refused:
            second.reserve(through)
        assert refused.value.status in (0, 200), refused.value
