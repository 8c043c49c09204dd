"""chromium_peer.py SERVER: one page of Chromium, headless, that holds one WebRTC peer; driven over
stdin, one JSON object per line on stdout (see ../README.md). The page is spoken to over the browser's
debugging pipe, so nothing but WebRTC uses the network."""

import json
import os
import pathlib
import queue
import shutil
import subprocess
import sys
import tempfile
import threading

HERE = pathlib.Path(__file__).resolve().parent
FLAGS = ['--no-sandbox',  # it wants privileges that neither root nor a user namespace has
         '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-sync',
         '--disable-component-update', '--disable-extensions', '--disable-breakpad',
         '--disable-dev-shm-usage', '--remote-debugging-pipe',
         '--disable-features=WebRtcHideLocalIpsWithMdns']


def say(**event):
    print(json.dumps(event), flush=True)


class Browser:
    def __init__(self, command, directory):
        from_us, self.to = os.pipe()
        self.back, to_us = os.pipe()
        # the browser reads its commands from descriptor 3 and answers on 4
        self.proc = subprocess.Popen(
            ['sh', '-c', 'exec "$@" 3<&%d 4>&%d' % (from_us, to_us), 'sh', command, *FLAGS,
             '--user-data-dir=%s' % directory], pass_fds=(from_us, to_us), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL)
        os.close(from_us)
        os.close(to_us)
        self.waiting, self.next, self.lock = {}, 1, threading.Lock()
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        with os.fdopen(self.back, 'rb') as stream:
            rest = b''
            while True:
                data = stream.read1(1 << 16)
                if not data:
                    break
                *whole, rest = (rest + data).split(b'\0')
                for message in map(json.loads, whole):
                    if message.get('id') in self.waiting:
                        self.waiting.pop(message['id']).put(message)
        say(ev='ended', what='the browser ended')
        os._exit(1)

    def call(self, method, session=None, **params):
        answer = queue.Queue()
        with self.lock:
            message = {'id': self.next, 'method': method, 'params': params}
            self.waiting[self.next] = answer
            self.next += 1
            if session:
                message['sessionId'] = session
            os.write(self.to, json.dumps(message).encode() + b'\0')
        got = answer.get()
        if 'error' in got:
            raise RuntimeError('%s: %s' % (method, got['error']))
        return got['result']


class Page:
    def __init__(self, browser, url):
        self.browser = browser
        target = browser.call('Target.createTarget', url=url)['targetId']
        self.session = browser.call('Target.attachToTarget', targetId=target,
                                    flatten=True)['sessionId']

    def evaluate(self, expression):
        got = self.browser.call('Runtime.evaluate', self.session, expression=expression,
                                awaitPromise=True, returnByValue=True)
        if 'exceptionDetails' in got:
            raise RuntimeError(json.dumps(got['exceptionDetails']))
        return got['result'].get('value')


def do(page, cmd, arg):
    try:
        value = page.evaluate('peer.%s(%s)' % (cmd, json.dumps(arg)))
        if cmd in ('offer', 'answer'):
            say(ev=cmd, sdp=value)
        elif cmd == 'transfer':
            say(ev='transferred', **value)
    except Exception as e:  # whatever it is, the test is told
        say(ev='error', cmd=cmd, what=str(e))


def main():
    directory = tempfile.mkdtemp(prefix='turn-chromium-')
    blank = pathlib.Path(directory) / 'page.html'  # a file: such pages may use crypto.subtle
    blank.write_text('<!doctype html><title>turn</title>')
    browser = Browser(os.environ['TURN_CHROMIUM'], directory)
    try:
        page = Page(browser, blank.as_uri())
        while page.evaluate('document.readyState + document.title') != 'completeturn':
            pass
        source = (HERE / 'peer.js').read_text().replace('export class', 'globalThis.Peer = class')
        page.evaluate('%s\nglobalThis.peer = new Peer(RTCPeerConnection, %s); 0' % (
            source, sys.argv[1]))
        version = browser.call('Browser.getVersion')['product']
        threading.Thread(target=lambda: (page.evaluate('peer.opened.then(() => 0)'),
                                         say(ev='open')), daemon=True).start()
        say(ev='id', client='chromium', version=version)
        for line in sys.stdin:
            command = json.loads(line)
            if command['cmd'] == 'quit':
                break
            threading.Thread(target=do, args=(page, command['cmd'], command.get('arg')),
                             daemon=True).start()
    finally:
        browser.proc.kill()
        browser.proc.wait()
        shutil.rmtree(directory, ignore_errors=True)
        os._exit(0)


main()
