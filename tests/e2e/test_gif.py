"""The gif service with a key (dusk.md §9), against an HTTPS server of the test's in place of the
API: what is asked of it, what a client hears, and what it may do to the relay, which is nothing.
Without a key: test_dusk_cbor.py, check 43."""

import datetime
import http.server
import ipaddress
import json
import re
import socket
import ssl
import threading
import time
import urllib.parse

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import dusk
from dusk import GIF, Peer, begin, finish, gif, uncbor
from relay import SLOW
from turnd import Clock

KEY = 'a key/with+odd=signs'
EMPTY = dusk.cbor({'results': []})


# ---- the stand-in --------------------------------------------------------------------------------

def certificate(directory, name, issuer=None, ca=False, hosts=('127.0.0.1', 'localhost')):
    """(certificate, key), and NAME.pem with both."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.utcnow()
    names = []
    for host in hosts:
        try:
            names.append(x509.IPAddress(ipaddress.ip_address(host)))
        except ValueError:
            names.append(x509.DNSName(host))
    builder = x509.CertificateBuilder().subject_name(subject).public_key(key.public_key()) \
        .issuer_name(issuer[0].subject if issuer else subject) \
        .serial_number(x509.random_serial_number()) \
        .not_valid_before(now - datetime.timedelta(days=1)) \
        .not_valid_after(now + datetime.timedelta(days=1)) \
        .add_extension(x509.BasicConstraints(ca, None), True)
    if not ca:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), False)
    cert = builder.sign(issuer[1] if issuer else key, hashes.SHA256())
    pem = cert.public_bytes(serialization.Encoding.PEM)
    (directory / (name + '.crt')).write_bytes(pem)
    (directory / (name + '.pem')).write_bytes(pem + key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption()))
    return cert, key


@pytest.fixture(scope='module')
def pki(tmp_path_factory):
    directory = tmp_path_factory.mktemp('pki')
    ca = certificate(directory, 'ca', ca=True)
    certificate(directory, 'good', ca)
    certificate(directory, 'other', ca, hosts=('api.example',))
    certificate(directory, 'self')
    return directory


def entry(i, **more):
    return dict({'id': str(i), 'title': 'title %d' % i, 'content_description': 'gif %d' % i,
                 'media_formats': {'gif': {'url': 'https://media.example/%d.gif' % i},
                                   'tinygif': {'url': 'https://media.example/%d.tiny' % i,
                                               'dims': [220, 100 + i]}}}, **more)


def shown(i):
    return {'id': str(i), 'title': 'gif %d' % i, 'url': 'https://media.example/%d.gif' % i,
            'preview': 'https://media.example/%d.tiny' % i, 'dims': [220, 100 + i]}


class Api:
    """HTTPS on 127.0.0.1. `say` answers a request; by default three gifs."""

    def __init__(self, pki, cert='good'):
        self.paths, self.say, self.accepted = [], None, 0
        api = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = 'HTTP/1.1'

            def do_GET(self):
                api.paths.append(self.path)
                api.headers = dict(self.headers)
                try:
                    (api.say or Api.three)(self)
                except (BrokenPipeError, ConnectionError, ssl.SSLError):
                    self.close_connection = True

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True

            def get_request(self):
                sock, at = super().get_request()
                api.accepted += 1
                sock.settimeout(60)
                return context.wrap_socket(sock, server_side=True,
                                           do_handshake_on_connect=False), at

            def handle_error(self, *_):
                pass
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pki / (cert + '.pem'))
        self.server = Server(('127.0.0.1', 0), Handler)
        self.url = 'https://127.0.0.1:%d' % self.server.server_port
        self.ca = pki / 'ca.crt'
        threading.Thread(target=self.server.serve_forever, args=(0.02,), daemon=True).start()

    @staticmethod
    def three(request):
        Api.reply(request, {'results': [entry(i) for i in range(3)], 'next': 'x'})

    @staticmethod
    def reply(request, body, status=200, **headers):
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request.send_response(status)
        for name, value in headers.items():
            request.send_header(name, value)
        request.send_header('Content-Length', str(len(data)))
        request.end_headers()
        request.wfile.write(data)

    def asked(self):
        """[(path, {name: value})], and forgotten."""
        out, self.paths = self.paths, []
        return [(urllib.parse.urlsplit(p).path, dict(urllib.parse.parse_qsl(
            urllib.parse.urlsplit(p).query, keep_blank_values=True, strict_parsing=True)))
            for p in out]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def api(pki):
    made = []

    def make(cert='good'):
        made.append(Api(pki, cert))
        return made[-1]
    yield make
    for one in made:
        one.close()


@pytest.fixture
def served(start):
    def make(api, *flags, allow=True, ca=True, url=None, env=None, **options):
        flags = ['--gif-url', url or api.url, *flags]
        flags += ['--gif-allow-private'] if allow else []
        flags += ['--gif-ca', api.ca] if ca else []
        return start(*flags, preset='dusk', env=dict({'KLIPY_API_KEY': KEY}, **(env or {})),
                     **options)
    return make


def saying(body, status=200, **headers):
    return lambda request: Api.reply(request, body, status, **headers)


# ---- what is asked and answered ------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_dusk_gif_search_and_trending(api, served):
    door = api()
    with Peer(served(door)) as one:
        assert one.gifs('search', ' C\u00e4t & dog?', 20) == [shown(i) for i in range(3)]
        assert one.gifs('trending', '', 30) == [shown(i) for i in range(3)]
    both = {'key': KEY, 'media_filter': 'tinygif,gif'}
    assert door.asked() == [
        ('/v2/search', dict(both, q=' C\u00e4t & dog?', limit='20')),
        ('/v2/featured', dict(both, limit='30'))]
    assert door.headers['Host'] == door.url[8:]
    assert 'Cookie' not in door.headers and 'Accept-Encoding' not in door.headers


def test_dusk_gif_the_url_is_the_published_one(api, served):
    door = api()
    with Peer(served(door, env={'KLIPY_API_KEY': 'K'})) as one:
        one.gifs('search', 'a b\u00e9', 7)
        one.gifs('anything', 'x', 50)
        one.gifs('search', '  ', 51)
    assert door.paths == [
        '/v2/search?q=a%20b%C3%A9&key=K&limit=7&media_filter=tinygif,gif',
        '/v2/featured?key=K&limit=50&media_filter=tinygif,gif']  # 51 is 50, and kept


FIELDS = {
    'all': (entry(1), shown(1)),
    'bare': ({'media_formats': entry(1)['media_formats']}, dict(shown(1), id='', title='')),
    'title': (entry(1, content_description=None), dict(shown(1), title='title 1')),
    'empty': (entry(1, content_description=''), dict(shown(1), title='')),
    'id': (entry(1, id=7), dict(shown(1), id='')),
    'odd': (entry(1, title={'a': []}, content_description=3), dict(shown(1), title='')),
    'long': (entry(1, title='t' * 5000, content_description='d' * 5000), dict(shown(1), title='')),
}


def test_dusk_gif_fields(api, served):
    door = api()
    with Peer(served(door)) as peer:
        for name, (one, want) in FIELDS.items():
            door.say = saying({'results': [one]})
            assert peer.gifs('search', name) == [want], name


def test_dusk_gif_what_cannot_be_shown_is_left_out(api, served):
    def formats(**more):
        return {'media_formats': more}
    good = entry(1)['media_formats']
    no_dims = entry(2)
    no_dims['media_formats']['tinygif']['dims'] = [1, 2, 3]
    odd_dims = entry(3)
    odd_dims['media_formats']['tinygif']['dims'] = [-1, 1 << 40]
    door = api()
    door.say = saying({'results': [
        {}, 7, None, 'x', [], formats(), formats(gif=good['gif']), formats(tinygif=good['tinygif']),
        formats(gif={'url': 3}, tinygif=good['tinygif']), {'media_formats': []},
        formats(gif={'url': 'u' * 5000}, tinygif=good['tinygif']), no_dims, odd_dims, entry(4)]})
    with Peer(served(door)) as one:
        assert one.gifs() == [dict(shown(2), dims=[220, 165]), dict(shown(3), dims=[220, 165]),
                              shown(4)]


def test_dusk_gif_no_more_than_were_asked_for_and_than_fit(api, served):
    door = api()
    door.say = saying({'results': [entry(i) for i in range(200)]})
    with Peer(served(door)) as one:
        assert len(one.gifs(limit=20)) == 20
        assert len(one.gifs(limit=4000000000)) == 50
        assert one.gifs(limit=0) == []
        long = [entry(i, content_description='d' * 4000) for i in range(50)]
        door.say = saying({'results': long})
        got = one.gifs(query='long', limit=50)
        assert 10 <= len(got) < 17  # 64 KiB of them
        assert [g['id'] for g in got] == [str(i) for i in range(len(got))]


def test_dusk_gif_texts_of_all_kinds_pass(api, served):
    door, text = api(), 'a\0b \u00e9 \U0001f986 "\\ \n'
    door.say = saying({'results': [entry(1, content_description=text, id='\u2028')]})
    with Peer(served(door)) as one:
        assert one.gifs() == [dict(shown(1), title=text, id='\u2028')]


# ---- the cache and the limiter -------------------------------------------------------------------

def test_dusk_gif_cache(api, served, tmp_path):
    clock, door = Clock(tmp_path), api()
    relay = served(door, env=clock.env)
    with Peer(relay) as one, Peer(relay) as two:
        def calls(*asks):
            for ask in asks:
                assert uncbor(one.raw(GIF, gif(*ask)))['results']
            return len(door.asked())
        assert calls(('search', 'cat', 20), ('search', ' CAT ', 20), ('search', 'cat', 20)) == 1
        assert two.gifs('search', 'Cat', 20) and door.asked() == []
        assert calls(('search', 'cat', 21), ('search', 'dog', 20), ('trending', '', 20)) == 3
        assert calls(('trending', 'whatever', 20)) == 0
        assert calls(('other', '', 20)) == 1
        clock.step(590)
        assert calls(('trending', '', 20), ('search', 'cat', 20)) == 0
        clock.step(20)
        assert calls(('trending', '', 20), ('search', 'cat', 20), ('other', '', 20)) == 1
        clock.step(1180)
        assert calls(('search', 'dog', 20)) == 0
        clock.step(30)
        assert calls(('search', 'dog', 20), ('search', 'cat', 20), ('other', '', 20)) == 3


def test_dusk_gif_empty_answers_are_not_kept(api, served):
    door = api()
    door.say = saying({'results': []})
    with Peer(served(door)) as one:
        assert [one.gifs(), one.gifs()] == [[], []]
        assert len(door.asked()) == 2
        door.say = None
        assert len(one.gifs()) == 3


@pytest.mark.sanitize
@pytest.mark.tsan
def test_dusk_gif_one_call_for_all_who_ask_the_same(api, served):
    door, go = api(), threading.Event()

    def slow(request):
        go.wait(10 * SLOW)
        Api.three(request)
    door.say = slow
    relay = served(door)
    peers = [Peer(relay) for _ in range(4)]
    streams = [begin(peer.session, GIF, gif()) for peer in peers for _ in range(25)]
    relay.until(lambda: door.paths, what='the call')
    peers[0].close()  # with its streams; the others do not notice
    go.set()
    for stream in streams[25:]:
        assert len(uncbor(finish(stream))['results']) == 3
    assert len(door.asked()) == 1
    for peer in peers:
        peer.close()


@pytest.mark.parametrize('value, limited', [('true', True), ('yes', False)])
def test_dusk_gif_limiter(api, served, tmp_path, value, limited):
    clock, door = Clock(tmp_path), api()
    with Peer(served(door, env=dict(clock.env, KLIPY_TEST_KEY=value))) as one:
        streams = [begin(one.session, GIF, gif('search', 'q%d' % i, 1)) for i in range(90)]
        assert all(uncbor(finish(s))['results'] for s in streams)
        clock.step(30)
        later = [bool(one.gifs('search', 'r%d' % i, 1)) for i in range(15)]
        assert later == [True] * 15 if not limited else later == [True] * 10 + [False] * 5
        assert one.gifs('search', 'q0', 1)  # kept: no call
        if limited:
            assert len(door.asked()) == 100
            clock.step(31)  # the ninety are a minute old
            assert one.gifs('search', 'r14', 1)


# ---- what the service may do ---------------------------------------------------------------------

def slowly(request):
    request.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n')
    for _ in range(1000):
        time.sleep(0.2)
        request.wfile.write(b' ')
        request.wfile.flush()


HEAD_LINES = []  # how many of these were sent


def endless_head(request):
    request.wfile.write(b'HTTP/1.1 200 OK\r\n')
    for i in range(100000):
        HEAD_LINES[:] = [i]
        request.wfile.write(b'X-%d: %s\r\n' % (i, b'y' * 1000))


def huge(request):
    request.wfile.write(b'HTTP/1.1 200 OK\r\nContent-Length: 104857600\r\n\r\n')
    for _ in range(1600):
        request.wfile.write(b'[' * 65536)


def huge_chunked(request):
    request.wfile.write(b'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
    for _ in range(1600):
        request.wfile.write(b'10000\r\n' + b' ' * 65536 + b'\r\n')


def garbage(request):
    request.wfile.write(b'\0\xff garbage\r\n\r\n')
    request.close_connection = True


def hang_up(request):
    request.connection.shutdown(socket.SHUT_RDWR)


BAD = {
    '500': saying(b'oops', 500), '404': saying({'results': [entry(1)]}, 404),
    'no json': saying(b'<html>'), 'cut json': saying(b'{"results": [{"id": "1"'),
    'other json': saying([1, 2]), 'null': saying(b'null'), 'nothing': saying(b''),
    'results of another kind': saying({'results': {'a': 1}}), 'bad utf8': saying(
        b'{"results": [{"id": "\xff"}]}'),
    'deep': saying(b'[' * 500000), 'wide': saying(b'{"results": [' + b'{},' * 300000 + b'{}]}'),
    'long head': endless_head, '100 MB': huge, '100 MB in chunks': huge_chunked,
    'garbage': garbage, 'hang up': hang_up,
}


@pytest.mark.sanitize
def test_dusk_gif_whatever_it_says_is_an_empty_answer(api, served):
    door = api()
    relay = served(door)
    with Peer(relay) as one:
        assert len(one.gifs('search', 'warm', 20)) == 3
        before = relay.rss_kib()
        for i, how in enumerate(BAD):
            door.say = BAD[how]
            began = time.monotonic()
            assert one.raw(GIF, gif('search', how)) == EMPTY, how
            assert time.monotonic() - began < 9 * SLOW, how
        assert HEAD_LINES[0] < 50000  # what the sockets held; 64 of them were read
        door.say = None
        assert len(one.gifs('search', 'after', 20)) == 3
        if SLOW == 1:
            assert relay.rss_kib() - before < 40000  # a JSON pool and a body
    relay.wait_log('gif: the service fails: it answers 500')
    log = relay.log()
    assert len(re.findall('gif: the service fails', log)) <= 2  # one a minute
    assert KEY not in log and urllib.parse.quote(KEY) not in log and 'a%20key' not in log


def test_dusk_gif_a_service_that_never_ends_costs_the_deadline(api, served):
    door, silent = api(), socket.create_server(('127.0.0.1', 0))
    done = threading.Event()
    door.say = lambda request: slowly(request) if 'slow' in request.path else done.wait(60)
    one = Peer(served(door))
    two = Peer(served(door, url='https://127.0.0.1:%d' % silent.getsockname()[1]))
    began = time.monotonic()
    never = begin(one.session, GIF, gif())
    slow = begin(one.session, GIF, gif('search', 'slow', 20))
    no_handshake = begin(two.session, GIF, gif())
    assert one.register('beside') == 'Ok'  # nobody else waits
    assert time.monotonic() - began < 5 * SLOW
    assert finish(no_handshake) == EMPTY
    assert 4 < time.monotonic() - began < 9 * SLOW
    assert finish(never) == EMPTY and finish(slow) == EMPTY
    assert 9 < time.monotonic() - began < 14 * SLOW
    begin(one.session, GIF, gif('search', 'at a stop', 20))
    began = time.monotonic()
    assert one.relay.stop() == 0
    assert time.monotonic() - began < 6 * SLOW  # not for this
    done.set()
    silent.close()
    two.close()


@pytest.mark.sanitize
def test_dusk_gif_no_redirect_is_followed(api, served):
    door, trap = api(), api()
    with Peer(served(door)) as one:
        for status in (301, 302, 303, 307, 308):
            door.say = saying(b'', status, Location=trap.url + '/v2/search')
            assert one.raw(GIF, gif('search', str(status))) == EMPTY
    assert trap.accepted == 0
    assert len(door.paths) == 5


@pytest.mark.parametrize('cert, ca', [('self', True), ('other', True), ('good', False)])
def test_dusk_gif_a_certificate_must_be_good(api, served, cert, ca):
    door = api(cert)
    relay = served(door, ca=ca)
    with Peer(relay) as one:
        assert one.raw(GIF, gif()) == EMPTY
    assert door.accepted >= 1 and door.paths == []
    relay.wait_log('gif: the service fails')


@pytest.mark.sanitize
@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost', '[::1]', '[::ffff:127.0.0.1]',
                                  '127.1', '2130706433', '0x7f000001', '[64:ff9b::7f00:1]'])
def test_dusk_gif_private_addresses_are_not_connected_to(api, served, host):
    door = api()
    relay = served(door, allow=False, url='https://%s:%s' % (host, door.url.rsplit(':', 1)[1]))
    with Peer(relay) as one:
        assert one.raw(GIF, gif()) == EMPTY
    assert door.accepted == 0
    relay.wait_log('gif: the service fails: .*private|gif: the service fails: .*resolve')


def test_dusk_gif_by_name(api, served):
    door = api()
    with Peer(served(door, url=door.url.replace('127.0.0.1', 'localhost') + '/base')) as one:
        assert len(one.gifs()) == 3
    assert door.paths[0].startswith('/base/v2/search?')


def test_dusk_gif_no_proxy_of_the_environment(api, served):
    door, trap = api(), socket.create_server(('127.0.0.1', 0))
    proxy = 'http://127.0.0.1:%d' % trap.getsockname()[1]
    env = {name: proxy for name in ('https_proxy', 'HTTPS_PROXY', 'all_proxy', 'ALL_PROXY')}
    with Peer(served(door, env=env)) as one:
        assert len(one.gifs()) == 3
    trap.settimeout(0.1)
    with pytest.raises(TimeoutError):
        trap.accept()
    trap.close()


def test_dusk_gif_a_flood_of_questions(api, served):
    """More than can be asked at once: some are empty, all are answered."""
    door = api()

    def slow(request):
        time.sleep(0.05)
        Api.three(request)
    door.say = slow
    relay = served(door)
    peers = [Peer(relay) for _ in range(4)]
    streams = [begin(peer.session, GIF, gif('search', '%d-%d' % (i, k)))
               for i, peer in enumerate(peers) for k in range(90)]
    got = [len(uncbor(finish(stream))['results']) for stream in streams]
    assert set(got) <= {0, 3} and got.count(3) >= 200
    assert peers[0].register('beside') == 'Ok'
    door.say = None
    assert len(peers[0].gifs('search', 'after', 20)) == 3
    for peer in peers:
        peer.close()
