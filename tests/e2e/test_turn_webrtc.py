"""WebRTC and TURN libraries, unmodified, through our TURN server (issue 4): pion, werift,
node-datachannel, aiortc, libnice and Debian's Chromium. Each client is a process in a network
namespace of its own, from which only the server can be reached; both ends of a data channel send
random bytes at once, and the hashes must agree."""

import json

import pytest

import turn_field
from clients import command_of
from turn_clients import Peer, connect, exchange, turn_server
from turn_field import PASSWORD, SERVER4, SERVER6, USER, Field, Server, unpacked

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not turn_field.can_unshare(), reason=turn_field.UNSHARE_CURE),
]
if Server.coturn and unpacked('turnserver') is None:
    pytest.skip('no turnserver: run tools/deps --test', allow_module_level=True)

MIB = 1 << 20
SIZE = {'pion': 8 * MIB, 'werift': 4 * MIB, 'datachannel': 8 * MIB, 'aiortc': MIB,
        'libnice': 2 * MIB, 'chromium': 16 * MIB}
OVER_TCP = [name for name in SIZE if name != 'datachannel']  # libjuice speaks to TURN by UDP only


@pytest.fixture(scope='module')
def field():
    live = Field()
    yield live
    live.close()


@pytest.fixture(scope='module')
def live(field, tmp_path_factory):
    with Server(field, tmp_path_factory.mktemp('turn')) as server:
        yield server
        server.check()


@pytest.fixture
def server(live):
    yield live
    live.check()


def talk(field, caller, callee, at, policy='relay', size=None):
    """The caller has relayed candidates only; the callee as `policy` says."""
    with Peer(caller, field.a, at) as a, \
            Peer(callee, field.b, at if policy == 'relay' else None, policy) as b:
        mine, theirs = connect(a, b)
        assert mine == {'relay'}, mine
        assert theirs == {'relay'} if policy == 'relay' else 'relay' not in theirs, theirs
        exchange(a, b, size or min(SIZE[caller], SIZE[callee]))


@pytest.mark.parametrize('name', SIZE)
def test_turn_webrtc_relay_to_relay(field, server, name):
    talk(field, name, name, turn_server())


@pytest.mark.parametrize('name', OVER_TCP)
def test_turn_webrtc_over_tcp(field, server, name):
    """The way from client to server is a stream, what is relayed datagrams."""
    talk(field, name, name, turn_server('tcp'))


@pytest.mark.parametrize('name', ['libnice', 'chromium'])  # pion's and aiortc's ICE keep to IPv4
def test_turn_webrtc_over_ipv6(field, server, name):
    talk(field, name, name, turn_server(host=SERVER6), size=MIB)


@pytest.mark.parametrize('caller, callee', [
    ('chromium', 'pion'), ('pion', 'werift'), ('werift', 'datachannel'), ('datachannel', 'aiortc'),
    ('aiortc', 'chromium')])
def test_turn_webrtc_between_libraries(field, server, caller, callee):
    talk(field, caller, callee, turn_server(), size=MIB)


@pytest.mark.parametrize('caller, callee', [
    ('chromium', 'pion'), ('pion', 'datachannel'), ('werift', 'aiortc'),
    ('datachannel', 'chromium'), ('aiortc', 'pion'), ('libnice', 'libnice')])
def test_turn_webrtc_relay_to_host(field, server, caller, callee):
    """The callee has no server: peers of the allocation are addresses outside."""
    talk(field, caller, callee, turn_server(), policy='all', size=MIB)


@pytest.mark.skipif(Server.coturn, reason='coturn 4.6 has no nonce cookie')
def test_turn_datachannel_hides_its_name(field, server, tmp_path):
    """libjuice understands the security features in our nonce (RFC 8489 §9.2) and sends USERHASH,
    as seen on the wire. (It has SHA-256, too, but as a client never chooses it: it looks into
    PASSWORD-ALGORITHMS only when it reads requests, up to 1.7.2.)"""
    path = tmp_path / 'pcap'
    with field.s.sniff('to-a', path):
        talk(field, 'datachannel', 'datachannel', turn_server(), size=MIB // 16)
    seen = path.read_bytes()
    assert b'\x00\x1e\x00\x20' in seen, 'no USERHASH'
    assert USER.encode() not in seen, 'its name'


@pytest.mark.parametrize('mode, transport, host, family', [
    ('turn', 'udp', SERVER4, 0), ('turn', 'tcp', SERVER4, 0), ('turn', 'udp', SERVER6, 6),
    ('turn', 'tcp', SERVER6, 6), ('turn', 'udp', SERVER4, 6), ('turn', 'udp', SERVER6, 4),
    ('turn-tcp', 'tcp', SERVER4, 0), ('turn-tcp', 'tcp', SERVER6, 6)])
def test_turn_pion_without_webrtc(field, server, mode, transport, host, family):
    """Send indications, then channels, and datagrams of 500 lengths; RFC 6062 with bulk both ways
    (little of it through coturn, which comes to a stop when both ends write)."""
    command = command_of('pion')
    if command is None:
        pytest.skip('the pion client is not built: run tests/interop/setup pion')
    size = 65536 if server.coturn else 8 * MIB
    at = dict(turn_server(transport, host), family=family, bytes=size)
    done = field.a.run([command, mode, json.dumps(at)], timeout=40)
    events = [json.loads(line) for line in done.stdout.splitlines()]
    assert done.returncode == 0 and events[-1]['ev'] == 'done', (events, done.stderr[-2000:])
    for relay in events[-1].get('relays', []):
        assert relay.startswith('[') == (family == 6), events


def test_turn_turnproto_as_it_comes(field, server):
    """It chooses MD5 by PASSWORD-ALGORITHM and signs by HMAC-SHA1, and wants no other answer."""
    command = command_of('turnproto')
    if command is None:
        pytest.skip('the turnproto client is not built: run tests/interop/setup turnproto')
    done = field.a.run([command, SERVER4 + ':3478', USER, PASSWORD, 'sha1'], timeout=40)
    assert done.returncode == 0 and json.loads(done.stdout)['arrived'] == 400, done.stderr[-2000:]


@pytest.mark.skipif(Server.coturn, reason='coturn 4.6 has no PASSWORD-ALGORITHMS')
@pytest.mark.parametrize('host', [SERVER4, SERVER6])
@pytest.mark.parametrize('userhash', [[], ['userhash']], ids=['name', 'userhash'])
def test_turn_turnproto_sha256(field, server, tmp_path, host, userhash):
    """RFC 8489 §9.2 by somebody else's client: SHA-256 for keys and integrity, with the name or its
    hash. Seen on the wire, because it falls back by itself."""
    command = command_of('turnproto')
    if command is None:
        pytest.skip('the turnproto client is not built: run tests/interop/setup turnproto')
    at = '[%s]:3478' % host if ':' in host else host + ':3478'
    path = tmp_path / 'pcap'
    with field.s.sniff('to-a', path):
        done = field.a.run([command, at, USER, PASSWORD, 'sha256', *userhash], timeout=40)
    assert done.returncode == 0 and json.loads(done.stdout)['arrived'] == 400, done.stderr[-2000:]
    seen = path.read_bytes()
    assert b'\x00\x1d\x00\x04\x00\x02\x00\x00' in seen, 'no PASSWORD-ALGORITHM of SHA-256'
    assert b'\x00\x1c\x00\x20' in seen and b'\x00\x08\x00\x14' not in seen
    assert (b'\x00\x1e\x00\x20' in seen) == (USER.encode() not in seen) == bool(userhash)
