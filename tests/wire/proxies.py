"""What stands before the program and says who the client is: the PROXY
protocol's headers, made here, and HAProxy and nginx, which make their own."""

import os
import re
import socket
import struct
import subprocess

import fakes
import starters
from harness import DEADLINE, until

SIGNATURE = b'\r\n\r\n\0\r\nQUIT\n'
LOCAL, PROXY = 0, 1
ALPN, AUTHORITY, CRC32C, NOOP, UNIQUE_ID, SSL, NETNS = 1, 2, 3, 4, 5, 0x20, 0x30
SSL_VERSION, SSL_CN, SSL_CIPHER = 0x21, 0x22, 0x23

# The client that headers name, and where it has gone to.
CLIENT = ('192.0.2.7', 40007)
HERE = ('203.0.113.9', 587)
CLIENT6 = ('2001:db8::7', 40007)
HERE6 = ('2001:db8::9', 587)


def v1(client=CLIENT, here=HERE):
    family = 'TCP6' if ':' in client[0] else 'TCP4'
    return (f'PROXY {family} {client[0]} {here[0]} {client[1]} '
            f'{here[1]}\r\n').encode()


def tlv(kind, value):
    return struct.pack('!BH', kind, len(value)) + value


def ssl_tlv(flags=1, verify=0, version=b'TLSv1.3',
            cipher=b'TLS_AES_256_GCM_SHA384', name=None):
    value = struct.pack('!BI', flags, verify) + tlv(SSL_VERSION, version) + \
        tlv(SSL_CIPHER, cipher)
    if name is not None:
        value += tlv(SSL_CN, name)
    return tlv(SSL, value)


def crc32c(data):
    crc = 0xffffffff
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82f63b78 if crc & 1 else 0)
    return crc ^ 0xffffffff


def v2(client=CLIENT, here=HERE, tlvs=b'', command=PROXY, checksum=False):
    """`client` None: the family is not specified."""
    if client is None:
        kind, ends = 0, b''
    else:
        family = socket.AF_INET6 if ':' in client[0] else socket.AF_INET
        kind = 0x21 if ':' in client[0] else 0x11
        ends = b''.join(socket.inet_pton(family, x[0]) for x in (client, here))
        ends += struct.pack('!HH', client[1], here[1])
    body = ends + tlvs + (tlv(CRC32C, bytes(4)) if checksum else b'')
    header = SIGNATURE + struct.pack(
        '!BBH', 0x20 | command, kind, len(body)) + body
    if checksum:
        header = header[:-4] + struct.pack('!I', crc32c(header))
    return header


def parse(data):
    """(header as a dictionary, what follows it) of what a backend was sent;
    a header that is not complete is an error."""
    if data.startswith(b'PROXY '):
        line, rest = data.split(b'\r\n', 1)
        words = line.decode().split(' ')
        found = {'version': 1, 'family': words[1]}
        if words[1] != 'UNKNOWN':
            found.update(client=(words[2], int(words[4])),
                         here=(words[3], int(words[5])))
            assert len(words) == 6
        return found, rest
    assert data[:12] == SIGNATURE, data
    command, kind, size = struct.unpack_from('!BBH', data, 12)
    assert command >> 4 == 2 and len(data) >= 16 + size
    header, rest = data[:16 + size], data[16 + size:]
    found = {'version': 2, 'command': command & 15, 'family': kind, 'tlv': {}}
    at = 16
    if kind >> 4 in (1, 2):
        n, family = (4, socket.AF_INET) if kind >> 4 == 1 else \
            (16, socket.AF_INET6)
        ports = struct.unpack_from('!HH', header, at + 2 * n)
        found['client'], found['here'] = (
            (socket.inet_ntop(family, header[at + i * n:at + (i + 1) * n]),
             ports[i]) for i in (0, 1))
        at += 2 * n + 4
    found['tlv'] = tlvs_of(header[at:])
    if CRC32C in found['tlv']:
        where = header.rindex(tlv(CRC32C, found['tlv'][CRC32C])) + 3
        zeroed = header[:where] + bytes(4) + header[where + 4:]
        assert struct.pack('!I', crc32c(zeroed)) == found['tlv'][CRC32C]
    if SSL in found['tlv']:
        value = found['tlv'][SSL]
        found['ssl'] = struct.unpack_from('!BI', value) + \
            (tlvs_of(value[5:]),)
    return found, rest


def tlvs_of(data):
    found = {}
    while data:
        kind, size = struct.unpack_from('!BH', data)
        assert len(data) >= 3 + size and kind not in found
        found[kind], data = data[3:3 + size], data[3 + size:]
    return found


class Proxy:
    """A program of others in the foreground; `config` has {port0}, {port1} and
    so on for as many free ports, and {folder}."""

    def __init__(self, folder, config, **values):
        self.folder = str(folder)
        path = os.path.join(self.folder, self.NAME + '.conf')
        self.log = os.path.join(self.folder, self.NAME + '.log')
        n = len(set(re.findall(r'\{(port\d)\}', config)))
        for _ in range(5):
            self.ports = starters.free_ports(n)
            ports = {f'port{i}': p for i, p in enumerate(self.ports)}
            with open(path, 'w') as f:
                f.write((self.HEAD + config).format(
                    folder=self.folder, **ports, **values))
            with open(self.log, 'w') as log:
                self.proc = subprocess.Popen(
                    self.words(path), stdin=subprocess.DEVNULL, stdout=log,
                    stderr=log)
            until(lambda: all(map(starters.is_served, self.ports)) or
                  self.proc.poll() is not None, self.NAME)
            if self.proc.poll() is None:
                return
        with open(self.log) as f:
            raise AssertionError(f.read())

    def stop(self):
        self.proc.terminate()
        self.proc.wait(DEADLINE)


class Haproxy(Proxy):
    NAME = 'haproxy'
    HEAD = '''
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
'''

    def words(self, path):
        return ['haproxy', '-db', '-f', path]


class Nginx(Proxy):
    NAME = 'nginx'
    HEAD = '''
daemon off;
master_process off;
pid {folder}/nginx.pid;
error_log stderr;
load_module /usr/lib/nginx/modules/ngx_mail_module.so;
load_module /usr/lib/nginx/modules/ngx_stream_module.so;
events {{ }}
'''

    def words(self, path):
        return ['nginx', '-p', self.folder, '-c', path, '-e', 'stderr']


class HeaderBackend(fakes.Backend):
    """A mail server that greets when a PROXY header has come; the header is
    the conversation's .header, as a dictionary."""

    def converse(self, c):
        while True:
            try:
                c.header, rest = parse(bytes(c.buffer))
                break
            except (AssertionError, ValueError, struct.error):
                if not c.recv():
                    return
        c.buffer = bytearray(rest)
        super().converse(c)
