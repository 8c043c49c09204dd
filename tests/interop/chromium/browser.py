"""Debian's Chromium, headless, over its debugging pipe, so that nothing but the page itself uses the
network. The clients beside it hold one page each."""

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

    def version(self):
        return self.call('Browser.getVersion')['product']


class Page:
    def __init__(self, browser, url):
        self.browser = browser
        target = browser.call('Target.createTarget', url=url)['targetId']
        self.session = browser.call('Target.attachToTarget', targetId=target,
                                    flatten=True)['sessionId']

    def call(self, method, **params):
        return self.browser.call(method, self.session, **params)

    def evaluate(self, expression):
        got = self.call('Runtime.evaluate', expression=expression, awaitPromise=True,
                        returnByValue=True)
        if 'exceptionDetails' in got:
            raise RuntimeError(json.dumps(got['exceptionDetails']))
        return got['result'].get('value')


def hold(title, constructor, do, ready=None):
    """A blank page with `peer`, an object of the class in peer.js; then the commands of stdin, one by
    one thread, until `quit`. ready(page) runs in a thread of its own."""
    directory = tempfile.mkdtemp(prefix='sluice-chromium-')
    blank = pathlib.Path(directory) / 'page.html'  # a file: such pages may use crypto.subtle
    blank.write_text('<!doctype html><title>%s</title>' % title)
    browser = Browser(os.environ['INTEROP_CHROMIUM'], directory)
    try:
        page = Page(browser, blank.as_uri())
        while page.evaluate('document.readyState + document.title') != 'complete' + title:
            pass
        source = (HERE / 'peer.js').read_text().replace('export class', 'globalThis.Peer = class')
        page.evaluate('%s\nglobalThis.peer = %s; 0' % (source, constructor))
        version = browser.version()
        if ready:
            threading.Thread(target=ready, args=(page,), daemon=True).start()
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
