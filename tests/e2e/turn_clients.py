"""The WebRTC clients of tests/interop, each in a network namespace, by their line protocol."""

import json
import queue
import re
import subprocess
import threading

import pytest

from clients import Client, command_of
from turn_field import PASSWORD, SERVER4, USER


class Peer(Client):
    """`policy` relay: it has no candidates but relayed ones."""

    def __init__(self, name, space, server=None, policy='relay'):
        command = command_of(name)
        if command is None:
            pytest.skip('the %s client is not built: run tests/interop/setup %s' % (name, name))
        self.name = name
        at = dict(server or {}, policy=policy)
        self.proc = space.popen([command, json.dumps(at)], stdin=subprocess.PIPE,
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.events, self.queue, self.stderr = [], queue.Queue(), []
        threading.Thread(target=self._read, daemon=True).start()
        threading.Thread(target=lambda: self.stderr.extend(self.proc.stderr), daemon=True).start()
        self.wait('id', timeout=30)

    def say(self, cmd, arg=None):
        self.proc.stdin.write(json.dumps({'cmd': cmd, 'arg': arg}) + '\n')
        self.proc.stdin.flush()


def turn_server(transport='udp', host=SERVER4, port=3478):
    host = '[%s]' % host if ':' in host else host
    return {'urls': 'turn:%s:%d?transport=%s' % (host, port, transport), 'username': USER,
            'credential': PASSWORD}


def candidates(sdp):
    """The types of candidates in a description."""
    return set(re.findall(r'^a=candidate:.* typ (\w+)', sdp, re.M))


def connect(caller, callee):
    """Offer, answer, data channel open; gives the types of both ends' candidates."""
    caller.say('offer')
    offer = caller.wait('offer', timeout=30)['sdp']
    callee.say('answer', offer)
    answer = callee.wait('answer', timeout=30)['sdp']
    caller.say('accept', answer)
    for peer in (caller, callee):
        peer.wait('open', timeout=30)
    return candidates(offer), candidates(answer)


def exchange(caller, callee, size):
    """Both send `size` random bytes at once, and get what the other sent."""
    for peer in (caller, callee):
        peer.say('transfer', size)
    a, b = (peer.wait('transferred', timeout=90) for peer in (caller, callee))
    assert a['received'] == b['received'] == size, (a, b)
    assert a['sent_sha256'] == b['received_sha256'], (a, b)
    assert b['sent_sha256'] == a['received_sha256'], (a, b)
