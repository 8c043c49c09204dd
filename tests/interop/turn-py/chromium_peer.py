"""chromium_peer.py SERVER: one page of Chromium, headless, that holds one WebRTC peer; driven over
stdin, one JSON object per line on stdout (see ../README.md)."""

import json
import sys

from browser import hold, say


def do(page, cmd, arg):
    try:
        value = page.evaluate('peer.%s(%s)' % (cmd, json.dumps(arg)))
        if cmd in ('offer', 'answer'):
            say(ev=cmd, sdp=value)
        elif cmd == 'transfer':
            say(ev='transferred', **value)
    except Exception as e:  # whatever it is, the test is told
        say(ev='error', cmd=cmd, what=str(e))


def opened(page):
    page.evaluate('peer.opened.then(() => 0)')
    say(ev='open')


hold('turn', 'new Peer(RTCPeerConnection, %s)' % sys.argv[1], do, opened)
