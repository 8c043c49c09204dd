"""chromium_dig.py: one page of Chromium, headless, that is a node of the DIG network; driven over
stdin, one JSON object per line on stdout (see ../README.md)."""

import json

from browser import hold, say


def do(page, cmd, arg):
    try:
        say(ev=cmd, **page.evaluate('peer.%s(%s)' % (cmd, json.dumps(arg or {}))))
    except Exception as e:  # whatever it is, the test is told
        say(ev='error', cmd=cmd, what=str(e))


hold('dig', 'new Peer(WebSocket)', do)
