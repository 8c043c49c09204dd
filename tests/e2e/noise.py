"""Noise_XX_25519_ChaChaPoly_SHA256, the initiator's side, as libp2p.md §4 describes it. Every step
is open to a test that wants to do it wrongly."""

import hashlib
import hmac
import struct

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from wire import WireError, one, pb, peer_id_of, unpb, verify

NAME = b'Noise_XX_25519_ChaChaPoly_SHA256'
SIGNED = b'noise-libp2p-static-key:'
PLAIN_MAX = 65519


def raw_public(private):
    return private.public_key().public_bytes(serialization.Encoding.Raw,
                                             serialization.PublicFormat.Raw)


def payload(key, static_public, muxers=(), signature=None):
    if signature is None:
        signature = key.sign(SIGNED + static_public)
    extensions = b''.join(pb((2, m.encode())) for m in muxers)
    return pb((1, key.pb), (2, signature), (4, extensions if muxers else None))


class Cipher:
    def __init__(self, key):
        self.aead = ChaCha20Poly1305(key)
        self.n = 0

    def _nonce(self):
        nonce = struct.pack('<IQ', 0, self.n)
        self.n += 1
        return nonce

    def seal(self, data, ad=b''):
        return self.aead.encrypt(self._nonce(), bytes(data), ad)

    def open(self, data, ad=b''):
        try:
            return self.aead.decrypt(self._nonce(), bytes(data), ad)
        except InvalidTag:
            raise WireError('noise: bad tag') from None


class Initiator:
    """msg1() → read2() → msg3() → seal/open."""

    def __init__(self, key, static=None, ephemeral=None):
        self.key = key
        self.s = static or X25519PrivateKey.generate()
        self.e = ephemeral or X25519PrivateKey.generate()
        self.h = self.ck = NAME
        self.cipher = None
        self._mix_hash(b'')
        self.remote_key = self.remote_id = None
        self.remote_muxers = []

    def _mix_hash(self, data):
        self.h = hashlib.sha256(self.h + data).digest()

    def _hkdf(self, secret):
        prk = hmac.digest(self.ck, secret, 'sha256')
        a = hmac.digest(prk, b'\x01', 'sha256')
        return a, hmac.digest(prk, a + b'\x02', 'sha256')

    def _mix_key(self, private, public):
        self.ck, key = self._hkdf(private.exchange(X25519PublicKey.from_public_bytes(public)))
        self.cipher = Cipher(key)

    def _seal(self, data):
        out = self.cipher.seal(data, self.h)
        self._mix_hash(out)
        return out

    def _open(self, data):
        out = self.cipher.open(data, self.h)
        self._mix_hash(data)
        return out

    def msg1(self, early=b''):
        e = raw_public(self.e)
        self._mix_hash(e)
        self._mix_hash(early)
        return e + early

    def read2(self, data):
        re, sealed_s, sealed_payload = data[:32], data[32:80], data[80:]
        self._mix_hash(re)
        self._mix_key(self.e, re)
        rs = self._open(sealed_s)
        self._mix_key(self.e, rs)
        fields = unpb(self._open(sealed_payload))
        self.remote_key = one(fields, 1)
        verify(self.remote_key, one(fields, 2), SIGNED + rs)
        self.remote_id = peer_id_of(self.remote_key)
        self.remote_muxers = [m.decode() for m in unpb(one(fields, 4, b'')).get(2, [])]
        self._re = re

    def msg3(self, muxers=(), signature=None, body=None):
        static = raw_public(self.s)
        sealed_s = self._seal(static)
        self._mix_key(self.s, self._re)
        if body is None:
            body = payload(self.key, static, muxers, signature)
        out = sealed_s + self._seal(body)
        k1, k2 = self._hkdf(b'')
        self.tx, self.rx = Cipher(k1), Cipher(k2)
        return out

    def seal(self, data):
        """One transport frame with its length."""
        sealed = self.tx.seal(data)
        return struct.pack('>H', len(sealed)) + sealed


def frame(message):
    return struct.pack('>H', len(message)) + message


