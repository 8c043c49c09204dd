"""A gossipsub client as the Dusk client is one (dusk.md §10) over rawp2p, written from the page and
sharing nothing with proto/. It judges what comes: an RPC that is too long, a second stream for the
same direction, a message whose signature does not hold or that it has had already fail the test."""

import itertools
import time

from rawp2p import Closed
from relay import SLOW
from wire import Key, WireError, lp, one, pb, read_uv, unpb, verify

MESHSUB, MESHSUB10 = '/meshsub/1.1.0', '/meshsub/1.0.0'
SYNC, DIRECTORY, FEDERATION = 'dusk/sync', 'dusk/directory', 'dusk/relay/federation'
OURS = [SYNC, DIRECTORY, FEDERATION]
RECORDS = 'sluice/relay/records'
RPC_MAX = 65536

_data = itertools.count(1)


def fresh(n=40):
    """A payload that no other test publishes."""
    head = b'%d.%d.' % (next(_data), time.monotonic_ns())
    return head + b'x' * max(0, n - len(head))


# ---- what is sent --------------------------------------------------------------------------------

def rpc(*fields):
    return lp(pb(*fields))


def subscribe(topic, on=True):
    return rpc((1, pb((1, int(on)), (2, topic.encode()))))


def graft(topic):
    return rpc((3, pb((3, pb((1, topic.encode()))))))


def prune(topic, backoff=60):
    return rpc((3, pb((4, pb((1, topic.encode()), (3, backoff))))))


def ihave(topic, *ids):
    return rpc((3, pb((1, pb((1, topic.encode()), *((2, i) for i in ids))))))


def iwant(*ids):
    return rpc((3, pb((2, pb(*((1, i) for i in ids))))))


def signed(key, topic, payload, seqno=None, author=None, **wrong):
    """A message's fields by tag, signed by key, perhaps in another's name; `wrong` replaces some, behind the signature's back."""
    seqno = time.time_ns() if seqno is None else seqno
    number = seqno if isinstance(seqno, bytes) else seqno.to_bytes(8, 'big')
    fields = {1: (author or key).peer_id, 2: payload, 3: number, 4: topic.encode()}
    fields[5] = key.sign(b'libp2p-pubsub:' + pb(*fields.items()))
    tags = {'sender': 1, 'data': 2, 'number': 3, 'name': 4, 'signature': 5, 'pub': 6}
    fields.update({tags[name]: value for name, value in wrong.items()})
    return fields


def message(fields):
    return pb(*sorted(fields.items()))


def publish(*messages):
    return rpc(*((2, message(m)) for m in messages))


# ---- message ids (§10.2) -------------------------------------------------------------------------

MASK = (1 << 64) - 1


def sip13(data):
    v = [0x736f6d6570736575, 0x646f72616e646f6d, 0x6c7967656e657261, 0x7465646279746573]

    def rotl(x, n):
        return (x << n | x >> (64 - n)) & MASK

    def turn():
        v[0] = v[0] + v[1] & MASK
        v[2] = v[2] + v[3] & MASK
        v[1] = rotl(v[1], 13) ^ v[0]
        v[3] = rotl(v[3], 16) ^ v[2]
        v[0] = rotl(v[0], 32)
        v[2] = v[2] + v[1] & MASK
        v[0] = v[0] + v[3] & MASK
        v[1] = rotl(v[1], 17) ^ v[2]
        v[3] = rotl(v[3], 21) ^ v[0]
        v[2] = rotl(v[2], 32)
    whole = len(data) // 8 * 8
    for at in range(0, whole + 8, 8):
        word = int.from_bytes(data[at:at + 8], 'little')
        if at == whole:
            word |= (len(data) & 255) << 56
        v[3] ^= word
        turn()
        v[0] ^= word
    v[2] ^= 255
    for _ in range(3):
        turn()
    return v[0] ^ v[1] ^ v[2] ^ v[3]


def msg_id(data, peer_id):
    """As both sides compute it, in decimal."""
    def le(n):
        return n.to_bytes(8, 'little')
    code, at = read_uv(peer_id)
    n, at = read_uv(peer_id, at)
    digest = peer_id[at:at + n]
    return b'%d' % sip13(le(len(data)) + data + le(code) + le(n) + digest)


# ---- a client ------------------------------------------------------------------------------------

class Gossiper:
    """One connection: reads everything the relay says by its stream into lists; `says` is ours. With
    read=False nothing is taken off the relay's stream once it is agreed: a stalled reader."""

    def __init__(self, relay, *topics, key=None, shard=None, read=True, protocol=MESHSUB, open=True,
                 speaks=(MESHSUB, MESHSUB10), source=None):
        self.key = key or Key()
        self.subscribed, self.messages, self.ihaves, self.iwants, self.control = [], [], [], [], []
        self.ids, self.streams, self.broken = set(), 0, None
        self.heard_at, self.began = [], time.monotonic()
        self.read = read
        self.session = relay.connect(self.key, shard=shard, source=source)
        self.session.protocols = {**self.session.protocols,
                                  **{name: self._inbound for name in speaks}}
        self.says = self.session.open(protocol) if open else None
        for topic in topics:
            self.send(subscribe(topic))

    # -- what the relay says; on the reactor's thread, with the lock held
    def _inbound(self, stream):
        self.streams += 1
        self.inbound = stream
        stream.auto_window = self.read
        stream.hook = self._read if self.read else None
        if self.read:
            self._read(stream)

    def _read(self, stream):
        try:
            while True:
                got = read_uv(stream.inbuf[:10])
                if got and got[0] > RPC_MAX:
                    raise WireError('an RPC of %d bytes' % got[0])
                body = stream.take_message()
                if body is None:
                    return
                self._rpc(unpb(body), len(body))
        except WireError as e:
            self.broken = e

    def _rpc(self, fields, size):
        if len(fields.get(1, ())) > 1 or (1 in fields and len(fields) > 1):
            raise WireError('subscriptions go one per RPC')
        for sub in fields.get(1, ()):
            sub = unpb(sub)
            self.subscribed.append((one(sub, 2).decode(), bool(one(sub, 1)), size))
        for raw in fields.get(2, ()):
            self._message(raw)
        for control in map(unpb, fields.get(3, ())):
            self.control.append(control)
            for part in map(unpb, control.get(1, ())):
                self.ihaves += [(one(part, 1).decode(), i) for i in part.get(2, ())]
            for part in map(unpb, control.get(2, ())):
                self.iwants += part.get(1, ())

    def _message(self, raw):
        m = unpb(raw)
        unsigned = pb(*((tag, one(m, tag)) for tag in (1, 2, 3, 4)))
        verify(one(m, 1)[2:], one(m, 5), b'libp2p-pubsub:' + unsigned)
        ident = msg_id(one(m, 2), one(m, 1))
        if ident in self.ids:
            raise WireError('the same message twice: %r' % one(m, 2)[:60])
        if one(m, 1) == self.key.peer_id:
            raise WireError('our own message came back')
        self.ids.add(ident)
        self.messages.append((one(m, 4).decode(), one(m, 2), raw))
        self.heard_at.append(time.monotonic())

    # -- for tests
    def send(self, data):
        self.says.send(data)

    def publish(self, topic, payload, **how):
        fields = signed(self.key, topic, payload, **how)
        self.send(publish(fields))
        return message(fields)

    def datas(self, topic=None):
        return [data for t, data, _ in list(self.messages) if topic in (None, t)]

    def wait(self, ready, what, timeout=10):
        if not self.session.wait(lambda: ready() or self.broken or self.session.dead,
                                 timeout * SLOW):
            raise AssertionError('%s: %d messages, %r' % (what, len(self.messages),
                                                          [d[:40] for d in self.datas()[-3:]]))
        self.check()

    def wait_for(self, data, timeout=10):
        self.wait(lambda: data in self.datas(), 'waiting for %r' % data[:40], timeout)

    def wait_up(self, timeout=10):
        """The relay has said its three topics, and knows ours: a ping is behind them."""
        self.wait(lambda: len(self.subscribed) >= 3, 'subscriptions', timeout)
        self.session.ping(time.monotonic_ns() & 0xffffffff, 10 * SLOW)
        return self

    def check(self):
        if self.broken:
            raise self.broken
        if self.session.dead:
            raise Closed(self.session.dead)

    def close(self):
        self.session.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
