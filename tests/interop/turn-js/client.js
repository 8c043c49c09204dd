// client.js werift|node-datachannel SERVER: one peer, driven over stdin, one JSON object per line on
// stdout (see ../README.md). SERVER: {"urls", "username", "credential", "policy"}
import readline from 'node:readline'
import { Peer } from './peer.js'

const [library, server] = process.argv.slice(2)
const say = event => process.stdout.write(JSON.stringify(event) + '\n')

const { RTCPeerConnection } = library === 'werift'
  ? await import('werift')
  : await import('node-datachannel/polyfill')
const peer = new Peer(RTCPeerConnection, JSON.parse(server))
peer.opened.then(() => say({ ev: 'open' }))
say({ ev: 'id', client: library })

const commands = {
  offer: async () => ({ ev: 'offer', sdp: await peer.offer() }),
  answer: async sdp => ({ ev: 'answer', sdp: await peer.answer(sdp) }),
  accept: async sdp => { await peer.accept(sdp) },
  transfer: async size => ({ ev: 'transferred', ...await peer.transfer(size) }),
  quit: () => process.exit(0)
}

const run = async line => {
  const { cmd, arg } = JSON.parse(line)
  try {
    const event = await commands[cmd](arg)
    if (event) say(event)
  } catch (e) {
    say({ ev: 'error', cmd, what: String(e?.stack ?? e) })
  }
}
readline.createInterface({ input: process.stdin }).on('line', run).on('close', () => process.exit(0))
