"""Memory that runs short (libp2p.md §20.3 and §23): the pool is never exceeded, what it cannot hold is
refused by its status, and who hoards pays: nobody who reads and sends as he should loses more than
a refusal. The pools here are so small that a few peers fill them."""

import time

import pytest

import figures
from circuit import auto_stop, crowd, dial, join, reserve, serve_stop
from rawp2p import CREDIT, Closed
from relay import SLOW
from test_bounds import MIB, Peak, fill, half_record, held, settle
from wire import LIMIT, OK, REFUSED

FULL_PART = 15 / 16


def receive_buffers():
    """Of both shards, touched as they are first used; and a bit for what is not payload."""
    return 2 * figures.RECV_BUFS * figures.RECV_BUF_BYTES + MIB


def exchange(near, far, i):
    near.send(b'%08d' % i)
    assert far.recv(8) == b'%08d' % i
    far.send(b'back')
    assert near.recv(4) == b'back'


@pytest.mark.sanitize
def test_half_record_part_those_who_hoard_the_longest_go(start, placement):
    """Three times as much as the pool holds, in half records; meanwhile a circuit goes on, with small
    pieces and with records that need a chunk each, and new ones are made."""
    relay = start('--max-buffer-mb', 8)
    limit = relay.metrics()['sluice_buffer_limit_bytes']
    assert limit <= 8 * MIB
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target) as target:
        assert reserve(target).status == OK
        near, far = join(source, target)
        with Peak(relay) as peak:
            hoard = crowd(relay, 400 // (2 if SLOW > 1 else 1))
            for i, session in enumerate(hoard):
                half_record(session)
                if i % 4 == 0:
                    exchange(near, far, i)
                if i % 40 == 0:
                    near.send(bytes(100000))
                    assert far.recv(100000) == bytes(100000)
            assert source.ping(1) < SLOW and target.ping(2) < SLOW
            exchange(near, far, 0)
        gone = [i for i, session in enumerate(hoard) if session.dead]
        assert len(gone) >= len(hoard) / 4
        assert not hoard[-1].dead, 'the newest goes last'
        assert peak.bytes <= limit * FULL_PART, 'half records alone fill it'
        if SLOW == 1:  # a sanitizer's own memory is counted with the daemon's
            assert peak.grown <= limit + receive_buffers() + len(hoard) * 4096
        assert source.alive() and target.alive() and not near.rst
        for session in hoard:
            session.close()
        relay.until(lambda: held(relay) == 0, 5, 'no chunk leased')


def stuff(source, target):
    """Circuits for a target that takes nothing, until another one is refused."""
    auto_stop(target)
    for _ in range(60):
        answer, near = dial(source, target.key.peer_id)
        if answer.status == LIMIT:
            return
        fill(near, 16384)
    raise AssertionError('the pool is not short')


def test_half_record_ms_nobody_holds_memory_that_is_short_for_longer(start):
    """Others fill the pool above its high mark; a few half records are closed when their time is up,
    and one that came later is not."""
    relay = start('--max-buffer-mb', 8, '--max-circuits-per-peer', 0, '--linger-secs', 600)
    limit = figures.HALF_RECORD_MS / 1000
    with relay.connect(shard=0) as source, relay.connect(shard=0, auto_window=False) as target:
        assert reserve(target).status == OK
        old = [relay.connect(shard=0) for _ in range(3)]
        for session in old:
            half_record(session, 30000)
        began = time.monotonic()
        stuff(source, target)
        with relay.connect(shard=0) as late, relay.connect(shard=0) as young:
            assert reserve(late).status == REFUSED, 'the pool is not short'
            assert dial(late, target.key.peer_id)[0].status == LIMIT
            assert reserve(target).status == OK, 'a renewal'
            time.sleep(limit / 2)
            byte = half_record(young, 30000)
            while time.monotonic() - began < limit + 2 and any(not s.dead for s in old):
                assert source.alive()  # a shard that sleeps relieves nobody
                if time.monotonic() - began < limit - 0.5:
                    assert not any(s.dead for s in old)
                time.sleep(0.3)
            assert all(s.dead for s in old), 'half a record for %.1f s' % limit
            assert not young.dead
            young.raw(byte)
            assert young.alive()


@pytest.mark.sanitize
def test_libp2p_75_the_pool_is_never_exceeded_and_only_hoarders_lose_a_circuit(start, placement):
    """Circuits of targets that take nothing, three times as many as the pool holds. A circuit of the
    same source whose target reads goes on at full speed; so do all connections."""
    relay = start('--max-buffer-mb', 8, '--max-circuits-per-peer', 0, '--linger-secs', 600)
    limit = relay.metrics()['sluice_buffer_limit_bytes']
    with relay.connect(shard=placement.source) as source, \
            relay.connect(shard=placement.target, auto_window=False) as target, \
            relay.connect(shard=placement.target) as reader, \
            relay.connect(shard=placement.source) as late:
        reserve(target)
        reserve(reader)
        near, far = join(source, reader)
        with Peak(relay) as peak:
            pairs = [join(source, target) for _ in range(60)]
            for i, (one, _) in enumerate(pairs):
                try:
                    one.send(bytes(2 * CREDIT), timeout=0.1 * SLOW, chunk=16384)
                except (Closed, TimeoutError):
                    pass
                exchange(near, far, i)
            settle(relay)
            assert any(one.rst for one, _ in pairs), 'the pool was not full'
            assert reserve(late).status == REFUSED
            assert dial(late, target.key.peer_id)[0].status == LIMIT
            assert reserve(target).status == OK, 'a renewal'
            block = bytes(range(256)) * 256
            for _ in range(4):
                near.send(block)
                assert far.recv(len(block)) == block
            for session in (source, target, reader, late):
                assert session.alive()
        assert peak.bytes <= limit
        if SLOW == 1:
            assert peak.grown <= limit + receive_buffers()
        for one, _ in pairs:
            if not one.rst:
                one.reset()
        relay.until(lambda: held(relay) == 0, 5, 'no chunk leased')
        assert reserve(late).status == OK
        serve_stop(target)
        exchange(*join(late, reader), 7)
