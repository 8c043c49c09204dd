// One node of the DIG network by the API of WebSocket that browsers and the ws library share, doing
// what stock clients do (dig.md §18): it registers and asks for peers without waiting, pings, sends
// and gets messages, closes.

async function sha256 (parts) {
  const all = new Uint8Array(parts.reduce((n, part) => n + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', all))
  return Array.from(digest, b => b.toString(16).padStart(2, '0')).join('')
}

function random (size) {
  const bytes = new Uint8Array(size)
  for (let at = 0; at < size; at += 65536) crypto.getRandomValues(bytes.subarray(at, at + 65536))
  return bytes
}

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

export class Peer {
  constructor (WebSocket) {
    this.WebSocket = WebSocket
    this.got = { relay_message: [], broadcast: [] }
    this.senders = {}
    this.presence = []
    this.errors = []
    this.pongs = 0
    this.said = {}
  }

  say (message, binary = false) {
    const text = JSON.stringify(message)
    this.socket.send(binary ? new TextEncoder().encode(text) : text)
  }

  hear (message) {
    const { type } = message
    if (type in this.got) {
      this.got[type].push(Uint8Array.from(message.payload))
      this.senders[message.from] = (this.senders[message.from] ?? 0) + 1
    } else if (type === 'peer_connected') {
      this.presence.push('+' + message.peer.peer_id)
    } else if (type === 'peer_disconnected') {
      this.presence.push('-' + message.peer_id)
    } else if (type === 'error') {
      this.errors.push(message.code)
    } else if (type === 'pong') {
      if (message.timestamp !== this.pinged) throw new Error('a pong of ' + message.timestamp)
      this.pongs++
    } else if (type !== 'get_dht_records') {
      this.said[type] = message
    }
  }

  open ({ url, peer_id, network_id }) {
    const socket = this.socket = new this.WebSocket(url)
    socket.onmessage = ({ data }) => {
      if (typeof data !== 'string') throw new Error('a binary frame')
      this.hear(JSON.parse(data))
    }
    this.ended = new Promise(resolve => {
      socket.onclose = ({ code, reason, wasClean }) => resolve({ code, reason, wasClean })
    })
    return new Promise((resolve, reject) => {
      socket.onerror = event => reject(new Error(String(event.message ?? 'no connection')))
      socket.onopen = async () => {
        this.say({ type: 'register', peer_id, network_id, protocol_version: 1, listen_addrs: ['[::]:9444'] })
        this.say({ type: 'get_peers', network_id })
        while (!this.said.peers) await sleep(5)
        this.pinged = Date.now()
        this.say({ type: 'ping', timestamp: this.pinged })
        resolve({ ack: this.said.register_ack, peers: this.said.peers.peers.map(p => p.peer_id) })
      }
    })
  }

  async pings ({ count }) {
    for (const want = this.pongs + count; this.pongs < want;) {
      this.pinged = Date.now()
      const before = this.pongs
      this.say({ type: 'ping', timestamp: this.pinged }, true)
      while (this.pongs === before) await sleep(2)
    }
    return { pongs: this.pongs }
  }

  // Payloads of these sizes, to one or to all; every third message in a binary frame.
  async send ({ to, sizes }) {
    const parts = sizes.map(random)
    for (const [i, part] of parts.entries()) {
      const payload = Array.from(part)
      while (this.socket.bufferedAmount > 1 << 22) await sleep(2)
      this.say(to
        ? { type: 'relay_message', from: 'x', to, payload, seq: i }
        : { type: 'broadcast', from: 'x', payload, exclude: [] }, i % 3 === 2)
    }
    return { sha256: await sha256(parts) }
  }

  async received ({ kind, count }) {
    while (this.got[kind].length < count) await sleep(5)
    const parts = this.got[kind].splice(0)
    return { count: parts.length, sha256: await sha256(parts), senders: this.senders }
  }

  async list () {
    delete this.said.peers
    this.say({ type: 'get_peers' })
    while (!this.said.peers) await sleep(2)
    return { peers: this.said.peers.peers, presence: this.presence, errors: this.errors }
  }

  close ({ code, reason }) {
    this.socket.close(code, reason)
    return this.ended
  }
}
