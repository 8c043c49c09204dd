"""The gossip hub: checks 44 to 49 of dusk.md §13 by number, and what §10 says beside them. Check 50
is where relays are dialled."""

import pathlib
import time

import pytest

import gossip
from gossip import (DIRECTORY, FEDERATION, MESHSUB, MESHSUB10, OURS, SYNC, Gossiper, fresh, graft,
                    ihave, iwant, message, msg_id, prune, publish, rpc, signed, sip13, subscribe)
from rawp2p import CREDIT, SYN, NotAvailable
from relay import SLOW, Relay
from wire import Key, lp, one, pb, unpb, uv

GOLDEN = {}
for line in (pathlib.Path(__file__).resolve().parents[1] / 'vectors/gossip/rpc.txt').open():
    GOLDEN[line.split()[0]] = bytes.fromhex(line.split()[1])
TEST_KEY = Key(seed=bytes(range(32)))


@pytest.fixture(scope='module')
def live(tmp_path_factory):
    relay = Relay(tmp_path_factory.mktemp('gossip'), preset='dusk').start()
    yield relay
    relay.check()
    assert relay.stop() == 0


@pytest.fixture
def peers(live):
    """Makes clients on the shared relay, ready to hear."""
    made = []

    def make(*topics, relay=live, **options):
        made.append(Gossiper(relay, *topics, **options))
        if options.get('read', True):
            made[-1].wait_up()
        return made[-1]
    yield make
    for one_of in made:
        one_of.close()
    live.check()


def settle(*clients):
    """What the relay had to say by now has been said: a message through all of it."""
    for client in clients:
        client.session.ping(time.monotonic_ns() & 0xffffffff, 10 * SLOW)
    time.sleep(0.15 * SLOW)
    for client in clients:
        client.check()


def drops(relay):
    return {name: value for name, value in relay.metrics().items() if 'gossip' in name}


# ---- this client ---------------------------------------------------------------------------------

def test_this_client_writes_the_pages_messages():
    assert subscribe(SYNC) == lp(GOLDEN['subscribe'])
    assert graft(SYNC) == lp(GOLDEN['graft'])
    assert prune(SYNC) == lp(GOLDEN['prune'])
    assert ihave(SYNC, b'1126394796234966141') == lp(GOLDEN['ihave'])
    assert iwant(b'1126394796234966141') == lp(GOLDEN['iwant'])
    hello = signed(TEST_KEY, SYNC, b'hello', seqno=1)
    assert message(hello) == GOLDEN['hello_message']
    assert publish(hello) == lp(GOLDEN['publish'])
    assert sip13((5).to_bytes(8, 'little') + b'hello') == 9754003402134539932
    assert msg_id(b'hello', TEST_KEY.peer_id) == b'2522449370233741854'


# ---- checks --------------------------------------------------------------------------------------

def test_44_three_subscribes_arrive_on_one_stream_within_a_second(live):
    with Gossiper(live) as a:
        a.wait(lambda: len(a.subscribed) == 3, 'subscriptions', 1)
        assert a.subscribed == [(t, True, len(subscribe(t)) - 1) for t in OURS]
        time.sleep(1.2)
        assert a.streams == 1 and len(a.subscribed) == 3


def test_44_also_to_who_says_nothing_and_to_who_knows_the_older_name_only(live):
    with Gossiper(live, open=False) as quiet, Gossiper(live, speaks=(MESHSUB10,)) as older:
        for client in (quiet, older):
            client.wait_up()
            assert client.streams == 1
        assert older.inbound.protocol == MESHSUB10


def test_who_speaks_no_gossip_is_asked_once_and_stays(live):
    with Gossiper(live, SYNC, speaks=()) as a:
        time.sleep(2.5)
        assert a.streams == 0 and a.session.alive()
        opened = [f for f in a.session.frames if f[1] & SYN and f[2] % 2 == 0 and f[2]]
        assert len(opened) <= 1


@pytest.mark.sanitize
@pytest.mark.tsan
def test_45_a_message_reaches_each_other_subscriber_once(live, peers, placement):
    a = peers(SYNC, shard=placement.source)
    b, c = peers(SYNC, shard=placement.source), peers(SYNC, shard=placement.target)
    d, e = peers(shard=placement.target), peers(DIRECTORY, shard=placement.source)
    for topic, ears in ((SYNC, (b, c)), (DIRECTORY, (e,))):
        data = fresh()
        raw = a.publish(topic, data)
        for client in ears:
            client.wait_for(data)
            assert client.messages[-1][2] == raw, 'its bytes as they were'
    settle(a, b, c, d, e)
    assert not a.messages and not d.messages
    assert [len(x.messages) for x in (b, c, e)] == [1, 1, 1]


def test_45_who_unsubscribes_gets_nothing_more(peers):
    a, b, c = peers(), peers(SYNC), peers(SYNC)
    b.send(subscribe(SYNC, False))
    b.session.ping(7, 10 * SLOW)
    data = fresh()
    a.publish(SYNC, data)
    c.wait_for(data)
    settle(a, b)
    assert not b.messages


def test_45_a_publish_ahead_of_its_subscribe_and_behind_the_negotiation_in_one_flight(live, peers):
    b = peers(SYNC)
    with live.connect(Key()) as session:
        key, data = session.key, fresh()
        session.protocols = {**session.protocols, MESHSUB: lambda stream: None}
        session.open(MESHSUB, publish(signed(key, SYNC, data)) + subscribe(SYNC))
        b.wait_for(data)


def test_46_what_is_not_valid_goes_nowhere_and_the_stream_lives(peers):
    a, b = peers(), peers(SYNC)
    for wrong in ({'signature': b'\0' * 64}, {'signature': None}, {'signature': b''},
                  {'number': None}, {'number': b''}, {'number': bytes(7)}, {'number': bytes(9)},
                  {'sender': Key().peer_id}, {'sender': None}, {'sender': b'\0\1x'},
                  {'data': b'another'}, {'name': DIRECTORY.encode()}, {'name': None},
                  {'pub': Key().pb}, {'pub': b'\x08\x01'}):
        a.publish(SYNC, fresh(), **wrong)
    a.publish('dusk/other', fresh())
    for n in (0, 7, 9):
        a.publish(SYNC, fresh(), seqno=bytes(n))
    a.publish(SYNC, fresh(), author=Key())
    a.publish(SYNC, fresh(), author=Key(), pub=a.key.pb)
    last = fresh()
    a.publish(SYNC, last, pub=a.key.pb)  # needless, and right
    b.wait_for(last)
    assert b.datas() == [last] and a.session.alive()


def test_46_what_says_it_is_from_the_relay_goes_nowhere(live, peers):
    a, b = peers(), peers(SYNC)
    a.publish(SYNC, fresh(), sender=live.peer_id)
    last = fresh()
    a.publish(SYNC, last)
    b.wait_for(last)
    assert b.datas() == [last]


def test_47_the_same_data_within_a_minute_is_forwarded_once(live, peers, placement):
    a = peers(shard=placement.source)
    again = peers(key=Key(), shard=placement.target)
    b, c = peers(SYNC, shard=placement.source), peers(SYNC, shard=placement.target)
    data = fresh()
    a.publish(SYNC, data)
    b.wait_for(data)
    c.wait_for(data)
    before = signed(a.key, SYNC, data)
    for client in (a, again):  # another seqno, and by another way
        client.send(publish(before))
        client.send(publish(signed(a.key, SYNC, data), signed(a.key, DIRECTORY, data)))
    last = fresh()
    again.publish(SYNC, last)
    b.wait_for(last)
    c.wait_for(last)
    settle(a, b, c)
    assert b.datas() == c.datas() == [data, last]
    other = Key()  # the same data of another author is another message
    a.send(publish(signed(other, SYNC, data)))
    b.wait(lambda: len(b.messages) == 3, 'the other author')


def test_47_the_three_ids_reproduce_by_ihave(start):
    """A relay that has seen a message asks for none of its id, and for any other."""
    relay = start(preset='dusk')
    with Gossiper(relay, SYNC, shard=0) as a, Gossiper(relay, SYNC, shard=0) as b:
        for client in (a, b):
            client.wait_up()
        third = Key(seed=None)
        third.peer_id = b'\x00\x24\x08\x01\x12\x20' + bytes(range(32))
        assert msg_id(b'hello', third.peer_id) == b'1126394796234966141'
        a.send(publish(signed(TEST_KEY, SYNC, b'hello', seqno=1)))
        b.wait_for(b'hello')
        a.send(ihave(SYNC, b'2522449370233741854', b'9754003402134539932', b'1126394796234966141',
                     b'no number', b'00'))
        a.wait(lambda: len(a.iwants) >= 2, 'an IWANT')
        assert a.iwants == [b'9754003402134539932', b'1126394796234966141']
        a.send(ihave(SYNC, b'9754003402134539932'))
        b.send(ihave(SYNC, b'1126394796234966141'))
        settle(a, b)
        assert len(a.iwants) == 2 and not b.iwants, 'asked of one, and once'


def test_48_graft_prune_and_iwant(peers):
    a, b, c = peers(SYNC), peers(SYNC), peers()
    for words in (graft(SYNC), graft('dusk/other'), graft(SYNC), prune(SYNC), prune('x' * 200),
                  rpc((3, b'')), rpc((3, pb((3, b''), (4, b''))))):
        b.send(words)
    data = fresh()
    a.publish(SYNC, data)
    b.wait_for(data)
    settle(a, b)
    assert not b.control, 'no GRAFT, no PRUNE'
    c.send(graft(DIRECTORY))  # says that it is subscribed, too
    c.session.ping(9, 10 * SLOW)
    a.publish(DIRECTORY, fresh())
    c.wait(lambda: len(c.messages) == 1, 'a message by graft')
    late = peers()
    late.send(iwant(msg_id(data, a.key.peer_id), b'1', b'', b'x' * 300))
    late.wait_for(data)


def test_48_iwant_is_answered_three_times_per_id_and_peer(peers):
    a, b, late = peers(), peers(SYNC), peers()
    data = fresh()
    a.publish(SYNC, data)
    b.wait_for(data)
    seen = []
    late._message = lambda raw: seen.append(one(unpb(raw), 2))
    for _ in range(6):
        late.send(iwant(msg_id(data, a.key.peer_id)))
    late.wait(lambda: len(seen) >= 3, 'answers')
    settle(late)
    assert seen == [data] * 3


@pytest.mark.parametrize('n, lives', [(65536, True), (65537, False)])
def test_49_an_rpc_of_65536_bytes_passes_and_65537_ends_only_that_stream(peers, n, lives):
    a, b = peers(), peers(SYNC)
    pad = n - len(publish(signed(a.key, SYNC, b''))) - 20
    while True:  # to the very length
        body = pb((2, message(signed(a.key, SYNC, fresh(pad)))))
        if len(body) == n:
            break
        pad += n - len(body)
    a.send(uv(n) + body[:100])
    if not lives:
        assert a.says.wait_reset(10 * SLOW) and a.session.alive()
        a.says = a.session.open(MESHSUB)
        a.publish(SYNC, fresh())
        b.wait(lambda: len(b.messages) == 1, 'a message by a new stream')
        return
    a.send(body[100:])
    b.wait(lambda: len(b.messages) == 1, 'the longest message')
    assert b.messages[0][2] == body[4:] and a.session.alive()


def test_49_a_flooding_author_is_throttled_and_others_get_through_within_a_second(live, peers):
    flood = peers(SYNC)
    b, ears = peers(), peers(SYNC)
    messages = [publish(signed(flood.key, SYNC, fresh(60000))) for _ in range(200)]
    began = time.monotonic()
    end = began + 4 * SLOW
    due, sent, others, waits = began + 1, 0, 0, []
    while time.monotonic() < end:
        flood.send(messages[sent] if sent < 200 else
                   publish(signed(flood.key, SYNC, fresh(60000))))
        sent += 1
        if time.monotonic() < due:
            continue
        due += 0.3
        data = fresh(60000)
        b.publish(SYNC, data)
        asked = time.monotonic()
        ears.wait_for(data, 5)
        waits.append(time.monotonic() - asked)
        others += 1
    took = time.monotonic() - began
    passed = len(ears.messages) - others
    assert passed * 60000 <= 3.2e6 + 1.3e6 * took, '%d of %d passed' % (passed, sent)
    assert sent > passed and drops(live)['sluice_gossip_over_author_total'] > 0


@pytest.mark.sanitize
def test_49_a_stalled_reader_bounds_memory_and_hinders_nobody(start):
    relay = start(preset='dusk')
    with Gossiper(relay, SYNC, read=False) as deaf, Gossiper(relay, SYNC) as ears:
        ears.wait_up()
        deaf.session.ping(1, 10 * SLOW)
        before = relay.rss_kib()
        keys, sent = [Key() for _ in range(8)], 0
        with Gossiper(relay) as a:
            a.wait_up()
            for _ in range(25):
                for key in keys:
                    a.send(publish(signed(key, SYNC, fresh(30000))))
                    sent += 1
            last = fresh()
            a.publish(SYNC, last)
            ears.wait_for(last, 30)
        assert len(ears.messages) > sent * 0.6, '%d of %d' % (len(ears.messages), sent)
        grown = relay.rss_kib() - before
        assert grown < 80000, '%d KiB' % grown
        assert len(deaf.inbound.inbuf) <= CREDIT
        assert deaf.session.alive()
        # It reads on, and is told what it missed.
        deaf.inbound.auto_window, deaf.read = True, True
        deaf.inbound.hook = deaf._read
        with deaf.session.cond:
            deaf._read(deaf.inbound)
            deaf.inbound._return_credit(0)
        deaf.wait(lambda: last in deaf.datas(), 'the newest', 20)
        deaf.wait(lambda: deaf.ihaves, 'what it missed', 20)
        missed = [i for _, i in deaf.ihaves if i not in deaf.ids]
        assert missed
        deaf.send(iwant(*missed[:5]))
        deaf.wait(lambda: missed[0] in deaf.ids, 'what it asked for', 20)


# ---- beside them ---------------------------------------------------------------------------------

@pytest.mark.parametrize('preset', [None, 'descord'])
def test_na_where_gossip_is_off(start, preset):
    relay = start(preset=preset)
    with relay.connect(Key()) as session:
        for name in (MESHSUB, MESHSUB10):
            with pytest.raises(NotAvailable):
                session.open(name)
        time.sleep(0.3)
        assert not [s for s in session.streams.values() if s.inbound] and session.alive()


def test_on_and_off_by_its_flag(start):
    with start('--gossip', 'on').connect(Key()) as session:
        session.open(MESHSUB)
    with start('--gossip', 'off', preset='dusk').connect(Key()) as session:
        with pytest.raises(NotAvailable):
            session.open(MESHSUB)


def test_identify_lists_both_names(live):
    with live.connect(Key()) as session:
        stream = session.open('/ipfs/id/1.0.0')
        said = {name.decode() for name in unpb(stream.message())[3]}
        assert {MESHSUB, MESHSUB10} <= said


def test_a_second_stream_replaces_the_first(peers):
    a, b = peers(), peers(SYNC)
    first, a.says = a.says, a.session.open(MESHSUB10)
    assert first.wait_reset(10 * SLOW)
    data = fresh()
    a.publish(SYNC, data)
    b.wait_for(data)


def test_every_cut_of_an_rpc_is_one(peers):
    a, b = peers(), peers(SYNC)
    raw = publish(signed(a.key, SYNC, fresh(300)))
    for cut in (1, 2, 3, 50, len(raw) - 1):
        raw = publish(signed(a.key, SYNC, fresh(300)))
        a.send(raw[:cut])
        time.sleep(0.02)
        a.send(raw[cut:])
    many = b''.join(publish(signed(a.key, SYNC, fresh(2000))) for _ in range(100))
    a.says.send(many, chunk=1000)
    b.wait(lambda: len(b.messages) == 105, 'all of them')


def test_many_messages_in_one_rpc(peers):
    a, b = peers(), peers(SYNC)
    a.send(publish(*(signed(a.key, SYNC, fresh(60)) for _ in range(150))))
    b.wait(lambda: len(b.messages) == 150, 'all of them')


@pytest.mark.sanitize
@pytest.mark.parametrize('bad', [b'\x01\xff', uv(70000), b'\xff' * 10, lp(b'\x0b'),
                                 lp(b'\x12\x03\x0a\x05x'), lp(b'\x0a\x00' * 4097)],
                         ids=['cut', 'long', 'varint', 'group', 'inner', 'items'])
def test_garbage_ends_that_stream_only(peers, bad):
    a, b = peers(), peers(SYNC)
    a.send(bad)
    assert a.says.wait_reset(10 * SLOW)
    a.says = a.session.open(MESHSUB)
    data = fresh()
    a.publish(SYNC, data)
    b.wait_for(data)
    assert a.streams == 1


@pytest.mark.sanitize
@pytest.mark.tsan
def test_a_peer_with_two_connections_is_served_by_the_one_that_is_left(live, peers, placement):
    a, key = peers(), Key()
    first = peers(SYNC, key=key, shard=placement.source)
    second = peers(key=key, shard=placement.target)  # as rust does: it says SUBSCRIBE once
    data = fresh()
    a.publish(SYNC, data)
    first.wait_for(data)
    assert not second.messages
    first.close()
    live.until(lambda: len([c for c in live.conns() if c.get('peer') == key.text]) == 1)
    data = fresh()
    a.publish(SYNC, data)
    second.wait_for(data)


@pytest.mark.sanitize
@pytest.mark.tsan
def test_a_crowd_hears_everything_once(live, peers):
    crowd = [peers(SYNC) for _ in range(24)]
    for i in range(40):
        crowd[i % 24].publish(SYNC, fresh(3000))
    for i, client in enumerate(crowd):
        own = len([k for k in range(40) if k % 24 == i])
        client.wait(lambda c=client, n=own: len(c.messages) == 40 - n, 'all but its own', 20)
    settle(*crowd)


def test_payloads_are_in_no_log(start):
    relay = start('--log-level', 'trace', preset='dusk')
    with Gossiper(relay, SYNC) as a, Gossiper(relay, SYNC) as b:
        a.wait_up()
        b.wait_up()
        a.publish(SYNC, b'{"RequestSync":{"secret-words":1}}')
        b.wait_for(b'{"RequestSync":{"secret-words":1}}')
    assert 'secret-words' not in relay.log()


def test_federation_messages_are_logged_escaped_and_seldom(start):
    relay = start(preset='dusk')
    other, peer = Key(), Key()
    with Gossiper(relay) as a:
        a.wait_up()

        def say(ns, source=other):
            a.publish(FEDERATION, ('{"peer_id":"%s","namespace":"%s","ttl":7200,"source_relay":"%s"}'
                                   % (peer.text, ns, source.text)).encode())
        say('dusk/peers')
        relay.wait_log('federation: %s registered in dusk/peers at relay %s' %
                       (peer.text, other.text))
        say('evil\\u001b[31m\\nline')
        relay.wait_log(r'registered in evil\?\[31m\?line at')
        for i in range(100):
            say('dusk/%d' % i)
        a.publish(FEDERATION, b'{"not": "ours"}')
        relay.until(lambda: drops(relay)['sluice_gossip_fed_heard_total'] >= 102)
        assert len(relay.wait_log('federation: ')) and relay.log().count('federation: 12D3') < 60
        own = Key()
        own.text = relay.peer
        say('loop', own)
        say('behind')
        relay.until(lambda: drops(relay)['sluice_gossip_fed_bad_total'] >= 1)
        assert 'in loop at' not in relay.log()


@pytest.mark.sanitize
@pytest.mark.tsan
def test_a_registration_is_found_at_the_other_relay_of_two_that_name_each_other(start, tmp_path):
    """And at none that names nobody; nor is anything told twice, or believed that another signed."""
    import rdv
    ports = [Relay(tmp_path / ('p%d' % i), preset='dusk').start() for i in range(2)]
    at = [relay.address for relay in ports]
    for relay in ports:
        assert relay.stop() == 0
    # The same identities at the same ports, now that each knows the other's address.
    pair = []
    for i in range(2):
        host, port = at[i].split('/')[2], at[i].split('/')[4]
        pair.append(start('--peer-relay', at[1 - i], preset='dusk', data=ports[i].data,
                          listen='%s:%s' % (host, port)))
    alone = start('--peer-relay', at[0], preset='dusk')
    peer, ns = rdv.Peer(pair[0]), rdv.fresh('fed')
    there, elsewhere = rdv.Peer(pair[1]), rdv.Peer(alone)
    thief = Gossiper(pair[0], gossip.RECORDS).wait_up()
    envelope = peer.registered(ns)

    def found():
        peer.register(ns, envelope=envelope)  # until the link is up
        return there.found(ns).rows
    assert pair[1].until(found, 30, 'a foreign registration') == [(ns.encode(), envelope, 7200)]
    forged = rdv.record(Key())
    thief.publish(gossip.RECORDS, ('{"peer_id":"%s","namespace":"%s","ttl":7200,"source_relay":"%s",'
                                   '"record":"%s"}' % (thief.key.text, ns, thief.key.text,
                                                       forged.hex())).encode())
    again = rdv.fresh('fed')
    back = there.registered(again)
    assert pair[0].until(lambda: peer.found(again).rows) == [(again.encode(), back, 7200)]
    assert len(there.found(ns).rows) == 1 and not thief.datas()
    settle(thief)
    assert not elsewhere.found(ns).rows, 'it names, and is not named'
    for one_of in (peer, there, elsewhere, thief):
        one_of.close() if one_of is thief else one_of.session.close()


def test_a_registration_is_announced_in_the_originals_words(live, peers):
    import rdv
    ears = peers(FEDERATION, SYNC)
    who = peers()
    stream = who.session.open(rdv.RENDEZVOUS, rdv.register('dusk/peers', rdv.record(who.key)))
    assert stream.message()
    want = ('{"peer_id":"%s","namespace":"dusk/peers","ttl":7200,"source_relay":"%s"}' %
            (who.key.text, live.peer)).encode()
    ears.wait_for(want)
    assert one(unpb(ears.messages[-1][2]), 1) == live.peer_id


