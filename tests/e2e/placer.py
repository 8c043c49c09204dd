"""A TCP forwarder that puts any client on the shard that a test wants. It also remembers how
each direction began: frame sizes are all that can be seen of a negotiation from outside."""

import socket
import threading

PREFIX = 1 << 16  # bytes kept of each direction's beginning


class Placer:
    def __init__(self, relay, shard=None, source=None):
        self.relay, self.shard, self.source = relay, shard, source
        self.listener = socket.create_server(('127.0.0.1', 0), backlog=128)
        self.port = self.listener.getsockname()[1]
        self.pairs = []    # (client, upstream)
        self.upstreams = []  # local addresses towards the relay
        self.seen = []     # per connection: (from the client, from the relay)
        self.error = None
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def bare(self):
        return '/ip4/127.0.0.1/tcp/%d' % self.port

    @property
    def address(self):
        return '%s/p2p/%s' % (self.bare, self.relay.peer)

    def circuit_to(self, peer):
        return '%s/p2p-circuit/p2p/%s' % (self.address, peer)

    def _accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self._place, args=(client,), daemon=True).start()

    def _place(self, client):
        try:
            tcp = self.relay.tcp(self.shard, self.source)
        except (OSError, AssertionError) as e:
            self.error = e
            client.close()
            return
        upstream = tcp.sock
        upstream.settimeout(None)
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.pairs.append((client, upstream))
        self.upstreams.append('%s:%d' % tcp.local)
        seen = (bytearray(), bytearray())
        self.seen.append(seen)
        threading.Thread(target=self._pipe, args=(client, upstream, seen[0]), daemon=True).start()
        threading.Thread(target=self._pipe, args=(upstream, client, seen[1]), daemon=True).start()

    def _pipe(self, source, sink, seen):
        buf = bytearray(262144)
        view = memoryview(buf)
        try:
            while True:
                n = source.recv_into(buf)
                if n == 0:
                    break
                if len(seen) < PREFIX:
                    seen += view[:n]
                sink.sendall(view[:n])
        except OSError:
            pass
        for sock in (source, sink):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass

    def cut(self):
        """Every connection through here ends at once."""
        for pair in self.pairs:
            for sock in pair:
                try:
                    sock.shutdown(socket.SHUT_RDWR)
                except OSError:
                    pass

    def close(self):
        self.listener.close()
        self.cut()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()
