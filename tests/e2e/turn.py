"""A STUN and TURN client written from the RFCs (8489, 8656, 6062, 5780, 8016), sharing nothing with
`proto/`. It keeps the rules by default, checks each answer as strictly as it can (lengths, zero
padding, fingerprint, integrity under its own key), and can break each rule."""

import base64
import collections
import hashlib
import hmac
import os
import select
import socket
import struct
import time
import zlib

from relay import SLOW, next_ip

COOKIE = 0x2112A442
COOKIE_BYTES = struct.pack('!I', COOKIE)
REQUEST, INDICATION, SUCCESS, ERROR = 0, 1, 2, 3

BINDING, ALLOCATE, REFRESH, SEND, DATA_METHOD = 0x001, 0x003, 0x004, 0x006, 0x007
CREATE_PERMISSION, CHANNEL_BIND = 0x008, 0x009
CONNECT, CONNECTION_BIND, CONNECTION_ATTEMPT = 0x00A, 0x00B, 0x00C

MAPPED_ADDRESS, CHANGE_REQUEST, USERNAME = 0x0001, 0x0003, 0x0006
INTEGRITY, ERROR_CODE, UNKNOWN_ATTRIBUTES = 0x0008, 0x0009, 0x000A
CHANNEL_NUMBER, LIFETIME, XOR_PEER_ADDRESS, DATA = 0x000C, 0x000D, 0x0012, 0x0013
REALM, NONCE, XOR_RELAYED_ADDRESS = 0x0014, 0x0015, 0x0016
REQUESTED_ADDRESS_FAMILY, EVEN_PORT, REQUESTED_TRANSPORT = 0x0017, 0x0018, 0x0019
DONT_FRAGMENT, ACCESS_TOKEN, INTEGRITY_SHA256 = 0x001A, 0x001B, 0x001C
PASSWORD_ALGORITHM, USERHASH, XOR_MAPPED_ADDRESS = 0x001D, 0x001E, 0x0020
RESERVATION_TOKEN, PRIORITY, USE_CANDIDATE = 0x0022, 0x0024, 0x0025
PADDING, RESPONSE_PORT, CONNECTION_ID = 0x0026, 0x0027, 0x002A
ADDITIONAL_ADDRESS_FAMILY, ADDRESS_ERROR_CODE = 0x8000, 0x8001
PASSWORD_ALGORITHMS, ICMP, SOFTWARE, ALTERNATE_SERVER = 0x8002, 0x8004, 0x8022, 0x8023
FINGERPRINT, ICE_CONTROLLED = 0x8028, 0x8029
RESPONSE_ORIGIN, OTHER_ADDRESS, MOBILITY_TICKET = 0x802B, 0x802C, 0x8030

MD5, SHA256 = 1, 2
BOTH_ALGORITHMS = bytes.fromhex('0002000000010000')


# ---- messages -----------------------------------------------------------------------------------

def type_of(method, cls):
    return (method & 0xF) | (method & 0x70) << 1 | (method & 0xF80) << 2 | \
        (cls & 1) << 4 | (cls & 2) << 7


def attr(number, value=b'', pad=b'\0'):
    return struct.pack('!HH', number, len(value)) + value + pad * (-len(value) % 4)


def xor_address(ip, port, tid, family=None):
    """The value of XOR-PEER-ADDRESS and its like. `family` lies about it."""
    v6 = ':' in ip
    raw = socket.inet_pton(socket.AF_INET6 if v6 else socket.AF_INET, ip)
    key = COOKIE_BYTES + tid
    return struct.pack('!BBH', 0, family or 1 + v6, port ^ COOKIE >> 16) + \
        bytes(a ^ b for a, b in zip(raw, key))


def read_address(value, tid=None):
    """(ip, port); XORed when a transaction id is given."""
    zero, family, port = struct.unpack_from('!BBH', value)
    if zero != 0 or (family, len(value)) not in ((1, 8), (2, 20)):
        raise ValueError('an address of family %d with %d bytes' % (family, len(value)))
    raw = value[4:]
    if tid is not None:
        port ^= COOKIE >> 16
        raw = bytes(a ^ b for a, b in zip(raw, COOKIE_BYTES + tid))
    return socket.inet_ntop(socket.AF_INET6 if family == 2 else socket.AF_INET, raw), port


def peer(ip, port=0, family=None):
    """An XOR-PEER-ADDRESS for Client.make."""
    return lambda tid: (XOR_PEER_ADDRESS, xor_address(ip, port, tid, family))


def u32(number, value):
    return number, struct.pack('!I', value)


UDP_TRANSPORT = REQUESTED_TRANSPORT, b'\x11\0\0\0'
TCP_TRANSPORT = REQUESTED_TRANSPORT, b'\x06\0\0\0'


def family(number, value):
    return number, bytes((value, 0, 0, 0))


def fix_length(message, extra):
    """What integrity is computed over: the length as if the message ended behind the attribute."""
    return message[:2] + struct.pack('!H', len(message) - 20 + extra) + message[4:]


def mac_attr(message, key, algorithm, keep=None):
    if algorithm == SHA256:
        size = keep or 32
        tag = hmac.new(key, fix_length(message, 4 + size), hashlib.sha256).digest()[:size]
        return attr(INTEGRITY_SHA256, tag)
    return attr(INTEGRITY, hmac.new(key, fix_length(message, 24), hashlib.sha1).digest())


def fingerprint_attr(message):
    return attr(FINGERPRINT, struct.pack('!I', zlib.crc32(fix_length(message, 8)) ^ 0x5354554E))


def header(kind, length, tid):
    return struct.pack('!HHI', kind, length, COOKIE) + tid


def message(kind, attrs=(), tid=None, key=None, mac=MD5, fingerprint=False, tail=()):
    """One message. attrs: (number, value) pairs, functions of the transaction id that give one, or
    bytes as they are. tail: the same, behind the integrity."""
    tid = tid or os.urandom(12)

    def packed(items):
        out = b''
        for item in items:
            item = item(tid) if callable(item) else item
            out += item if isinstance(item, bytes) else attr(*item)
        return out
    raw = header(kind, 0, tid) + packed(attrs)
    if key is not None:
        raw += mac_attr(raw, key, mac)
    raw = fix_length(raw + packed(tail), 0)
    if fingerprint:
        raw = fix_length(raw + fingerprint_attr(raw), 0)
    return raw


class Message:
    """A message that a server sent. Whatever is not exactly as RFC 8489 has it is a ValueError."""

    def __init__(self, raw):
        if len(raw) < 20:
            raise ValueError('%d bytes' % len(raw))
        self.raw = raw
        self.type, length, cookie = struct.unpack_from('!HHI', raw)
        self.tid = raw[8:20]
        if self.type >> 14 or cookie != COOKIE or length + 20 != len(raw) or length % 4:
            raise ValueError('no STUN header: %s' % raw[:20].hex())
        self.method = (self.type & 0xF) | (self.type >> 1 & 0x70) | (self.type >> 2 & 0xF80)
        self.cls = (self.type >> 4 & 1) | (self.type >> 7 & 2)
        self.attrs, self.at, here = [], {}, 20
        while here < len(raw):
            number, size = struct.unpack_from('!HH', raw, here)
            end = here + 4 + size
            padded = end + -size % 4
            if padded > len(raw):
                raise ValueError('attribute %04x ends behind the message' % number)
            if any(raw[end:padded]):
                raise ValueError('attribute %04x has padding %s' % (number, raw[end:padded].hex()))
            self.attrs.append((number, raw[here + 4:end]))
            self.at.setdefault(number, here)
            here = padded
        if self.has(FINGERPRINT):
            at = self.at[FINGERPRINT]
            if at != len(raw) - 8 or raw[at:] != fingerprint_attr(raw[:at]):
                raise ValueError('wrong FINGERPRINT')

    def all(self, number):
        return [value for n, value in self.attrs if n == number]

    def get(self, number):
        found = self.all(number)
        return found[0] if found else None

    def has(self, number):
        return number in self.at

    def numbers(self):
        return [number for number, _ in self.attrs]

    @property
    def code(self):
        """Of an error; 0 for a success."""
        if self.cls != ERROR:
            return 0
        value = self.get(ERROR_CODE)
        assert len(value) == 4, 'a reason phrase: %r' % value
        assert value[:2] == b'\0\0' and 3 <= value[2] <= 6 and value[3] < 100, value
        return value[2] * 100 + value[3]

    @property
    def unknown(self):
        value = self.get(UNKNOWN_ATTRIBUTES)
        return list(struct.unpack('!%dH' % (len(value) // 2), value))

    def address(self, number=XOR_MAPPED_ADDRESS):
        return read_address(self.get(number), self.tid)

    @property
    def relayed(self):
        return self.address(XOR_RELAYED_ADDRESS)

    @property
    def relays(self):
        return [read_address(value, self.tid) for value in self.all(XOR_RELAYED_ADDRESS)]

    @property
    def lifetime(self):
        return struct.unpack('!I', self.get(LIFETIME))[0]

    def signed_by(self, key):
        """The algorithm of its integrity, if that verifies; None without one."""
        for number, mac in ((INTEGRITY_SHA256, SHA256), (INTEGRITY, MD5)):
            if self.has(number):
                at = self.at[number]
                assert not self.has(SOFTWARE) or self.at[SOFTWARE] < at
                want = mac_attr(self.raw[:at], key, mac)
                if self.raw[at:at + len(want)] != want:
                    raise ValueError('wrong integrity %04x' % number)
                return mac
        return None

    def __repr__(self):
        return '<%04x %s %s>' % (self.type, self.code or '', [hex(n) for n in self.numbers()])


Chan = collections.namedtuple('Chan', 'number data')


def channel_data(number, data, length=None, pad=b''):
    return struct.pack('!HH', number, len(data) if length is None else length) + data + pad


def unit(raw):
    """What a server sent: a Message or a Chan."""
    if raw[0] >> 6 == 1:
        number, length = struct.unpack_from('!HH', raw)
        if 4 + length != len(raw):
            raise ValueError('ChannelData of %d in %d bytes' % (length, len(raw)))
        return Chan(number, raw[4:])
    return Message(raw)


# ---- paths --------------------------------------------------------------------------------------

class Closed(Exception):
    """The other side has closed."""


def bound(kind, ip, port=0):
    """A socket of this host's; every client has an address of its own (see relay.next_ip)."""
    v6 = ':' in ip
    sock = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((ip, port))
    return sock


class UdpPath:
    stream = False

    def __init__(self, server, source=None, port=0, make=bound):
        self.server = server
        self.sock = make(socket.SOCK_DGRAM, source or
                         ('::1' if ':' in server[0] else next_ip()), port)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.local = self.sock.getsockname()[:2]

    def send(self, raw):
        self.sock.sendto(raw, self.server)

    def recv(self, timeout):
        """One datagram, only from the address that was asked; None: it did not come."""
        self.sock.settimeout(max(timeout, 0.001))
        try:
            raw, source = self.sock.recvfrom(65536)
        except socket.timeout:
            return None
        if source[:2] != self.server[:2]:
            raise ValueError('an answer from %s' % (source,))
        return raw

    def close(self):
        self.sock.close()


class TcpPath:
    stream = True

    def __init__(self, server, source=None, port=0, make=bound):
        self.sock = make(socket.SOCK_STREAM, source or
                         ('::1' if ':' in server[0] else next_ip()), port)
        self.sock.settimeout(10 * SLOW)
        self.sock.connect(server)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.local, self.server = self.sock.getsockname()[:2], server
        self.inbuf = bytearray()

    def send(self, raw):
        self.sock.settimeout(10 * SLOW)
        self.sock.sendall(raw)

    def _more(self, end):
        self.sock.settimeout(max(end - time.monotonic(), 0.001))
        try:
            got = self.sock.recv(1 << 18)
        except socket.timeout:
            return False
        except OSError as error:
            raise Closed(error) from None
        if not got:
            raise Closed('with %d bytes unread' % len(self.inbuf))
        self.inbuf += got
        return True

    def _take(self, n):
        out = bytes(self.inbuf[:n])
        del self.inbuf[:n]
        return out

    def recv(self, timeout):
        """One unit of the stream, without the padding of ChannelData, which is zero."""
        end = time.monotonic() + timeout
        while True:
            if len(self.inbuf) >= 4:
                kind, length = struct.unpack_from('!HH', self.inbuf)
                if kind >> 14 == 0 and len(self.inbuf) >= 20 + length:
                    return self._take(20 + length)
                if kind >> 14 == 1 and len(self.inbuf) >= 4 + length + -length % 4:
                    raw = self._take(4 + length + -length % 4)
                    if any(raw[4 + length:]):
                        raise ValueError('padding %s' % raw[4 + length:].hex())
                    return raw[:4 + length]
                if kind >> 14 > 1:
                    raise ValueError('neither STUN nor ChannelData: %s' % self.inbuf[:20].hex())
            if not self._more(end):
                return None

    def raw(self, n, timeout=10):
        """n bytes of payload, for a connection that is a data connection now (RFC 6062)."""
        end = time.monotonic() + timeout * SLOW
        while len(self.inbuf) < n:
            if not self._more(end):
                raise AssertionError('%d of %d bytes' % (len(self.inbuf), n))
        return self._take(n)

    def closed_within(self, seconds):
        """Does the server close it? What it says before is kept."""
        end = time.monotonic() + seconds * SLOW
        try:
            while self._more(end):
                pass
        except Closed:
            return True
        return False

    def close(self, reset=False):
        if reset:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.sock.close()


# ---- credentials --------------------------------------------------------------------------------

def long_term_key(algorithm, user, realm, password):
    text = b':'.join(part.encode() for part in (user, realm, password))
    return (hashlib.sha256 if algorithm == SHA256 else hashlib.md5)(text).digest()


def ephemeral(secret, seconds=3600, name='alice', digest='sha1', now=None):
    """(username, password) as a service derives them from the secret it shares with us."""
    user = '%d' % ((time.time() if now is None else now) + seconds) + (':' + name if name else '')
    tag = hmac.new(secret.encode(), user.encode(), digest).digest()
    return user, base64.b64encode(tag).decode()


# ---- a client -----------------------------------------------------------------------------------

class Client:
    """One 5-tuple. offer: how RFC 8489 is spoken: None as an old client (MD5, SHA-1), else the
    PASSWORD-ALGORITHM that is chosen; mac: with which integrity requests are signed."""

    def __init__(self, path, user='user', password='pass', offer=None, mac=MD5, userhash=False,
                 fingerprint=False):
        self.path, self.user, self.password = path, user, password
        self.offer, self.mac, self.userhash = offer, mac, userhash
        self.fingerprint = fingerprint
        self.realm = self.nonce = self.algorithms = None
        self.stash = collections.deque()
        self.granted = None  # the answer to the Allocate

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.path.close()

    @property
    def key(self):
        return long_term_key(self.offer or MD5, self.user, self.realm, self.password)

    def credentials(self):
        who = (USERNAME, self.user.encode())
        if self.userhash:
            text = '%s:%s' % (self.user, self.realm)
            who = USERHASH, hashlib.sha256(text.encode()).digest()
        out = [who, (REALM, self.realm.encode()), (NONCE, self.nonce)]
        if self.offer:
            out += [(PASSWORD_ALGORITHMS, self.algorithms),
                    (PASSWORD_ALGORITHM, struct.pack('!HH', self.offer, 0))]
        return out

    def make(self, method, *attrs, cls=REQUEST, tid=None, sign=True, tail=(), key=None):
        """A request with credentials as far as they are known."""
        sign = sign and self.nonce is not None and cls == REQUEST and method != BINDING
        return message(type_of(method, cls), (*attrs, *(self.credentials() if sign else ())), tid,
                       (key or self.key) if sign else None, self.mac, self.fingerprint, tail)

    def recv(self, timeout=3.0):
        """The next unit that came; None if none did."""
        if self.stash:
            return self.stash.popleft()
        raw = self.path.recv(timeout)
        return None if raw is None else unit(raw)

    def wait(self, wanted, timeout=3.0):
        """The first unit that is wanted; what came before it is kept for recv."""
        end, kept = time.monotonic() + timeout * SLOW, []
        try:
            while True:
                got = self.recv(end - time.monotonic())
                if got is None or wanted(got):
                    return got
                kept.append(got)
        finally:
            self.stash.extendleft(reversed(kept))

    def reply(self, raw, timeout=3.0):
        """The answer to a message that has been sent, by its transaction id."""
        tid = raw[8:20]
        got = self.wait(lambda u: isinstance(u, Message) and u.tid == tid, timeout)
        if got is not None:
            assert got.type & 0xFEEF == struct.unpack_from('!H', raw)[0], got
            assert got.has(FINGERPRINT) == self.fingerprint, 'FINGERPRINT as in the request'
            assert not got.has(SOFTWARE)
        return got

    def exchange(self, raw, timeout=3.0):
        self.path.send(raw)
        return self.reply(raw, timeout)

    def ask(self, method, *attrs, verify=True, timeout=3.0, **how):
        """One request as `make` has it; its answer, with an integrity of ours but for 401 and 438,
        which have none."""
        raw = self.make(method, *attrs, **how)
        got = self.exchange(raw, timeout)
        assert got is not None, 'no answer to %04x' % method
        if got.code in (401, 438):
            assert not got.has(INTEGRITY) and not got.has(INTEGRITY_SHA256)
        elif verify and self.nonce is not None and how.get('sign', True) and method != BINDING:
            want = self.mac if self.offer else MD5
            assert got.signed_by(self.key) == want, got
        return got

    def take(self, challenge):
        """The realm and the nonce of a 401 or 438."""
        self.realm, self.nonce = challenge.get(REALM).decode(), challenge.get(NONCE)
        self.algorithms = challenge.get(PASSWORD_ALGORITHMS)
        return self

    def challenge(self):
        """Asks without credentials; the 401."""
        got = self.ask(ALLOCATE, UDP_TRANSPORT, sign=False)
        assert got.code == 401, got
        self.take(got)
        return got

    def request(self, method, *attrs, **how):
        """As a client does: with a new nonce once, after 438 or the first 401."""
        if self.nonce is None:
            self.challenge()
        got = self.ask(method, *attrs, **how)
        if got.code == 438:
            got = self.take(got).ask(method, *attrs, **how)
        return got

    def ok(self, method, *attrs, **how):
        got = self.request(method, *attrs, **how)
        assert got.cls == SUCCESS, got
        return got

    def allocate(self, *attrs, transport=UDP_TRANSPORT, **how):
        self.granted = self.ok(ALLOCATE, transport, *attrs, **how)
        return self

    @property
    def relayed(self):
        return self.granted.relayed

    def refresh(self, seconds=None, *attrs, **how):
        return self.request(REFRESH, *(() if seconds is None else (u32(LIFETIME, seconds),)),
                            *attrs, **how)

    def permit(self, *ips, **how):
        return self.request(CREATE_PERMISSION, *(peer(ip) for ip in ips), **how)

    def bind_channel(self, number, at, **how):
        return self.request(CHANNEL_BIND, (CHANNEL_NUMBER, struct.pack('!HH', number, 0)),
                            peer(*at), **how)

    def send(self, at, data, *attrs):
        """A Send indication."""
        self.path.send(message(type_of(SEND, INDICATION), (peer(*at), *attrs, (DATA, data)),
                               fingerprint=self.fingerprint))

    def send_channel(self, number, data):
        self.path.send(channel_data(number, data, pad=bytes(-len(data) % 4) if self.path.stream
                                    else b''))

    def data(self, timeout=3.0):
        """What a peer sent: (channel number or the peer's address, bytes); None: nothing came."""
        def of_peer(u):
            return isinstance(u, Chan) or u.type == type_of(DATA_METHOD, INDICATION)
        got = self.wait(of_peer, timeout)
        if got is None or isinstance(got, Chan):
            return got
        assert self.fingerprint or not got.has(FINGERPRINT), 'nobody asked for it'
        assert not got.has(INTEGRITY) and not got.has(INTEGRITY_SHA256)
        return got.address(XOR_PEER_ADDRESS), got.get(DATA) if got.has(DATA) else got

    def quiet(self, *raws, late=0.02):
        """Sends these, then a Binding: its answer is the first thing that comes, so that nothing
        answered what stood before it on the same 5-tuple. And nothing comes late."""
        for raw in raws:
            self.path.send(raw)
        probe = message(type_of(BINDING, REQUEST))
        self.path.send(probe)
        got = self.recv(3 * SLOW)
        assert isinstance(got, Message) and got.tid == probe[8:20], got
        assert got.type == type_of(BINDING, SUCCESS), got
        assert not late or self.path.recv(late) is None
        return True


# ---- peers --------------------------------------------------------------------------------------

class UdpPeer:
    """Somebody at the other side of the relay."""

    def __init__(self, ip=None, port=0, make=bound):
        self.sock = make(socket.SOCK_DGRAM, ip or next_ip(), port)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.at = self.sock.getsockname()[:2]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def send(self, data, to):
        self.sock.sendto(data, to)

    def recv(self, timeout=3.0):
        """(bytes, from whom) or None"""
        if not select.select([self.sock], [], [], timeout * SLOW)[0]:
            return None
        data, source = self.sock.recvfrom(65536)
        return data, source[:2]

    def close(self):
        self.sock.close()
