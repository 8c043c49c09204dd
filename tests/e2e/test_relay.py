"""libp2p.md §19, checks 1, 2, 50-53, 55-58, 61, 62 and 65: reservations and circuits."""

import base64
import concurrent.futures
import hashlib
import os
import random
import stat
import subprocess
import threading
import time

import pytest

from circuit import accept_stop, auto_stop, dial, hop_request, join, reserve, serve_stop
from rawp2p import FIN, SYN, DATA, Closed, Reset
from relay import SLOW, SLUICE, Relay, next_ip
from wire import (CONNECT, DENIED, FAILED, HOP, LIMIT, MALFORMED, MSS, NO_RESERVATION, OK, REFUSED,
                  STATUS, STOP, UNEXPECTED, HopMessage, Key, base58, hop_connect, hop_reserve,
                  lp, maddr_text, mss, open_voucher, pb, peer_id_of, stop_status, unpb, uv)

WINDOW = 262144


# ---- 1, 2: identity -----------------------------------------------------------------------------

def key_file_of(relay):
    line = next(line for line in relay.lines if line.startswith('identity: '))
    return line.split(' ', 2)[1], line.split(' ', 2)[2]


def test_libp2p_01_the_peer_id_is_the_key_files_and_survives_a_restart(start):
    relay = start()
    how, path = key_file_of(relay)
    assert how == 'created'
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    data = open(path, 'rb').read()
    fields = unpb(data)  # PrivateKey { Type, 64 bytes: secret and public }
    assert len(data) == 68 and fields[1] == [1] and len(fields[2][0]) == 64
    assert base58(peer_id_of(pb((1, 1), (2, fields[2][0][32:])))) == relay.peer
    assert relay.stop() == 0
    again = start(data=relay.data)
    assert key_file_of(again) == ('loaded', path)
    assert again.peer == relay.peer
    assert open(path, 'rb').read() == data


@pytest.mark.parametrize('content', [b'', b'\x08\x01', b'\x08\x01\x12\x40' + bytes(63), bytes(68),
                                     os.urandom(68), b'\x08\x01\x12\x40' + b'\x05' * 64],
                         ids=['empty', 'cut', 'short', 'zeroes', 'noise', 'mismatch'])
def test_libp2p_01_a_corrupt_key_file_stops_the_start_and_stays(tmp_path, content):
    """And dusk_61."""
    path = tmp_path / 'my.key'
    path.write_bytes(content)
    path.chmod(0o600)
    relay = Relay(tmp_path, '--identity', path)
    done = subprocess.run(relay.argv, capture_output=True, text=True, timeout=20 * SLOW)
    assert done.returncode not in (0, -6, -11)
    assert str(path) in done.stderr, done.stderr
    assert 'relay address' not in done.stdout
    assert path.read_bytes() == content


def cid(peer_id, codec=0x72):
    return 'b' + base64.b32encode(b'\x01' + uv(codec) + peer_id).decode().lower().rstrip('=')


def check_config(tmp_path, *flags):
    return subprocess.run([str(SLUICE), '--check-config', '--data', str(tmp_path), *flags],
                          capture_output=True, text=True, timeout=20 * SLOW)


def test_libp2p_02_both_text_forms_of_a_peer_id_name_the_same_peer(start, placement):
    one, two = Key(), Key('rsa')
    relay = start('--deny', one.text, '--deny', cid(two.peer_id))
    for key in (one, two):
        with pytest.raises((OSError, Closed)):
            with relay.connect(key, placement.target) as session:
                if reserve(session).status != OK:
                    raise Closed('refused')
    with relay.connect(Key(), placement.target) as session:
        assert reserve(session).status == OK


def test_libp2p_02_what_is_no_peer_id_is_refused(tmp_path):
    good = Key().peer_id
    assert check_config(tmp_path, '--deny', cid(good)).returncode == 0
    for bad in ('z' + base58(b'\x01\x72' + good), cid(good, 0x70), cid(good)[:-3],
                base58(good)[:-1] + '0', base58(b'\x11\x14' + bytes(20)), base58(good + b'\x00')):
        done = check_config(tmp_path, '--deny', bad)
        assert done.returncode == 2, bad
        assert '--deny' in done.stderr or 'deny' in done.stderr, done.stderr
        assert len(done.stderr.strip().splitlines()) == 1, done.stderr


# ---- 50: RESERVE --------------------------------------------------------------------------------

@pytest.mark.parametrize('style', ['window', 'data'])
def test_libp2p_50_reserve(relay, placement, style):
    with relay.connect(shard=placement.target) as session:
        answer = reserve(session, style=style)
        now = time.time()
        assert answer.status == OK and answer.reserved
        assert abs(answer.expire - now - 3600) <= 3
        assert answer.limit is None, 'unlimited means that the field is absent'
        texts = [maddr_text(a) for a in answer.addrs]
        assert texts and all(t.endswith('/p2p/' + relay.peer) for t in texts), texts
        assert relay.address in texts
        who, whom, until = open_voucher(answer.voucher)
        assert (who, whom, until) == (relay.peer_id, session.key.peer_id, answer.expire)


def test_libp2p_50_the_clients_fin_before_reading_is_no_cancellation(relay, placement):
    with relay.connect(shard=placement.target) as session:
        stream = session.stream('data')
        body = mss(MSS, HOP) + hop_reserve()
        session.frame(DATA, SYN | FIN, stream.sid, len(body), body)  # as rust does, and at once
        stream.expect_mss(MSS)
        stream.expect_mss(HOP)
        assert HopMessage(stream.message()).status == OK
        stream.wait_eof()


def test_libp2p_50_the_message_in_any_split(relay, placement):
    with relay.connect(shard=placement.target) as session:
        stream = session.stream()
        for byte in mss(MSS, HOP) + hop_reserve():
            stream.send(bytes([byte]))
        stream.expect_mss(MSS)
        stream.expect_mss(HOP)
        assert HopMessage(stream.message()).status == OK


def test_libp2p_50_renewals_are_free_and_keep_the_slot(relay, placement):
    with relay.connect(shard=placement.target) as session:
        before = relay.metrics()
        expires = [reserve(session).expire for _ in range(50)]
        assert expires == sorted(expires)
        rows = [row for row in relay.conns() if row['remote'] == '%s:%d' % session.local]
        assert len(rows) == 1
        assert relay.metrics().get('libp2p_relaysvc_reservations_total{type="renewed"}', 0) - \
            before.get('libp2p_relaysvc_reservations_total{type="renewed"}', 0) == 49


def test_libp2p_50_announced_addresses_replace_the_listeners(start):
    announced = ['/dns4/relay.example.org/tcp/4001', '/ip4/9.9.9.9/tcp/9000']
    relay = start(*[word for a in announced for word in ('--announce', a)])
    with relay.connect() as session:
        answer = reserve(session)
        assert [maddr_text(a) for a in answer.addrs] == ['%s/p2p/%s' % (a, relay.peer)
                                                         for a in announced]


# ---- 52, 53: refusals ---------------------------------------------------------------------------

def test_libp2p_52_descord_07_the_fourth_reservation_of_a_peer_is_refused(start, placement):
    relay = start('--log-format', 'json', preset='descord')
    key = Key()
    shards = [placement.source, placement.target, placement.source, placement.target]
    sessions = [relay.connect(key, shard) for shard in shards]
    assert [reserve(s).status for s in sessions[:3]] == [OK] * 3
    refused = reserve(sessions[3])
    assert refused.status in (REFUSED, LIMIT) and not refused.reserved
    assert relay.wait_events('request_denied')[0]['status'] == refused.status
    assert [reserve(s).status for s in sessions[:3]] == [OK] * 3, 'renewals go on'
    with relay.connect(Key(), placement.target) as other:
        assert reserve(other).status == OK, 'another peer has its own count'
    sessions[1].close()
    relay.until(lambda: reserve(sessions[3]).status == OK, 2, 'the slot of the closed connection')
    for session in sessions:
        session.close()


def test_libp2p_53_connect_without_reservation_is_204(relay, placement):
    """And dusk_17."""
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        for peer in (Key().peer_id, Key('rsa').peer_id, target.key.peer_id):
            answer, stream = dial(source, peer)
            assert answer.status == NO_RESERVATION
            stream.wait_eof()


def test_libp2p_53_204_comes_before_201(start, placement):
    """presets.md: over the limit and without a reservation of the target, the answer is 204."""
    relay = start('--max-circuits-per-peer', 1)
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        join(source, target)
        assert dial(source, target.key.peer_id)[0].status == LIMIT
        assert dial(source, Key().peer_id)[0].status == NO_RESERVATION


def malformed():
    peer = Key().peer_id
    yield 'no peer', lp(pb((1, CONNECT))), (MALFORMED,)
    yield 'an empty peer', lp(pb((1, CONNECT), (2, b''))), (MALFORMED,)
    yield 'an empty id', lp(pb((1, CONNECT), (2, pb((1, b''))))), (MALFORMED,)
    yield 'an odd id', lp(pb((1, CONNECT), (2, pb((1, b'\x11\x14' + bytes(20)))))), (MALFORMED,)
    yield 'a cut id', lp(pb((1, CONNECT), (2, pb((1, peer[:-1]))))), (MALFORMED,)
    yield 'a long id', lp(pb((1, CONNECT), (2, pb((1, peer + b'\x00'))))), (MALFORMED,)
    yield 'type STATUS', lp(pb((1, STATUS), (5, OK))), (MALFORMED, UNEXPECTED)
    yield 'an unknown type', lp(pb((1, 9))), (MALFORMED, UNEXPECTED)
    yield 'no type', lp(pb((2, pb((1, peer))))), (MALFORMED, UNEXPECTED)
    yield 'an empty message', lp(b''), (MALFORMED, UNEXPECTED)
    yield 'no protobuf', lp(b'\xff' * 20), (MALFORMED,)
    yield 'a cut protobuf', lp(b'\x08\x01\x12\x28\x0a'), (MALFORMED,)
    yield '5 KiB', lp(pb((1, CONNECT), (9, bytes(5000)))), (MALFORMED, None)
    yield 'a 2 GiB prefix', uv(1 << 31), (MALFORMED, None)


@pytest.mark.parametrize('what, message, statuses', malformed(), ids=[m[0] for m in malformed()])
def test_libp2p_53_malformed_requests(relay, placement, what, message, statuses):
    with relay.connect(shard=placement.target) as session:
        stream = session.open(HOP, message)
        try:
            assert HopMessage(stream.message()).status in statuses
            stream.wait_eof()
        except Reset:
            assert None in statuses, what
        assert session.alive()
        assert reserve(session).status == OK


def test_libp2p_53_unknown_fields_are_skipped(relay, placement):
    with relay.connect(shard=placement.target) as session:
        odd = uv(15 << 3 | 1) + bytes(8) + uv(14 << 3 | 5) + bytes(4)
        odd += pb((13, 7), (12, b'x' * 300))
        answer, _ = hop_request(session, lp(odd + pb((1, 0)) + odd))
        assert answer.status == OK


def test_libp2p_53_connect_to_oneself_and_to_the_relay(relay, placement):
    """And dusk_17."""
    with relay.connect(shard=placement.target) as session:
        serve_stop(session)
        reserve(session)
        assert dial(session, session.key.peer_id)[0].status in (MALFORMED, NO_RESERVATION)
        assert dial(session, relay.peer_id)[0].status in (MALFORMED, NO_RESERVATION)
        assert not session.inbound


# ---- 55 to 57: STOP -----------------------------------------------------------------------------

@pytest.mark.parametrize('told, heard', [(DENIED, DENIED), (LIMIT, LIMIT), (FAILED, FAILED),
                                         (NO_RESERVATION, FAILED), (MALFORMED, FAILED),
                                         (UNEXPECTED, FAILED), (0, FAILED), (999, FAILED)])
def test_libp2p_55_a_target_that_refuses(relay, placement, told, heard):
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        auto_stop(target, status=told)
        answer, stream = dial(source, target.key.peer_id)
        assert answer.status == heard
        stream.wait_eof()


def refuse_by_na(target):
    pass  # STOP is not among its protocols


def refuse_by_reset(target):
    target.protocols[STOP] = lambda stream: stream.reset()


def refuse_by_fin(target):
    target.protocols[STOP] = lambda stream: stream.close_write()


def refuse_by_junk(target):
    target.protocols[STOP] = lambda stream: stream.send(b'\x05hello')


def refuse_by_length(target):
    target.protocols[STOP] = lambda stream: stream.send(uv(5000) + bytes(100))


def refuse_by_connect(target):
    target.protocols[STOP] = lambda stream: stream.send(lp(pb((1, 0), (2, pb((1, b'x'))))))


def refuse_by_hanging_up(target):
    target.protocols[STOP] = lambda stream: target.close()


@pytest.mark.parametrize('refuse', [refuse_by_na, refuse_by_reset, refuse_by_fin, refuse_by_junk,
                                    refuse_by_length, refuse_by_connect, refuse_by_hanging_up])
def test_libp2p_55_a_target_that_cannot(relay, placement, refuse):
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        refuse(target)
        began = time.monotonic()
        assert dial(source, target.key.peer_id)[0].status == FAILED
        assert time.monotonic() - began < 5
        assert source.alive()


def test_libp2p_55_a_silent_target_is_203_in_10_s(relay, placement):
    """And dusk_22, by presets.md. Silent before the negotiation, behind it, and half through its
    answer, at the same time."""
    silences = {'nothing': None, 'header': mss(MSS), 'agreed': mss(MSS, STOP),
                'half a status': mss(MSS, STOP) + stop_status(OK)[:3]}

    def one(says):
        with relay.connect(shard=placement.source) as source, \
                relay.connect(shard=placement.target, auto_mss=False) as target:
            reserve(target)
            began = time.monotonic()
            waiting = threading.Thread(target=lambda: says and target.accept().send(says))
            waiting.start()
            answer, _ = dial(source, target.key.peer_id, timeout=15)
            waiting.join()
            return answer.status, time.monotonic() - began
    with concurrent.futures.ThreadPoolExecutor(len(silences)) as pool:
        for what, (status, seconds) in zip(silences, pool.map(one, silences.values())):
            assert status == FAILED and seconds < 11, (what, status, seconds)


@pytest.mark.parametrize('first', ['the holder', 'the newest'])
def test_libp2p_55_another_connection_of_the_target_is_tried(relay, placement, first):
    """Two connections of one peer, one of them without a reservation or dead (libp2p.md §11.3)."""
    key = Key()
    old = relay.connect(key, placement.target)
    new = relay.connect(key, placement.source)
    with relay.connect(shard=placement.source) as source:
        reserve(old)
        reserve(new)
        keeps, goes = (old, new) if first == 'the holder' else (new, old)
        goes.close()
        serve_stop(keeps)
        near, far = join(source, keeps)
        near.send(b'hello')
        assert far.recv(5) == b'hello'
        keeps.close()


def test_libp2p_56_what_follows_the_status_arrives_behind_hop_ok(relay, placement):
    """Both ends put circuit bytes right behind their message, in the same frame."""
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        serve_stop(target)
        early = mss(MSS, '/noise') + bytes(range(256))
        stream = source.open(HOP, hop_connect(target.key.peer_id) + early)
        message, far = accept_stop(target, behind=mss(MSS) + b'target first')
        answer = HopMessage(stream.message())
        assert answer.status == OK and answer.limit is None and message.limit is None
        assert stream.recv(len(mss(MSS)) + 12) == mss(MSS) + b'target first'
        assert far.recv(len(early)) == early
        assert message.peer == source.key.peer_id
        assert message.addrs == [], 'the address of the source is nobody\'s business'


def test_libp2p_56_the_status_in_any_split(relay, placement):
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        serve_stop(target)
        stream = source.open(HOP, hop_connect(target.key.peer_id))
        _, far = accept_stop(target, status=None)
        for byte in stop_status(OK) + b'and more':
            far.send(bytes([byte]))
        assert HopMessage(stream.message()).status == OK
        assert stream.recv(8) == b'and more'


@pytest.mark.parametrize('how', ['reset', 'hang up'])
def test_libp2p_57_a_source_that_leaves_resets_the_pending_stop(relay, placement, how):
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        serve_stop(target)
        stream = source.open(HOP, hop_connect(target.key.peer_id))
        _, far = accept_stop(target, status=None)
        stream.reset() if how == 'reset' else source.close()
        assert far.wait_reset(3)
        assert target.alive()
        relay.until(lambda: not relay.circuits(), 5, 'an empty table of circuits')


# ---- 58: bytes ----------------------------------------------------------------------------------

def pour(stream, size, seed):
    """Writes pseudo-random bytes; their digest."""
    rng, digest, left = random.Random(seed), hashlib.sha256(), size
    block = rng.randbytes(1 << 20)
    while left:
        n = min(left, len(block))
        part = block[-n:] if n < len(block) else block
        digest.update(part)
        stream.send(part, timeout=60)
        left -= n
        block = block[1:] + block[:1]  # no two blocks alike, so that a swap is seen
    stream.close_write()
    return digest.hexdigest()


def both_ways(near, far, size):
    sinks = hashlib.sha256(), hashlib.sha256()
    near.sink, far.sink = sinks[0].update, sinks[1].update
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        up, down = pool.submit(pour, near, size, 1), pool.submit(pour, far, size, 2)
        up, down = up.result(), down.result()
    far.wait_eof(60)
    near.wait_eof(60)
    assert (far.rx_bytes, near.rx_bytes) == (size, size)
    assert (sinks[1].hexdigest(), sinks[0].hexdigest()) == (up, down)


@pytest.mark.sanitize
@pytest.mark.tsan
@pytest.mark.parametrize('size', [32 << 20, pytest.param(1 << 30, marks=pytest.mark.long)])
def test_libp2p_58_bytes_are_identical_both_ways(start, placement, size):
    relay = start()
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        near, far = join(source, target)
        near.rx_bytes = far.rx_bytes = 0
        both_ways(near, far, size)
        relay.until(lambda: not relay.circuits(), 5, 'the end of the circuit')
        metrics = relay.metrics()
        assert metrics['libp2p_relaysvc_data_transferred_bytes_total'] >= 2 * size


def test_libp2p_58_frames_of_every_size(relay, placement):
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        near, far = join(source, target)
        want = os.urandom(200000)
        at, n = 0, 1
        while at < len(want):
            near.send(want[at:at + n])
            at, n = at + n, n * 5 % 16411 + 1
        assert far.recv(len(want)) == want


@pytest.mark.parametrize('who', ['source', 'target'])
@pytest.mark.parametrize('how', ['reset', 'hang up', 'cut'])
def test_libp2p_58_an_abrupt_end_is_a_reset_for_the_other(relay, placement, who, how):
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        near, far = join(source, target)
        near.send(b'x')
        far.recv(1)
        session, mine, other = ((source, near, far) if who == 'source' else (target, far, near))
        if how == 'reset':
            mine.reset()
        else:
            session.close(reset=how == 'cut')
        assert other.wait_reset(3)
        assert not other.eof
        assert other.session.alive()


def test_libp2p_58_fin_comes_behind_the_last_byte(relay, placement):
    """With the target's window closed when the FIN arrives."""
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target, auto_window=False) as target:
        reserve(target)
        near, far = join(source, target)
        size = WINDOW + 100000
        near.send(os.urandom(size))
        near.close_write()
        window = WINDOW - (far.rx_bytes - len(far.inbuf))  # the negotiation took some
        assert target.wait(lambda: len(far.inbuf) == window)
        time.sleep(0.2)
        assert len(far.inbuf) == window and not far.eof
        target.frame(1, 0, far.sid, 200000)
        assert len(far.recv_to_eof()) == size


# ---- 61, 62, 65 ---------------------------------------------------------------------------------

@pytest.mark.parametrize('cut', [False, True], ids=['close', 'cut'])
def test_libp2p_61_the_targets_end_is_204_for_new_and_rst_for_old(relay, placement, cut):
    """And dusk_23."""
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        near, _ = join(source, target)
        target.close(reset=cut)
        assert near.wait_reset(3)
        relay.until(lambda: dial(source, target.key.peer_id)[0].status == NO_RESERVATION, 2, '204')


def test_libp2p_62_an_expired_reservation_spares_running_circuits(start, placement):
    relay = start('--reservation-secs', 2, '--log-format', 'json')
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        assert abs(reserve(target).expire - time.time() - 2) <= 1
        near, far = join(source, target)
        event = relay.wait_events('reservation_timeout', timeout=6)[0]
        assert target.key.text in str(event)
        assert dial(source, target.key.peer_id)[0].status == NO_RESERVATION
        near.send(b'still here')
        assert far.recv(10) == b'still here'
        far.send(b'so am I')
        assert near.recv(7) == b'so am I'
        assert reserve(target).status == OK, 'and it may come back'
        assert dial_ok(source, target)


def dial_ok(source, target):
    near, far = join(source, target)
    near.reset()
    return True


def test_libp2p_65_a_burst_of_reservations_of_one_peer_is_slowed(start, placement):
    """The 31st new one within the burst is refused by 201; a renewal costs nothing."""
    relay = start('--reservation-rate-per-peer', '30/2')
    key = Key()
    for i in range(30):
        with relay.connect(key, placement.target if i == 29 else None) as session:
            assert reserve(session).status == OK, i
            if i == 29:
                assert all(reserve(session).status == OK for _ in range(40))
    with relay.connect(key, placement.target) as session:
        answer = reserve(session)
        if answer.status == OK:  # one may have been refilled on a slow machine
            session.close()
            session = relay.connect(key, placement.target)
            answer = reserve(session)
        assert answer.status == LIMIT
        with relay.connect(Key(), placement.target) as other:
            assert reserve(other).status == OK
        time.sleep(2.2)
        assert reserve(session).status == OK, 'refilled'
        session.close()


def test_libp2p_65_descord_has_it_by_default(start, placement):
    relay = start(preset='descord')
    key = Key()
    for _ in range(30):
        with relay.connect(key) as session:
            assert reserve(session).status == OK
    with relay.connect(key, placement.target) as session:
        assert reserve(session).status == LIMIT


def test_libp2p_65_a_burst_of_circuits_is_slowed(start, placement):
    relay = start('--circuit-rate-per-peer', '10/60')
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        reserve(target)
        auto_stop(target)
        statuses = []
        for _ in range(12):
            answer, stream = dial(source, target.key.peer_id)
            statuses.append(answer.status)
            if answer.status == OK:
                stream.reset()
        assert statuses == [OK] * 10 + [LIMIT] * 2


def test_libp2p_65_rates_count_per_address_when_asked(start, placement):
    relay = start('--reservation-rate-per-ip', '5/60')
    ip = next_ip()
    statuses = []
    for _ in range(7):
        with relay.connect(source=ip) as session:
            statuses.append(reserve(session).status)
    assert statuses == [OK] * 5 + [LIMIT] * 2
    with relay.connect() as session:
        assert reserve(session).status == OK


