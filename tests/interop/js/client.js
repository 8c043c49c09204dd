// The js-libp2p client of the interoperability tests: a line protocol on stdin, JSON lines on
// stdout, as tests/interop/README.md describes it.
import './polyfill.js'
import { createHash } from 'node:crypto'
import { createInterface } from 'node:readline'
import { circuitRelayTransport } from '@libp2p/circuit-relay-v2'
import { gossipsub } from '@libp2p/gossipsub'
import { identify } from '@libp2p/identify'
import { noise } from '@libp2p/noise'
import { ping } from '@libp2p/ping'
import { tcp } from '@libp2p/tcp'
import { yamux } from '@libp2p/yamux'
import { multiaddr } from '@multiformats/multiaddr'
import { createLibp2p } from 'libp2p'

const XFER_PROTOCOL = '/sluice/xfer/1'
const CHUNK_BYTES = 64 * 1024
const COMMAND_TIMEOUT_MS = 120_000
const HEAD_BYTES = 12
// js names a refusal instead of numbering it
const STATUS = {
  RESERVATION_REFUSED: 200,
  RESOURCE_LIMIT_EXCEEDED: 201,
  PERMISSION_DENIED: 202,
  CONNECTION_FAILED: 203,
  NO_RESERVATION: 204,
  MALFORMED_MESSAGE: 400,
  UNEXPECTED_MESSAGE: 401
}

function emit (ev, fields = {}) {
  process.stdout.write(JSON.stringify({ ev, ...fields }) + '\n')
}

function textOf (err) {
  const texts = [String(err?.message ?? err)]
  for (const inner of err?.errors ?? []) texts.push(textOf(inner))
  if (err?.cause != null) texts.push(textOf(err.cause))
  return texts.join(': ')
}

function fail (cmd, err, extra = {}) {
  const what = textOf(err)
  const name = Object.keys(STATUS).find(name => what.includes(name))
  emit('error', { cmd, what, status: name == null ? 0 : STATUS[name], ...extra })
}

// xorshift32, little-endian words: the same bytes in every client
class Stream32 {
  constructor (seed) {
    this.x = (seed >>> 0) === 0 ? 0x9e3779b9 : seed >>> 0
  }

  next (bytes) {
    const words = new Uint32Array(CHUNK_BYTES / 4)
    let x = this.x
    for (let i = 0; i < words.length; i++) {
      x ^= x << 13
      x ^= x >>> 17
      x ^= x << 5
      words[i] = x
    }
    this.x = x >>> 0
    return new Uint8Array(words.buffer, 0, bytes)
  }
}

// Until nothing waits to be written. onDrain() would be the way to say it, but in 3.3 its promise
// is made once and stays resolved, and whatever then piles up leaves as one yamux frame, beyond the
// 1 MiB that rust-libp2p accepts.
async function drained (stream) {
  while (stream.writeBufferLength > 0 || stream.writableNeedsDrain) {
    // a stream that has ended keeps what it could not write, and fires nothing any more
    if (stream.status !== 'open' && stream.status !== 'closing') {
      throw new Error(`the stream is ${stream.status}`)
    }
    await new Promise((resolve, reject) => {
      const names = ['drain', 'idle', 'close']
      const on = evt => {
        for (const name of names) stream.removeEventListener(name, on)
        evt.type === 'close' ? reject(evt.error ?? new Error('closed while sending')) : resolve()
      }
      for (const name of names) stream.addEventListener(name, on)
    })
  }
}

async function send (stream, total, seed, hash) {
  const gen = new Stream32(seed)
  while (total > 0) {
    const n = Math.min(total, CHUNK_BYTES)
    const chunk = gen.next(n)
    hash.update(chunk)
    if (!stream.send(chunk)) await drained(stream)
    total -= n
  }
  await stream.close({ signal: AbortSignal.timeout(COMMAND_TIMEOUT_MS) })
}

// The dialer opens with 12 bytes, u64 length and u32 seed; then both ends send that much at once,
// the listener from the complement of the seed, so that an echo cannot pass for a transfer.
async function exchange (role, stream, connection, request) {
  const started = Date.now()
  const sent = createHash('sha256')
  const received = createHash('sha256')
  let receivedBytes = 0
  let head = Buffer.alloc(0)
  let sending = request == null ? null : send(stream, request.total, request.seed, sent)
  sending?.catch(() => {})
  try {
    for await (const chunk of stream) {
      let bytes = chunk.subarray()
      if (sending == null) {
        head = Buffer.concat([head, bytes])
        if (head.length < HEAD_BYTES) continue
        request = { total: Number(head.readBigUInt64BE(0)), seed: ~head.readUInt32BE(8) >>> 0 }
        sending = send(stream, request.total, request.seed, sent)
        sending.catch(() => {})
        bytes = head.subarray(HEAD_BYTES)
      }
      receivedBytes += bytes.length
      received.update(bytes)
    }
    if (sending == null) throw new Error('closed before the length')
    await sending
    emit('transferred', {
      role,
      peer: connection.remotePeer.toString(),
      via: connection.remoteAddr.toString(),
      sent: request.total,
      sent_sha256: sent.digest('hex'),
      received: receivedBytes,
      received_sha256: received.digest('hex'),
      ms: Date.now() - started
    })
  } catch (err) {
    stream.abort(err)
    fail('transfer', err, { role, received: receivedBytes })
  }
}

let relayTransport
function relay () {
  const make = circuitRelayTransport({ reservationCompletionTimeout: 10_000 })
  return components => {
    relayTransport = make(components)
    const seen = new Set()
    relayTransport.reservationStore.addEventListener('relay:created-reservation', ({ detail }) => {
      const id = detail.relay.toString()
      const { reservation } = detail.details
      emit(seen.has(id) ? 'renewed' : 'reserved', {
        relay: id,
        addrs: reservation.addrs.map(a => `${multiaddr(a)}/p2p-circuit/p2p/${components.peerId}`),
        expire: Number(reservation.expire),
        voucher: reservation.voucher != null
      })
      seen.add(id)
    })
    relayTransport.reservationStore.addEventListener('relay:removed', ({ detail }) => {
      seen.delete(detail.relay.toString())
      emit('reservation-lost', { relay: detail.relay.toString() })
    })
    return relayTransport
  }
}

// `client.js gossip` speaks it; who is not asked to has no such protocol.
const gossip = process.argv.includes('gossip')
const services = { identify: identify(), ping: ping() }
if (gossip) services.pubsub = gossipsub()

const node = await createLibp2p({
  addresses: { listen: [] },
  transports: [tcp(), relay()],
  connectionEncrypters: [noise()],
  streamMuxers: [yamux()],
  services,
  // loopback is where the tests live
  connectionGater: { denyDialMultiaddr: () => false }
})

node.addEventListener('connection:open', ({ detail }) => {
  emit('connected', { peer: detail.remotePeer.toString(), via: detail.remoteAddr.toString() })
})
node.addEventListener('connection:close', ({ detail }) => {
  emit('disconnected', { peer: detail.remotePeer.toString(), via: detail.remoteAddr.toString() })
})
if (gossip) {
  node.services.pubsub.addEventListener('subscription-change', ({ detail }) => {
    for (const { topic, subscribe } of detail.subscriptions) {
      if (subscribe) emit('subscribed', { peer: detail.peerId.toString(), topic })
    }
  })
  node.services.pubsub.addEventListener('gossipsub:message', ({ detail }) => {
    const { msg, propagationSource } = detail
    emit('gossip', {
      topic: msg.topic,
      author: msg.from.toString(),
      from: propagationSource.toString(),
      bytes: msg.data.length,
      sha256: createHash('sha256').update(msg.data).digest('hex')
    })
  })
}
await node.handle(XFER_PROTOCOL, (stream, connection) => {
  exchange('listener', stream, connection)
}, { runOnLimitedConnection: true, maxInboundStreams: 64 })

const within = () => ({ signal: AbortSignal.timeout(COMMAND_TIMEOUT_MS) })

// A connection to the peer that the address ends in. dial() opens another circuit where there is a
// limited one already, and one of the two is then given up.
async function open (addr) {
  const peer = addr.split('/p2p/').pop()
  const found = node.getConnections()
    .find(c => c.remotePeer.toString() === peer && c.status === 'open')
  return found ?? node.dial(multiaddr(addr), within())
}

const commands = {
  async reserve (addr) {
    const connection = await node.dial(multiaddr(addr), within())
    const target = addr.includes('/p2p/') ? addr : `${addr}/p2p/${connection.remotePeer}`
    if (relayTransport.reservationStore.hasReservation(connection.remotePeer)) {
      emit('error', { cmd: 'reserve', what: 'already reserved', status: 0 })
      return
    }
    // addRelay first, because listen() hides why a relay refused
    await relayTransport.reservationStore.addRelay(connection.remotePeer, 'configured')
    await node.components.transportManager.listen([multiaddr(`${target}/p2p-circuit`)])
  },
  async dial (addr) {
    const connection = await open(addr)
    emit('dialed', {
      peer: connection.remotePeer.toString(),
      via: connection.remoteAddr.toString(),
      limited: connection.limits != null
    })
  },
  async transfer (addr, total, seed) {
    const request = { total: Number(total), seed: Number(seed) >>> 0 }
    const connection = await open(addr)
    const stream = await connection.newStream(XFER_PROTOCOL,
      { runOnLimitedConnection: true, ...within() })
    const head = Buffer.alloc(HEAD_BYTES)
    head.writeBigUInt64BE(BigInt(request.total), 0)
    head.writeUInt32BE(request.seed, 8)
    stream.send(head)
    await exchange('dialer', stream, connection, request)
  },
  async subscribe (topic) {
    node.services.pubsub.subscribe(topic)
    emit('subscribing', { topic })
  },
  async 'publish-bytes' (topic, bytes, letter) {
    await node.services.pubsub.publish(topic, Buffer.from(letter.repeat(Number(bytes))))
    emit('published', { topic })
  },
  async hangup (id) {
    for (const connection of node.getConnections()) {
      if (connection.remotePeer.toString() === id) await connection.close(within())
    }
    emit('hungup', { peer: id })
  }
}

emit('id', { peer: node.peerId.toString(), client: 'js' })
for await (const line of createInterface({ input: process.stdin })) {
  const [name, ...args] = line.trim().split(/\s+/)
  if (name === '') continue
  if (name === 'quit') break
  if (commands[name] == null || commands[name].length !== args.length) {
    emit('error', { cmd: name, what: `unknown command: ${line}`, status: 0 })
    continue
  }
  commands[name](...args).catch(err => { fail(name, err) })
}
setTimeout(() => process.exit(0), 2000).unref()
await node.stop()
process.exit(0)
