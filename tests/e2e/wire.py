"""Encodings of libp2p.md §1, §3 and §11, written from the specification and sharing nothing with
proto/: varints, protobuf, peer ids, multiaddrs, signed envelopes, hop and stop messages."""

import hashlib
import ipaddress
import struct

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

MSS = '/multistream/1.0.0'
NOISE = '/noise'
YAMUX = '/yamux/1.0.0'
HOP = '/libp2p/circuit/relay/0.2.0/hop'
STOP = '/libp2p/circuit/relay/0.2.0/stop'
IDENTIFY = '/ipfs/id/1.0.0'
PUSH = '/ipfs/id/push/1.0.0'
PING = '/ipfs/ping/1.0.0'

OK, REFUSED, LIMIT, DENIED, FAILED, NO_RESERVATION = 100, 200, 201, 202, 203, 204
MALFORMED, UNEXPECTED = 400, 401
RESERVE, CONNECT, STATUS = 0, 1, 2  # hop; in a stop message CONNECT is 0 and STATUS 1

B58 = '123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz'


class WireError(Exception):
    """The peer sent something that the specification does not allow."""


def uv(n):
    out = bytearray()
    while n > 0x7f:
        out.append(n & 0x7f | 0x80)
        n >>= 7
    out.append(n)
    return bytes(out)


def read_uv(data, at=0):
    """(value, offset behind it), or None when more bytes are needed."""
    value = 0
    for i in range(10):
        if at + i >= len(data):
            return None
        value |= (data[at + i] & 0x7f) << (7 * i)
        if data[at + i] < 0x80:
            return value, at + i + 1
    raise WireError('varint too long')


def lp(data):
    return uv(len(data)) + data


def mss(*names):
    return b''.join(lp(name.encode() + b'\n') for name in names)


def base58(data):
    n = int.from_bytes(data, 'big')
    out = ''
    while n:
        n, digit = divmod(n, 58)
        out = B58[digit] + out
    return '1' * (len(data) - len(data.lstrip(b'\0'))) + out


def unbase58(text):
    n = 0
    for c in text:
        n = n * 58 + B58.index(c)
    return bytes(len(text) - len(text.lstrip('1'))) + n.to_bytes((n.bit_length() + 7) // 8, 'big')


# ---- protobuf ---------------------------------------------------------------------------------

def pb(*fields):
    """Pairs of tag and value: int is a varint, bytes length-delimited, None left out."""
    out = b''
    for tag, value in fields:
        if value is None:
            continue
        if isinstance(value, int):
            out += uv(tag << 3) + uv(value)
        else:
            out += uv(tag << 3 | 2) + lp(value)
    return out


def unpb(data):
    """{tag: [values]}; knows varint, fixed64, bytes, fixed32."""
    out, at = {}, 0
    while at < len(data):
        got = read_uv(data, at)
        if got is None:
            raise WireError('protobuf: cut tag')
        key, at = got
        tag, kind = key >> 3, key & 7
        if kind == 0 or kind == 2:
            got = read_uv(data, at)
            if got is None:
                raise WireError('protobuf: cut value')
            value, at = got
            if kind == 2:
                if at + value > len(data):
                    raise WireError('protobuf: cut bytes')
                value, at = bytes(data[at:at + value]), at + value
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
            value, at = int.from_bytes(data[at:at + size], 'little'), at + size
        else:
            raise WireError('protobuf: wire type %d' % kind)
        out.setdefault(tag, []).append(value)
    return out


def one(fields, tag, default=None):
    return fields[tag][-1] if tag in fields else default


# ---- keys, peer ids ---------------------------------------------------------------------------

class Key:
    """An identity of one of the four kinds (libp2p.md §1.2)."""

    def __init__(self, kind='ed25519', seed=None, bits=2048):
        self.kind = kind
        raw = serialization.Encoding.Raw, serialization.PublicFormat.Raw
        spki = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        if kind == 'ed25519':
            self.private = (ed25519.Ed25519PrivateKey.from_private_bytes(seed) if seed
                            else ed25519.Ed25519PrivateKey.generate())
            number, data = 1, self.private.public_key().public_bytes(*raw)
        elif kind == 'secp256k1':
            self.private = ec.generate_private_key(ec.SECP256K1())
            number, data = 2, self.private.public_key().public_bytes(
                serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
        elif kind == 'ecdsa':
            self.private = ec.generate_private_key(ec.SECP256R1())
            number, data = 3, self.private.public_key().public_bytes(*spki)
        elif kind == 'rsa':
            self.private = rsa.generate_private_key(65537, bits)
            number, data = 0, self.private.public_key().public_bytes(*spki)
        else:
            raise ValueError(kind)
        self.pb = pb((1, number), (2, data))
        self.peer_id = peer_id_of(self.pb)
        self.text = base58(self.peer_id)

    def sign(self, data):
        if self.kind == 'ed25519':
            return self.private.sign(data)
        if self.kind == 'rsa':
            return self.private.sign(data, padding.PKCS1v15(), hashes.SHA256())
        return self.private.sign(data, ec.ECDSA(hashes.SHA256()))


def peer_id_of(key_pb):
    if len(key_pb) <= 42:
        return b'\x00' + lp(key_pb)
    return b'\x12\x20' + hashlib.sha256(key_pb).digest()


def verify(key_pb, signature, data):
    """Of an Ed25519 key only: the relay has no other."""
    fields = unpb(key_pb)
    if one(fields, 1) != 1:
        raise WireError('not an Ed25519 key')
    try:
        ed25519.Ed25519PublicKey.from_public_bytes(one(fields, 2)).verify(signature, data)
    except InvalidSignature:
        raise WireError('bad signature') from None


# ---- multiaddr --------------------------------------------------------------------------------

CODES = {'ip4': 4, 'tcp': 6, 'ip6': 41, 'dns': 53, 'dns4': 54, 'dns6': 55, 'udp': 273,
         'p2p-circuit': 290, 'p2p': 421, 'quic-v1': 461, 'tls': 448, 'ws': 477}
NAMES = {code: name for name, code in CODES.items()}


def maddr(text):
    words, out = text.strip('/').split('/'), b''
    while words:
        name = words.pop(0)
        out += uv(CODES[name])
        if name in ('ip4', 'ip6'):
            out += ipaddress.ip_address(words.pop(0)).packed
        elif name in ('tcp', 'udp'):
            out += struct.pack('>H', int(words.pop(0)))
        elif name == 'p2p':
            out += lp(unbase58(words.pop(0)))
        elif name.startswith('dns'):
            out += lp(words.pop(0).encode())
    return out


def maddr_text(data):
    out, at = '', 0
    while at < len(data):
        code, at = read_uv(data, at)
        if code not in NAMES:
            raise WireError('multiaddr code %d' % code)
        name = NAMES[code]
        out += '/' + name
        size = {'ip4': 4, 'ip6': 16, 'tcp': 2, 'udp': 2}.get(name, 0)
        if name == 'p2p' or name.startswith('dns'):
            size, at = read_uv(data, at)
        if at + size > len(data):
            raise WireError('multiaddr cut')
        value, at = data[at:at + size], at + size
        if name in ('ip4', 'ip6'):
            out += '/' + str(ipaddress.ip_address(bytes(value)))
        elif name in ('tcp', 'udp'):
            out += '/%d' % struct.unpack('>H', value)
        elif name == 'p2p':
            out += '/' + base58(value)
        elif size:
            out += '/' + value.decode()
    return out


# ---- envelope, hop, stop, identify ------------------------------------------------------------

def open_voucher(envelope):
    """Checks a relay voucher (libp2p.md §1.4) and returns (relay, peer, expiration)."""
    fields = unpb(envelope)
    key, kind = one(fields, 1), one(fields, 2)
    payload, signature = one(fields, 3), one(fields, 5)
    if kind != b'\x03\x02':
        raise WireError('payload type %r' % kind)
    verify(key, signature, lp(b'libp2p-relay-rsvp') + lp(kind) + lp(payload))
    voucher = unpb(payload)
    if one(voucher, 1) != peer_id_of(key):
        raise WireError('voucher of another relay')
    return one(voucher, 1), one(voucher, 2), one(voucher, 3)


class Limit:
    def __init__(self, data):
        fields = unpb(data)
        self.duration, self.data = one(fields, 1, 0), one(fields, 2, 0)

    def __eq__(self, other):
        return (self.duration, self.data) == other

    def __repr__(self):
        return 'Limit(%d s, %d bytes)' % (self.duration, self.data)


class HopMessage:
    def __init__(self, data):
        fields = unpb(data)
        self.type = one(fields, 1)
        self.status = one(fields, 5)
        self.limit = Limit(one(fields, 4)) if 4 in fields else None
        self.reserved = 3 in fields
        reservation = unpb(one(fields, 3, b''))
        self.expire = one(reservation, 1)
        self.addrs = reservation.get(2, [])
        self.voucher = one(reservation, 3)


class StopMessage:
    def __init__(self, data):
        fields = unpb(data)
        self.type = one(fields, 1)
        self.has_peer = 2 in fields
        peer = unpb(one(fields, 2, b''))
        self.peer = one(peer, 1)
        self.addrs = peer.get(2, [])
        self.limit = Limit(one(fields, 3)) if 3 in fields else None
        self.status = one(fields, 4)


def hop_reserve():
    return lp(pb((1, RESERVE)))


def hop_connect(peer, addrs=()):
    return lp(pb((1, CONNECT), (2, pb((1, peer), *((2, a) for a in addrs)))))


def stop_status(status):
    return lp(pb((1, 1), (4, status)))


class Identify:
    def __init__(self, data):
        fields = unpb(data)
        self.key = one(fields, 1)
        self.listen = fields.get(2, [])
        self.protocols = [p.decode() for p in fields.get(3, [])]
        self.observed = one(fields, 4)
        self.protocol_version = one(fields, 5, b'').decode()
        self.agent = one(fields, 6, b'').decode()


def identify(key, protocols=(), agent='rawp2p/1', observed=None):
    return lp(pb((1, key.pb), *((3, p.encode()) for p in protocols), (4, observed),
                 (5, b'ipfs/0.1.0'), (6, agent.encode())))
