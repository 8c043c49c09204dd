"""A small database in MaxMind's format, written from the description of the format and sharing
nothing with the daemon: a binary tree over the bits of addresses, records of so many bits, a data
section with pointers for what is there already, and the metadata behind it."""

import ipaddress
import struct


class Float(float):
    """In four bytes."""


class Int(int):
    """Of a type and so many bytes."""
    def __new__(cls, kind, size, value):
        self = super().__new__(cls, value)
        self.kind, self.size = kind, size
        return self


def u16(value):
    return Int(5, 2, value)


def u32(value):
    return Int(6, 4, value)


def u64(value):
    return Int(9, 8, value)


def _head(kind, size):
    first, more = (kind << 5, b'') if kind <= 7 else (0, bytes([kind - 7]))
    if size < 29:
        return bytes([first | size]) + more
    return bytes([first | 29]) + more + bytes([size - 29])


def _plain(value):
    if isinstance(value, str):
        data = value.encode()
        return _head(2, len(data)) + data
    if isinstance(value, Float):
        return _head(15, 4) + struct.pack('!f', value)
    if isinstance(value, float):
        return _head(3, 8) + struct.pack('!d', value)
    if isinstance(value, Int):
        return _head(value.kind, value.size) + value.to_bytes(value.size, 'big')
    if isinstance(value, list):
        return _head(11, len(value)) + b''.join(map(_plain, value))
    return _head(7, len(value)) + b''.join(_plain(part) for item in value.items() for part in item)


class Writer:
    def __init__(self, bits=28):
        self.bits, self.nodes, self.data, self.known = bits, [[None, None]], b'', {}

    def value(self, value):
        """Its offset; a second time it is a pointer to the first, as real files have them."""
        key = repr(value)
        if key not in self.known:
            body = _plain(value)
            if isinstance(value, dict):
                body = _head(7, len(value))
                for name, member in value.items():
                    body += self.pointer(self.value(name)) + (
                        self.pointer(self.value(member)) if isinstance(member, dict) else _plain(member))
            self.known[key] = len(self.data)
            self.data += body
        return self.known[key]

    @staticmethod
    def pointer(offset):
        return bytes([1 << 5 | 3 << 3]) + struct.pack('!I', offset)

    def add(self, network, value):
        net = ipaddress.ip_network(network)
        bits = net.prefixlen + (96 if net.version == 4 else 0)
        number, node = int(net.network_address), 0
        for i in range(bits):
            side = number >> (127 - i) & 1
            if i == bits - 1:
                self.nodes[node][side] = ('data', self.value(value))
            elif self.nodes[node][side] is None:
                self.nodes.append([None, None])
                self.nodes[node][side] = ('node', len(self.nodes) - 1)
            node = self.nodes[node][side][1] if i < bits - 1 else node

    def city(self, network, lat, lon, kind=float):
        """As the files of cities have it."""
        self.add(network, {'city': {'names': {'en': 'Somewhere'}}, 'continent': {'code': 'XX'},
                           'location': {'latitude': kind(lat), 'longitude': kind(lon)}})
        return self

    def bytes(self):
        count = len(self.nodes)

        def number(to):
            return count if to is None else to[1] if to[0] == 'node' else count + 16 + to[1]
        tree = b''
        for left, right in (map(number, pair) for pair in self.nodes):
            if self.bits == 28:
                tree += struct.pack('!I', left)[1:] + bytes([left >> 24 << 4 | right >> 24]) + struct.pack('!I', right)[1:]
            else:
                part = self.bits // 8
                tree += struct.pack('!I', left)[-part:] + struct.pack('!I', right)[-part:]
        meta = {'binary_format_major_version': u16(2), 'binary_format_minor_version': u16(0),
                'build_epoch': u64(1700000000), 'database_type': 'Test-City', 'description': {'en': 'of a test'},
                'ip_version': u16(6), 'languages': ['en'], 'node_count': u32(count), 'record_size': u16(self.bits)}
        return tree + bytes(16) + self.data + b'\xab\xcd\xefMaxMind.com' + _plain(meta)

    def write(self, path):
        """Beside the old one, then in its place, as who renews one should."""
        fresh = path.with_suffix('.new')
        fresh.write_bytes(self.bytes())
        fresh.rename(path)
        return path
