"""aiortc_peer.py SERVER: one WebRTC peer by aiortc, driven over stdin, one JSON object per line on
stdout (see ../README.md)."""

import asyncio
import functools
import hashlib
import json
import os
import sys

import aioice
import aiortc.rtcicetransport
from aiortc import RTCConfiguration, RTCIceServer, RTCPeerConnection, RTCSessionDescription

MESSAGE = 16384
QUEUED = 1 << 18


def say(**event):
    print(json.dumps(event), flush=True)


class Peer:
    def __init__(self, server):
        servers = [RTCIceServer(urls=server['urls'], username=server['username'],
                                credential=server['credential'])] if server.get('urls') else []
        if server.get('policy') == 'relay':  # aioice has it, aiortc 1.4 does not pass it on
            aiortc.rtcicetransport.Connection = functools.partial(
                aioice.Connection, transport_policy=aioice.TransportPolicy.RELAY)
        self.pc = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self.received, self.hash = 0, hashlib.sha256()
        self.progress = asyncio.Event()
        self.pc.on('datachannel', self.use)

    def use(self, channel):
        self.channel = channel
        channel.bufferedAmountLowThreshold = QUEUED // 2
        channel.on('message', self.arrived)
        channel.on('bufferedamountlow', self.progress.set)
        if channel.readyState == 'open':
            say(ev='open')
        else:
            channel.on('open', lambda: say(ev='open'))

    def arrived(self, data):
        self.hash.update(data)
        self.received += len(data)
        self.progress.set()

    async def offer(self, _):
        self.use(self.pc.createDataChannel('bulk'))
        await self.pc.setLocalDescription(await self.pc.createOffer())
        say(ev='offer', sdp=self.pc.localDescription.sdp)

    async def answer(self, sdp):
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp, 'offer'))
        await self.pc.setLocalDescription(await self.pc.createAnswer())
        say(ev='answer', sdp=self.pc.localDescription.sdp)

    async def accept(self, sdp):
        await self.pc.setRemoteDescription(RTCSessionDescription(sdp, 'answer'))

    async def pause(self):
        self.progress.clear()
        await self.progress.wait()

    async def transfer(self, size):
        """Sends as many random bytes as it then waits for."""
        sent = hashlib.sha256()
        for at in range(0, size, MESSAGE):
            part = os.urandom(min(MESSAGE, size - at))
            sent.update(part)
            while self.channel.bufferedAmount > QUEUED:
                await self.pause()
            self.channel.send(part)
        while self.received < size:
            await self.pause()
        say(ev='transferred', sent=size, sent_sha256=sent.hexdigest(), received=self.received,
            received_sha256=self.hash.hexdigest())


async def main():
    reader = asyncio.StreamReader(limit=1 << 20)
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    peer = Peer(json.loads(sys.argv[1]))
    say(ev='id', client='aiortc')

    async def run(command):
        try:
            await getattr(peer, command['cmd'])(command.get('arg'))
        except Exception as e:  # whatever it is, the test is told
            say(ev='error', cmd=command['cmd'], what=repr(e))
    running = []
    async for line in reader:
        command = json.loads(line)
        if command['cmd'] == 'quit':
            break
        running.append(asyncio.ensure_future(run(command)))
    os._exit(0)


asyncio.run(main())
