"""A client of the DIG relay over a bare socket, written from dig.md and RFC 6455 and sharing
nothing with proto/. Frames are made by hand, so that each rule can be broken; what comes is judged
to the byte: the frame (dig.md §3.2), the writing of its JSON (§4.2), the members and their order
(§5)."""

import base64
import collections
import hashlib
import itertools
import json
import os
import re
import socket
import ssl
import struct
import time

from relay import SLOW, next_ip

CONT, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
GUID = b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
SPACED = re.compile(r'"payload":\[[\d,\s]*\s[\d,\s]*\]')
PRESENCE = 'peer_connected', 'peer_disconnected'
U64_MAX = 18446744073709551615

# The members of what a relay sends, in their order (dig.md §5, §10.2, §15.3).
PEER = 'peer_id network_id protocol_version connected_at last_seen'.split()
ENTRY = 'peer_id addresses network_id last_seen via flags'.split()
MEMBERS = {name: members.split() for name, members in {
    'register_ack': 'type success message connected_peers',
    'relay_message': 'type from to payload seq',
    'broadcast': 'type from payload exclude',
    'peers': 'type peers',
    'peer_connected': 'type peer',
    'peer_disconnected': 'type peer_id',
    'pong': 'type timestamp',
    'hole_punch_coordinate': 'type peer_id external_addr',
    'hole_punch_result': 'type peer_id success',
    'pex_handshake': 'type version network_id interval flags',
    'pex_snapshot': 'type peers',
    'pex_delta': 'type added dropped',
    'pex_error': 'type code message',
    'get_dht_records': 'type max_keys',
    'error': 'type code message',
}.items()}

Frame = collections.namedtuple('Frame', 'op payload fin')
_numbers = itertools.count(1)


class Ended(Exception):
    """The connection has ended; `close` is the payload of its Close frame, None without one."""

    def __init__(self, close):
        super().__init__('ended without a Close' if close is None else 'closed with %r' % close)
        self.close = close


class Silence(Exception):
    """Nothing came in time."""


def fresh_id():
    return os.urandom(32).hex()


def fresh_net():
    return 'net-%d-%s' % (next(_numbers), os.urandom(4).hex())


def written(value):
    """As dig.md §4.2 has it."""
    return json.dumps(value, separators=(',', ':'), ensure_ascii=False)


def frame(op, payload=b'', fin=True, rsv=0, mask=True, length=None, form=None):
    """One frame. length: what it declares instead; form: 7, 16 or 64 bits for it."""
    n = len(payload) if length is None else length
    form = form or (7 if n < 126 else 16 if n < 65536 else 64)
    head = bytes([(0x80 if fin else 0) | rsv << 4 | op])
    bit = 0x80 if mask else 0
    head += {7: bytes([bit | n & 0x7f]), 16: bytes([bit | 126]) + struct.pack('!H', n & 0xffff),
             64: bytes([bit | 127]) + struct.pack('!Q', n)}[form]
    if not mask:
        return head + payload
    key = os.urandom(4)
    return head + key + masked(payload, key)


def masked(payload, key):
    n = len(payload)
    pad = (key * (n // 4 + 1))[:n]
    return (int.from_bytes(payload, 'big') ^ int.from_bytes(pad, 'big')).to_bytes(n, 'big')


def request(path='/', method='GET', version='HTTP/1.1', drop=(), more=(), key=None, **headers):
    """The head of an upgrade; a header is replaced by its name with _ for -, left out by `drop`."""
    fields = {'Host': 'relay', 'Connection': 'Upgrade', 'Upgrade': 'websocket',
              'Sec-WebSocket-Version': '13',
              'Sec-WebSocket-Key': key or base64.b64encode(os.urandom(16)).decode()}
    fields.update({name.replace('_', '-'): value for name, value in headers.items()})
    lines = ['%s %s %s' % (method, path, version)]
    lines += ['%s: %s' % item for item in fields.items() if item[0] not in drop]
    return ('\r\n'.join(lines + list(more)) + '\r\n\r\n').encode('latin-1')


def judge(payload):
    """A message of the relay, as dig.md §4.2 and §5 want it to the byte; gives its object. Space
    within a payload may be carried as it came."""
    text = payload.decode()
    said = json.loads(text)
    assert written(said) == SPACED.sub(lambda m: re.sub(r'\s', '', m[0]), text,
                                       1), 'not written as §4.2 has it: %s' % text[:300]
    kind = said.get('type')
    assert kind in MEMBERS, 'no message of a relay: %s' % text[:300]
    assert list(said) == MEMBERS[kind], 'members of %s: %s' % (kind, list(said))
    for peer in said['peers'] if kind == 'peers' else [said['peer']] if 'peer' in said else []:
        assert list(peer) == PEER + (['addresses'] if 'addresses' in peer else []), peer
        assert peer.get('addresses') != [], peer
    for entry in said.get('added', said['peers'] if kind == 'pex_snapshot' else []):
        assert list(entry) == ENTRY, entry
    return said


class Conn:
    """One connection to the relay port. Presence and questions for DHT records come when they like:
    they are put aside (`pushed`, `asked`), and what a test waits for is what else comes."""

    def __init__(self, at, source=None, tls=None, prelude=b'', sock=None, timeout=10,
                 rcvbuf=None):
        self.timeout = timeout * SLOW
        if sock is None:
            sock = socket.socket(socket.AF_INET6 if ':' in at[0] else socket.AF_INET)
            if rcvbuf:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, rcvbuf)
            if ':' not in at[0]:
                sock.bind((source or next_ip(), 0))
            sock.settimeout(self.timeout)
            sock.connect(at)
        self.sock = self.raw = sock
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if prelude:
            sock.sendall(prelude)
        if tls:
            try:
                self.sock = tls.wrap_socket(sock, server_hostname='relay')
            except BaseException:
                sock.close()
                raise
        self.buffer = bytearray()
        self.ended, self.close_payload = False, None
        self.pushed, self.asked, self.pongs = collections.deque(), [], []
        self.id = self.net = self.ack = None

    local = property(lambda self: self.raw.getsockname()[:2])

    # -- bytes
    def send(self, data):
        self.sock.sendall(data)

    def fill(self, until):
        """More bytes, by `until`; False at the end of the stream."""
        if self.ended:
            return False
        self.sock.settimeout(max(0.001, until - time.monotonic()))
        try:
            data = self.sock.recv(1 << 18)
        except (socket.timeout, ssl.SSLWantReadError):
            raise Silence('nothing came in time') from None
        except (ConnectionError, ssl.SSLError):
            data = b''  # a reset, where input was left unread, is an end like any other (§3.3)
        finally:
            self.sock.settimeout(self.timeout)
        self.ended = not data
        self.buffer += data
        return bool(data)

    def has_ended(self):
        """By now, as far as has arrived: a Close or the end of the stream."""
        try:
            while self.fill(time.monotonic()):
                pass
        except Silence:
            pass
        return self.ended or b'\x88' in self.buffer[-4:-1]

    def take(self, n, until):
        while len(self.buffer) < n:
            if not self.fill(until):
                raise Ended(self.close_payload)
        data = bytes(self.buffer[:n])
        del self.buffer[:n]
        return data

    def until(self, timeout=None):
        return time.monotonic() + (self.timeout if timeout is None else timeout)

    def head(self, timeout=None):
        """The head of an HTTP answer: its status line and [(name in lower case, value)]."""
        until = self.until(timeout)
        while b'\r\n\r\n' not in self.buffer:
            if not self.fill(until):
                raise Ended(None)
        end = self.buffer.index(b'\r\n\r\n')
        lines = self.take(end + 4, until)[:-4].decode('latin-1').split('\r\n')
        fields = [line.split(':', 1) for line in lines[1:]]
        return lines[0], [(name.lower(), value.strip()) for name, value in fields]

    def upgrade(self, path='/', after=b'', **options):
        """The handshake; `after` follows in the same segment."""
        key = base64.b64encode(os.urandom(16)).decode()
        self.send(request(path, key=key, **options) + after)
        status, fields = self.head()
        assert status == 'HTTP/1.1 101 Switching Protocols', status
        want = base64.b64encode(hashlib.sha1(key.encode() + GUID).digest()).decode()
        assert sorted(name for name, _ in fields) == \
            ['connection', 'sec-websocket-accept', 'upgrade'], fields
        fields = dict(fields)
        assert fields['sec-websocket-accept'] == want, fields
        assert fields['connection'].lower() == 'upgrade', fields
        assert fields['upgrade'].lower() == 'websocket', fields
        return self

    # -- frames
    def read_frame(self, timeout=None, until=None):
        until = until or self.until(timeout)
        while True:
            if len(self.buffer) >= 2:
                first, second = self.buffer[0], self.buffer[1]
                assert not second & 0x80, 'a relay masks nothing'
                assert not first & 0x70, 'no extension was agreed'
                size, at = second & 0x7f, 2
                if size > 125:
                    at = 4 if size == 126 else 10
                    if len(self.buffer) >= at:
                        size = int.from_bytes(self.buffer[2:at], 'big')
                        assert size > (125 if at == 4 else 65535), 'a length in its longer form'
                if len(self.buffer) >= at and len(self.buffer) >= at + size:
                    payload = bytes(self.buffer[at:at + size])
                    del self.buffer[:at + size]
                    break
            if not self.fill(until):
                assert not self.buffer or self.close_payload is not None, \
                    'ended within a frame: %r' % bytes(self.buffer[:80])
                raise Ended(self.close_payload)
        op = first & 0x0f
        assert self.close_payload is None, 'a frame behind the Close: %r' % payload[:80]
        assert first & 0x80, 'a relay fragments nothing'
        assert op in (TEXT, CLOSE, PING, PONG), 'opcode %d' % op
        if op == CLOSE:
            assert len(payload) != 1, payload
            self.close_payload = payload
        return Frame(op, payload, True)

    def text(self, payload):
        self.send(frame(TEXT, payload.encode() if isinstance(payload, str) else payload))

    def binary(self, payload):
        self.send(frame(BINARY, payload.encode() if isinstance(payload, str) else payload))

    def ping(self, payload=b''):
        self.send(frame(PING, payload))

    # -- messages
    def say(self, kind, **members):
        """One message; `from_` is the member `from`."""
        self.text(written({'type': kind, **{name.rstrip('_'): value
                                            for name, value in members.items()}}))

    def next(self, timeout=None, aside=True):
        """The next message; Ended at the end of the connection. The relay's own pings, with which
        it looks whether an incumbent lives (dig.md §21), are answered."""
        until = self.until(timeout)
        while True:
            if aside is False and self.pushed:
                return self.pushed.popleft()
            got = self.read_frame(until=until)
            if got.op == PING:
                self.send(frame(PONG, got.payload))
            elif got.op == PONG:
                self.pongs.append(got.payload)
            elif got.op == TEXT:
                said = judge(got.payload)
                if said['type'] == 'get_dht_records':
                    self.asked.append(said)
                elif aside and said['type'] in PRESENCE:
                    self.pushed.append(said)
                else:
                    return said

    def expect(self, kind, timeout=None, **members):
        said = self.next(timeout)
        wanted = {name.rstrip('_'): value for name, value in members.items()}
        got = {name: said.get(name) for name in wanted}
        assert said['type'] == kind and got == wanted, '%s %s, not %s' % (kind, members, said)
        return said

    def error(self, code, timeout=None):
        """An error of one line (dig.md §5.10)."""
        said = self.expect('error', timeout, code=code)
        assert said['message'].isprintable() and len(said['message']) < 300, said
        return said

    def pong(self, payload, timeout=None):
        until = self.until(timeout)
        while True:
            got = self.read_frame(until=until)
            if got.op == TEXT and judge(got.payload)['type'] in PRESENCE + ('get_dht_records',):
                continue
            if got.op == PING:
                self.send(frame(PONG, got.payload))
                continue
            assert got.op == PONG and got.payload == payload, got
            return

    def told(self, kind, peer_id, timeout=None):
        """Waits for that presence; other presence before it is dropped, other messages are not
        expected."""
        until = self.until(timeout)
        while True:
            while not self.pushed:
                got = self.next(max(0.001, until - time.monotonic()), aside=False)
                assert got['type'] in PRESENCE, got
                self.pushed.append(got)
            said = self.pushed.popleft()
            if said['type'] == kind and said.get('peer_id', said.get('peer', {}).get(
                    'peer_id')) == peer_id:
                return said

    def alive(self):
        """Registered and served: what was sent before it has had no answer. A `ping` is answered
        behind whatever the relay had to say to this connection."""
        number = int.from_bytes(os.urandom(7), 'big')
        self.say('ping', timestamp=number)
        self.expect('pong', timestamp=number)
        return self

    def code2(self, payload, op=TEXT):
        """`payload` is no message, and the connection goes on."""
        self.send(frame(op, payload if isinstance(payload, bytes) else payload.encode()))
        self.error(2)

    def closing(self, timeout=None):
        """What comes until the Close, which must come, and then the end; [messages], payload."""
        said = []
        try:
            while True:
                said.append(self.next(timeout))
        except Ended as end:
            assert end.close is not None, 'ended without a Close, after %s' % said
            assert len(end.close) == 0 or struct.unpack('!H', end.close[:2])[0] in (
                1001, 1002, 1003, 1007, 1008, 1009, 1011, 1013), end.close
            return said, end.close

    def gone(self, timeout=None):
        """Closed without a word (dig.md §2)."""
        until = self.until(timeout)
        try:
            while self.fill(until):
                raise AssertionError('not silent: %r' % bytes(self.buffer[:200]))
        finally:
            self.close()

    # -- the life of a registrant
    def register(self, peer_id=None, net=None, version=1, **members):
        """Sends it; see registered() and refused()."""
        self.id, self.net = peer_id or fresh_id(), net or fresh_net()
        self.say('register', peer_id=self.id, network_id=self.net, protocol_version=version,
                 **members)
        return self

    def registered(self):
        self.ack = self.expect('register_ack', success=True)
        return self

    def refused(self, code):
        """Ack, error, Close, in this order (dig.md §6.1)."""
        said, _ = self.closing()
        assert [m['type'] for m in said] == ['register_ack', 'error'], said
        assert said[0]['success'] is False and said[1]['code'] == code, said
        self.close()
        return said[0]

    def relay(self, to, payload, seq=0, from_='x'):
        self.say('relay_message', from_=from_, to=to if isinstance(to, str) else to.id,
                 payload=list(payload), seq=seq)

    def peers(self, *net):
        """The answer to get_peers: {id: peer}, in the order of the list."""
        self.say('get_peers', **({'network_id': net[0]} if net else {}))
        got = self.expect('peers')['peers']
        return {peer['peer_id']: peer for peer in got}

    def close(self):
        self.sock.close()

    def leave(self, payload=b''):
        """By a Close of our own; gives what the relay closes with."""
        self.send(frame(CLOSE, payload))
        try:
            while True:
                self.next()
        except Ended as end:
            self.close()
            return end.close

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
