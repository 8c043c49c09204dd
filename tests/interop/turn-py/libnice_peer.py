"""libnice_peer.py SERVER: one ICE agent by libnice with its pseudo-TCP inside, driven over stdin, one
JSON object per line on stdout (see ../README.md). It talks to its like only."""

import hashlib
import json
import os
import re
import sys
import threading

import gi
gi.require_version('Nice', '0.1')
from gi.repository import GLib, Nice  # noqa: E402

MESSAGE = 16384
COMPONENT = 1
KINDS = {'udp': Nice.RelayType.UDP, 'tcp': Nice.RelayType.TCP}
said = threading.Lock()


def say(**event):
    with said:
        print(json.dumps(event), flush=True)


class Peer:
    def __init__(self, server):
        self.loop = GLib.MainLoop()
        # RFC5245 as everybody has it; ice-tcp would only try what cannot be reached
        self.agent = Nice.Agent.new_reliable(self.loop.get_context(), Nice.Compatibility.RFC5245)
        self.agent.set_property('ice-tcp', False)
        self.agent.set_property('upnp', False)
        self.agent.set_property('force-relay', server.get('policy') == 'relay')
        self.agent.connect('candidate-gathering-done', lambda *_: self.gathered.set())
        self.agent.connect('component-state-changed', self.changed)
        self.gathered, self.opened = threading.Event(), False
        self.stream = self.agent.add_stream(1)
        self.agent.set_stream_name(self.stream, 'application')
        if server.get('urls'):
            host, port, kind = re.fullmatch(r'turn:\[?([^\]?]+?)\]?:(\d+)(?:\?transport=(\w+))?',
                                            server['urls']).groups()
            assert self.agent.set_relay_info(self.stream, COMPONENT, host, int(port),
                                             server['username'], server['credential'],
                                             KINDS[kind or 'udp'])
        self.io = self.agent.get_io_stream(self.stream, COMPONENT)
        threading.Thread(target=self.loop.run, daemon=True).start()
        self.received, self.hash = 0, hashlib.sha256()
        self.progress = threading.Condition()
        # libnice only handles what arrives, STUN too, while somebody reads
        threading.Thread(target=self.read, daemon=True).start()

    def changed(self, _agent, _stream, _component, state):
        if state == Nice.ComponentState.READY and not self.opened:
            self.opened = True
            say(ev='open')
        elif state == Nice.ComponentState.FAILED:
            say(ev='error', what='no pair of candidates works')

    def read(self):
        while True:
            data = self.io.get_input_stream().read_bytes(MESSAGE, None).get_data()
            with self.progress:
                self.hash.update(data)
                self.received += len(data)
                self.progress.notify()

    def describe(self):
        assert self.agent.gather_candidates(self.stream)
        self.gathered.wait()
        return self.agent.generate_local_sdp()

    def offer(self, _):
        self.agent.set_property('controlling-mode', True)
        say(ev='offer', sdp=self.describe())

    def answer(self, sdp):
        self.agent.set_property('controlling-mode', False)
        mine = self.describe()
        self.accept(sdp)
        say(ev='answer', sdp=mine)

    def accept(self, sdp):
        assert self.agent.parse_remote_sdp(sdp) > 0, sdp

    def send(self, size, sent):
        out = self.io.get_output_stream()
        for at in range(0, size, MESSAGE):
            part = os.urandom(min(MESSAGE, size - at))
            sent.update(part)
            out.write_all(part, None)

    def transfer(self, size):
        """Sends as many random bytes as it then waits for."""
        sent = hashlib.sha256()
        sender = threading.Thread(target=self.send, args=(size, sent))
        sender.start()
        with self.progress:
            self.progress.wait_for(lambda: self.received >= size)
        sender.join()
        say(ev='transferred', sent=size, sent_sha256=sent.hexdigest(), received=self.received,
            received_sha256=self.hash.hexdigest())


def main():
    peer = Peer(json.loads(sys.argv[1]))
    say(ev='id', client='libnice')
    for line in sys.stdin:
        command = json.loads(line)
        if command['cmd'] == 'quit':
            break
        try:
            getattr(peer, command['cmd'])(command.get('arg'))
        except Exception as e:  # whatever it is, the test is told
            say(ev='error', cmd=command['cmd'], what=repr(e))
    os._exit(0)


main()
