"""A client of Dusk's request-response protocols (dusk.md §6 to §9) over rawp2p, written from the
specification and sharing nothing with proto/. Its CBOR writer can write everything badly; its reader
judges what comes: a reply that is not the shortest encoding of itself, or has its keys in another
order than published, fails the test, whatever that is about."""

import struct

from rawp2p import Reset
from relay import SLOW
from wire import Key, WireError, base58

DIRECTORY = '/dusk/directory/1.0.0'
CREDENTIALS = '/dusk/turn-credentials/1.0.0'
GIF = '/dusk/gif/1.0.0'
MIB = 1 << 20

REFUSED = 'display_name must be 1-64 characters'
PROFILE = ['peer_id', 'display_name', 'last_seen', 'relay_addr']
CRED = ['username', 'password', 'ttl', 'uris']
PICTURE = ['id', 'title', 'url', 'preview', 'dims']


# ---- CBOR (RFC 8949) -----------------------------------------------------------------------------

def head(major, value, width=None):
    """The head of an item; in `width` bytes if given, however small it is."""
    if width is None:
        width = 0 if value < 24 else 1 if value < 256 else 2 if value < 65536 else \
            4 if value < 1 << 32 else 8
    if width == 0:
        return bytes([major << 5 | value])
    info = {1: 24, 2: 25, 4: 26, 8: 27}[width]
    return bytes([major << 5 | info]) + value.to_bytes(width, 'big')


class Raw(bytes):
    """An item that is encoded already."""


class Pairs(list):
    """A map in this order, perhaps with a key twice."""


def cbor(value):
    if isinstance(value, Raw):
        return bytes(value)
    if value is None:
        return b'\xf6'
    if value is True or value is False:
        return b'\xf5' if value else b'\xf4'
    if isinstance(value, int):
        return head(0, value) if value >= 0 else head(1, -1 - value)
    if isinstance(value, float):
        return b'\xfb' + struct.pack('>d', value)
    if isinstance(value, bytes):
        return head(2, len(value)) + value
    if isinstance(value, str):
        text = value.encode()
        return head(3, len(text)) + text
    if isinstance(value, (dict, Pairs)):
        pairs = list(value.items()) if isinstance(value, dict) else list(value)
        return head(5, len(pairs)) + b''.join(cbor(k) + cbor(v) for k, v in pairs)
    if isinstance(value, (list, tuple)):
        return head(4, len(value)) + b''.join(cbor(v) for v in value)
    raise TypeError(value)


def pieces(text, *at):
    """A text of indefinite length, cut at these bytes."""
    data, cuts = text.encode(), [0, *at, len(text.encode())]
    return Raw(b'\x7f' + b''.join(head(3, b - a) + data[a:b] for a, b in zip(cuts, cuts[1:])) +
               b'\xff')


def open_map(*pairs):
    return Raw(b'\xbf' + b''.join(cbor(k) + cbor(v) for k, v in pairs) + b'\xff')


def _read(data, at):
    major, info = data[at] >> 5, data[at] & 31
    at += 1
    if info >= 24:
        if info > 27:
            raise WireError('item %02x in a reply' % data[at - 1])
        width = 1 << (info - 24)
        value, at = int.from_bytes(data[at:at + width], 'big'), at + width
    else:
        value = info
    if major == 0:
        return value, at
    if major == 3:
        if value > len(data) - at:
            raise WireError('cut text')
        return data[at:at + value].decode(), at + value
    if major == 4:
        out = []
        for _ in range(value):
            item, at = _read(data, at)
            out.append(item)
        return out, at
    if major == 5:
        out = {}
        for _ in range(value):
            key, at = _read(data, at)
            if not isinstance(key, str) or key in out:
                raise WireError('key %r in a reply' % (key,))
            out[key], at = _read(data, at)
        return out, at
    raise WireError('major type %d in a reply' % major)


def uncbor(data):
    """The one item that `data` is, in its one canonical spelling."""
    try:
        value, at = _read(data, 0)
    except (IndexError, UnicodeDecodeError) as e:
        raise WireError('%s: %s' % (e, data[:100].hex())) from None
    if at != len(data) or cbor(value) != data:
        raise WireError('not canonical: %s' % data[:200].hex())
    return value


# ---- what is asked -------------------------------------------------------------------------------

def register(name, addr=''):
    return cbor({'Register': {'display_name': name, 'relay_addr': addr}})


def search(query):
    return cbor({'Search': {'query': query}})


REMOVE = cbor('Remove')


def credentials(peer):
    return cbor({'peer_id': peer})


def gif(kind='search', query='cat', limit=20):
    return cbor({'kind': kind, 'query': query, 'limit': limit})


def begin(session, protocol, request=b'', fin=True):
    """A stream with a request on its way."""
    stream = session.open(protocol, timeout=20 * SLOW)
    if request:
        stream.send(request)
    if fin:
        stream.close_write()
    return stream


def finish(stream, timeout=20):
    """All bytes until the relay ended the stream; None when it reset it."""
    try:
        return stream.recv_to_eof(timeout * SLOW)
    except Reset:
        return None


def judged(value, keys):
    """A map with just these keys, in this order."""
    if not isinstance(value, dict) or list(value) != keys:
        raise WireError('%r instead of %r' % (value, keys))
    return value


class Peer:
    """A connection of one identity."""

    def __init__(self, relay, key=None, **options):
        self.relay, self.key = relay, key or Key()
        self.session = relay.connect(self.key, **options)

    @property
    def id(self):
        return base58(self.key.peer_id)

    @property
    def address(self):
        """What an honest client tells the directory (§7)."""
        return '%s/p2p-circuit/p2p/%s' % (self.relay.address, self.id)

    def raw(self, protocol, request, fin=True):
        """The reply's bytes; b'' for an end without one, None for a reset."""
        return finish(begin(self.session, protocol, request, fin))

    def directory(self, request):
        """'Ok', a list of profiles, or ('Error', text)."""
        raw = self.raw(DIRECTORY, request)
        if not raw:
            return raw
        reply = uncbor(raw)
        if reply == 'Ok':
            return 'Ok'
        (name, value), = reply.items()
        if name == 'Error' and isinstance(value, str):
            return 'Error', value
        if name != 'Results' or not isinstance(value, list) or len(value) > 20:
            raise WireError('%r' % (reply,))
        for row in value:
            judged(row, PROFILE)
        return value

    def register(self, name, addr=None):
        return self.directory(register(name, self.address if addr is None else addr))

    def search(self, query):
        return self.directory(search(query))

    def names(self, query):
        return [row['display_name'] for row in self.search(query)]

    def remove(self):
        return self.directory(REMOVE)

    def credentials(self, peer=None):
        reply = judged(uncbor(self.raw(CREDENTIALS, credentials(peer or self.id))), CRED)
        return reply

    def gifs(self, kind='search', query='cat', limit=20):
        reply = judged(uncbor(self.raw(GIF, gif(kind, query, limit))), ['results'])
        for one in reply['results']:
            judged(one, PICTURE)
        return reply['results']

    def alive(self):
        return self.session.alive()

    def close(self):
        self.session.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
