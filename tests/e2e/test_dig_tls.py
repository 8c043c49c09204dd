"""dig.md §20, check 48: TLS with client certificates (§12), and D14. `openssl s_client` and
Python's ssl present certificates of every kind of key."""

import datetime
import hashlib
import os
import re
import signal
import ssl
import subprocess
import time

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from dig import Ended, fresh_id, fresh_net, request
from relay import SLOW

KEYS = {'p256': lambda: ec.generate_private_key(ec.SECP256R1()),
        'p384': lambda: ec.generate_private_key(ec.SECP384R1()),
        'ed25519': ed25519.Ed25519PrivateKey.generate,
        'rsa': lambda: rsa.generate_private_key(65537, 2048)}


class Cert:
    """A self-signed certificate in a file with its key; `id` as §12 has it, from its own bytes."""

    def __init__(self, directory, kind='p256', name='node', days=(-1, 30), traditional=False):
        self.key = KEYS[kind]()
        now = datetime.datetime.utcnow()
        subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
        self.cert = x509.CertificateBuilder().subject_name(subject).issuer_name(subject).public_key(
            self.key.public_key()).serial_number(x509.random_serial_number()).not_valid_before(
            now + datetime.timedelta(days[0])).not_valid_after(
            now + datetime.timedelta(days[1])).sign(
            self.key, None if kind == 'ed25519' else hashes.SHA256())
        spki = self.key.public_key().public_bytes(serialization.Encoding.DER,
                                                  serialization.PublicFormat.SubjectPublicKeyInfo)
        self.id = hashlib.sha256(spki).hexdigest()
        self.path, self.key_path = directory / (name + '.crt'), directory / (name + '.key')
        form = serialization.PrivateFormat
        self.path.write_bytes(self.cert.public_bytes(serialization.Encoding.PEM))
        self.key_path.write_bytes(self.key.private_bytes(
            serialization.Encoding.PEM, form.TraditionalOpenSSL if traditional else form.PKCS8,
            serialization.NoEncryption()))

    @property
    def flags(self):
        return {'tls_cert': self.path, 'tls_key': self.key_path}


def context(cert=None, version=None):
    out = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    out.check_hostname = False
    out.verify_mode = ssl.CERT_NONE
    if cert:
        out.load_cert_chain(cert.path, cert.key_path)
    if version:
        out.minimum_version = out.maximum_version = version
    return out


@pytest.fixture(scope='module')
def certs(tmp_path_factory):
    directory = tmp_path_factory.mktemp('certs')
    out = {kind: Cert(directory, kind, kind) for kind in KEYS}
    out['server'] = Cert(directory, 'p256', 'server')
    out['expired'] = Cert(directory, 'p256', 'expired', days=(-20, -10))
    out['future'] = Cert(directory, 'p256', 'future', days=(10, 20))
    return out


@pytest.fixture(scope='module')
def mtls(certs, tmp_path_factory):
    from digd import Digd
    live = Digd(tmp_path_factory.mktemp('dig'), **certs['server'].flags).start()
    yield live
    live.finish()


@pytest.mark.sanitize
@pytest.mark.parametrize('kind', list(KEYS) + ['expired', 'future'])
def test_dig_48_ones_own_id(mtls, certs, kind):
    """Nothing is judged but the key: no chain, name or date."""
    cert = certs[kind]
    peer = mtls.peer(cert.id, tls=context(cert), listen_addrs=['[::]:9444'])
    assert peer.sock.version() == 'TLSv1.3'
    other = mtls.peer(certs['server'].id, peer.net, tls=context(certs['server']))
    payload = list(os.urandom(40000))
    other.relay(peer, payload)
    assert peer.expect('relay_message', from_=other.id)['payload'] == payload
    peer.relay(other, payload[::-1])
    assert other.expect('relay_message', from_=peer.id)['payload'] == payload[::-1]
    assert peer.peers().keys() == {peer.id, other.id}
    peer.leave()
    other.told('peer_disconnected', peer.id)
    other.leave()


@pytest.mark.sanitize
def test_dig_48_another_id(mtls, certs):
    cert = certs['ed25519']
    for claim in (cert.id.upper(), '0' * 64, certs['p256'].id, cert.id[:-1], '', 'peerA'):
        mtls.ws(tls=context(cert)).register(claim).refused(6)
    mtls.peer(cert.id, tls=context(cert)).leave()


def fails(make):
    """The handshake ends, or the connection does when it is first read."""
    try:
        conn = make()
        conn.send(request())
        conn.gone()
    except (ssl.SSLError, ConnectionError, Ended):
        pass


@pytest.mark.sanitize
def test_dig_48_no_certificate(mtls):
    fails(lambda: mtls.tcp(tls=context()))
    conn = mtls.tcp()  # not TLS at all
    conn.send(request())
    try:
        while conn.fill(conn.until()):
            pass
    except ConnectionError:
        pass
    assert b'101' not in conn.buffer and len(conn.buffer) < 100
    assert mtls.fetch('/health', door='health-listen')[0] == 200  # stays plain


def test_dig_48_health_and_page_by_tls(mtls, certs):
    with mtls.tcp(tls=context(certs['p256'])) as conn:
        conn.send(b'GET /health HTTP/1.1\r\nHost: x\r\n\r\n')
        assert conn.head()[0].split()[1] == '200'
    assert mtls.fetch('/', door='dashboard-listen')[0] == 301


def s_client(digd, *words, send=b''):
    done = subprocess.run(['openssl', 's_client', '-connect', '%s:%d' % digd.at, *map(str, words)],
                          input=send, capture_output=True, timeout=20 * SLOW)
    return (done.stdout + done.stderr).decode(errors='replace')


@pytest.mark.sanitize
def test_dig_48_openssl_s_client(mtls, certs):
    cert = certs['p384']
    said = s_client(mtls, '-cert', cert.path, '-key', cert.key_path, '-ign_eof',
                    send=b'GET /health HTTP/1.1\r\nHost: x\r\n\r\n')
    assert 'TLSv1.3' in said and '"status":"ok"' in said, said[-3000:]
    assert 'No client certificate CA names sent' in said, said[-3000:]
    assert 'ALPN' not in said.replace('No ALPN negotiated', '')
    schemes = re.search(r'^Requested Signature Algorithms: (.*)$', said, re.M)[1].lower().split(':')
    for scheme in ('ecdsa+sha256', 'ecdsa+sha384', 'ed25519', 'rsa-pss+sha256', 'rsa-pss+sha512'):
        assert scheme in schemes, schemes
    said = s_client(mtls, '-tls1_2', '-cert', cert.path, '-key', cert.key_path)
    assert 'alert protocol version' in said or 'TLSv1.2' in said, said[-3000:]
    for old in ('-tls1_1', '-tls1'):
        assert 'Cipher is (NONE)' in s_client(mtls, old)
    assert '"status":"ok"' not in s_client(mtls, '-ign_eof',
                                           send=b'GET /health HTTP/1.1\r\nHost: x\r\n\r\n')


def test_dig_48_keys_of_the_server(dig_start, certs, tmp_path):
    """Each kind, PKCS#8, PKCS#1 and SEC1; a chain, of which the leaf is first."""
    for n, (kind, traditional) in enumerate((('p256', True), ('rsa', True), ('rsa', False),
                                             ('p384', False), ('ed25519', False))):
        server = Cert(tmp_path, kind, 'server%d' % n, traditional=traditional)
        server.path.write_bytes(server.path.read_bytes() + certs['p384'].path.read_bytes())
        digd = dig_start(**server.flags)
        cert = certs['p256']
        peer = digd.peer(cert.id, tls=context(cert))
        der = peer.sock.getpeercert(True)
        assert der == server.cert.public_bytes(serialization.Encoding.DER)
        digd.forget()


@pytest.mark.sanitize
def test_dig_48_hostile_handshakes(mtls, certs):
    """Bytes that are no TLS, a hello that ends, one in single bytes; others are served
    meanwhile."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    hello_of = context(certs['p256']).wrap_bio(incoming, outgoing, server_hostname='relay')
    with pytest.raises(ssl.SSLWantReadError):
        hello_of.do_handshake()
    hello = outgoing.read()
    for n in range(0, len(hello), 7):
        conn = mtls.tcp()
        conn.send(hello[:n])
        conn.close()
        broken = bytearray(hello)
        broken[n] ^= 0xff
        conn = mtls.tcp()
        conn.send(bytes(broken))
        conn.close()
    for junk in (b'\x16\x03\x01\xff\xff' + bytes(70000), os.urandom(5000), b'\x15\x03\x03\0\2\2\50',
                 b'\x17\x03\x03\x40\x00' + bytes(16384)):
        conn = mtls.tcp()
        try:
            conn.send(junk)
        except OSError:
            pass
        conn.close()
    cert = certs['rsa']
    mtls.peer(cert.id, tls=context(cert)).alive().leave()


@pytest.mark.sanitize
def test_dig_48_a_handshake_that_stalls(dig_start, certs):
    """D4: 10 s, here 2, for all up to registration."""
    digd = dig_start(register_timeout_secs=2, **certs['server'].flags)
    silent, half = digd.tcp(), digd.tcp()
    half.send(b'\x16\x03\x01\x02\x00\x01')
    cert = certs['p256']
    idle = digd.tcp(tls=context(cert))
    began = time.monotonic()
    for conn in (silent, half, idle):
        try:
            while conn.fill(time.monotonic() + 6 * SLOW):
                pass
        except ConnectionError:
            pass
        assert time.monotonic() - began < 4 * SLOW
    assert time.monotonic() - began > 1.5
    digd.peer(cert.id, tls=context(cert)).alive()


@pytest.mark.sanitize
@pytest.mark.parametrize('broken', ['no cert', 'no key', 'another key', 'no pem'])
def test_dig_48_files_that_cannot_be_used(tmp_path, certs, broken):
    """Exit 1, and nothing listens (§12, §16)."""
    from digd import Digd
    paths = dict(certs['server'].flags)
    bad = tmp_path / 'bad.pem'
    bad.write_text('-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n')
    paths.update({'no cert': {'tls_cert': tmp_path / 'absent'},
                  'no key': {'tls_key': tmp_path / 'absent'},
                  'another key': {'tls_key': certs['rsa'].key_path},
                  'no pem': {'tls_cert': bad}}[broken])
    live = Digd(tmp_path / 'd', **paths)
    with pytest.raises(AssertionError, match='ended at start with 1'):
        live.start()
    live.kill()


def test_dig_48_one_path_alone(tmp_path, certs):
    from digd import Digd
    live = Digd(tmp_path / 'd', tls_cert=certs['server'].path)
    with pytest.raises(AssertionError, match='ended at start with 2'):
        live.start()
    live.kill()


@pytest.mark.sanitize
def test_dig_48_a_renewed_certificate(dig_start, certs, tmp_path):
    """SIGHUP: new connections get it, old ones stay."""
    first = Cert(tmp_path, 'p256', 'first')
    second = Cert(tmp_path, 'ed25519', 'second')
    digd = dig_start(**first.flags)
    cert = certs['p256']
    old = digd.peer(cert.id, tls=context(cert))
    first.path.write_bytes(second.path.read_bytes())
    first.key_path.write_bytes(second.key_path.read_bytes())
    digd.proc.send_signal(signal.SIGHUP)
    want = second.cert.public_bytes(serialization.Encoding.DER)
    other = certs['p384']

    def renewed():
        conn = digd.tcp(tls=context(other))
        got = conn.sock.getpeercert(True)
        conn.close()
        return got == want
    digd.settle(renewed)
    old.alive()
    new = digd.peer(other.id, old.net, tls=context(other))
    new.relay(old, [1])
    old.expect('relay_message', from_=new.id)
    first.path.write_text('nothing')  # a broken one is not taken
    digd.proc.send_signal(signal.SIGHUP)
    time.sleep(0.5)
    assert renewed()
    old.alive()


@pytest.mark.sanitize
@pytest.mark.parametrize('policy', ['optional', 'off'])
def test_dig_d14_certificates_as_one_likes(dig_start, certs, policy):
    """D14: stock clients show none. Optional: who shows one is who it says."""
    digd = dig_start('--dig-tls-client', policy, **certs['server'].flags)
    plain = digd.peer(tls=context())
    cert = certs['p256']
    conn = digd.ws(tls=context(cert))
    if policy == 'optional':
        conn.register(fresh_id(), plain.net).refused(6)
        conn = digd.ws(tls=context(cert))
    conn.register(cert.id, plain.net).registered()
    conn.relay(plain, [1])
    plain.expect('relay_message', from_=cert.id)


@pytest.mark.sanitize
def test_dig_48_a_verified_incumbent_is_replaced(dig_start, certs):
    """§21, reconnect lock-out: with a certificate the new connection takes the place of the old."""
    digd = dig_start(**certs['server'].flags)
    cert, other = certs['p256'], certs['rsa']
    net = fresh_net()
    watch = digd.peer(other.id, net, tls=context(other))
    old = digd.peer(cert.id, net, tls=context(cert))
    new = digd.peer(cert.id, net, tls=context(cert))
    old.closing()
    watch.relay(cert.id, [1])
    new.expect('relay_message')
    assert watch.peers().keys() == {watch.id, new.id}
    time.sleep(0.2)
    new.alive()


def test_dig_48_bulk_by_tls(mtls, certs):
    """Records of every size, many in flight."""
    a = mtls.peer(certs['p256'].id, tls=context(certs['p256']))
    b = mtls.peer(certs['rsa'].id, a.net, tls=context(certs['rsa']))
    for n in range(100):
        a.relay(b, [n] * (n * 97 % 4000), seq=n)
    for n in range(100):
        b.expect('relay_message', payload=[n] * (n * 97 % 4000), seq=n)
    a.leave()
    b.leave()
