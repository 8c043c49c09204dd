"""turn.md §20, checks 25 to 43 and 84: who may do what, and what the others are told."""

import hashlib
import itertools
import os
import struct
import time

import pytest

from turn import (ALLOCATE, BOTH_ALGORITHMS, CREATE_PERMISSION, ERROR_CODE, INTEGRITY,
                  INTEGRITY_SHA256, LIFETIME, MD5, NONCE, PASSWORD_ALGORITHM, PASSWORD_ALGORITHMS,
                  REALM, REFRESH, REQUEST, SHA256, UDP_TRANSPORT, USERNAME, attr,
                  ephemeral, long_term_key, mac_attr, message, peer, type_of, u32)
from turnd import SECRET, Clock

TID = bytes(range(1, 13))
V10 = bytes.fromhex('000300082112a4420102030405060708090a0b0c0019000411000000')
BARE = bytes.fromhex('000300002112a4420102030405060708090a0b0c')


# ---- 25 to 28: strangers ------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
@pytest.mark.parametrize('kind', ['udp', 'tcp'])
@pytest.mark.parametrize('raw', [V10, BARE], ids=['turn_25', 'turn_26'])
def test_turn_25_turn_26_a_stranger_gets_401_in_at_most_100_bytes(turnd, kind, raw):
    got = turnd.client(kind).exchange(raw)
    assert got.type == 0x0113 and got.code == 401
    assert got.get(ERROR_CODE) == bytes.fromhex('00000401'), 'no reason phrase'
    assert got.get(REALM) == b'realm' and got.has(NONCE)
    assert not got.has(INTEGRITY) and not got.has(INTEGRITY_SHA256)
    assert len(got.raw) <= 100


def test_turn_25_every_method_has_the_same_gate(turnd):
    """Refresh, permissions, channels: nobody's allocation is even looked for."""
    client = turnd.udp().allocate()
    for method in (REFRESH, CREATE_PERMISSION, 0x009):
        got = client.exchange(message(type_of(method, REQUEST), [peer('127.9.9.9', 9)]))
        assert got.code == 401
        assert client.granted.lifetime == 600 and client.refresh().code == 0


def test_turn_27_the_nonce_says_that_rfc_8489_is_spoken(turnd):
    """obMatJos2, and the feature bits counted from either end (turn.md §6)."""
    one, two = turnd.udp().challenge(), turnd.udp().challenge()
    for got in (one, two):
        assert got.get(NONCE).startswith(b'obMatJos2') and len(got.get(NONCE)) < 128
        assert got.get(PASSWORD_ALGORITHMS) == BOTH_ALGORITHMS
    bits = one.get(NONCE)[9:13]
    assert bits in (b'gAAB', b'wAAD'), 'algorithms by IANA and by the example; perhaps anonymity'
    assert one.get(NONCE) != two.get(NONCE)


def common_tail(a, b):
    return len(os.path.commonprefix([a[::-1], b[::-1]]))


def test_turn_28_cve_2025_69217_nonces_follow_no_pattern(turnd):
    """50 in a row, of as many ports of one host: all differ, none shares its tail with another, and
    of the bytes behind the time none keeps its value."""
    clients = [turnd.udp(source='127.3.3.3') for _ in range(50)]  # a closed one's port comes again
    nonces = [client.challenge().get(NONCE)[13:] for client in clients]
    assert len(set(nonces)) == 50
    assert all(common_tail(a, b) <= 3 for a, b in itertools.combinations(nonces, 2))
    changing = [len({nonce[i] for nonce in nonces}) for i in range(len(nonces[0]))]
    assert sum(values >= 16 for values in changing) >= 12, changing
    differences = {bytes(x ^ y for x, y in zip(a, b))[-12:] for a, b in zip(nonces, nonces[1:])}
    assert len(differences) == 49


# ---- 29 to 31, 35 to 38: credentials ------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
@pytest.mark.parametrize('kind', ['udp', 'tcp'])
def test_turn_29_who_is_known_gets_an_allocation(turnd, kind):
    """Client verifies the integrity of the answer."""
    client = turnd.client(kind).allocate()
    assert client.granted.type == 0x0103 and client.granted.lifetime == 600
    assert client.granted.address() == client.path.local
    assert client.relayed[0] == '127.0.0.1' and client.relayed[1] > 1023


@pytest.mark.sanitize
@pytest.mark.parametrize('userhash', [False, True], ids=['name', 'hash'])
@pytest.mark.parametrize('offer', [MD5, SHA256], ids=['md5', 'sha256'])
@pytest.mark.parametrize('mac', [MD5, SHA256], ids=['sha1mac', 'sha256mac'])
def test_turn_35_each_algorithm_with_each_integrity(turnd, offer, mac, userhash):
    """Answered in kind: Client asks for that."""
    client = turnd.udp(offer=offer, mac=mac, userhash=userhash)
    client.allocate()
    if mac == SHA256:
        assert len(client.granted.get(INTEGRITY_SHA256)) == 32
    else:
        assert len(client.granted.get(INTEGRITY)) == 20
    assert client.permit('127.9.9.9').code == 0 and client.refresh(0).lifetime == 0


def test_turn_35_a_hash_of_nobody_is_401(turnd):
    client = turnd.udp(offer=SHA256, mac=SHA256, userhash=True, user='nobody')
    assert client.request(ALLOCATE, UDP_TRANSPORT).code == 401


def test_turn_30_every_wrong_credential_looks_alike(turnd):
    """Wrong password, unknown user, other realm: 401 of one length, in much the same time."""
    wrong = {'password': turnd.udp(password='guess'), 'user': turnd.udp(user='resu'),
             'ephemeral': turnd.udp(user='%d:x' % (time.time() + 999), password='guess'),
             'realm': turnd.udp()}
    answers, times = {}, {}
    for name, client in wrong.items():
        client.challenge()
        if name == 'realm':
            client.realm = 'mlaer'
        answers[name] = client.ask(ALLOCATE, UDP_TRANSPORT)
    for _ in range(60):  # in turn, so that a busy host is busy for all of them
        for name, client in wrong.items():
            began = time.perf_counter()
            assert client.ask(ALLOCATE, UDP_TRANSPORT).code == 401
            times.setdefault(name, []).append(time.perf_counter() - began)
    times = {name: sorted(took)[30] for name, took in times.items()}
    for got in answers.values():
        assert got.code == 401 and len(got.raw) == len(answers['user'].raw)
        assert got.numbers() == answers['user'].numbers()
    assert max(times.values()) < 3 * min(times.values()) + 0.0005, times


def test_turn_30_a_wrong_answer_costs_nothing_else(turnd):
    """The right password on the same 5-tuple, directly afterwards."""
    client = turnd.udp(password='guess')
    assert client.request(ALLOCATE, UDP_TRANSPORT).code == 401
    client.password = 'pass'
    client.allocate()


@pytest.mark.parametrize('missing', [USERNAME, REALM, NONCE])
def test_turn_31_a_missing_part_is_400(turnd, missing):
    client = turnd.udp()
    client.challenge()
    raw = message(type_of(ALLOCATE, REQUEST), [UDP_TRANSPORT] + [
        part for part in client.credentials() if part[0] != missing], key=client.key)
    assert client.exchange(raw).code == 400


SHA = struct.pack('!HH', SHA256, 0)
ALGORITHMS = {
    'a choice without the list': [(PASSWORD_ALGORITHM, SHA)],
    'the list without a choice': [(PASSWORD_ALGORITHMS, BOTH_ALGORITHMS)],
    'a list cut short': [(PASSWORD_ALGORITHMS, BOTH_ALGORITHMS[4:]), (PASSWORD_ALGORITHM, SHA)],
    'a list in another order': [(PASSWORD_ALGORITHMS, BOTH_ALGORITHMS[4:] + BOTH_ALGORITHMS[:4]),
                                (PASSWORD_ALGORITHM, SHA)],
    'a list that goes on': [(PASSWORD_ALGORITHMS, BOTH_ALGORITHMS + b'\0\3\0\0'),
                            (PASSWORD_ALGORITHM, SHA)],
    'an empty list': [(PASSWORD_ALGORITHMS, b''), (PASSWORD_ALGORITHM, SHA)],
    'choice 3': [(PASSWORD_ALGORITHMS, BOTH_ALGORITHMS), (PASSWORD_ALGORITHM, b'\0\3\0\0')],
    'choice 0': [(PASSWORD_ALGORITHMS, BOTH_ALGORITHMS), (PASSWORD_ALGORITHM, b'\0\0\0\0')],
    'parameters': [(PASSWORD_ALGORITHMS, BOTH_ALGORITHMS), (PASSWORD_ALGORITHM, b'\0\2\0\4abcd')],
    'parameters that lie': [(PASSWORD_ALGORITHMS, BOTH_ALGORITHMS),
                            (PASSWORD_ALGORITHM, b'\0\2\xff\xff')],
    'half a choice': [(PASSWORD_ALGORITHMS, BOTH_ALGORITHMS), (PASSWORD_ALGORITHM, b'\0\2')],
}


@pytest.mark.sanitize
@pytest.mark.parametrize('what', ALGORITHMS, ids=lambda what: what.replace(' ', '_'))
def test_turn_36_what_a_man_in_the_middle_would_change_is_400(turnd, what):
    client = turnd.udp(mac=SHA256)
    client.challenge()
    raw = message(type_of(ALLOCATE, REQUEST), [UDP_TRANSPORT, *client.credentials(),
                                               *ALGORITHMS[what]],
                  key=long_term_key(SHA256, 'user', 'realm', 'pass'), mac=SHA256)
    assert client.exchange(raw).code == 400


@pytest.mark.parametrize('size', [0, 4, 12, 16, 20, 28, 36])
def test_turn_37_a_truncated_sha256_is_refused(turnd, size):
    client = turnd.udp(offer=SHA256, mac=SHA256)
    client.challenge()
    raw = message(type_of(ALLOCATE, REQUEST), [UDP_TRANSPORT, *client.credentials()])
    tag = mac_attr(raw, client.key, SHA256, size or None)[4:4 + size]
    raw = message(type_of(ALLOCATE, REQUEST), [UDP_TRANSPORT, *client.credentials()],
                  raw[8:20], tail=[attr(INTEGRITY_SHA256, tag + bytes(size - len(tag)))])
    assert client.exchange(raw).code in (400, 401)


@pytest.mark.parametrize('right', [MD5, SHA256], ids=['sha1_right', 'sha256_right'])
def test_turn_38_of_two_integrities_the_sha256_counts(turnd, right):
    client = turnd.udp(offer=MD5)
    client.challenge()
    wrong, attrs = b'nobodys key', [UDP_TRANSPORT, *client.credentials()]
    raw = message(type_of(ALLOCATE, REQUEST), attrs, key=client.key if right == MD5 else wrong)
    tail = mac_attr(raw, wrong if right == MD5 else client.key, SHA256)
    raw = raw[:2] + struct.pack('!H', len(raw) - 20 + len(tail)) + raw[4:] + tail
    assert client.exchange(raw).code == (401 if right == MD5 else 0)


# ---- 32 to 34, 84: nonces -----------------------------------------------------------------------

def test_turn_32_an_altered_nonce_is_438_and_the_retry_succeeds(turnd):
    client = turnd.udp()
    good = client.challenge().get(NONCE)
    for at in range(len(good)):
        client.nonce = good[:at] + bytes((good[at] ^ 1,)) + good[at + 1:]
        got = client.ask(ALLOCATE, UDP_TRANSPORT)
        assert got.code == 438 and got.get(NONCE) and got.get(REALM) == b'realm'
        assert got.get(PASSWORD_ALGORITHMS) == BOTH_ALGORITHMS
    for nonce in (b'', good[:-1], good + b'A', good * 3, b'x' * 128, b'obMatJos2'):
        client.nonce = nonce
        assert client.ask(ALLOCATE, UDP_TRANSPORT).code in (438, 400)
    client.take(got)
    client.allocate()


@pytest.mark.sanitize
def test_turn_33_a_nonce_is_of_one_port(turnd):
    """Of one address, too; and it costs one round trip to move."""
    one = turnd.udp(source='127.3.3.4')
    one.challenge()
    for source in ('127.3.3.4', '127.3.3.5'):
        other = turnd.udp(source=source)
        other.take(one.challenge())
        got = other.ask(ALLOCATE, UDP_TRANSPORT)
        assert got.code == 438
        assert other.take(got).ask(ALLOCATE, UDP_TRANSPORT).code == 0


def test_turn_34_an_old_nonce_is_438_on_refresh_and_the_allocation_lives(turn_start, tmp_path):
    """At its default lifetime of 600 s, within an allocation of an hour; and a nonce lives so long
    at least."""
    clock = Clock(tmp_path)
    turnd = turn_start(env=clock.env)
    client = turnd.udp().allocate(u32(LIFETIME, 3600))
    clock.step(590)
    assert client.ask(REFRESH).code == 0
    clock.step(20)
    got = client.ask(REFRESH, u32(LIFETIME, 3600))
    assert got.code == 438
    assert client.take(got).ask(REFRESH, u32(LIFETIME, 3600)).lifetime == 3600


def test_turn_34_the_lifetime_of_nonces_is_the_operators(turn_start, tmp_path):
    clock = Clock(tmp_path)
    turnd = turn_start('--turn-nonce-secs', 10, env=clock.env)
    client = turnd.udp().allocate()
    clock.step(8)
    assert client.ask(REFRESH).code == 0
    clock.step(4)
    assert client.ask(REFRESH).code == 438
    assert client.refresh().code == 0


# ---- 39, 40: behind the integrity ---------------------------------------------------------------

def test_turn_39_what_stands_behind_the_integrity_has_no_meaning(turnd):
    client = turnd.udp()
    client.allocate(tail=[u32(LIFETIME, 3000), (0x7FFF, b'')])
    assert client.granted.lifetime == 600
    assert client.request(REFRESH, tail=[u32(LIFETIME, 0)]).lifetime == 600
    assert client.refresh().code == 0, 'it lives'


def test_turn_40_a_peer_behind_the_integrity_does_not_count(turnd):
    client = turnd.udp().allocate()
    assert client.request(CREATE_PERMISSION, tail=[peer('127.9.9.9')]).code == 400
    got = client.request(CREATE_PERMISSION, peer('127.9.9.9'), tail=[peer('10.0.0.1')])
    assert got.code == 0, 'nor does one spoil the others'


# ---- 41, 42: names that end ---------------------------------------------------------------------

@pytest.mark.sanitize
def test_turn_41_names_of_the_past_begin_nothing(turnd):
    for age, code in ((-3600, 401), (-2, 401), (3600, 0), (86400 * 30, 0)):
        user, password = ephemeral(SECRET, age)
        client = turnd.udp(user=user, password=password)
        assert client.request(ALLOCATE, UDP_TRANSPORT).code == code, age
    user, password = ephemeral(SECRET, 60, name='')
    turnd.udp(user=user, password=password).allocate()
    user, password = ephemeral('south', 60)
    assert turnd.udp(user=user, password=password).request(ALLOCATE, UDP_TRANSPORT).code == 401


def test_turn_41_two_secrets_verify_while_they_are_rotated(turn_start):
    turnd = turn_start(secrets=('new', 'old'))
    for secret, code in (('new', 0), ('old', 0), ('ancient', 401)):
        user, password = ephemeral(secret)
        client = turnd.udp(user=user, password=password)
        assert client.request(ALLOCATE, UDP_TRANSPORT).code == code
        if not code:
            assert client.permit('127.9.9.9').code == 0 and client.refresh(0).code == 0


def test_turn_41_sha256_keys_of_ephemeral_names(turnd):
    user, password = ephemeral(SECRET)
    turnd.udp(user=user, password=password, offer=SHA256, mac=SHA256).allocate()


@pytest.mark.parametrize('strict', [False, True], ids=['lenient', 'strict'])
def test_turn_42_a_call_goes_on_when_its_name_has_ended(turn_start, tmp_path, strict):
    clock = Clock(tmp_path)
    turnd = turn_start(*(('--turn-strict-expiry',) if strict else ()), env=clock.env)
    user, password = ephemeral(SECRET, 60)
    client = turnd.udp(user=user, password=password).allocate()
    clock.step(90)
    want = 401 if strict else 0
    assert client.refresh().code == want
    assert client.permit('127.9.9.9').code == want
    other = turnd.udp(user=user, password=password)
    assert other.request(ALLOCATE, UDP_TRANSPORT).code == 401, 'it begins nothing'


# ---- 43: names ----------------------------------------------------------------------------------

NAMES = {
    'format': b'%s%n%s%n%x%1000000d', 'quotes': b'"\'\\"; DROP TABLE users; --',
    'newline': b'a\nWARN forged line\r\n', 'nul': b'user\0', 'escape': b'\x1b[2J\x1b[1;1H',
    'not UTF-8': b'\xff\xfe\xc0\x80', '508': b'n' * 508, '509': b'n' * 509, '5000': b'n' * 5000,
    'empty': b'', 'spaces': b'   ', 'json': b'{"a":1}',
    'redis': b'*3\r\n$3\r\nSET\r\n', 'a time': b'99999999999999999999999999:x', 'minus': b'-1:x',
}


@pytest.mark.sanitize
@pytest.mark.parametrize('kind', ['udp', 'tcp'])
def test_turn_43_cve_2018_4056_hostile_names_are_just_names(turn_start, kind):
    """401 or 400, and the log stays one of our lines each. A database that is asked by text cannot
    be told anything: there is none."""
    turnd = turn_start('--log-level', 'debug')
    client = turnd.client(kind)
    client.challenge()
    for name, user in NAMES.items():
        credentials = [(USERNAME, user)] + client.credentials()[1:]
        got = client.exchange(message(type_of(ALLOCATE, REQUEST), [UDP_TRANSPORT, *credentials],
                                      key=hashlib.md5(user + b':realm:pass').digest()))
        assert got.code in (400, 401), name
        got = client.exchange(message(type_of(ALLOCATE, REQUEST), [
            UDP_TRANSPORT, client.credentials()[0], (REALM, user[:700]), client.credentials()[2]],
            key=client.key))
        assert got.code in (400, 401), 'realm ' + name
    log = turnd.relay.log()
    assert not any(line.startswith('WARN forged') for line in log.splitlines())
    assert '\x1b' not in log and '\0' not in log and 'n' * 508 not in log


def test_turn_43_no_password_key_or_secret_is_ever_logged(turn_start):
    turnd = turn_start('--log-level', 'debug', users=('user:hunter2secret',),
                       secrets=('a-shared-secret',))
    client = turnd.udp(password='hunter2secret').allocate()
    user, password = ephemeral('a-shared-secret')
    turnd.udp(user=user, password=password).allocate()
    turnd.udp(password='wrong-guess').request(ALLOCATE, UDP_TRANSPORT)
    client.refresh(0)
    key = long_term_key(MD5, 'user', 'realm', 'hunter2secret').hex()
    log = turnd.relay.log()
    for word in ('hunter2secret', 'a-shared-secret', password, 'wrong-guess', key):
        assert word not in log, word


def test_turn_43_cve_2026_43994_an_access_token_is_not_read(turnd):
    """Lengths of every kind in a token of RFC 7635, which we do not take."""
    client = turnd.udp()
    client.challenge()
    for size in (0, 1, 2, 12, 255, 256, 1000, 65535):
        for rest in (0, 2, 40, 500):
            token = 0x001B, struct.pack('!H', size) + os.urandom(rest)
            assert client.ask(ALLOCATE, UDP_TRANSPORT, token, verify=False).code in (400, 401, 420)
            got = client.ask(ALLOCATE, UDP_TRANSPORT, token, sign=False)
            assert got.code in (401, 420)


def test_coturn_4_11_a_stranger_pins_nothing(turnd):
    """Neither realm nor origin of an Allocate without integrity, or with a wrong one, stay with its
    5-tuple."""
    client = turnd.udp()
    strange = (0x802F, b'https://evil.example'), (REALM, b'evil.example')
    for raw in (message(type_of(ALLOCATE, REQUEST), [UDP_TRANSPORT, *strange]),
                message(type_of(ALLOCATE, REQUEST), [UDP_TRANSPORT, (USERNAME, b'%s%n'), *strange,
                                                     (NONCE, b'nonce')], key=b'guess')):
        got = client.exchange(raw)
        assert got.code in (401, 438) and got.get(REALM) == b'realm'
    client.allocate((0x802F, b'https://good.example'))
    assert client.refresh().code == 0, 'nor does the origin of the Allocate bind the others'


# ---- 84: restart --------------------------------------------------------------------------------

def test_turn_84_after_a_restart_one_438_and_437(turn_start):
    first = turn_start()
    client = first.udp().allocate()
    port = first.at[1]
    first.relay.kill()
    second = turn_start(listen=['127.0.0.1:%d' % port])
    assert second.at == first.at
    got = client.ask(REFRESH)
    assert got.code == 438
    assert client.take(got).ask(REFRESH).code == 437
    assert client.ask(ALLOCATE, UDP_TRANSPORT).code == 0
    assert client.permit('127.9.9.9').code == 0

