"""An independent libp2p client with full control over its bytes: TCP, multistream-select, Noise XX
as initiator, yamux as dialer. It keeps every rule by default, and has a way to break each one.

One reactor thread reads for all sessions, so that pongs and window updates leave while a test waits
for something else; a session's condition variable guards everything of that session."""

import collections
import errno
import select
import socket
import struct
import threading
import time

import noise
from transport import Closed, Secured, Tcp, read_mss, secure
from wire import IDENTIFY, MSS, YAMUX, Key, WireError, identify, lp, mss, read_uv

DATA, WINDOW, PING, GOAWAY = 0, 1, 2, 3
SYN, ACK, FIN, RST = 1, 2, 4, 8
CREDIT = 262144
HEADER = struct.Struct('>BBHII')
OUT_MAX = 1 << 20  # bytes queued for the socket before a writer waits


class Reset(Closed):
    """The stream was reset."""


class NotAvailable(Exception):
    """The relay answered `na`."""


def muxed(secured):
    """Negotiates yamux where Noise did not; yields the live session."""
    secured.send(mss(MSS, YAMUX))
    for want in (MSS, YAMUX):
        got = read_mss(secured)
        if got != want:
            raise WireError('%r for %r' % (got, want))
    return Session(secured)


def connect(address, key=None, inline=False, tcp=None, **session):
    """A whole connection. inline: yamux agreed inside Noise, as go and js do."""
    tcp = tcp or Tcp(address)
    try:
        secured = secure(tcp, key or Key(), [YAMUX] if inline else [])
        if inline:
            if YAMUX not in secured.noise.remote_muxers:
                raise WireError('the relay offers no muxer in Noise')
            return Session(secured, **session)
        live = muxed(secured)
    except BaseException:
        tcp.close()
        raise
    for name, value in session.items():
        setattr(live, name, value)
    return live


class Reactor(threading.Thread):
    def __init__(self):
        super().__init__(daemon=True, name='rawp2p')
        self.epoll = select.epoll()
        self.sessions = {}

    def add(self, session):
        self.sessions[session.fd] = session
        self.epoll.register(session.fd, select.EPOLLIN)

    def writable(self, session, wanted):
        try:
            self.epoll.modify(session.fd, select.EPOLLIN | (select.EPOLLOUT if wanted else 0))
        except (OSError, ValueError):
            pass

    def remove(self, session):
        self.sessions.pop(session.fd, None)
        try:
            self.epoll.unregister(session.fd)
        except (OSError, ValueError):
            pass

    def run(self):
        while True:
            for fd, events in self.epoll.poll():
                session = self.sessions.get(fd)
                if session is None:
                    continue
                with session.cond:
                    if events & select.EPOLLOUT:
                        session._flush()
                    if events & ~select.EPOLLOUT:
                        session._readable()
                    session.cond.notify_all()


_reactor = None


def reactor():
    global _reactor
    if _reactor is None:
        _reactor = Reactor()
        _reactor.start()
    return _reactor


class Stream:
    def __init__(self, session, sid, inbound):
        self.session, self.sid, self.inbound = session, sid, inbound
        self.inbuf = bytearray()
        self.credit = CREDIT          # what we may send
        self.received = 0             # and not returned as credit yet
        self.auto_window = session.auto_window
        self.acked = self.eof = self.rst = self.fin_sent = False
        self.syn_due = False          # SYN rides on the first Data
        self.protocol = None
        self.hook = None              # called by the reactor when bytes came
        self.sink = None              # gets the bytes instead of inbuf
        self.rx_bytes = self.tx_bytes = 0

    # -- called with the session's lock held, by the reactor
    def _data(self, body):
        self.rx_bytes += len(body)
        self._return_credit(len(body))
        if self.sink:
            self.sink(body)
        else:
            self.inbuf += body
            if self.hook:
                self.hook(self)

    def _return_credit(self, n):
        """As it arrives, whoever reads it when: a test that wants a peer that takes nothing turns
        auto_window off."""
        self.received += n
        if self.auto_window and self.received >= CREDIT // 2 and not self.rst:
            grant, self.received = self.received, 0
            self.session.frame(WINDOW, 0, self.sid, grant)

    def take(self, n):
        """n buffered bytes; the lock is held."""
        out = bytes(self.inbuf[:n])
        del self.inbuf[:n]
        return out

    def take_message(self):
        """One length-prefixed message if it is all there, else None; the lock is held."""
        got = read_uv(self.inbuf[:10])
        if got is None or len(self.inbuf) < got[0] + got[1]:
            return None
        return self.take(got[0] + got[1])[got[1]:]

    # -- reading
    def _wait(self, ready, timeout, what):
        def done():
            return ready() or self.rst or self.eof or self.session.dead
        with self.session.cond:
            if not self.session.cond.wait_for(done, timeout):
                raise TimeoutError('%s on stream %d' % (what, self.sid))
            if ready():
                return
            if self.rst:
                raise Reset(what)
            raise Closed('%s: %s' % (what, self.session.dead or 'end of stream'))

    def recv(self, n, timeout=10):
        self._wait(lambda: len(self.inbuf) >= n, timeout, 'read %d bytes' % n)
        with self.session.cond:
            return self.take(n)

    def recv_some(self, timeout=10):
        self._wait(lambda: len(self.inbuf) > 0, timeout, 'read')
        with self.session.cond:
            return self.take(len(self.inbuf))

    def recv_to_eof(self, timeout=10):
        self._wait(lambda: self.eof, timeout, 'end of stream')
        with self.session.cond:
            return self.take(len(self.inbuf))

    def message(self, timeout=10):
        box = []

        def ready():
            if not box:
                got = self.take_message()
                if got is not None:
                    box.append(got)
            return box
        self._wait(ready, timeout, 'message')
        return box[0]

    def wait_eof(self, timeout=10):
        self._wait(lambda: self.eof, timeout, 'end of stream')

    def wait_reset(self, timeout=10):
        with self.session.cond:
            if not self.session.cond.wait_for(lambda: self.rst or self.session.dead, timeout):
                raise TimeoutError('reset of stream %d' % self.sid)
            return self.rst

    # -- writing
    def _flags(self):
        flags, self.syn_due = SYN if self.syn_due else 0, False
        return flags

    def send(self, data, timeout=30, chunk=65536 - 12):
        view, session, at = memoryview(data), self.session, 0

        def ready():
            return (self.credit > 0 and len(session.out) < OUT_MAX) or self.rst or session.dead
        while at < len(view):
            with session.cond:
                if not session.cond.wait_for(ready, timeout):
                    raise TimeoutError('no credit on stream %d' % self.sid)
                if self.rst:
                    raise Reset('send')
                if session.dead:
                    raise Closed(session.dead)
                n = min(chunk, self.credit, len(view) - at)
                self.credit -= n
                self.tx_bytes += n
                session.frame(DATA, self._flags(), self.sid, n, view[at:at + n])
                at += n

    def close_write(self):
        with self.session.cond:
            self.fin_sent = True
            self.session.frame(DATA, self._flags() | FIN, self.sid, 0)

    def reset(self):
        with self.session.cond:
            self.rst = True
            self.session.frame(WINDOW, RST, self.sid, 0)
            self.session.streams.pop(self.sid, None)

    # -- multistream-select as dialer
    def negotiate(self, protocol, first=b'', timeout=10):
        self.send(mss(MSS, protocol) + first)
        self.expect_mss(MSS, timeout)
        self.expect_mss(protocol, timeout)
        self.protocol = protocol
        return self

    def expect_mss(self, want, timeout=10):
        got = self.message(timeout)
        if got == b'na\n':
            raise NotAvailable(want)
        if got != want.encode() + b'\n':
            raise WireError('%r for %r' % (got, want))


class Session:
    """A muxed connection. Attributes that a test may turn off: auto_pong, auto_window, auto_ack,
    auto_mss (inbound streams negotiate by themselves, `protocols` says what they agree to)."""

    def __init__(self, secured, **options):
        self.noise, self.sock = secured.noise, secured.tcp.sock
        self.relay_id = secured.noise.remote_id
        self.key = secured.noise.key
        self.local = secured.tcp.local
        self.fd = self.sock.fileno()
        self.cond = threading.Condition(threading.RLock())
        self.out = bytearray()
        self.cipher, self.plain = bytearray(), bytearray()
        self.body_of, self.body_left, self.body_flags = None, 0, 0
        self.streams = {}
        self.next_id = 1
        self.inbound = collections.deque()
        self.dead = None
        self.goaway = None
        self.pongs = []
        self.pings_in = 0
        self.frames = collections.deque(maxlen=4096)
        self.record = None  # a bytearray: every decrypted byte is kept there
        self.auto_pong = self.auto_window = self.auto_ack = self.auto_mss = True
        self.protocols = {IDENTIFY: serve_identify}
        for name, value in options.items():
            setattr(self, name, value)
        self.sock.setblocking(False)
        with self.cond:
            self.cipher += secured.tcp.buf
            self._plain(secured.plain)
            self._decrypt()
            reactor().add(self)

    # -- sending; the lock is held or taken
    def raw(self, data):
        """Bytes as they are, past Noise."""
        with self.cond:
            self.out += data
            self._flush()

    def sealed(self, plaintext):
        """One Noise frame with exactly this inside."""
        with self.cond:
            self.raw(self.noise.seal(plaintext))

    def frame(self, kind, flags, sid, length, body=b''):
        """A yamux frame whose header need not be true."""
        data = HEADER.pack(0, kind, flags, sid, length) + bytes(body)
        with self.cond:
            if self.dead:
                return
            for at in range(0, len(data), noise.PLAIN_MAX):
                self.out += self.noise.seal(data[at:at + noise.PLAIN_MAX])
            self._flush()

    def _flush(self):
        try:
            while self.out:
                sent = self.sock.send(memoryview(self.out)[:262144])
                del self.out[:sent]
            reactor().writable(self, False)
        except BlockingIOError:
            reactor().writable(self, True)
        except OSError as e:
            self._die(errno.errorcode.get(e.errno, str(e)))

    # -- receiving, by the reactor
    def _readable(self):
        try:
            data = self.sock.recv(262144)
        except BlockingIOError:
            return
        except OSError as e:
            return self._die(errno.errorcode.get(e.errno, str(e)))
        if not data:
            return self._die('eof')
        self.cipher += data
        try:
            self._decrypt()
        except WireError as e:
            self._die(str(e))

    def _die(self, why):
        if not self.dead:
            self.dead = why
            reactor().remove(self)
            self.sock.close()
            self.cond.notify_all()

    def _decrypt(self):
        at, buf = 0, self.cipher
        while len(buf) - at >= 2:
            size = buf[at] << 8 | buf[at + 1]
            if len(buf) - at - 2 < size:
                break
            with memoryview(buf) as view:
                plain = self.noise.rx.open(view[at + 2:at + 2 + size])
            at += 2 + size
            if self.record is not None:
                self.record += plain
            self._plain(plain)
            if self.dead:
                return
        del buf[:at]

    def _plain(self, data):
        if self.plain:
            data, self.plain = bytes(self.plain) + data, bytearray()
        at = 0
        while at < len(data):
            if self.body_left:
                n = min(self.body_left, len(data) - at)
                self.body_left -= n
                if self.body_of:
                    self.body_of._data(data[at:at + n])
                at += n
                if not self.body_left:
                    self._end_flags(self.body_of, self.body_flags)
                continue
            if len(data) - at < 12:
                break
            header = HEADER.unpack_from(data, at)
            at += 12
            self._header(*header)
        self.plain += data[at:]

    def _header(self, version, kind, flags, sid, length):
        self.frames.append((kind, flags, sid, length))
        if version != 0 or kind > GOAWAY:
            raise WireError('yamux header %d %d' % (version, kind))
        if kind == PING:
            if flags & SYN:
                self.pings_in += 1
                if self.auto_pong:
                    self.frame(PING, ACK, 0, length)
            else:
                self.pongs.append((length, flags, time.monotonic()))
            return
        if kind == GOAWAY:
            self.goaway = length
            return
        stream = self.streams.get(sid)
        if flags & SYN:
            if sid % 2 or stream:
                raise WireError('yamux: SYN for stream %d' % sid)
            stream = self._accept(sid)
        if stream and flags & ACK:
            stream.acked = True
        if kind == DATA and length:
            self.body_of, self.body_left, self.body_flags = stream, length, flags
            return
        if stream and kind == WINDOW and not flags & RST:
            stream.credit += length
        self._end_flags(stream, flags)

    def _end_flags(self, stream, flags):
        if stream and flags & FIN:
            stream.eof = True
        if stream and flags & RST:
            stream.rst = True
        if stream and (stream.rst or (stream.eof and stream.fin_sent)):
            self.streams.pop(stream.sid, None)

    def _accept(self, sid):
        stream = Stream(self, sid, True)
        self.streams[sid] = stream
        if self.auto_ack:
            self.frame(WINDOW, ACK, sid, 0)
        if self.auto_mss:
            stream.hook = listen_mss
        else:
            self.inbound.append(stream)
        return stream

    # -- for tests
    def stream(self, style='window'):
        """A new stream, opened as go and js do (window) or as rust does (data)."""
        with self.cond:
            stream = Stream(self, self.next_id, False)
            self.next_id += 2
            self.streams[stream.sid] = stream
            if style == 'window':
                self.frame(WINDOW, SYN, stream.sid, 0)
            else:
                stream.syn_due = True
            return stream

    def open(self, protocol, first=b'', style='window', timeout=10):
        return self.stream(style).negotiate(protocol, first, timeout)

    def accept(self, timeout=10):
        """The next inbound stream: negotiated to one of `protocols` whose handler is None."""
        with self.cond:
            if not self.cond.wait_for(lambda: self.inbound or self.dead, timeout):
                raise TimeoutError('no inbound stream')
            if not self.inbound:
                raise Closed(self.dead)
            return self.inbound.popleft()

    def wait(self, ready, timeout=10):
        with self.cond:
            return self.cond.wait_for(ready, timeout)

    def wait_dead(self, timeout=10):
        """Why the relay hung up, or None if it did not in time."""
        with self.cond:
            self.cond.wait_for(lambda: self.dead, timeout)
            return self.dead

    def ping(self, value, timeout=10):
        """Round-trip time of a yamux ping in seconds."""
        started = time.monotonic()
        self.frame(PING, SYN, 0, value)

        def answered():
            return [p for p in self.pongs if p[0] == value]
        if not self.wait(lambda: answered() or self.dead, timeout) or self.dead:
            raise Closed('no pong: %s' % self.dead)
        assert answered()[0][1] == ACK, 'pong flags %d' % answered()[0][1]
        return answered()[0][2] - started

    def pause(self):
        """Takes nothing more off the socket; what is sent still leaves while it has room."""
        reactor().remove(self)

    def resume(self):
        with self.cond:
            reactor().add(self)
            self._flush()

    def alive(self):
        """Still answers?"""
        try:
            return self.ping(time.monotonic_ns() & 0xffffffff, 5) is not None
        except Closed:
            return False

    def close(self, reset=False):
        with self.cond:
            if self.dead:
                return
            if reset:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                                     struct.pack('ii', 1, 0))
            self._die('closed by us')

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def listen_mss(stream):
    """multistream-select as listener, as a hook; agrees to session.protocols."""
    reply = b''
    session = stream.session
    while True:
        got = stream.take_message()
        if got is None:
            break
        name = got[:-1].decode(errors='replace')
        if name == MSS:
            reply += lp(got)
        elif name in session.protocols:
            stream.hook, stream.protocol = None, name
            stream.send(reply + lp(got))
            handler = session.protocols[name]
            if handler:
                handler(stream)
            else:
                session.inbound.append(stream)
            return
        else:
            reply += mss('na')
    if reply:
        stream.send(reply)


def serve_identify(stream):
    stream.send(identify(stream.session.key, stream.session.protocols))
    stream.close_write()
