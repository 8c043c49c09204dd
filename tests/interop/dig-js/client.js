// client.js: a node of the DIG network by the ws library, driven over stdin, one JSON object per line
// on stdout (see ../README.md).
import readline from 'node:readline'
import WebSocket from 'ws'
import { Peer } from './peer.js'

const say = event => process.stdout.write(JSON.stringify(event) + '\n')
const peer = new Peer(WebSocket)
say({ ev: 'id', client: 'ws' })

const run = async line => {
  const { cmd, arg } = JSON.parse(line)
  if (cmd === 'quit') process.exit(0)
  try {
    say({ ev: cmd, ...await peer[cmd](arg ?? {}) })
  } catch (e) {
    say({ ev: 'error', cmd, what: String(e?.stack ?? e) })
  }
}
readline.createInterface({ input: process.stdin }).on('line', run).on('close', () => process.exit(0))
