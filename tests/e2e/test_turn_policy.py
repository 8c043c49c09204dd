"""turn.md §20, checks 62 and 63, and §16: whom the relay reaches. Here over loopback, which is open
for peers, so that what an allow list must not open can be seen; test_turn_namespaces.py has the
default."""

import subprocess

import pytest

from relay import SLUICE
from turn import (BINDING, CONNECT, CREATE_PERMISSION, REQUESTED_ADDRESS_FAMILY, TCP_TRANSPORT,
                  UdpPeer, family, message, peer)
from turnd import Turnd, own_ip

V4 = '''0.0.0.0 0.1.2.3 10.0.0.1 10.255.255.255 100.64.0.1 100.127.255.255 127.0.0.1 127.255.255.254
169.254.0.1 169.254.169.254 172.16.0.1 172.31.255.255 192.0.0.1 192.0.2.1 192.88.99.1 192.168.0.1
192.168.255.255 198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255
240.0.0.1 255.255.255.254 255.255.255.255'''.split()
V6 = '''::1 :: fe80::1 febf::1 fc00::1 fd00::1 fd00:ec2::254 fec0::1 ff02::1 ff0e::1 100::1
2001:db8::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001::1 2001:2::1 2002:7f00:1:: 2002:a00:1::1 2002:808:808::1
::127.0.0.1 ::10.0.0.1 ::ffff:0:127.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 64:ff9b::a00:1
64:ff9b:1::a00:1 64:ff9b:1:a00:1:: 2a00::5efe:7f00:1 2a00::200:5efe:a00:1'''.split()
MAPPED = ['::ffff:127.0.0.1', '::ffff:10.0.0.1', '::ffff:169.254.169.254', '::ffff:8.8.8.8']


@pytest.fixture(scope='module')
def closed(tmp_path_factory):
    """Nothing is allowed that is not global; it can relay both families."""
    live = Turnd(tmp_path_factory.mktemp('closed'), '--turn-relay-ip', own_ip(),
                 listen=['127.0.0.1:0', '[::1]:0'], allow=()).start()
    yield live
    live.finish()


def clients(closed, ip):
    """Of the family of the peer, for datagrams and for streams."""
    wish = (family(REQUESTED_ADDRESS_FAMILY, 2),) if ':' in ip else ()
    return (closed.udp().allocate(*wish),
            closed.tcp().allocate(*wish, transport=TCP_TRANSPORT))


CVES = {  # turn.md §16: the forms that each of them let through
    'cve_2018_4058_loopback': ['127.0.0.1', '127.255.255.254', '::1'],
    'cve_2018_4059_admin_on_loopback': ['127.0.0.1'],
    'cve_2020_26262_zero': ['0.0.0.0', '0.1.2.3', '::', '::1'],
    'cve_2021_21382_status_port': ['127.0.0.1', '0.0.0.0'],
    'cve_2026_27624_mapped': MAPPED,
    'cve_2026_73212_embedded': [ip for ip in V6 if ip.startswith(('::1', '::ffff:0', '2002', '64:'))
                                or '5efe' in ip or ip.startswith('2001:0')],
    'cve_2026_73213_ranges': ['fc00::1', 'fd00:ffff::', 'fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff',
                              'fe80::ffff:ffff', 'febf::1', '100::ffff:ffff:ffff:ffff', 'fec0::1'],
    'turn_62_ipv4': V4, 'turn_62_ipv6': V6,
}


@pytest.mark.sanitize
@pytest.mark.parametrize('what', CVES)
def test_turn_62_what_is_not_global_is_403(closed, what):
    """CreatePermission, ChannelBind and Connect alike; and a batch with a good one is refused."""
    for ips in ([ip for ip in CVES[what] if ':' not in ip], [ip for ip in CVES[what] if ':' in ip]):
        if not ips:
            continue
        datagrams, streams = clients(closed, ips[0])
        good = '2a00:1450::1' if ':' in ips[0] else '8.8.8.8'
        assert datagrams.permit(good).code == 0 and streams.permit(good).code == 0
        for ip in ips:
            for client in (datagrams, streams):
                if ip == client.relayed[0]:  # ::1: other relayed addresses are there, and only they
                    continue
                got = client.request(CREATE_PERMISSION, peer(ip))
                assert got.code in (403, 443), (ip, got)
                got = client.request(CREATE_PERMISSION, peer(good), peer(ip))
                assert got.code in (403, 443), (ip, got)
            got = datagrams.request(0x009, (0x000C, b'\x40\1\0\0'), peer(ip, 80))
            assert got.code in (403, 443), (ip, got)
            got = streams.request(CONNECT, peer(ip, 80))
            assert got.code in (403, 443), (ip, got)
    closed.forget()


@pytest.mark.parametrize('method', [CREATE_PERMISSION, 0x009, CONNECT],
                         ids=['permission', 'channel', 'connect'])
def test_pion_2026_01_pion_2026_06_every_method_has_both_gates(closed, method):
    """Credentials first, then the peer policy; on streams as on datagrams."""
    client = closed.tcp().allocate(transport=TCP_TRANSPORT)
    attrs = ((0x000C, b'\x40\0\0\0'), peer('8.8.8.8', 80))
    assert client.request(method, *attrs, sign=False).code == 401
    client.password = 'wrong'
    assert client.request(method, *attrs, verify=False).code == 401
    client.password = 'pass'
    got = client.request(method, (0x000C, b'\x40\0\0\0'), peer('10.0.0.1', 80))
    assert got.code == 403, got


# ---- 63: this host ------------------------------------------------------------------------------

@pytest.mark.sanitize
def test_turn_63_the_servers_own_address_is_403(turn_start):
    """Although 127/8 is allowed; only its relayed addresses are peers, by their ports."""
    relay_ip = own_ip()
    turnd = turn_start('--turn-relay-ip', relay_ip, '--turn-ports', '50000-59999')
    client = turnd.udp().allocate()
    assert client.relayed[0] == relay_ip
    assert client.permit('127.0.0.1').code == 403
    assert client.bind_channel(0x4000, turnd.at).code == 403
    http = turnd.relay.http.rsplit(':', 1)
    assert client.bind_channel(0x4000, (http[0], int(http[1]))).code == 403
    assert client.bind_channel(0x4000, (relay_ip, 49999)).code == 403
    assert client.bind_channel(0x4000, (relay_ip, 22)).code == 403
    stream = turnd.tcp().allocate(transport=TCP_TRANSPORT)
    for at in (turnd.at, (http[0], int(http[1])), (relay_ip, 22)):
        assert stream.request(CONNECT, peer(*at)).code == 403


@pytest.mark.sanitize
def test_turn_63_cve_2018_4059_own_ports_are_not_reached_by_the_permission_of_a_relay(turnd):
    """The relayed address is the server's too: the permission for other relays must not open its
    door and its HTTP port."""
    client = turnd.udp().allocate()
    probe = message(BINDING)
    if client.permit(turnd.at[0]).code == 0:
        client.send(turnd.at, probe)
        with UdpPeer() as far:
            assert client.permit(far.at[0]).code == 0
            client.send(far.at, b'?')
            assert far.recv()[0] == b'?'
        assert client.data(0.2) is None, 'the door has answered'
    assert client.bind_channel(0x4000, turnd.at).code == 403


@pytest.mark.sanitize
@pytest.mark.tsan
def test_turn_63_hairpin(turnd):
    """Two allocations of one server talk to each other, whatever their shards."""
    for _ in range(8):
        a, b = turnd.udp().allocate(), turnd.udp().allocate()
        assert a.permit(b.relayed[0]).code == 0
        assert b.bind_channel(0x4000, a.relayed).code == 0
        a.send(b.relayed, b'over the hairpin')
        assert b.data() == (0x4000, b'over the hairpin')
        b.send_channel(0x4000, b'and back')
        assert a.data() == (b.relayed, b'and back')


def test_turn_63_hairpin_by_the_external_address(turn_start):
    """Clients know the relay by its external address, and reach each other by it."""
    turnd = turn_start('--turn-external-ip', '8.8.4.4')
    a, b = turnd.udp().allocate(), turnd.udp().allocate()
    assert a.relayed[0] == b.relayed[0] == '8.8.4.4'
    assert a.permit('8.8.4.4').code == 0
    assert b.bind_channel(0x4000, a.relayed).code == 0
    a.send(b.relayed, b'outside in')
    got = b.data()
    assert got == (0x4000, b'outside in'), got
    b.send_channel(0x4000, b'and back')
    assert a.data() == (b.relayed, b'and back')


# ---- lists --------------------------------------------------------------------------------------

def test_turn_62_a_denied_peer_goes_before_an_allowed_range(turn_start):
    turnd = turn_start('--turn-deny-peer', '127.66.0.0/16', '--turn-deny-peer', '8.8.8.8')
    client = turnd.udp().allocate()
    for ip, code in (('127.66.0.1', 403), ('127.66.255.255', 403), ('127.67.0.1', 0),
                     ('8.8.8.8', 403), ('8.8.8.9', 0)):
        assert client.permit(ip).code == code, ip


def test_turn_62_an_allow_of_everything_opens_nothing(turn_start):
    """0.0.0.0/0 is less specific than our table (turn.md §15.1)."""
    turnd = turn_start(allow=('0.0.0.0/0', '::/0'))
    client = turnd.udp().allocate()
    for ip in ('10.0.0.1', '169.254.169.254', '192.168.1.1'):
        assert client.permit(ip).code == 403, ip


@pytest.mark.parametrize('flag', ['--turn-allow-peer', '--turn-deny-peer'])
@pytest.mark.parametrize('rule', ['10.0.0.0/33', '10.0.0', 'fe80::/129', '10.0.0.0/', 'all', ''])
def test_coturn_4_11_a_malformed_rule_is_refused_at_start(tmp_path, flag, rule):
    """Ignored, it would leave open what was meant to be closed."""
    done = subprocess.run([str(SLUICE), '--preset', 'turn', '--data', str(tmp_path), flag, rule,
                           '--listen-turn', '127.0.0.1:0'], capture_output=True, text=True,
                          timeout=20)
    assert done.returncode == 2 and flag in done.stderr and not done.stdout
