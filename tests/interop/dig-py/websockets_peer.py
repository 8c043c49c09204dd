"""websockets_peer.py: a node of the DIG network by Python's websockets, driven over stdin, one JSON
object per line on stdout (see ../README.md). What it does is what dig-js/peer.js does."""

import asyncio
import hashlib
import json
import os
import sys
import time

import websockets


def say(**event):
    print(json.dumps(event), flush=True)


class Peer:
    def __init__(self):
        self.socket, self.news = None, asyncio.Condition()
        self.got = {'relay_message': [], 'broadcast': []}
        self.senders, self.presence, self.errors, self.pongs, self.said = {}, [], [], [], {}

    async def tell(self, message, binary=False):
        text = json.dumps(message)
        await self.socket.send(text.encode() if binary else text)

    async def hear(self):
        try:
            await self.hear_all()
        except websockets.ConnectionClosedError:  # a code that is not 1000 or 1001
            pass

    async def hear_all(self):
        async for data in self.socket:
            assert isinstance(data, str), 'a binary frame'
            message = json.loads(data)
            kind = message['type']
            async with self.news:
                if kind in self.got:
                    self.got[kind].append(bytes(message['payload']))
                    self.senders[message['from']] = self.senders.get(message['from'], 0) + 1
                elif kind == 'peer_connected':
                    self.presence.append('+' + message['peer']['peer_id'])
                elif kind == 'peer_disconnected':
                    self.presence.append('-' + message['peer_id'])
                elif kind == 'error':
                    self.errors.append(message['code'])
                elif kind == 'pong':
                    self.pongs.append(message['timestamp'])
                else:
                    self.said[kind] = message
                self.news.notify_all()

    async def until(self, ready):
        async with self.news:
            await self.news.wait_for(ready)

    async def open(self, url, peer_id, network_id):
        # its own keepalive asks by WebSocket pings, once in a while
        self.socket = await websockets.connect(url, ping_interval=0.2, ping_timeout=5)
        self.hearing = asyncio.create_task(self.hear())
        await self.tell({'type': 'register', 'peer_id': peer_id, 'network_id': network_id,
                         'protocol_version': 1, 'listen_addrs': ['[::]:9444']})
        await self.tell({'type': 'get_peers', 'network_id': network_id})
        await self.until(lambda: 'peers' in self.said)
        return {'ack': self.said['register_ack'],
                'peers': [peer['peer_id'] for peer in self.said['peers']['peers']]}

    async def pings(self, count):
        for _ in range(count):
            number = time.time_ns()
            await self.tell({'type': 'ping', 'timestamp': number}, True)
            await self.until(lambda: number in self.pongs)
        await asyncio.wait_for(await self.socket.ping(b'hi'), 5)
        return {'pongs': len(self.pongs)}

    async def send(self, sizes, to=None):
        parts = [os.urandom(size) for size in sizes]
        for i, part in enumerate(parts):
            if to:
                message = {'type': 'relay_message', 'from': 'x', 'to': to, 'payload': list(part),
                           'seq': i}
            else:
                message = {'type': 'broadcast', 'from': 'x', 'payload': list(part), 'exclude': []}
            await self.tell(message, i % 3 == 2)
        return {'sha256': hashlib.sha256(b''.join(parts)).hexdigest()}

    async def received(self, kind, count):
        await self.until(lambda: len(self.got[kind]) >= count)
        parts, self.got[kind] = self.got[kind], []
        return {'count': len(parts), 'sha256': hashlib.sha256(b''.join(parts)).hexdigest(),
                'senders': self.senders}

    async def list(self):
        self.said.pop('peers', None)
        await self.tell({'type': 'get_peers'})
        await self.until(lambda: 'peers' in self.said)
        return {'peers': self.said['peers']['peers'], 'presence': self.presence,
                'errors': self.errors}

    async def close(self, code, reason):
        await self.socket.close(code, reason)
        await self.hearing
        return {'code': self.socket.close_code, 'reason': self.socket.close_reason,
                'wasClean': self.socket.close_code != 1006}


async def run(peer, line):
    command = json.loads(line)
    try:
        say(ev=command['cmd'], **await getattr(peer, command['cmd'])(**command.get('arg') or {}))
    except Exception as e:  # whatever it is, the test is told
        say(ev='error', cmd=command['cmd'], what=repr(e))


async def main():
    peer, loop, tasks = Peer(), asyncio.get_running_loop(), set()
    say(ev='id', client='websockets', version=websockets.version.version)
    while True:
        line = await loop.run_in_executor(None, sys.stdin.readline)
        if not line or '"quit"' in line:
            os._exit(0)
        tasks.add(asyncio.create_task(run(peer, line)))


asyncio.run(main())
