"""coturn's own clients, unmodified, against our TURN server (issue 4): turnutils_uclient in every
mode that it has without TLS and OAuth, and turnutils_natdiscovery. uclient paces itself and hardly
uses the processor, so all its modes run at once against one server."""

import re
import subprocess
import time

import pytest

import turn_field
from turn_field import (HOSTS, PASSWORD, SECRET, SERVER4, SERVER6, USER, Field, Server,
                        unpacked)

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not turn_field.can_unshare(), reason=turn_field.UNSHARE_CURE),
    pytest.mark.skipif(unpacked('turnutils_uclient') is None,
                       reason='no turnutils_uclient: run tools/deps --test'),
]

# -y: pairs of uclient's clients talk to each other through the server; else they talk to an echo
# behind the other link. -m clients, -n messages of -l bytes. The number: messages that must arrive;
# each client has a second connection for RTCP unless -c, -T or -Z, and both ends send.
MODES = {
    'udp': ('-y -m 8 -n 50 -l 1000', SERVER4, 400),
    'udp to a peer': ('-e {peer4} -n 50', SERVER4, 100),
    'udp by Send and Data': ('-y -s -n 50', SERVER4, 200),
    'udp by Send to a peer': ('-s -e {peer4} -n 50', SERVER4, 100),
    'udp, ChannelData padded': ('-y -D -n 50 -l 101', SERVER4, 200),
    'udp, DONT-FRAGMENT': ('-y -g -s -n 20', SERVER4, 80),
    'udp, ORIGIN and BANDWIDTH': ('-y -o http://example.org -a 100000 -n 20', SERVER4, 80),
    'udp, no RTCP, short': ('-y -c -l 24 -n 20', SERVER4, 40),
    'tcp': ('-y -t -n 50', SERVER4, 200),
    'tcp to a peer': ('-t -e {peer4} -n 50', SERVER4, 100),
    'tcp by Send and Data': ('-y -t -s -n 50', SERVER4, 200),
    'udp over IPv6': ('-y -x -n 50', SERVER6, 200),
    'udp over IPv6 to a peer': ('-x -e {peer6} -n 50', SERVER6, 100),
    'tcp over IPv6': ('-y -t -x -n 50', SERVER6, 200),
    'IPv4 client, IPv6 relay': ('-y -x -n 20', SERVER4, 80),
    'IPv6 client, IPv4 relay': ('-y -X -n 20', SERVER6, 80),
    'T': ('-T', SERVER4, 10),
    'T over IPv6': ('-T -x', SERVER6, 10),
    'T to a peer': ('-T -e {peer4}', SERVER4, 10),
    # What the active peer is sent it never reads, with any server: one direction of two is all.
    'P': ('-P -L {own4}', SERVER4, 5),
    'Z': ('-y -Z -n 20', SERVER4, 40),
    'M': ('-y -M -n 20', SERVER4, 80),
    'G': ('-y -G -n 20', SERVER4, 80),
    'N': ('-y -N -n 20', SERVER4, 80),
}
# These break what they send or leave at once: nothing need arrive, and the server lives.
HOSTILE = {
    'R': '-y -R -m 4 -n 20',
    'R over tcp': '-y -t -R -m 4 -n 20',
    'N with T': '-T -N',
    'M over tcp': '-y -t -M -n 20',
    'O': '-y -O -m 10',
    'B': '-y -B -m 4 -n 20',
}

# It takes channels from 0x4000 to 0x7fff, as RFC 5766 had them.
COMPAT = '--turn-compat-channels'


def uclient(space, flags, server, *more):
    path, env = unpacked('turnutils_uclient')
    words = flags.format(peer4=HOSTS['b'][0] + '.2', peer6=HOSTS['b'][1] + '2',
                         own4=HOSTS['a'][0] + '.2').split()
    return space.popen([path, *words, *(more or ('-u', USER, '-w', PASSWORD)), server], env=env,
                       stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                       errors='replace')  # some of its messages print what it never set


def outcome(proc, timeout):
    try:
        return proc.communicate(timeout=timeout * turn_field.SLOW)[0]
    except subprocess.TimeoutExpired:
        proc.kill()
        return proc.communicate()[0] + '\nstopped after %d s' % timeout


@pytest.fixture(scope='module')
def field():
    live = Field()
    yield live
    live.close()


@pytest.fixture(scope='module')
def server(field, tmp_path_factory):
    live = Server(field, tmp_path_factory.mktemp('turn'), COMPAT, mobility=True).start()
    yield live
    live.check()
    assert live.stop() in (0, -15 if live.coturn else 0)


@pytest.fixture(scope='module')
def runs(field, server):
    """{mode: what uclient printed}"""
    path, env = unpacked('turnutils_peer')
    peer = field.b.popen([path], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        live = {name: uclient(field.a, flags, at) for name, (flags, at, _) in MODES.items()}
        end = time.monotonic() + 40
        yield {name: outcome(proc, max(1, end - time.monotonic())) for name, proc in live.items()}
    finally:
        peer.kill()
        peer.wait()


@pytest.mark.parametrize('name', MODES)
def test_turn_uclient(runs, server, name):
    said = runs[name]
    total = re.search(r'start_mclient: tot_send_msgs=(\d+), tot_recv_msgs=(\d+)', said)
    assert total, said[-3000:]
    assert int(total[2]) == MODES[name][2], said[-3000:]
    if name != 'P':
        assert 'Total lost packets 0 ' in said, said[-3000:]
    server.check()


def test_turn_uclient_hostile(field, server):
    """Corrupted requests, bad channel numbers, leaving without a word; a client beside them loses
    nothing."""
    live = {name: uclient(field.a, flags, SERVER4) for name, flags in HOSTILE.items()}
    end = time.monotonic() + 10
    beside = outcome(uclient(field.a, '-y -n 50', SERVER4), 30)
    assert 'tot_send_msgs=200, tot_recv_msgs=200' in beside, beside
    for proc in live.values():
        outcome(proc, max(0.1, end - time.monotonic()))
    server.check()


def test_turn_uclient_wrong_password(field, server):
    said = outcome(uclient(field.a, '-y', SERVER4, '-u', USER, '-w', 'wrong'), 20)
    assert 'Cannot complete Allocation' in said and 'tot_recv_msgs' not in said, said


def test_turn_uclient_forbidden_peer(field, server):
    """What the policy denies by default stays denied in here: nothing was opened for this."""
    said = outcome(uclient(field.a, '-e 10.0.0.1', SERVER4), 5)
    assert '403' in said and 'tot_recv_msgs' not in said, said


def test_turn_uclient_rest(field, tmp_path):
    """-W: uclient makes itself a user name with a time in it, and signs it with the secret."""
    with Server(field, tmp_path, COMPAT, auth='secret', port=3500) as server:
        said = outcome(uclient(field.a, '-y -n 20 -p 3500', SERVER4, '-u', 'ann', '-W', SECRET), 30)
        assert 'tot_send_msgs=80, tot_recv_msgs=80' in said, said
        server.check()


@pytest.mark.parametrize('flags, wants', [
    ('-m', ['NAT with Endpoint Independent Mapping']),
    ('-f', ['NAT with Endpoint Independent Filtering']),
    ('-m -f -P', ['Independent Mapping', 'Independent Filtering']),
    ('-H -L {own} -l 4000', ['successful hairpinning']),
    ('-t -T 1 -L {own} -l 4001', ['UDP reflexive addr: {own}']),
    ('-c -L {own} -l 4002 -A {own2}', ['UDP reflexive addr: {own}:4002',
                                       'UDP reflexive addr: {own2}:4002']),
])
def test_turn_natdiscovery(field, tmp_path, flags, wants):
    path, env = unpacked('turnutils_natdiscovery')
    own = {'own': HOSTS['a'][0] + '.2', 'own2': HOSTS['a'][0] + '.3'}
    with Server(field, tmp_path, alternate=True, port=3600) as server:
        done = field.a.run([path, '-p', '3600', *flags.format(**own).split(), SERVER4], env=env,
                           timeout=30)
        server.check()
    for want in wants:
        assert want.format(**own) in done.stdout, done.stdout + done.stderr
