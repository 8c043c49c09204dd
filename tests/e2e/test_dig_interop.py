"""Real WebSocket clients, unmodified, that are nodes of the DIG network (issue 5): npm's ws,
Debian's python3-websockets and a page in Debian's Chromium. Each registers and asks for peers
without waiting for the ack, pings, sends and gets payloads of many lengths, broadcasts, closes."""

import json
import queue
import re
import subprocess
import threading

import pytest

from clients import Client, command_of
from dig import fresh_id, fresh_net

pytestmark = pytest.mark.interop

NAMES = ['ws', 'websockets', 'digpage']
SIZES = [0, 1, 2, 125, 126, 127, 1000, 16384, 16400, 30000] + [1200] * 40


class Node(Client):
    """The line protocol is JSON both ways (tests/interop/README.md)."""

    def __init__(self, name, digd, net, peer_id=None):
        command = command_of(name)
        if command is None:
            pytest.skip('the %s client is not built: run tests/interop/setup %s' % (name, name))
        self.name, self.id = name, peer_id or fresh_id()
        self.proc = subprocess.Popen([command], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                                     stderr=subprocess.PIPE, text=True)
        self.events, self.queue, self.stderr = [], queue.Queue(), []
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=lambda: self.stderr.extend(self.proc.stderr), daemon=True).start()
        self.wait('id', timeout=30)
        self.opened = self.do('open', url='ws://%s:%d/' % digd.at, peer_id=self.id, network_id=net)

    def say(self, cmd, **arg):
        self.proc.stdin.write(json.dumps({'cmd': cmd, 'arg': arg}) + '\n')
        self.proc.stdin.flush()

    def do(self, cmd, **arg):
        self.say(cmd, **arg)
        return self.wait(cmd, timeout=60)


def has(target, source, kind, count, sha256):
    """What the source says it sent is what the target got."""
    got = target.do('received', kind=kind, count=count)
    assert got['count'] == count and got['sha256'] == sha256, (source.name, target.name, got)
    assert source.id in got['senders'], got


@pytest.mark.parametrize('a, b', [('ws', 'ws'), ('websockets', 'websockets'), ('digpage',
                                                                               'digpage'),
                                  ('ws', 'digpage'), ('websockets', 'ws'),
                                  ('digpage', 'websockets')])
def test_dig_interop(digd, a, b):
    net = fresh_net()
    with Node(a, digd, net) as one, Node(b, digd, net) as two:
        assert one.opened['ack']['success'] and one.opened['peers'] == [one.id]
        assert sorted(two.opened['peers']) == sorted([one.id, two.id])
        for node in (one, two):
            assert node.do('pings', count=20)['pongs'] >= 20
        one.say('send', to=two.id, sizes=SIZES)  # both ways at once
        two.say('send', to=one.id, sizes=SIZES)
        sent = [node.wait('send')['sha256'] for node in (one, two)]
        has(two, one, 'relay_message', len(SIZES), sent[0])
        has(one, two, 'relay_message', len(SIZES), sent[1])
        has(two, one, 'broadcast', 3, one.do('send', sizes=[3, 1000, 0])['sha256'])
        one.do('send', to='nobody', sizes=[1])
        one.do('pings', count=1)
        listed = one.do('list')
        assert listed['errors'] == [3] and listed['presence'] == ['+' + two.id]
        at = [peer for peer in listed['peers'] if peer['peer_id'] == two.id][0]
        assert re.fullmatch(r'127\.0\.0\.1:9444', at['addresses'][0])
        end = two.do('close', code=1000, reason='bye')
        assert (end['code'], end['reason'], end['wasClean']) == (1000, 'bye', True)
        digd.settle(lambda: one.do('list')['presence'] == ['+' + two.id, '-' + two.id])
        assert [peer['peer_id'] for peer in one.do('list')['peers']] == [one.id]


def test_dig_interop_three(digd):
    """All of them on one network; a broadcast reaches each, and one that is killed is missed."""
    net = fresh_net()
    nodes = [Node(name, digd, net) for name in NAMES]
    try:
        for node in nodes:
            sent = node.do('send', sizes=SIZES)['sha256']
            for other in nodes:
                if other is not node:
                    has(other, node, 'broadcast', len(SIZES), sent)
        nodes[0].kill()
        for other in nodes[1:]:
            digd.settle(lambda other=other: '-' + nodes[0].id in other.do('list')['presence'])
    finally:
        for node in nodes:
            node.quit() if node is not nodes[0] else node.kill()


@pytest.mark.parametrize('name', NAMES)
def test_dig_interop_with_the_raw_client(digd, name):
    """To the byte on our side (dig.judge), as their libraries write it on the other."""
    raw = digd.peer()
    with Node(name, digd, raw.net) as node:
        raw.told('peer_connected', node.id)
        raw.relay(node.id, range(256), seq=5)
        node.do('received', kind='relay_message', count=1)
        node.do('send', to=raw.id, sizes=[256])
        got = raw.expect('relay_message', from_=node.id, to=raw.id, seq=0)
        assert len(got['payload']) == 256
        node.say('close', code=4321, reason='é')
        raw.told('peer_disconnected', node.id)
        assert node.wait('close')['code'] == 4321
