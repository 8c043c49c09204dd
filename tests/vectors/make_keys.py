#!/usr/bin/python3
"""Writes keys.txt: public keys and signatures of every kind that a peer may bring, and the forgeries
that a careless verifier takes. Needs python3-cryptography. The keys are new at each run; the tests
only compare what belongs together."""
import os
import sys
from hashlib import sha256

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

MESSAGE = b"noise-libp2p-static-key:" + bytes(range(32))
SHA256_INFO = bytes.fromhex("3031300d060960864801650304020105000420")


def out(name, data):
    print(name, data.hex() or "-")


def der(tag, body):
    n = len(body)
    head = bytes([n]) if n < 128 else bytes([0x81, n]) if n < 256 else bytes([0x82]) + n.to_bytes(2, "big")
    return bytes([tag]) + head + body


def der_int(v):
    return der(2, v.to_bytes(v.bit_length() // 8 + 1, "big"))


def rsa_spki(n, e, algorithm=bytes.fromhex("06092a864886f70d0101010500")):
    return der(0x30, der(0x30, algorithm) + der(3, b"\0" + der(0x30, der_int(n) + der_int(e))))


def spki_of(key):
    return key.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def point_of(key, form=serialization.PublicFormat.UncompressedPoint):
    return key.public_key().public_bytes(serialization.Encoding.X962, form)


def rsa_vectors():
    for bits in (1024, 2048, 4096, 8192):
        key = rsa.generate_private_key(65537, bits)
        name = f"rsa{bits}"
        out(f"{name}_spki", spki_of(key))
        out(f"{name}_sig", key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256()))
        if bits == 2048:
            rsa_forgeries(key)
    # Longer than anybody may bring: refused by its length, so the factors do not matter.
    for bits in (2047, 8193, 16384):
        n = int.from_bytes(os.urandom(bits // 8 + 1), "big") % (1 << bits) | 1 << (bits - 1) | 1
        out(f"rsa{bits}_spki", rsa_spki(n, 65537))


def rsa_forgeries(key):
    p = key.private_numbers()
    n, e = p.public_numbers.n, p.public_numbers.e
    digest = sha256(MESSAGE).digest()

    def sign_block(block):
        assert len(block) == 256
        return pow(int.from_bytes(block, "big"), p.d, n).to_bytes(256, "big")

    def pad(info, fill=b"\xff"):
        return b"\x00\x01" + fill * (253 - len(info)) + b"\x00" + info

    good = sign_block(pad(SHA256_INFO + digest))
    assert good == key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA256())
    out("rsa_bad_longer", good + b"\0")
    out("rsa_bad_leading_zero", b"\0" + good)
    out("rsa_bad_shorter", good[:-1])
    out("rsa_bad_empty", b"")
    out("rsa_bad_zero", bytes(256))
    out("rsa_bad_modulus", n.to_bytes(256, "big"))
    over = int.from_bytes(good, "big") + n
    if over < 1 << 2048:
        out("rsa_bad_plus_modulus", over.to_bytes(256, "big"))
    out("rsa_bad_garbage_after", sign_block(b"\x00\x01" + b"\xff" * 8 + b"\x00" + SHA256_INFO + digest + bytes(194)))
    out("rsa_bad_fill", sign_block(pad(SHA256_INFO + digest, b"\xfe")))
    out("rsa_bad_type2", sign_block(b"\x00\x02" + b"\xff" * 202 + b"\x00" + SHA256_INFO + digest))
    out("rsa_bad_raw_hash", sign_block(pad(digest)))
    out("rsa_bad_no_null", sign_block(pad(bytes.fromhex("302f300b0609608648016503040201" "0420") + digest)))
    out("rsa_bad_long_length", sign_block(pad(bytes.fromhex("308131300d060960864801650304020105000420") + digest)))
    out("rsa_bad_sha1", key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA1()))
    out("rsa_bad_sha512", key.sign(MESSAGE, padding.PKCS1v15(), hashes.SHA512()))
    out("rsa_bad_pss", key.sign(MESSAGE, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256()))
    # Keys that a reader must not take. With e = 1 the padded digest is its own signature.
    out("rsa_key_e1_spki", rsa_spki(n, 1))
    out("rsa_key_e1_sig", pad(SHA256_INFO + digest))
    out("rsa_key_even_e_spki", rsa_spki(n, 65538))
    out("rsa_key_even_n_spki", rsa_spki(n - 1, e))
    out("rsa_key_huge_e_spki", rsa_spki(n, (1 << 32) + 1))
    out("rsa_key_no_null_spki", rsa_spki(n, e, bytes.fromhex("06092a864886f70d010101")))
    out("rsa_key_pss_spki", rsa_spki(n, e, bytes.fromhex("06092a864886f70d01010a0500")))
    spki = rsa_spki(n, e)
    out("rsa_key_trailing_spki", spki + b"\0")
    out("rsa_key_negative_n_spki", der(0x30, der(0x30, bytes.fromhex("06092a864886f70d0101010500")) +
        der(3, b"\0" + der(0x30, der(2, n.to_bytes(256, "big")) + der_int(e)))))
    out("rsa_key_padded_n_spki", der(0x30, der(0x30, bytes.fromhex("06092a864886f70d0101010500")) +
        der(3, b"\0" + der(0x30, der(2, b"\0\0" + n.to_bytes(256, "big")) + der_int(e)))))
    out("rsa_key_unused_bits_spki", der(0x30, der(0x30, bytes.fromhex("06092a864886f70d0101010500")) +
        der(3, b"\1" + der(0x30, der_int(n) + der_int(e)))))


def ecdsa_vectors():
    for name, curve, order in (
        ("p256", ec.SECP256R1(), 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551),
        ("p384", ec.SECP384R1(), None),
        ("p521", ec.SECP521R1(), None),
        ("p224", ec.SECP224R1(), None),
        ("k256", ec.SECP256K1(), 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141),
    ):
        key = ec.generate_private_key(curve)
        sig = key.sign(MESSAGE, ec.ECDSA(hashes.SHA256()))
        out(f"{name}_spki", spki_of(key))
        out(f"{name}_sig", sig)
        if order:
            ecdsa_forgeries(name, key, sig, order)
    key = ec.generate_private_key(ec.SECP256R1())
    x962 = point_of(key)
    spki = spki_of(key)
    head = spki[: -len(x962)]
    out("p256_key_off_curve_spki", head + x962[:-1] + bytes([x962[-1] ^ 1]))
    out("p256_key_zero_spki", head + b"\x04" + bytes(64))
    out("p256_key_over_p_spki", head + b"\x04" + b"\xff" * 64)
    out("p256_key_hybrid_spki", head + bytes([6 | x962[-1] & 1]) + x962[1:])
    small = point_of(key, serialization.PublicFormat.CompressedPoint)
    out("p256_key_compressed_spki", der(0x30, spki[2 : 4 + spki[3]] + der(3, b"\0" + small)))
    out("p256_key_infinity_spki", der(0x30, spki[2 : 4 + spki[3]] + der(3, b"\0\0")))
    out("p256_key_trailing_spki", spki + b"\0")
    out("p256_key_other_sig", key.sign(MESSAGE, ec.ECDSA(hashes.SHA256())))


def ecdsa_forgeries(name, key, sig, n):
    r, s = decode_dss_signature(sig)
    if name == "k256":
        out("k256_key", point_of(key, serialization.PublicFormat.CompressedPoint))
    s = min(s, n - s)
    out(f"{name}_ok_low_s", encode_dss_signature(r, s))
    out(f"{name}_ok_high_s", encode_dss_signature(r, n - s))
    out(f"{name}_bad_swapped", encode_dss_signature(s, r))
    out(f"{name}_bad_r0", encode_dss_signature(0, s))
    out(f"{name}_bad_s0", encode_dss_signature(r, 0))
    out(f"{name}_bad_00", encode_dss_signature(0, 0))
    out(f"{name}_bad_r_n", encode_dss_signature(n, s))
    out(f"{name}_bad_nn", encode_dss_signature(n, n))
    out(f"{name}_bad_r_plus_n", encode_dss_signature(r + n, s))
    out(f"{name}_bad_s_plus_n", encode_dss_signature(r, s + n))
    out(f"{name}_bad_negative", der(0x30, der(2, (n - r).to_bytes(32, "big") if (n - r) >> 255 else b"\xff" + (n - r).to_bytes(32, "big")) + der_int(s)))
    out(f"{name}_bad_huge", encode_dss_signature(1 << 520, s))
    out(f"{name}_bad_empty", b"")
    out(f"{name}_bad_empty_sequence", b"\x30\x00")
    out(f"{name}_bad_raw", r.to_bytes(32, "big") + s.to_bytes(32, "big"))
    out(f"{name}_bad_only_r", der(0x30, der_int(r)))
    out(f"{name}_bad_sha1", key.sign(MESSAGE, ec.ECDSA(hashes.SHA1())))
    out(f"{name}_bad_one", encode_dss_signature(1, 1))


if __name__ == "__main__":
    sys.stdout = open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "keys.txt"), "w")
    out("message", MESSAGE)
    rsa_vectors()
    ecdsa_vectors()
