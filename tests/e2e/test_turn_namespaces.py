"""turn.md §20, checks 62, 63, 72, 73 and others where loopback cannot show them: hosts with global
addresses in network namespaces, joined by the server's alone, so the default peer policy stays as
it is, links have an MTU, and ICMP comes from somewhere."""

import array
import http.client
import socket
import struct
import sys

import pytest

from relay import SLOW
from turn import (ADDITIONAL_ADDRESS_FAMILY, BINDING, CONNECT, CONNECTION_ATTEMPT, CONNECTION_BIND,
                  CONNECTION_ID, DATA, DONT_FRAGMENT, ICMP, INDICATION, REQUESTED_ADDRESS_FAMILY,
                  TCP_TRANSPORT, Client, TcpPath, UdpPath, UdpPeer, family, message, peer, type_of)
from turn_field import HOSTS, OTHER4, SERVER4, SERVER6, Field, Space, can_unshare
from turnd import Turnd

pytestmark = pytest.mark.skipif(not can_unshare(), reason='no namespaces here: allow unprivileged '
                                'user namespaces (kernel.unprivileged_userns_clone=1) or be root')

PORT = 3478
A4, A6 = HOSTS['a'][0] + '.2', HOSTS['a'][1] + '2'
B4, B6 = HOSTS['b'][0] + '.2', HOSTS['b'][1] + '2'
C4, C_MTU = '25.4.0.2', 1280  # behind b, which forwards, on a link that takes less

# Opens sockets where it runs, and hands them to who asks for them.
OPENER = '''
import array, socket, sys
ask = socket.socket(fileno=int(sys.argv[1]))
while True:
    line = ask.recv(300).decode().split()
    if not line:
        break
    kind, ip, port = int(line[0]), line[1], int(line[2])
    sock = socket.socket(socket.AF_INET6 if ':' in ip else socket.AF_INET, kind)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((ip, port))
    ask.sendmsg([b'!'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [sock.fileno()]))])
    sock.close()
'''


class Sockets:
    """turn.bound, in a namespace."""

    def __init__(self, space):
        self.ask, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.proc = space.popen([sys.executable, '-c', OPENER, theirs.fileno()],
                                pass_fds=[theirs.fileno()])
        theirs.close()

    def bound(self, kind, ip, port=0):
        self.ask.send(('%d %s %d' % (kind, ip, port)).encode())
        _, passed, _, _ = self.ask.recvmsg(1, socket.CMSG_SPACE(4))
        fd = array.array('i', passed[0][2])[0]
        return socket.socket(fileno=fd)

    def close(self):
        self.ask.close()
        self.proc.wait()


class Net:
    """The field with sockets in it, and a server with our defaults."""

    def __init__(self, directory, *flags, listen=('0.0.0.0:3478', '[::]:3478')):
        self.field = Field()
        self.beyond = self._beyond()
        self.a, self.b, self.c, self.s = (Sockets(space) for space in (
            self.field.a, self.field.b, self.beyond, self.field.s))
        self.turnd = Turnd(directory, *flags, listen=listen, allow=())
        self.turnd.relay.argv = self.field.s.enter + self.turnd.relay.argv
        self.turnd.start()
        self.clients = []

    def _beyond(self):
        b, c = self.field.b, Space(self.field.s)
        b.ip('link', 'add', 'name', 'to-c', 'mtu', str(C_MTU), 'type', 'veth', 'peer', 'name', 'eth0',
             'mtu', str(C_MTU), 'netns', str(c.holder.pid))
        for where, link, address in ((b, 'to-c', '25.4.0.1/24'), (c, 'eth0', C4 + '/24')):
            where.ip('addr', 'add', address, 'dev', link)
            where.ip('link', 'set', link, 'up')
        c.ip('route', 'add', 'default', 'via', '25.4.0.1')
        self.field.s.ip('route', 'add', '25.4.0.0/24', 'via', B4)
        assert b.run(['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward']).returncode == 0
        return c

    def client(self, kind='udp', server=SERVER4, source=None, **options):
        source = source or (A6 if ':' in server else A4)
        path = (UdpPath if kind == 'udp' else TcpPath)((server, PORT), source, make=self.a.bound)
        self.clients.append(Client(path, **options))
        return self.clients[-1]

    def peer(self, ip=B4, port=0):
        return UdpPeer(ip, port, make=(self.c if ip == C4 else self.b).bound)

    def close(self):
        for client in self.clients:
            client.close()
        self.turnd.finish()
        for sockets in (self.a, self.b, self.c, self.s):
            sockets.close()
        self.beyond.close()
        self.field.close()


@pytest.fixture(scope='module')
def net(tmp_path_factory):
    it = Net(tmp_path_factory.mktemp('net'), '--turn-relay-ip', SERVER4, '--turn-relay-ip', SERVER6)
    yield it
    it.close()


# ---- the default policy -------------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.parametrize('kind', ['udp', 'tcp'])
@pytest.mark.parametrize('outer', [SERVER4, SERVER6], ids=['from_v4', 'from_v6'])
@pytest.mark.parametrize('inner', [B4, B6], ids=['to_v4', 'to_v6'])
def test_turn_29_turn_50_turn_64_hosts_of_the_world_reach_each_other(net, kind, outer, inner):
    """Any family on either side, with nothing allowed by hand; the peer sees the relay's address,
    the client its own."""
    client = net.client(kind, outer)
    assert client.ask(BINDING).address() == client.path.local
    client.allocate(family(REQUESTED_ADDRESS_FAMILY, 2 if ':' in inner else 1))
    assert client.relayed[0] == (SERVER6 if ':' in inner else SERVER4)
    with net.peer(inner) as far:
        far.send(b'uninvited', client.relayed)
        assert client.quiet()
        assert client.permit(inner).code == 0
        assert client.bind_channel(0x4000, far.at).code == 0
        for n in (0, 1, 1200):
            client.send_channel(0x4000, b'x' * n)
            assert far.recv() == (b'x' * n, client.relayed)
            far.send(b'y' * n, client.relayed)
            assert client.data() == (0x4000, b'y' * n)
    assert client.refresh(0).code == 0


@pytest.mark.sanitize
@pytest.mark.parametrize('kind', ['udp', 'tcp'])
def test_turn_62_turn_63_own_and_local_addresses_are_403_by_default(net, kind):
    """What the host is known as, the loopback and its neighbours' private ranges; a batch with the
    good peer in it is refused whole."""
    client = net.client(kind).allocate(family(ADDITIONAL_ADDRESS_FAMILY, 2))
    for ip in ('127.0.0.1', '0.0.0.0', '10.0.0.1', '169.254.169.254', '224.0.0.1', '::1', '::',
               'fe80::1', 'fd00::1', 'ff02::1', '::ffff:127.0.0.1', '::127.0.0.1',
               '64:ff9b::7f00:1', '2002:7f00:1::', '::ffff:' + B4,
               OTHER4, HOSTS['a'][0] + '.1', HOSTS['b'][0] + '.1', HOSTS['b'][1] + '1'):
        assert client.permit(ip).code == 403, ip
        assert client.permit(B4, ip).code == 403, ip
        assert client.bind_channel(0x4001, (ip, 80)).code == 403, ip
    for at in ((SERVER4, PORT), (SERVER6, PORT), (SERVER4, 80), (SERVER4, 22)):
        assert client.bind_channel(0x4001, at).code == 403, at
    probe = message(BINDING)
    if client.permit(SERVER4).code == 0:  # its relayed addresses are there
        client.send((SERVER4, PORT), probe)
    with net.peer() as far:
        client.send(far.at, b'without a permission')
        assert client.permit(B4).code == 0
        client.send(far.at, b'with one')
        assert far.recv() == (b'with one', client.relayed)
    assert client.data(0.1) is None


@pytest.mark.sanitize
def test_turn_62_turn_63_connect_stands_under_the_same_policy(net):
    client = net.client('tcp').allocate(transport=TCP_TRANSPORT)
    http_port = int(net.turnd.relay.http.rsplit(':', 1)[1])
    for at in (('127.0.0.1', http_port), (SERVER4, PORT), (SERVER4, 22), (OTHER4, PORT),
               ('0.0.0.0', http_port), ('10.0.0.1', 80)):
        assert client.request(CONNECT, peer(*at)).code == 403, at


def test_turn_78_turn_79_streams_between_hosts(net):
    """Out to a peer, and in from one."""
    client = net.client('tcp').allocate(transport=TCP_TRANSPORT)

    def data_connection(number):
        near = net.client('tcp')
        assert near.request(CONNECTION_BIND, (CONNECTION_ID, number)).code == 0
        return near.path
    with net.b.bound(socket.SOCK_STREAM, B4) as listener:
        listener.listen()
        listener.settimeout(5 * SLOW)
        got = client.request(CONNECT, peer(*listener.getsockname()))
        far, source = listener.accept()
        assert got.code == 0 and source == client.relayed
        near = data_connection(got.get(CONNECTION_ID))
        near.send(b'out')
        assert far.recv(10) == b'out'
        far.close()
        assert near.closed_within(2)
    assert client.permit(B4).code == 0
    far = net.b.bound(socket.SOCK_STREAM, B4)
    far.settimeout(5 * SLOW)
    far.connect(client.relayed)
    got = client.wait(lambda u: u.type == type_of(CONNECTION_ATTEMPT, INDICATION))
    near = data_connection(got.get(CONNECTION_ID))
    far.sendall(b'in')
    assert near.raw(2) == b'in'
    far.close()


def test_turn_63_hairpin_between_hosts(net):
    one, two = net.client().allocate(), net.client().allocate()
    assert one.permit(SERVER4).code == 0 and two.bind_channel(0x4000, one.relayed).code == 0
    one.send(two.relayed, b'round')
    assert two.data() == (0x4000, b'round')
    two.send_channel(0x4000, b'and back')
    assert one.data() == (two.relayed, b'and back')


def test_cve_2021_21382_the_admin_doors_are_not_on_the_relay(net):
    """HTTP is on loopback only, and is not spoken at the relay's addresses."""
    port = int(net.turnd.relay.http.rsplit(':', 1)[1])
    probe = net.a.bound(socket.SOCK_STREAM, A4)
    probe.settimeout(2 * SLOW)
    with pytest.raises(OSError):
        probe.connect((SERVER4, port))
    probe.close()
    inside = net.s.bound(socket.SOCK_STREAM, '127.0.0.1')
    inside.settimeout(5)
    inside.connect(('127.0.0.1', port))
    connection = http.client.HTTPConnection('127.0.0.1', port)
    connection.sock = inside
    connection.request('GET', '/health')
    assert connection.getresponse().status == 200
    connection.close()


# ---- 72, 73: what the network says --------------------------------------------------------------

def icmp(client, timeout=3.0):
    """(peer, type, code, data) of the next Data indication with ICMP in it."""
    got = client.data(timeout)
    if got is None:
        return None
    assert not isinstance(got[1], bytes), got
    assert not got[1].has(DATA)
    word, data = struct.unpack('!II', got[1].get(ICMP))
    return got[0], word >> 9 & 0x7F, word & 0x1FF, data


@pytest.mark.parametrize('inner', [B4, B6], ids=['v4', 'v6'])
def test_turn_72_a_closed_port_of_another_host(net, inner):
    client = net.client().allocate(family(REQUESTED_ADDRESS_FAMILY, 2 if ':' in inner else 1))
    with net.peer(inner) as far:
        at = far.at
    assert client.permit(inner).code == 0
    for _ in range(10):  # the other host's kernel has a limit for what it says, too
        client.send(at, b'anybody?')
        told = icmp(client, 0.5)
        if told:
            break
    assert told == (at, *((1, 4) if ':' in inner else (3, 3)), 0)


def test_turn_71_turn_73_what_is_larger_than_the_link_is_fragmented(net):
    """Without DONT-FRAGMENT."""
    client = net.client('tcp').allocate()
    with net.peer() as far:
        assert client.permit(B4).code == 0
        for n in (1472, 1473, 2000, 8000):
            client.send(far.at, bytes(n))
            assert far.recv() == (bytes(n), client.relayed)
            far.send(bytes(n), client.relayed)
            assert client.data() == (far.at, bytes(n))


@pytest.mark.sanitize
def test_turn_73_dont_fragment_is_kept(net):
    """2000 bytes on a link of 1500 are not sent in pieces; the client is told 1500. What fits goes,
    and what does not ask for it is cut up afterwards as before."""
    client = net.client('tcp').allocate()
    with net.peer() as far:
        assert client.permit(B4).code == 0
        client.send(far.at, bytes(1472), (DONT_FRAGMENT, b''))
        assert far.recv() == (bytes(1472), client.relayed)
        client.send(far.at, bytes(2000), (DONT_FRAGMENT, b''))
        assert far.recv(0.3 / SLOW) is None
        told = icmp(client)
        assert told[1:] == (3, 4, 1500) and told[0] in (far.at, (B4, 0)), told
        client.send(far.at, b'small', (DONT_FRAGMENT, b''))
        assert far.recv() == (b'small', client.relayed)
        client.send(far.at, bytes(2000))
        assert far.recv() == (bytes(2000), client.relayed)


@pytest.mark.sanitize
def test_turn_73_a_router_says_that_it_is_too_large(net):
    """1400 bytes through a link of 1280: in pieces, at the first attempt, for who has not forbidden
    it; else 3/4 with the MTU, as the router sent it. What fits goes afterwards, too."""
    client = net.client().allocate()
    with net.peer(C4) as far:
        assert client.permit(C4).code == 0
        client.send(far.at, bytes(1400))
        assert far.recv() == (bytes(1400), client.relayed), 'DF is not set by itself'
        client.send(far.at, bytes(1400), (DONT_FRAGMENT, b''))
        assert icmp(client) == (far.at, 3, 4, C_MTU)
        client.send(far.at, b'small', (DONT_FRAGMENT, b''))
        assert far.recv() == (b'small', client.relayed)
        client.send(far.at, bytes(1400))
        assert far.recv() == (bytes(1400), client.relayed)


def test_turn_71_hop_limits_are_the_relays_own(net):
    """A client's TTL of 1 does not stick to anything (turn.md §10)."""
    client = net.client().allocate()
    with net.peer() as far:
        far.sock.setsockopt(socket.IPPROTO_IP, 12, 1)  # IP_RECVTTL
        assert client.permit(B4).code == 0
        for ttl in (1, 64, 1):
            client.path.sock.setsockopt(socket.IPPROTO_IP, socket.IP_TTL, ttl)
            client.send(far.at, b'?')
            far.sock.settimeout(3 * SLOW)
            data, extra, _, _ = far.sock.recvmsg(100, 100)
            assert data == b'?' and struct.unpack('=i', extra[0][2])[0] >= 32


def test_turn_01_answers_leave_from_the_address_that_was_asked(net):
    """One wildcard socket, several addresses; the path looks at the source."""
    for server in (SERVER4, OTHER4, HOSTS['a'][0] + '.1', SERVER6, HOSTS['a'][1] + '1'):
        client = net.client(server=server)
        assert client.ask(BINDING).address() == client.path.local
        client.allocate()


def test_turn_75_private_relayed_addresses_are_warned_about(tmp_path):
    """And not those of the world."""
    for ip, warned in ((SERVER4, False), ('127.0.0.1', True)):
        net = Net(tmp_path / ip, '--turn-relay-ip', ip, listen=('%s:3478' % ip,))
        net.close()
        assert ('private' in net.turnd.relay.log()) == warned, net.turnd.relay.log()


