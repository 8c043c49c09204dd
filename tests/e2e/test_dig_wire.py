"""dig.md §20, checks 1-10: the upgrade, frames, and what is JSON (§3, §4)."""

import os
import struct
import time

import pytest

from dig import (BINARY, CLOSE, CONT, PING, PONG, TEXT, U64_MAX, Ended, frame, fresh_net, request,
                 written)

PONG5 = {'type': 'pong', 'timestamp': 5}


# ---- 1, 2: the upgrade ---------------------------------------------------------------------------

@pytest.mark.sanitize
def test_dig_01_any_path_and_nothing_echoed(digd):
    """Conn.upgrade() wants three headers and no more."""
    conn = digd.ws(path='/any?x=1', Sec_WebSocket_Protocol='chat, dig',
                   Sec_WebSocket_Extensions='permessage-deflate; client_max_window_bits')
    conn.register().registered()


@pytest.mark.parametrize('head', [
    {'Connection': 'keep-alive, Upgrade', 'Upgrade': 'WebSocket'},
    {'Connection': 'upgrade', 'Upgrade': 'WEBSOCKET'},
    {'Connection': 'Keep-Alive,UPGRADE , x', 'drop': ['Host']},
    {'more': ['Origin: http://elsewhere.example', 'X-Long: ' + 'x' * 12000]},
    {'Connection': 'close', 'more': ['Connection: Upgrade']},
])
def test_dig_02_forms_of_an_upgrade(digd, head):
    """Names and tokens in any case, of two Connection headers the last, no Host."""
    digd.ws(**head).register().registered()


@pytest.mark.sanitize
@pytest.mark.parametrize('head', [
    {'drop': ['Sec-WebSocket-Key']}, {'Sec_WebSocket_Version': '8'}, {'method': 'POST'},
    {'version': 'HTTP/1.0'}, {'drop': ['Sec-WebSocket-Version']}, {'method': 'get'},
])
def test_dig_02_no_websocket(digd, head):
    """Closed, silently or with a 4xx (§3.1)."""
    conn = digd.tcp()
    conn.send(request(**head))
    try:
        status, _ = conn.head()
        assert status.split()[1] in ('400', '405', '426', '505'), status
        while conn.fill(conn.until()):
            pass
    except Ended:
        pass


def test_dig_02_not_an_upgrade_is_a_page(digd):
    """The token must be in the last Connection header, and Upgrade be nothing but websocket."""
    for more in (['Connection: Upgrade', 'Upgrade: websocket', 'Connection: close'],
                 ['Connection: Upgrade', 'Upgrade: h2c, websocket'], ['Upgrade: websocket']):
        head = '\r\n'.join(['GET /health HTTP/1.1', 'Host: x', 'Sec-WebSocket-Version: 13',
                            'Sec-WebSocket-Key: x', *more, '', '']).encode()
        assert digd.fetch(raw=head)[0] == 200


@pytest.mark.sanitize
def test_dig_02_a_head_in_pieces_and_what_is_pipelined(digd):
    """Bytes behind the head are WebSocket data, wherever the segments end (§3.1)."""
    conn = digd.tcp()
    raw = request() + frame(PING, b'early') + frame(TEXT, b'{"type":')
    for i in range(0, len(raw), 97):
        conn.send(raw[i:i + 97])
        time.sleep(0.002)
    assert conn.head()[0].split()[1] == '101'
    conn.pong(b'early')
    one = digd.tcp()
    for byte in request():
        one.send(bytes([byte]))
    assert one.head()[0].split()[1] == '101'
    net = fresh_net()
    conn = digd.tcp().upgrade(after=frame(TEXT, written(
        {'type': 'register', 'peer_id': 'early-' + net, 'network_id': net,
         'protocol_version': 1}).encode()) + frame(TEXT, b'{"type":"ping","timestamp":5}'))
    conn.registered()
    conn.expect('pong', timestamp=5)


# ---- 3: messages in frames -----------------------------------------------------------------------

@pytest.mark.sanitize
@pytest.mark.tsan
def test_dig_03_text_binary_fragments(digd):
    peer = digd.peer()
    said = b'{"timestamp":5,"type":"ping"}'
    peer.text(said)
    assert peer.next() == PONG5
    peer.binary(said)
    assert peer.next() == PONG5
    for first in (TEXT, BINARY):
        peer.send(frame(first, said[:9], fin=False) + frame(CONT, said[9:15], fin=False) +
                  frame(PING, b'between') + frame(CONT, said[15:]))
        peer.pong(b'between')
        assert peer.next() == PONG5


def test_dig_03_every_split_of_a_frame_in_two(digd):
    peer = digd.peer()
    raw = frame(TEXT, b'{"type":"ping","timestamp":5}')
    for at in range(1, len(raw)):
        peer.send(raw[:at])
        time.sleep(0.003)
        peer.send(raw[at:])
        assert peer.next() == PONG5
    for form in (16, 64):  # lengths in longer forms than they need: RFC 6455 §5.2 forbids them
        other = digd.peer()
        other.send(frame(TEXT, b'{"type":"ping","timestamp":5}', form=form))
        try:
            assert other.next() == PONG5
        except Ended:
            pass


def test_dig_03_fragments_without_end(digd):
    """Empty ones and single bytes, a thousand of them, and many messages in one segment."""
    peer = digd.peer()
    said = b'{"type":"ping","timestamp":5}'
    peer.send(frame(TEXT, b'', fin=False) + b''.join(
        frame(CONT, b'', fin=False) * 30 + frame(CONT, said[i:i + 1], fin=False)
        for i in range(len(said))) + frame(CONT))
    assert peer.next() == PONG5
    peer.send(frame(TEXT, said) * 500)
    for _ in range(500):
        assert peer.next() == PONG5


# ---- 4-6: JSON -----------------------------------------------------------------------------------

@pytest.mark.parametrize('number', [0, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, U64_MAX])
def test_dig_04_numbers_survive(digd, number):
    peer = digd.peer()
    peer.text('{"type":"ping","timestamp":%d}' % number)
    peer.expect('pong', timestamp=number)
    peer.relay(peer, [1], seq=number)
    assert peer.expect('relay_message')['seq'] == number


@pytest.mark.sanitize
def test_dig_04_no_numbers(digd):
    """In the ping, and where `relay_message` has its own scan."""
    peer = digd.peer()
    for number in ('18446744073709551616', '99999999999999999999999', '5.0', '5e0', '5E0', '-1',
                   '-0.0',
                   '"5"', '05', '+5', '0x5', 'true', 'null', '[5]', '{}', '', '5 5', '.5', '5.',
                   'NaN', 'Infinity', '1e400'):
        peer.code2('{"type":"ping","timestamp":%s}' % number)
        peer.code2('{"type":"relay_message","from":"x","to":"%s","payload":[1],"seq":%s}' % (
            peer.id, number))
    peer.alive()


FORWARDED = ['{"type":"relay_message","from":"x","to":"%(id)s","payload":[7],"seq":5%(more)s}',
             '{%(front)s"type":"relay_message","from":"x","to":"%(id)s","payload":[7],"seq":5}',
             '{"type":"ping","timestamp":5%(more)s}', '{%(front)s"type":"ping","timestamp":5}']
EXTRA = ['"extra":1', '"extra":1,"extra":[2]', '"x":{"type":"ping","seq":[{}]}', '"":null',
         '"\\u0074ypo":"\\ud83d\\ude00"', '"Type":"x"', '"x":-1.5e-7',
         '"x":[[],{"a":[true,false]}]',
         '"x":"\\"\\\\\\/\\b\\f\\n\\r\\t"', '"x":123456789012345678901234567890',
         ' \t\r\n"x" \t\r\n: \t\r\n1 \t\r\n']


@pytest.mark.parametrize('form', FORWARDED)
def test_dig_05_unknown_members(digd, form):
    peer = digd.peer()
    for extra in EXTRA:
        peer.text(form % {'id': peer.id, 'more': ',' + extra, 'front': extra + ','})
        got = peer.next()
        assert got == PONG5 or (got['type'], got['payload'], got['seq'], got['from']) == (
            'relay_message', [7], 5, peer.id), (extra, got)


@pytest.mark.sanitize
def test_dig_05_repeated_known_members(digd):
    peer = digd.peer()
    relayed = '"type":"relay_message","from":"x","to":"%s","payload":[7],"seq":5' % peer.id
    for again in ('"type":"relay_message"', '"type":"ping"', '"from":"x"', '"to":"x"', '"to":null',
                  '"payload":[7]', '"payload":[]', '"seq":5', '"\\u0074o":"x"', '"s\\u0065q":6'):
        peer.code2('{%s,%s}' % (relayed, again))
        peer.code2('{%s,%s}' % (again, relayed))
    for text in ('{"type":"ping","timestamp":5,"timestamp":5}',
                 '{"type":"ping","timestamp":5,"type":"ping"}',
                 '{"type":"ping","t\\u0069mestamp":5,"timestamp":5}',
                 '{"type":"broadcast","from":"x","payload":[],"exclude":[],"exclude":[]}',
                 '{"type":"get_peers","network_id":null,"network_id":null}'):
        peer.code2(text)
    peer.alive()


@pytest.mark.parametrize('kind', ['Ping', 'PING', 'ping ', ' ping', 'relay_Message', 'pıng',
                                  'sealed',
                                  'mesh_hello', 'relay_hello', '', 'p', 'ping\\u0000', 'Broadcast',
                                  'Pex_snapshot', 'x' * 10000])
def test_dig_05_types_are_what_they_are(digd, kind):
    peer = digd.peer()
    peer.code2('{"type":"%s","timestamp":5}' % kind)
    for form in ('"p\\u0069ng"', '"\\u0070\\u0069\\u006e\\u0067"'):
        peer.text('{"type":%s,"timestamp":5}' % form)
        assert peer.next() == PONG5
    for form in ('null', '5', '["ping"]', '{"ping":1}', 'true'):
        peer.code2('{"type":%s,"timestamp":5}' % form)
    peer.text('{"\\u0074ype":"ping","timestamp":5}')
    assert peer.next() == PONG5


def deep(levels):
    return '[' * levels + ']' * levels


NO_MESSAGES = [
    '{"type":"ping","timestamp":5}x', '{"type":"ping","timestamp":5}{"type":"ping","timestamp":5}',
    '{"type":"ping","timestamp":5},', '{"type":"ping","timestamp":5}]', '', ' ',
    '\ufeff{"type":"ping","timestamp":5}',
    '5', '{}', '[]', 'null', 'true', '"ping"', '{"type":"ping"}', '{"timestamp":5}',
    '{"type":"ping","timestamp":5',
    '{"type":"ping","timestamp":5,}', '{,"type":"ping","timestamp":5}',
    "{'type':'ping','timestamp':5}",
    '{type:"ping","timestamp":5}', '{"type":"ping" "timestamp":5}', '{"type":"ping","timestamp" 5}',
    '{"type":"ping","timestamp":5}//', '/**/{"type":"ping","timestamp":5}',
    '{"type":"ping","timestamp":5}\0',
    '{"type":"ping","timestamp":5,"x":"\\ud800"}',
    '{"type":"ping","timestamp":5,"x":"\\udc00\\ud800"}',
    '{"type":"ping","timestamp":5,"x":"\\x41"}', '{"type":"ping","timestamp":5,"x":"\\u12"}',
    '{"type":"ping","timestamp":5,"x":"\x01"}', '{"type":"ping","timestamp":5,"x":"\n"}',
    '{"type":"ping","timestamp":5,"x":"a}', '{"type":"ping","timestamp":5,"x":tru}',
    '{"type":"ping","timestamp":5,"x":01}', '{"type":"ping","timestamp":5,"x":-}',
    '{"type":"ping","timestamp":5,"x":' + deep(200) + '}',
    '{"type":"ping","timestamp":5,"x":' + '[' * 1000,
    '{"type":"ping","timestamp":5,"x":' + '{"a":' * 130 + '1' + '}' * 130 + '}',
    '[' * 100000,
]


@pytest.mark.sanitize
@pytest.mark.parametrize('op', [TEXT, BINARY])
def test_dig_06_no_messages(digd, op):
    peer = digd.peer()
    for text in NO_MESSAGES:
        try:
            peer.code2(text, op)
        except Exception as e:
            raise AssertionError('%r: %s' % (text[:100], e)) from None
    peer.alive()


@pytest.mark.sanitize
def test_dig_06_no_messages_in_the_scan(digd):
    """The same faults where `relay_message` and `broadcast` are forwarded without being parsed."""
    a, b = digd.group(2)
    relayed = '{"type":"relay_message","from":"x","to":"%s","payload":[7],"seq":5' % b.id
    cast = '{"type":"broadcast","from":"x","payload":[7],"exclude":[]'
    for text in NO_MESSAGES:
        for start in (relayed, cast):
            if not text.startswith('{"type":"ping","timestamp":5') or text.endswith(':5'):
                continue
            try:
                a.code2(start + text[len('{"type":"ping","timestamp":5'):])
            except Exception as e:
                raise AssertionError('%r: %s' % (text[:100], e)) from None
    a.code2('{"type":"relay_message"')
    a.relay(b, [9])
    assert b.expect('relay_message')['payload'] == [9]


def test_dig_06_nesting_and_space_that_are_fine(digd):
    peer = digd.peer()
    for text in ('{"type":"ping","timestamp":5,"x":%s}' % deep(120),
                 ' \t\r\n{ "type"\n:\t"ping" , "timestamp" : 5 }\r\n\t ',
                 '{"type":"ping","timestamp":5,"x":"\x7f\u2028\U0001f600"}',
                 '{"type":"ping","timestamp":5,"x":"%s"}' % ('é' * 60000)):
        peer.text(text)
        assert peer.next() == PONG5
    relayed = '{"type":"relay_message","from":"x","to":"%s","payload":[7],"seq":5,"x":%s}'
    peer.text(relayed % (peer.id, deep(120)))
    assert peer.expect('relay_message')['payload'] == [7]
    peer.code2(relayed % (peer.id, deep(200)))


# ---- 7: UTF-8 ------------------------------------------------------------------------------------

NO_UTF8 = [b'\xff', b'\xc0\x80', b'\xc1\xbf', b'\xe0\x80\x80', b'\xed\xa0\x80', b'\xf0\x80\x80\x80',
           b'\xf4\x90\x80\x80', b'\xf8\x88\x80\x80\x80', b'\x80', b'\xc3', b'\xe2\x82',
           b'\xf0\x9f\x98']


@pytest.mark.sanitize
@pytest.mark.parametrize('form', [
    b'{"type":"ping","timestamp":5,"x":"%s"}',
    b'{"type":"broadcast","from":"%s","payload":[],"exclude":[]}',
    b'{"type":"relay_message","from":"x","to":"%s","payload":[1],"seq":1}'])
def test_dig_07_bad_utf8(digd, form):
    """In text the connection ends; in binary it is no message."""
    peer = digd.peer()
    for bad in NO_UTF8:
        peer.code2(form.replace(b'%s', bad), BINARY)
        other = digd.peer()
        other.text(form.replace(b'%s', bad))
        assert other.closing()[0] == []
    peer.alive()


def test_dig_07_utf8_across_fragments(digd):
    """A character may be cut by a fragment's end; a half one at the end of the message may not."""
    said = '{"type":"ping","timestamp":5,"x":"é€😀"}'.encode()
    peer = digd.peer()
    for at in range(1, len(said)):
        peer.send(frame(TEXT, said[:at], fin=False) + frame(CONT, said[at:]))
        assert peer.next() == PONG5
    peer.send(frame(TEXT, said[:-4], fin=False) + frame(CONT, b'\x9f"}'))
    assert peer.closing()[0] == []


# ---- 8: sizes ------------------------------------------------------------------------------------

def padded(size):
    """A ping of so many bytes."""
    start, end = '{"type":"ping","timestamp":5,"x":"', '"}'
    return (start + 'x' * (size - len(start) - len(end)) + end).encode()


@pytest.mark.sanitize
def test_dig_08_the_largest_message(digd):
    peer = digd.peer()
    peer.text(padded(262144))
    assert peer.next() == PONG5
    peer.send(frame(TEXT, padded(262144)[:200000], fin=False) +
              frame(CONT, padded(262144)[200000:]))
    assert peer.next() == PONG5
    for raw in (frame(TEXT, padded(262145)), frame(TEXT, length=262145),
                frame(TEXT, length=1 << 62),
                frame(TEXT, length=(1 << 64) - 1),
                frame(TEXT, b'x' * 200000, fin=False) + frame(CONT, length=62145)):
        other = digd.peer()
        other.send(raw)  # judged by what it declares: not all of it need come
        assert other.closing()[0] == []


def test_dig_08_a_large_payload_is_carried(digd):
    """65 000 bytes, near what a message can hold (dig.md §18)."""
    a, b = digd.group(2)
    payload = list(os.urandom(65000))
    a.relay(b, payload, seq=1)
    assert b.expect('relay_message', from_=a.id, to=b.id, seq=1)['payload'] == payload
    a.say('broadcast', from_='', payload=payload, exclude=[])
    assert b.expect('broadcast', from_=a.id, exclude=[])['payload'] == payload


def test_dig_08_another_limit(dig_start):
    digd = dig_start(max_message_bytes=1000)
    peer = digd.peer()
    peer.text(padded(1000))
    assert peer.next() == PONG5
    peer.text(padded(1001))
    assert peer.closing()[0] == []


# ---- 9: faults of framing ------------------------------------------------------------------------

FAULTS = {
    'unmasked': frame(TEXT, b'{"type":"ping","timestamp":5}', mask=False),
    'unmasked ping': frame(PING, b'x', mask=False),
    'rsv1': frame(TEXT, b'{}', rsv=4), 'rsv2': frame(TEXT, b'{}', rsv=2),
    'rsv3': frame(PING, b'', rsv=1), 'rsv in a fragment': frame(TEXT, b'{', fin=False) +
    frame(CONT, b'}', rsv=4),
    'opcode 3': frame(3, b'{}'), 'opcode 7': frame(7), 'opcode 11': frame(11),
    'opcode 15': frame(15),
    'ping of 126': frame(PING, bytes(126)), 'close of 126': frame(CLOSE, b'\x03\xe8' + b'x' * 124),
    'ping that declares 1 MiB': frame(PING, length=1 << 20),
    'ping in fragments': frame(PING, b'x', fin=False), 'close in fragments': frame(CLOSE,
                                                                                   fin=False),
    'stray continuation': frame(CONT, b'{}'), 'stray end': frame(CONT, b''),
    'continuation behind a whole one': frame(TEXT, b'{"type":"pong","timestamp":5}') +
    frame(CONT, b'x'),
    'data inside fragments': frame(TEXT, b'{', fin=False) + frame(TEXT, b'}'),
    'binary inside fragments': frame(TEXT, b'{', fin=False) + frame(BINARY, b'}', fin=False),
}


@pytest.mark.sanitize
@pytest.mark.parametrize('fault', FAULTS)
@pytest.mark.parametrize('registered', [True, False], ids=['registered', 'not'])
def test_dig_09_faults(digd, fault, registered):
    conn = digd.peer() if registered else digd.ws()
    conn.send(FAULTS[fault])
    assert [m for m in conn.closing()[0] if m['type'] != 'error'] == []


def test_dig_09_peers_are_told(digd):
    a, b = digd.group(2)
    a.send(FAULTS['opcode 3'])
    a.closing()
    b.told('peer_disconnected', a.id)


# ---- 10: control frames --------------------------------------------------------------------------

@pytest.mark.sanitize
def test_dig_10_pings(digd):
    conn = digd.ws()
    for payload in (b'hi', b'', b'\xff\x00', bytes(125)):
        conn.ping(payload)
        conn.pong(payload)
    conn.send(frame(PONG, b'unasked') + frame(PONG))
    conn.register().registered().ping(b'hi')
    conn.pong(b'hi')
    conn.send(frame(PONG, b'unasked'))
    conn.alive()


@pytest.mark.sanitize
@pytest.mark.parametrize('registered', [True, False], ids=['registered', 'not'])
@pytest.mark.parametrize('payload, answer', [
    (struct.pack('!H', 1001) + b'bye', None), (struct.pack('!H', 1000), None), (b'', None),
    (struct.pack('!H', 4999) + 'ä'.encode(), None), (struct.pack('!H', 3000) + b'x' * 123, None),
    (struct.pack('!H', 1005), 1002), (struct.pack('!H', 1006), 1002),
    (struct.pack('!H', 999), 1002),
    (struct.pack('!H', 0), 1002), (struct.pack('!H', 1015), 1002), (b'\x03', 1002),
    (struct.pack('!H', 5000), 1002), (struct.pack('!H', 1000) + b'\xff', (1002, 1007))])
def test_dig_10_close(digd, registered, payload, answer):
    """Code and reason are given back; a code that may not be sent is a fault (RFC 6455 §7.4)."""
    conn = digd.peer() if registered else digd.ws()
    got = conn.leave(payload)
    if answer is None:
        assert got == payload
    elif got:  # a close for a fault may be empty (dig.md §3.3)
        assert struct.unpack('!H', got[:2])[0] in (answer if isinstance(answer, tuple) else (answer,
                                                                                             ))


def test_dig_10_peers_are_told(digd):
    a, b = digd.group(2)
    assert a.leave(struct.pack('!H', 1001) + b'bye') == struct.pack('!H', 1001) + b'bye'
    b.told('peer_disconnected', a.id)
    assert list(b.peers()) == [b.id]


def test_dig_10_nothing_behind_the_close(digd):
    """What follows a Close in the same segment is not looked at; read_frame() wants no frame behind
    the answer."""
    a, b = digd.group(2)
    a.send(frame(CLOSE) + frame(TEXT, written({
        'type': 'relay_message', 'from': 'x', 'to': b.id, 'payload': [1], 'seq': 1}).encode()))
    assert a.closing() == ([], b'')
    b.told('peer_disconnected', a.id)
    b.alive()
