"""A connection before its muxer: TCP byte by byte, multistream-select as dialer, Noise."""

import socket
import struct
import time

import noise
from wire import MSS, NOISE, WireError, mss


class Closed(Exception):
    """The connection or stream ended while something was expected from it."""


class Tcp:
    """A connection before Noise: blocking, byte by byte if wanted."""

    def __init__(self, address, timeout=10, sock=None):
        self.sock = sock or socket.create_connection(address, timeout)
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(timeout)
        self.buf = b''

    @property
    def local(self):
        return self.sock.getsockname()[:2]

    def send(self, data):
        self.sock.sendall(data)

    def send_slowly(self, data, step=1, pause=0.0):
        for at in range(0, len(data), step):
            self.sock.sendall(data[at:at + step])
            time.sleep(pause)

    def recv(self, n):
        while len(self.buf) < n:
            more = self.sock.recv(65536)
            if not more:
                raise Closed('end after %d of %d bytes' % (len(self.buf), n))
            self.buf += more
        out, self.buf = self.buf[:n], self.buf[n:]
        return out

    def closed_within(self, seconds):
        """Seconds until the peer hung up, or None; what it sent before is thrown away."""
        started = time.monotonic()
        while True:
            left = started + seconds - time.monotonic()
            if left <= 0:
                return None
            self.sock.settimeout(left)
            try:
                if not self.sock.recv(65536):
                    return time.monotonic() - started
            except socket.timeout:
                return None
            except OSError:
                return time.monotonic() - started

    def close(self):
        self.sock.close()


def read_mss(source):
    """One multistream frame's text, without its newline, from anything with recv(n)."""
    size = 0
    for shift in range(0, 21, 7):
        byte = source.recv(1)[0]
        size |= (byte & 0x7f) << shift
        if byte < 0x80:
            break
    body = source.recv(size)
    if not body.endswith(b'\n'):
        raise WireError('multistream frame without newline: %r' % body)
    return body[:-1].decode()


class Secured:
    """Noise done, muxer not yet: a byte stream in Noise frames."""

    def __init__(self, tcp, handshake):
        self.tcp, self.noise, self.plain = tcp, handshake, b''

    def send(self, data):
        self.tcp.send(self.noise.seal(data))

    def recv(self, n):
        while len(self.plain) < n:
            size = struct.unpack('>H', self.tcp.recv(2))[0]
            self.plain += self.noise.rx.open(self.tcp.recv(size))
        out, self.plain = self.plain[:n], self.plain[n:]
        return out


def secure(tcp, key, muxers=(), hello=True, **msg3):
    """Negotiates /noise and runs the handshake."""
    initiator = noise.Initiator(key)
    if hello:
        tcp.send(mss(MSS, NOISE))
    for want in (MSS, NOISE):
        got = read_mss(tcp)
        if got != want:
            raise WireError('%r for %r' % (got, want))
    tcp.send(noise.frame(initiator.msg1()))
    initiator.read2(tcp.recv(struct.unpack('>H', tcp.recv(2))[0]))
    tcp.send(noise.frame(initiator.msg3(muxers, **msg3)))
    return Secured(tcp, initiator)
