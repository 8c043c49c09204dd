"""dig.md §15.2, /map.json with a database (check 53): a registrant is in the cell of its first
dialable address that the database can locate, or unknown. The databases are made here, and a balancer
says where clients are, for addresses that others may dial are a client's own (§7)."""

import os
import signal
import time

import pytest

from dig import fresh_id
from mmdb import Float, Writer
from relay import SLOW
from test_dig_proxy import header
from test_dig_pages import PHONE, chromium, page  # noqa: F401 (fixtures)


def cells(digd):
    got = digd.json('/map.json')
    assert got['located_peers'] + got['unknown_peers'] == got['total_peers']
    assert got['located_peers'] == sum(cell['count'] for cell in got['cells'])
    return [(cell['lat'], cell['lon'], cell['count']) for cell in got['cells']]


def settled(digd, want):
    """The page is kept for a second, and places come a moment after who has them."""
    digd.settle(lambda: cells(digd) == want or time.sleep(0.1))


@pytest.fixture
def mapped(dig_start):
    """A relay that reads this file and believes its balancer."""
    def make(path):
        return dig_start(env={'DIG_RELAY_GEOIP_DB': str(path), 'DIG_RELAY_TRUSTED_PROXY_CIDRS': '127.0.0.0/8'})
    return make


def at(digd, ip, *addrs, **members):
    """A registrant from there; without addresses it can be dialed at port 1."""
    prelude = header(family=0x21 if ':' in ip else 0x11, source=ip)
    return digd.peer(prelude=prelude, listen_addrs=list(addrs) or ['[::]:1' if ':' in ip else '0.0.0.0:1'], **members)


def city_file(path, *cities, bits=28):
    writer = Writer(bits)
    for network, lat, lon in cities:
        writer.city(network, lat, lon)
    return writer.write(path)


@pytest.mark.sanitize
@pytest.mark.tsan
@pytest.mark.parametrize('bits', [24, 28, 32])
def test_dig_53_map_places(mapped, tmp_path, bits):
    """Each in the middle of its cell, sorted, counted; and nobody twice."""
    writer = Writer(bits).city('9.9.9.0/24', 51.5, -0.1).city('9.9.8.0/24', -33.8, 151.2, Float)
    writer.city('2606:4700::/32', 90.0, 180.0).city('10.0.0.0/8', 1.0, 1.0).city('127.0.0.0/8', 1.0, 1.0)
    writer.add('9.9.7.0/24', {'country': {'code': 'XX'}})
    writer.city('2606:4701:0:0:8000::/65', 21.0, 21.0)
    path = writer.write(tmp_path / 'cities.mmdb')
    digd = mapped(path)
    for ip in ('9.9.9.1', '9.9.9.2', '9.9.9.77', '9.9.8.1', '2606:4700::1', '9.9.7.1', '9.9.6.1', '10.1.1.1', '127.0.0.5'):
        at(digd, ip)
    at(digd, '2606:4701::1', '[2606:4701::2]:2', '[2606:4701::8000:0:0:1]:1')  # the second is in it
    digd.peer(prelude=header(source='9.9.9.3'))  # cannot be dialed
    settled(digd, [(-32.5, 152.5, 1), (22.5, 22.5, 1), (52.5, -2.5, 3), (92.5, 182.5, 1)])
    got = digd.json('/map.json')
    assert list(got) == ['schema_version', 'generated_at', 'cell_deg', 'total_peers', 'located_peers',
                         'unknown_peers', 'cells']
    assert (got['total_peers'], got['located_peers'], got['unknown_peers'], got['cell_deg']) == (11, 6, 5, 5.0)
    body = digd.fetch('/map.json')[2]
    assert b'{"lat":-32.5,"lon":152.5,"count":1}' in body and b'"cell_deg":5.0' in body
    for hidden in [b'9.9.', b'51.5', b'33.8', b'151.2', b'Somewhere'] + [c.id.encode() for c in digd.clients if hasattr(c, 'id') and c.id]:
        assert hidden not in body
    digd.settle(lambda: 'map: database: Test-City' in digd.log())


def test_dig_53_map_follows(mapped, tmp_path):
    """Who leaves is not on it, who registers anew is elsewhere, whose id comes back is there once."""
    path = city_file(tmp_path / 'cities.mmdb', ('9.9.9.0/24', 2.0, 2.0),
                     ('2606:4701:0:0:8000::/65', 7.0, 2.0), ('2606:4701::/65', 2.0, 2.0))
    digd = mapped(path)
    a, b = at(digd, '9.9.9.1'), at(digd, '9.9.9.2')
    v6 = at(digd, '2606:4701::1', '[2606:4701::2]:2')
    settled(digd, [(2.5, 2.5, 3)])
    v6.register(v6.id, v6.net, listen_addrs=['[2606:4701::8000:0:0:1]:1']).registered()
    settled(digd, [(2.5, 2.5, 2), (7.5, 2.5, 1)])
    v6.register(v6.id, v6.net, listen_addrs=[]).registered()
    settled(digd, [(2.5, 2.5, 2)])
    v6.register(fresh_id(), v6.net, listen_addrs=['[2606:4701::8000:0:0:1]:1']).registered()
    settled(digd, [(2.5, 2.5, 2), (7.5, 2.5, 1)])
    b.close()
    settled(digd, [(2.5, 2.5, 1), (7.5, 2.5, 1)])
    a.say('unregister', peer_id=a.id)
    settled(digd, [(7.5, 2.5, 1)])


def test_dig_53_map_many(mapped, tmp_path):
    """More than are asked about at a time, who come and go meanwhile."""
    path = city_file(tmp_path / 'cities.mmdb', *[('9.%d.0.0/16' % n, -85.0 + 5 * n, 0.0) for n in range(30)])
    digd = mapped(path)
    conns = [at(digd, '9.%d.0.1' % (n % 30)) for n in range(600)]
    settled(digd, [(-82.5 + 5 * n, 2.5, 20) for n in range(30)])
    for conn in conns[1::2]:
        conn.close()
    settled(digd, [(-82.5 + 5 * n, 2.5, 20) for n in range(0, 30, 2)])


@pytest.mark.sanitize
def test_dig_53_map_reload(mapped, tmp_path):
    """A file that comes later, a newer one and a broken one: SIGHUP opens it, or the one before
    stays; nobody is lost."""
    path = tmp_path / 'cities.mmdb'
    digd = mapped(path)
    for _ in range(3):
        at(digd, '9.9.9.1')

    def reload(said):
        before = digd.log().count(said)
        digd.settle(lambda: digd.proc.send_signal(signal.SIGHUP) or time.sleep(1.1) or digd.log().count(said) > before, 20)
    assert cells(digd) == []
    digd.settle(lambda: 'map: no database: No such file or directory' in digd.log())
    city_file(path, ('9.9.9.0/24', 2.0, 2.0))
    reload('map: database: Test-City')
    settled(digd, [(2.5, 2.5, 3)])
    city_file(path, ('9.9.9.0/24', -52.0, 2.0))
    reload('map: database: Test-City')
    settled(digd, [(-52.5, 2.5, 3)])
    path.rename(tmp_path / 'old')
    path.write_bytes(b'no database\n' * 100)
    reload('map: the database stays the one before: The MaxMind DB file contains invalid metadata')
    at(digd, '9.9.9.1')
    settled(digd, [(-52.5, 2.5, 4)])
    assert 'waits for a restart' not in digd.log()


@pytest.mark.sanitize
def test_dig_53_map_file_is_cut_under_the_reader(mapped, tmp_path):
    """Who copies over the file instead of renaming takes pages away that are mapped."""
    path = city_file(tmp_path / 'cities.mmdb', ('9.9.9.0/24', 2.0, 2.0))
    digd = mapped(path)
    at(digd, '9.9.9.1')
    settled(digd, [(2.5, 2.5, 1)])
    os.truncate(path, 0)
    a = at(digd, '9.9.9.1')
    digd.settle(lambda: 'map: no database any more' in digd.log())
    a.alive()
    assert cells(digd) == [(2.5, 2.5, 1)]  # where it was, and the other one unknown
    city_file(path, ('9.9.9.0/24', 2.0, 2.0))
    digd.proc.send_signal(signal.SIGHUP)
    settled(digd, [(2.5, 2.5, 2)])


def test_dig_53_map_hanging_disk(mapped, tmp_path):
    """Here a pipe without a writer: everything else goes on, and an end comes in time."""
    path = tmp_path / 'cities.mmdb'
    os.mkfifo(path)
    digd = mapped(path)
    at(digd, '9.9.9.1').alive()
    assert digd.json('/map.json')['unknown_peers'] == 1
    digd.forget()
    began = time.monotonic()
    assert digd.stop() == 0
    assert time.monotonic() - began < 5 * SLOW


@pytest.mark.interop
def test_dig_page_map_with_places(mapped, tmp_path, page, capsys):  # noqa: F811
    """As a person sees it."""
    path = city_file(tmp_path / 'cities.mmdb', ('9.9.9.0/24', 51.5, -0.1), ('9.9.8.0/24', -33.8, 151.2))
    digd = mapped(path)
    for n in range(3):
        at(digd, '9.9.9.%d' % n)
    at(digd, '9.9.8.1')
    at(digd, '9.9.7.1')
    settled(digd, [(-32.5, 152.5, 1), (52.5, -2.5, 3)])
    live = page(digd, '/map', PHONE)
    live.until("document.querySelectorAll('#cells circle').length === 2")
    assert live.text('placed') == '4 of 5 peers located, 1 unknown'
    assert sorted(live.rows('cells')) == [['32.5° S', '152.5° E', '1'], ['52.5° N', '2.5° W', '3']]
    live.shot('dig-map-database', capsys)
    live.check()
