"""The pages of the relay port (dig.md §15.2, D6, D13) in a headless Chromium: what peers call
themselves is text and nothing else, tables fill and follow, and each can be read: light, dark, and
on a phone. Screenshots are left in the build directory."""

import base64
import itertools
import json
import os
import pathlib
import queue
import re
import struct
import subprocess
import threading
import time
import zlib

import pytest

from clients import command_of
from digd import Digd
from relay import SLOW, SLUICE

SHOTS = SLUICE.parents[1] / 'screenshots'
FLAGS = ['--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking',
         '--disable-sync', '--disable-component-update', '--disable-extensions', '--disable-breakpad',
         '--disable-dev-shm-usage', '--hide-scrollbars', '--remote-debugging-pipe']
WIDE, PHONE = (1280, 900), (390, 844)

# Ids are at most 128 bytes and without control characters (D9); a page shows the first 12 letters of
# them, but the networks as they are.
IDS = ['<s>x</s>', '"><b>\'&amp;', '<img/src=x>', "';owned=1//", 'שלום עולם', '\u202eevil\u202c', '\u200f\u2066x',
       'a' + '\u0301' * 60, '😀' * 32, 'é' * 64, 'x' * 128, '&lt;b&gt;', 'a\u00a0b', '${owned=1}', '{{owned}}']
NETWORKS = ['</td></table><script>globalThis.owned=1</script>', '<img src=/x onerror="globalThis.owned=2">',
            '"><svg onload=globalThis.owned=3>', 'javascript:globalThis.owned=4', 'ℵ' * 42, 'N' * 128,
            '\u202eTENNIAM_GID', '&#60;i&#62;', 'DIG_MAINNET']
HIDDEN = re.compile('[\u00a0\u200b-\u200f\u202a-\u202e\u2060-\u206f]')

# Before any script of the page: whatever the policy refuses or a script does not survive is kept.
WATCH = '''globalThis.broken = [];
addEventListener('error', e => broken.push('error: ' + (e.message || e.target.src || e.target.href)), true);
addEventListener('unhandledrejection', e => broken.push('rejection: ' + e.reason));
addEventListener('securitypolicyviolation', e => broken.push('policy: ' + e.violatedDirective));'''

# Fifty times as fast; `waits` is what the page asked for.
HASTE = '''globalThis.waits = [];
const began = Date.now(), now = Date.now, later = setTimeout, often = setInterval;
Date.now = () => began + (now() - began) * 50;
globalThis.setTimeout = (f, ms, ...more) => { waits.push(ms); return later(f, ms / 50, ...more); };
globalThis.setInterval = (f, ms, ...more) => often(f, ms / 50, ...more);'''

# The least contrast of any text that is seen, as WCAG 2 §1.4.3 counts it, and where it is.
CONTRAST = '''(() => {
  const paint = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgba = css => { paint.clearRect(0, 0, 1, 1); paint.fillStyle = css; paint.fillRect(0, 0, 1, 1);
    const d = paint.getImageData(0, 0, 1, 1).data; return [d[0], d[1], d[2], d[3] / 255]; };
  const over = (a, b) => [0, 1, 2].map(i => a[i] * a[3] + b[i] * (1 - a[3])).concat(1);
  const light = c => [.2126, .7152, .0722].reduce((sum, part, i) => { const v = c[i] / 255;
    return sum + part * (v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4); }, 0);
  const ground = e => { const own = rgba(getComputedStyle(e).backgroundColor);
    return own[3] === 1 ? own : over(own, e.parentElement ? ground(e.parentElement) : [255, 255, 255, 1]); };
  let least = [99, '', 0];
  for (const e of document.body.querySelectorAll('*')) {
    const own = [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
    if (!own || e.closest('noscript, .hidden') || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), svg = e.namespaceURI !== document.body.namespaceURI;
    if (e.localName === 'title') continue;
    const under = ground(svg ? e.closest('svg').parentElement : e);
    const [a, b] = [light(over(rgba(svg ? style.fill : style.color), under)), light(under)].sort((p, q) => q - p);
    const ratio = (a + .05) / (b + .05);
    least = ratio < least[0] ? [ratio, e.localName + '.' + (e.className.baseVal || e.className) + '#' + e.id, least[2] + 1]
      : [least[0], least[1], least[2] + 1];
  }
  return least; })()'''


class Chromium:
    """Debian's, over its debugging pipe; nothing but its pages uses the network."""

    def __init__(self, directory):
        command = command_of('digpage')
        if command is None:
            pytest.skip('the digpage client is not built: run tests/interop/setup digpage')
        exports = [line for line in pathlib.Path(command).read_text().splitlines()
                   if line.startswith('export ')]
        start = directory / 'chromium'
        from_us, self.to = os.pipe()
        self.back, to_us = os.pipe()
        # it reads its commands from descriptor 3 and answers on 4
        start.write_text('\n'.join(['#!/bin/bash', *exports, 'exec "$INTEROP_CHROMIUM" "$@" 3<&%d 4>&%d' %
                                    (from_us, to_us), '']))
        start.chmod(0o755)
        with open(directory / 'chromium.log', 'wb') as log:
            self.proc = subprocess.Popen([str(start), *FLAGS, '--user-data-dir=%s' % (directory / 'user')],
                                         pass_fds=(from_us, to_us), stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        os.close(from_us)
        os.close(to_us)
        self.numbers, self.waiting, self.events, self.lock = itertools.count(1), {}, {}, threading.Lock()
        self.reader = threading.Thread(target=self.read, daemon=True)
        self.reader.start()

    def read(self):
        with os.fdopen(self.back, 'rb') as stream:
            rest = b''
            while data := stream.read1(1 << 16):
                *whole, rest = (rest + data).split(b'\0')
                for message in map(json.loads, whole):
                    if 'id' in message:
                        self.waiting.pop(message['id']).put(message)
                    else:
                        self.events.setdefault(message.get('sessionId'), []).append(message)
        for answer in list(self.waiting.values()):
            answer.put({'error': 'the browser ended'})

    def call(self, method, session=None, **params):
        answer = queue.Queue()
        with self.lock:
            number = next(self.numbers)
            self.waiting[number] = answer
            message = {'id': number, 'method': method, 'params': params, **({'sessionId': session} if session else {})}
            os.write(self.to, json.dumps(message).encode() + b'\0')
        got = answer.get(timeout=30 * SLOW)
        assert 'error' not in got, (method, got)
        return got['result']

    def close(self):
        self.proc.kill()
        self.proc.wait()
        self.reader.join(10)
        os.close(self.to)


class Page:
    def __init__(self, chromium, digd, path, size=WIDE, scheme='light', scripts=()):
        self.chromium, self.origin, self.size = chromium, 'http://%s:%d' % digd.at, size
        self.target = chromium.call('Target.createTarget', url='about:blank')['targetId']
        self.session = chromium.call('Target.attachToTarget', targetId=self.target, flatten=True)['sessionId']
        for domain in ('Page', 'Network', 'Log', 'Runtime'):
            self.call(domain + '.enable')
        self.show(size, scheme)
        for script in (WATCH, *scripts):
            self.call('Page.addScriptToEvaluateOnNewDocument', source=script)
        self.call('Page.navigate', url=self.origin + path)
        self.until("document.documentElement && document.documentElement.dataset.state === 'ok'")

    def call(self, method, **params):
        return self.chromium.call(method, self.session, **params)

    def show(self, size, scheme):
        self.call('Emulation.setDeviceMetricsOverride', width=size[0], height=size[1], deviceScaleFactor=1,
                  mobile=size == PHONE)
        self.call('Emulation.setEmulatedMedia', features=[{'name': 'prefers-color-scheme', 'value': scheme}])

    def eval(self, expression):
        got = self.call('Runtime.evaluate', expression=expression, awaitPromise=True, returnByValue=True)
        assert 'exceptionDetails' not in got, (expression, got)
        return got['result'].get('value')

    def until(self, expression, timeout=15):
        end = time.monotonic() + timeout * SLOW
        while not (value := self.eval(expression)):
            assert time.monotonic() < end, '%s did not become true: %s' % (
                expression, self.eval('document.body.innerText')[:1000])
            time.sleep(0.03)
        return value

    def text(self, element):
        return self.eval('document.getElementById(%r).innerText' % element)

    def rows(self, table):
        return self.eval("[...document.getElementById('%s-table').tBodies[0].rows]"
                         '.map(r => [...r.cells].map(c => c.textContent))' % table)

    def filter(self, element, text):
        self.eval("(e => { e.value = %s; e.dispatchEvent(new Event('input')); })(document.getElementById('%s'))" %
                  (json.dumps(text), element))

    def shot(self, name, capsys=None):
        """A screenshot of the whole page; (path, width, height, its first pixel)."""
        png = base64.b64decode(self.call('Page.captureScreenshot', captureBeyondViewport=True)['data'])
        SHOTS.mkdir(exist_ok=True)
        path = SHOTS / (name + '.png')
        path.write_bytes(png)
        assert png[:8] == b'\x89PNG\r\n\x1a\n' and len(png) > 10000, (path, len(png))
        width, height = struct.unpack('!II', png[16:24])
        raw, at = b'', 8
        while at < len(png):
            size, kind = struct.unpack('!I4s', png[at:at + 8])
            raw += png[at + 8:at + 8 + size] if kind == b'IDAT' else b''
            at += 12 + size
        lines = zlib.decompress(raw)
        assert len(set(lines)) > 50, 'one colour all over'
        if capsys:
            with capsys.disabled():
                print('\nscreenshot: %s, %d x %d, %d bytes' % (path, width, height, len(png)))
        return path, width, height, tuple(lines[1:4])

    def check(self):
        """Nothing ran, nothing broke, nobody else was asked."""
        assert self.eval('typeof owned') == 'undefined'
        assert self.eval('broken') == []
        for event in self.chromium.events.get(self.session, []):
            method, params = event['method'], event['params']
            assert method not in ('Runtime.exceptionThrown', 'Page.javascriptDialogOpening'), event
            assert method != 'Log.entryAdded' or params['entry']['level'] != 'error', event
            if method == 'Network.requestWillBeSent':
                assert params['request']['url'].startswith(self.origin + '/'), event
        assert self.eval("document.querySelectorAll('table script, table img, table svg, table s, table b, table i, "
                         "body > script').length") == 0
        # what is wider than the screen can be brought into it
        assert self.eval('''[...document.querySelectorAll('.scroll')].filter(s => {
            s.scrollLeft = 1e6;
            const right = s.querySelector('th:last-child').getBoundingClientRect().right;
            s.scrollLeft = 0;
            return right > s.getBoundingClientRect().right + 1;
        }).length''') == 0
        # names stay where they are put, and the page is as wide as the screen
        assert self.eval('document.documentElement.scrollWidth') <= self.size[0], 'wider than the screen'
        assert self.eval('''[...document.querySelectorAll('.name')].filter(cell => {
            const range = document.createRange(), own = cell.getBoundingClientRect();
            range.selectNodeContents(cell);
            const text = range.getBoundingClientRect();
            return text.left < own.left || text.right > own.right || text.bottom > own.bottom;
        }).map(cell => cell.textContent)''') == []

    def close(self):
        self.chromium.call('Target.closeTarget', targetId=self.target)


@pytest.fixture(scope='module')
def chromium(tmp_path_factory):
    live = Chromium(tmp_path_factory.mktemp('chromium'))
    yield live
    live.close()


@pytest.fixture
def page(chromium):
    opened = []

    def make(*args, **options):
        opened.append(Page(chromium, *args, **options))
        return opened[-1]
    yield make
    for one in opened:
        one.close()


@pytest.fixture(scope='module')
def crowd(tmp_path_factory):
    """A relay with all the hostile ids and networks, whose peers have told of keys at its start."""
    live = Digd(tmp_path_factory.mktemp('dig')).start()
    a, b = live.peer(net='DIG_MAINNET', listen_addrs=['[::]:9444']), live.peer(net='DIG_MAINNET', version=4294967295)
    for conn, providers in ((a, 4), (b, 7)):
        records = [{'content_key': '%064x' % (n << 200 | 0xabc), 'providers': providers} for n in range(3 * providers)]
        conn.say('dht_records', records=records + [{'content_key': '<b>' + 'x' * 61, 'providers': 9}],
                 total_keys=len(records), truncated=False)
    for peer_id in IDS:
        live.peer(peer_id, net='DIG_MAINNET')
    for net in NETWORKS:
        live.peer(net=net)
    yield live
    live.finish()


def shown(text):
    """As a page shows it: what is not seen is spelled out."""
    return HIDDEN.sub(lambda m: '\\u{%x}' % ord(m[0]), text)


interop = pytest.mark.interop


# ---- /

@interop
@pytest.mark.parametrize('size, scheme', [(WIDE, 'light'), (WIDE, 'dark'), (PHONE, 'light'), (PHONE, 'dark')],
                         ids=['wide-light', 'wide-dark', 'phone-light', 'phone-dark'])
def test_dig_page_overview(crowd, page, capsys, size, scheme):
    live = page(crowd, '/', size, scheme)
    stats = crowd.json('/stats.json')
    assert live.eval('document.title') == 'DIG relay' and live.text('said') == 'live'
    rows = live.rows('peers')
    assert [row[:2] for row in rows] == [[shown(p['peer_id']), shown(p['network_id'])] for p in stats['peers']]
    assert len(rows) == 2 + len(IDS) + len(NETWORKS)
    assert {tuple(row[2:5]) for row in rows} == {('direct', 'IPv4', '1'), ('relay', 'none', '1'),
                                                 ('relay', 'none', '4294967295')}
    for row, peer in zip(rows, stats['peers']):
        at = time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(peer['connected_at']))
        assert re.fullmatch(re.escape(at) + r' \((\d+ min )?\d+ s\)', row[5]), row
    assert '<s>x</s>' in [row[0] for row in rows] and '\\u{202e}evil\\u{202c}' in [row[0] for row in rows]
    networks = live.rows('networks')
    assert sorted(row[0] for row in networks) == sorted(map(shown, NETWORKS))
    assert networks[0][:2] == ['DIG_MAINNET', str(3 + len(IDS))]
    assert [live.text(tile) for tile in ('status', 'peers', 'networks', 'stun', 'bytes')] == [
        'ok', str(len(rows)), str(len(NETWORKS)), '0', '0 B']
    assert live.text('version') == 'version ' + stats['version'] and live.text('peers-more') == ''
    assert re.fullmatch(r'(\d+ min )?\d+ s', live.text('uptime'))
    assert re.fullmatch(time.strftime('%Y-') + r'\d\d-\d\d \d\d:\d\d:\d\d', live.text('updated'))
    ratio, where, seen = live.eval(CONTRAST)
    assert ratio >= 4.5 and seen > 50, (ratio, where, seen)
    path, width, height, corner = live.shot('dig-overview-%s-%s' % ('wide' if size == WIDE else 'phone', scheme), capsys)
    assert width == size[0] and height > size[1]
    assert (min(corner) > 200) if scheme == 'light' else (max(corner) < 60), (path, corner)
    live.check()


@interop
def test_dig_page_follows(crowd, page):
    """Who comes and who goes is seen at the next question, and what was counted."""
    live = page(crowd, '/', scripts=[HASTE])
    before = live.rows('peers')
    assert not any(row[0].startswith('newcomer') for row in before)
    first = live.eval("(globalThis.kept = document.querySelector('#peers-table tbody tr')).textContent")
    one, two = crowd.peer('newcomer-<i>', net='DIG_MAINNET'), crowd.peer('zzz', net='DIG_MAINNET')
    one.relay(two, [1] * 2048)
    two.expect('relay_message')
    live.until("document.getElementById('peers-table').innerText.includes('newcomer-<i>')", timeout=8)
    assert len(live.rows('peers')) == len(before) + 2
    assert live.text('bytes') == '2.0 KiB' and live.text('peers') == str(len(before) + 2)
    assert live.eval("kept === document.querySelector('#peers-table tbody tr')") and first, 'rows are used again'
    one.close()
    two.close()
    live.until("!document.getElementById('peers-table').innerText.includes('newcomer-')", timeout=8)
    assert [row[:2] for row in live.rows('peers')] == [row[:2] for row in before]
    live.check()


@interop
def test_dig_page_filter(crowd, page):
    live = page(crowd, '/')
    everybody = live.rows('peers')
    live.filter('peers-filter', '<SCRIPT>')
    assert [row[1] for row in live.rows('peers')] == [NETWORKS[0]]
    live.filter('peers-filter', 'nobody has this')
    assert live.rows('peers') == [] and live.text('peers-more') == 'No peer is like that.'
    live.filter('peers-filter', '')
    assert [row[0] for row in live.rows('peers')] == [row[0] for row in everybody]
    live.check()


@interop
def test_dig_page_is_bounded(dig_start, page):
    """More peers and networks than a table holds: the first 500, and how many more."""
    digd = dig_start()
    for n in range(611):
        digd.peer('peer-%04d' % n, net='net-%04d' % n)
    live = page(digd, '/')
    for table in ('peers', 'networks'):
        assert len(live.rows(table)) == 500 and live.text(table + '-more') == 'and 111 more', table
    assert live.text('peers') == live.text('networks') == '611'
    assert live.eval("document.querySelectorAll('*').length") < 10000
    live.filter('peers-filter', 'peer-0610')
    assert [row[0] for row in live.rows('peers')] == ['peer-0610'] and live.text('peers-more') == ''
    live.check()


@interop
def test_dig_page_while_the_relay_is_away(dig_start, page, capsys):
    """It says so, keeps what it has, asks less and less often, and is back when the relay is."""
    digd = dig_start()
    digd.peer('here', net='n')
    live = page(digd, '/', scripts=[HASTE])
    live.until('waits.filter(ms => ms === 5000).length >= 2')
    updated = live.text('updated')
    live.call('Network.emulateNetworkConditions', offline=True, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    live.until("document.documentElement.dataset.state === 'away'")
    live.eval('waits.length = 0')
    live.until('waits.filter(ms => ms !== 30000).length >= 5')
    waits = live.eval('waits.filter(ms => ms !== 30000)')[:5]
    assert waits == [10000, 20000, 40000, 60000, 60000] or waits == [20000, 40000, 60000, 60000, 60000], waits
    assert live.text('said') == 'the relay does not answer' and live.text('updated') >= updated
    assert [row[0] for row in live.rows('peers')] == ['here'] and live.text('peers') == '1'
    assert re.fullmatch(r'Asks again in \d+ seconds?\.|Asking …', live.text('next')), live.text('next')
    live.shot('dig-overview-away', capsys)
    live.call('Network.emulateNetworkConditions', offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1)
    live.until("document.documentElement.dataset.state === 'ok'")
    live.eval('waits.length = 0')
    live.until('waits.includes(5000)')
    assert live.eval('typeof owned') == 'undefined'


# ---- /map

@interop
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_dig_page_map(crowd, page, capsys, scheme):
    """Without a database nobody's place is known, which it says."""
    live = page(crowd, '/map', scheme=scheme)
    total = crowd.json('/map.json')['total_peers']
    assert live.text('placed').startswith('0 of %d peers located, %d unknown: ' % (total, total))
    assert live.rows('cells') == [] and live.text('cells-more') == 'No cell has a peer.'
    assert live.eval("document.querySelectorAll('#cells circle').length") == 0
    assert live.eval("document.querySelectorAll('#grid path').length") == 16
    ratio, where, _ = live.eval(CONTRAST)
    assert ratio >= 4.5, (ratio, where)
    _, width, _, corner = live.shot('dig-map-' + scheme, capsys)
    assert width == WIDE[0] and ((min(corner) > 200) if scheme == 'light' else (max(corner) < 60))
    live.check()


def canned(**figures):
    """Instead of what the relay says."""
    return 'globalThis.fetch = async () => new Response(%s);' % json.dumps(json.dumps(dict(schema_version=1, **figures)))


@interop
def test_dig_page_map_places(crowd, page, capsys):
    """Each cell where it is, the poles within the picture, and what is no place nowhere."""
    bad = '<img src=x onerror=globalThis.owned=5>'
    cells = [dict(lat=-87.5, lon=-2.5, count=1), dict(lat=-32.5, lon=152.5, count=4), dict(lat=52.5, lon=-2.5, count=16),
             dict(lat=92.5, lon=179.5, count=1), dict(lat=bad, lon=bad, count=bad)]
    live = page(crowd, '/map', PHONE, scripts=[canned(
        generated_at=1795150405, cell_deg=5.0, total_peers=30, located_peers=22, unknown_peers=8, cells=cells)])
    assert live.text('placed') == '22 of 30 peers located, 8 unknown'
    assert ['52.5° N', '2.5° W', '16'] in live.rows('cells') and ['32.5° S', '152.5° E', '4'] in live.rows('cells')
    dots = live.eval("[...document.querySelectorAll('#cells circle')].map(c => ['cx', 'cy', 'r'].map(k => c.getAttribute(k)))")
    assert dots[1:3] == [['665', '245', '7.5'], ['355', '75', '12.0']]
    assert len(dots) == 4 and all(0 <= float(y) <= 340 for _, y, _ in dots), dots
    assert live.eval("document.querySelectorAll('#cells title')[2].textContent") == '16 peers around 52.5° N, 2.5° W'
    live.shot('dig-map-places', capsys)
    assert live.eval('typeof owned') == 'undefined'


@interop
def test_dig_page_map_is_bounded(crowd, page):
    cells = [dict(lat=n % 90, lon=n // 90, count=1) for n in range(9000)]
    live = page(crowd, '/map', scripts=[canned(
        generated_at=1, cell_deg=1, total_peers=9000, located_peers=9000, unknown_peers=0, cells=cells)])
    assert live.eval("document.querySelectorAll('#cells circle').length") == 3000
    assert len(live.rows('cells')) == 500 and live.text('cells-more') == 'and 8,500 more'
    live.check()


# ---- /dht

@interop
@pytest.mark.parametrize('size, scheme', [(WIDE, 'light'), (PHONE, 'dark')], ids=['wide-light', 'phone-dark'])
def test_dig_page_dht(crowd, page, capsys, size, scheme):
    """Keys as the relay has sorted them; and a part of one finds it."""
    crowd.settle(lambda: crowd.json('/dht.json')['keys'], timeout=12)
    live = page(crowd, '/dht', size, scheme)
    keys = crowd.json('/dht.json')['keys']
    assert len(keys) == 21
    assert live.rows('keys') == [[k['content_key'], str(k['providers']), str(k['reported_by'])] for k in keys]
    assert live.text('counted') == '21 keys, reported by 2 peers' and live.text('keys-more') == ''
    ratio, where, _ = live.eval(CONTRAST)
    assert ratio >= 4.5, (ratio, where)
    live.shot('dig-dht-%s' % scheme, capsys)
    live.filter('keys-filter', keys[5]['content_key'][:40].upper())
    assert [row[0] for row in live.rows('keys')] == [keys[5]['content_key']]
    live.filter('keys-filter', 'x')
    assert live.rows('keys') == [] and live.text('keys-more') == 'No key is like that.'
    live.check()


@interop
def test_dig_page_dht_hostile(crowd, page):
    """A relay stores nothing but hex (D13), and the page would show what it did as text."""
    keys = [dict(content_key=k, providers=1, reported_by=1) for k in
            ['<img src=x onerror=globalThis.owned=6>', '</table><script>globalThis.owned=7</script>'] +
            ['%064x' % n for n in range(2000)]]
    live = page(crowd, '/dht', scripts=[canned(
        generated_at=1795150401, reporting_peers=1, total_keys=2500, truncated=True, keys=keys)])
    rows = live.rows('keys')
    assert [row[0] for row in rows[:2]] == [k['content_key'] for k in keys[:2]]
    assert len(rows) == 500 and live.text('keys-more') == 'and 1,502 more'
    assert live.text('counted') == '2,500 keys, reported by 1 peer, cut: there are more'
    live.check()


# ---- without a browser

@pytest.mark.sanitize
def test_dig_page_answers(digd):
    """What surrounds a document: its policy, its keeping, and that every address in it is answered."""
    pages = {path: digd.fetch(path) for path in ('/', '/map', '/dht')}
    for path, (status, fields, body) in pages.items():
        assert status == 200 and fields['content-type'] == 'text/html; charset=utf-8'
        assert fields['cache-control'] == 'no-cache' and fields['x-content-type-options'] == 'nosniff'
        policy = dict(part.split(' ', 1) for part in fields['content-security-policy'].split('; '))
        assert policy['default-src'] == policy['base-uri'] == policy['frame-ancestors'] == "'none'"
        assert {policy[kind] for kind in ('script-src', 'style-src', 'connect-src', 'img-src')} == {"'self'"}
        for scope in re.findall(r'<th [^>]*>', body.decode()):
            assert 'scope="col"' in scope, scope
        for address in set(re.findall(r'(?:href|src)="([^"]*)"', body.decode())):
            status, fields, _ = digd.fetch(address)
            assert status == 200, (path, address)
            assert ('?v=' in address) == ('immutable' in fields.get('cache-control', '')), (address, fields)
    assert sum(len(body) for _, _, body in pages.values()) < 20000
