"""A rendezvous client (libp2p.md §13, dusk.md §5) over rawp2p, written from the specification and
sharing nothing with proto/. It judges what comes: a reply that is not the one canonical encoding of
what it says, or lacks a status, a ttl or a cookie of zero, fails the test, whatever that is about."""

import collections
import itertools
import time

from rawp2p import Reset
from relay import SLOW
from transport import Closed
from wire import Key, WireError, lp, maddr, one, pb, read_uv, unpb

RENDEZVOUS = '/rendezvous/1.0.0'
REGISTER, REGISTER_REPLY, UNREGISTER, DISCOVER, DISCOVER_REPLY = range(5)
OK = 0
BAD_NS, BAD_RECORD, BAD_TTL, BAD_COOKIE = 100, 101, 102, 103
NOT_YOURS, INTERNAL, UNAVAILABLE = 200, 300, 400
MIB = 1 << 20

DOMAINS = {'standard': (b'libp2p-peer-record', b'\x03\x01'),
           'legacy': (b'libp2p-routing-state', b'/libp2p/routing-state-record')}

_names = itertools.count(1)


def fresh(head='ns'):
    """A namespace that no other test uses."""
    return '%s-%d-%d' % (head, next(_names), time.monotonic_ns())


# ---- what is sent --------------------------------------------------------------------------------

def record(key, seq=None, addrs=('/ip4/127.0.0.1/tcp/4001',), domain='legacy', peer=None):
    """A signed envelope; `addrs` as text or as bytes that need not be an address."""
    name, kind = DOMAINS[domain]
    seq = time.time_ns() if seq is None else seq
    infos = [pb((1, a if isinstance(a, bytes) else maddr(a))) for a in addrs]
    payload = pb((1, peer or key.peer_id), (2, seq), *((3, info) for info in infos))
    signature = key.sign(lp(name) + lp(kind) + lp(payload))
    return pb((1, key.pb), (2, kind), (3, payload), (5, signature))


def as_bytes(ns):
    return ns.encode() if isinstance(ns, str) else ns


def register(ns, envelope, ttl=None):
    return lp(pb((1, REGISTER), (2, pb((1, as_bytes(ns)), (2, envelope), (3, ttl)))))


def unregister(ns, peer=None):
    return lp(pb((1, UNREGISTER), (4, pb((1, as_bytes(ns)), (2, peer)))))


def discover(ns=None, limit=None, cookie=None):
    return lp(pb((1, DISCOVER), (5, pb((1, as_bytes(ns)), (2, limit), (3, cookie)))))


# ---- what comes ----------------------------------------------------------------------------------

class Row(collections.namedtuple('Row', 'ns record ttl')):
    """A registration as DISCOVER tells it."""

    @property
    def peer(self):
        return one(unpb(one(unpb(self.record), 3)), 1)


class Reply:
    def __init__(self, raw):
        got = read_uv(raw)
        if got is None or got[0] != len(raw) - got[1]:
            raise WireError('a reply of %d bytes with another length' % len(raw))
        if len(raw) >= MIB:
            raise WireError('a reply of %d bytes, which rust does not read' % len(raw))
        self.raw, fields = raw, unpb(raw[got[1]:])
        self.type = one(fields, 1)
        if self.type == REGISTER_REPLY:
            again = self._registered(unpb(one(fields, 3)))
        elif self.type == DISCOVER_REPLY:
            again = self._discovered(unpb(one(fields, 6)))
        else:
            raise WireError('type %r' % self.type)
        if raw != lp(again):
            raise WireError('not canonical: %s' % raw[:200].hex())

    def _registered(self, fields):
        self.status, self.text, self.ttl = one(fields, 1), one(fields, 2), one(fields, 3)
        if self.status is None or (self.status == OK) != (self.ttl is not None):
            raise WireError('status %r with ttl %r' % (self.status, self.ttl))
        return pb((1, self.type), (3, pb((1, self.status), (2, self.text), (3, self.ttl))))

    def _discovered(self, fields):
        self.cookie, self.status = one(fields, 2), one(fields, 3)
        self.text, self.rows, again = one(fields, 4), [], []
        if self.status is None or (self.status == OK) != (self.cookie is not None):
            raise WireError('status %r with cookie %r' % (self.status, self.cookie))
        for inner in fields.get(1, []):
            row = unpb(inner)
            self.rows.append(Row(one(row, 1), one(row, 2), one(row, 3)))
            if None in self.rows[-1]:
                raise WireError('a registration without %r' % (self.rows[-1],))
            again.append((1, pb((1, one(row, 1)), (2, one(row, 2)), (3, one(row, 3)))))
        return pb((1, self.type), (6, pb(*again, (2, self.cookie), (3, self.status),
                                         (4, self.text))))

    @property
    def records(self):
        return [row.record for row in self.rows]

    @property
    def peers(self):
        return [row.peer for row in self.rows]


def begin(session, message=b'', fin=True):
    """A stream with a request on its way."""
    stream = session.open(RENDEZVOUS, message, timeout=20 * SLOW)
    if fin:
        stream.close_write()
    return stream


def finish(stream, timeout=20):
    """All bytes that came until the relay ended the stream; None when it reset it."""
    try:
        return stream.recv_to_eof(timeout * SLOW)
    except Reset:
        return None


def ask(session, message, fin=True):
    """The reply; None when the stream ended without one."""
    raw = finish(begin(session, message, fin))
    return Reply(raw) if raw else None


class Peer:
    """A connection of one identity."""

    def __init__(self, relay, key=None, **options):
        self.relay, self.key = relay, key or Key()
        self.session = relay.connect(self.key, **options)

    @property
    def id(self):
        return self.key.peer_id

    def record(self, **options):
        return record(self.key, **options)

    def ask(self, message, fin=True):
        return ask(self.session, message, fin)

    def register(self, ns, ttl=None, envelope=None):
        return self.ask(register(ns, self.record() if envelope is None else envelope, ttl))

    def registered(self, ns, ttl=None, envelope=None):
        """Registers, which must succeed; the envelope."""
        envelope = envelope or self.record()
        reply = self.register(ns, ttl, envelope)
        assert reply and reply.status == OK, reply and reply.status
        assert reply.ttl == (ttl or 7200)
        return envelope

    def unregister(self, ns, peer=None):
        """There is no answer, only the end (dusk.md §5)."""
        assert finish(begin(self.session, unregister(ns, peer))) == b''

    def discover(self, ns=None, limit=None, cookie=None):
        return self.ask(discover(ns, limit, cookie))

    def found(self, ns=None, limit=None, cookie=None):
        reply = self.discover(ns, limit, cookie)
        assert reply and reply.status == OK, reply and reply.status
        return reply

    def walk(self, ns, limit, cookie=None):
        """Every row, page by page, and the last cookie."""
        rows = []
        while True:
            reply = self.found(ns, limit, cookie)
            cookie = reply.cookie
            if not reply.rows:
                return rows, cookie
            assert len(reply.rows) <= limit
            rows += reply.rows

    def alive(self):
        return self.session.alive()

    def close(self):
        self.session.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


__all__ = ['Closed', 'Peer', 'Reply', 'Reset', 'Row', 'ask', 'begin', 'discover', 'finish', 'fresh',
           'record', 'register', 'unregister']
