"""TLS by hand: records and hellos that no library would send."""

import os

ALERT, HANDSHAKE, APPLICATION = 21, 22, 23
SSL30, TLS10, TLS11, TLS12 = 0x0300, 0x0301, 0x0302, 0x0303

SERVER_NAME, ALPN, PADDING = 0, 16, 21
CIPHERS = (0xc02b, 0xc02f, 0xc00a, 0xc009, 0xc014, 0xc013)


def sized(data, octets=2):
    return len(data).to_bytes(octets, 'big') + data


def words(numbers):
    return b''.join(n.to_bytes(2, 'big') for n in numbers)


def record(kind, data, version=TLS12):
    return bytes([kind]) + version.to_bytes(2, 'big') + sized(data)


def message(kind, data):
    return bytes([kind]) + sized(data, 3)


def server_name(name):
    return SERVER_NAME, sized(b'\0' + sized(name))


def alpn(*protocols):
    return ALPN, sized(b''.join(sized(p, 1) for p in protocols))


def hello(*extensions, version=TLS12, ciphers=CIPHERS):
    """A ClientHello of TLS 1.2 or before; its answer is in the clear."""
    own = [(10, sized(words((23, 24, 25)))), (11, sized(b'\0', 1)),
           (13, sized(words((0x0403, 0x0401, 0x0804, 0x0203, 0x0201))))]
    more = b''.join(kind.to_bytes(2, 'big') + sized(data)
                    for kind, data in own + list(extensions))
    return message(1, version.to_bytes(2, 'big') + os.urandom(32) +
                   sized(b'', 1) + sized(words(ciphers)) + sized(b'\0', 1) +
                   sized(more))


def flights(*extensions, **kw):
    """The same as it goes over the wire."""
    return record(HANDSHAKE, hello(*extensions, **kw), TLS10)


def records(data):
    """What came: [(kind, data), ...] of whole records."""
    found = []
    while len(data) >= 5:
        n = 5 + int.from_bytes(data[3:5], 'big')
        if len(data) < n:
            break
        found.append((data[0], data[5:n]))
        data = data[n:]
    return found
