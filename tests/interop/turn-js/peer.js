// One WebRTC peer with one data channel, by the API that werift, node-datachannel's polyfill and
// browsers share. No trickling: a description is handed over when its candidates are complete.

const MESSAGE = 16384 // what every implementation takes
const QUEUED = 1 << 20

const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))

async function sha256 (bytes) {
  const digest = new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))
  return Array.from(digest, b => b.toString(16).padStart(2, '0')).join('')
}

export class Peer {
  constructor (RTCPeerConnection, { policy, ...server }) {
    this.pc = new RTCPeerConnection({ iceServers: server.urls ? [server] : [], iceTransportPolicy: policy })
    this.parts = []
    this.received = 0
    this.opened = new Promise(resolve => { this.isOpen = resolve })
    this.pc.ondatachannel = event => this.use(event.channel)
  }

  use (channel) {
    this.channel = channel
    channel.binaryType = 'arraybuffer'
    channel.onmessage = ({ data }) => {
      const part = data instanceof ArrayBuffer ? new Uint8Array(data) : data
      this.parts.push(part)
      this.received += part.length
    }
    channel.onopen = () => this.isOpen()
    if (channel.readyState === 'open') this.isOpen()
  }

  async describe (description) {
    await this.pc.setLocalDescription(description)
    while (this.pc.iceGatheringState !== 'complete') await sleep(10)
    return this.pc.localDescription.sdp
  }

  async offer () {
    this.use(this.pc.createDataChannel('bulk'))
    return this.describe(await this.pc.createOffer())
  }

  async answer (sdp) {
    await this.pc.setRemoteDescription({ type: 'offer', sdp })
    return this.describe(await this.pc.createAnswer())
  }

  accept (sdp) {
    return this.pc.setRemoteDescription({ type: 'answer', sdp })
  }

  // Sends as many random bytes as it then waits for.
  async transfer (size) {
    const bytes = new Uint8Array(size)
    for (let at = 0; at < size; at += MESSAGE) {
      const part = bytes.subarray(at, at + MESSAGE)
      crypto.getRandomValues(part)
      while (this.channel.bufferedAmount > QUEUED) await sleep(2)
      this.channel.send(part)
    }
    while (this.received < size) await sleep(5)
    const all = new Uint8Array(this.received)
    let at = 0
    for (const part of this.parts) {
      all.set(part, at)
      at += part.length
    }
    return { sent: size, sent_sha256: await sha256(bytes), received: at, received_sha256: await sha256(all) }
  }
}
