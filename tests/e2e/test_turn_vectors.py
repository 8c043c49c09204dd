"""turn.md §19: the client of these tests computes what is published, before it judges anybody."""

from turn import (BOTH_ALGORITHMS, DATA, MD5, NONCE, PASSWORD_ALGORITHM, PASSWORD_ALGORITHMS, REALM,
                  SHA256, UDP_TRANSPORT, USERHASH, USERNAME, channel_data, ephemeral,
                  fingerprint_attr, long_term_key, mac_attr, message, peer, read_address,
                  xor_address)

TID = bytes(range(1, 13))
V8 = bytes.fromhex('000100002112a4420102030405060708090a0b0c')


def test_turn_vectors_the_client_computes_what_is_published():
    key = long_term_key(MD5, 'user', 'realm', 'pass')
    assert key.hex() == '8493fbc53ba582fb4c044c456bdc40eb'
    assert long_term_key(SHA256, 'user', 'realm', 'pass').hex() == \
        '07e934117abd40836e7c6329b54731b2b2d2a5f9a71f544922d75e0730d8251b'
    assert message(1, tid=TID) == V8
    assert xor_address('2001:db8::1', 3478, TID).hex() == \
        '00022c840113a9fa0102030405060708090a0b0d'
    assert read_address(xor_address('192.0.2.1', 32853, TID), TID) == ('192.0.2.1', 32853)
    signed = message(3, [UDP_TRANSPORT, (USERNAME, b'user'), (REALM, b'realm'),
                         (NONCE, b'nonce123')], TID, key, MD5, fingerprint=True)
    assert signed.hex() == (
        '000300482112a4420102030405060708090a0b0c00190004110000000006000475736572001400057265616c6d'
        '000000001500086e6f6e636531323300080014e8cc74e986af34941e32cd92d62cb018a21509fd80280004e847'
        'd735')
    name = bytes.fromhex('6a3029116b47aa98bcaa325399733dc1a23cd57e26b81bef3ff6531ce624e2da')
    signed = message(3, [UDP_TRANSPORT, (USERHASH, name), (REALM, b'realm'),
                         (NONCE, b'obMatJos2wAAAabcdefgh'), (PASSWORD_ALGORITHMS, BOTH_ALGORITHMS),
                         (PASSWORD_ALGORITHM, bytes((0, 2, 0, 0)))], TID,
                     long_term_key(SHA256, 'user', 'realm', 'pass'), SHA256, fingerprint=True)
    assert len(signed) == 168
    assert signed[-44:].hex() == ('001c0020390b18eea5df75689388858d234af26a9d21ae03e52126800bce0d9d'
                                  '85c551288028000463803bab')
    assert message(0x16, [peer('192.0.2.15', 49162), (DATA, b'hello')], TID).hex() == (
        '001600182112a4420102030405060708090a0b0c001200080001e118e112a64d0013000568656c6c6f000000')
    assert channel_data(0x4000, b'hello').hex() == '4000000568656c6c6f'
    assert ephemeral('north', 0, now=1700000000) == ('1700000000:alice',
                                                     'Cd/49soE35ICqcJF/bCTn8Z4OyE=')
    v1 = bytes.fromhex(  # RFC 5769 §2.1
        '000100582112a442b7e7a701bc34d686fa87dfae802200105354554e207465737420636c69656e740024000'
        '46e0001ff80290008932ff9b151263b36000600096576746a3a68367659202020000800149aeaa70cbfd8cb5'
        '6781ef2b5b2d3f249c1b571a280280004e57a3bcf')
    assert fingerprint_attr(v1[:-8]) == v1[-8:]
    assert mac_attr(v1[:-32], b'VOkJxbRl1RmTxUk/WvJxBt', MD5) == v1[-32:-8]
    v3 = '0002a1470113a9faa5d3f179bc25f4b5bed2b9d9'
    assert read_address(bytes.fromhex(v3), v1[8:20]) == \
        ('2001:db8:1234:5678:11:2233:4455:6677', 32853)
