"""TLS as scanners see it, and clients who mean no good. What test_tls.py has, a
client of Python's or openssl's does; here it is done by hand."""

import json
import os
import random
import re
import signal
import socket
import ssl
import subprocess
import time

import pytest

import rawtls
import tlshello
from authority import Authority
from harness import DEADLINE, until
from listener import cpu_seconds, listening_socket
from test_tls import version

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
PLAIN, TLS = 0, 1  # the sockets of `both_ports`
SCAN = 400  # seconds for a scan, on a machine that does other things, too


@pytest.fixture(scope='module')
def authority(tmp_path_factory):
    ca = Authority(tmp_path_factory.mktemp('peers') / 'ca')
    ca.issue('ec', 'localhost', ['DNS:localhost'])
    ca.issue('rsa', 'localhost', ['DNS:localhost'], rsa=True)
    return ca


@pytest.fixture
def both_ports(serve, authority):
    """A listener with STARTTLS on one port and TLS from the start on another,
    by all defaults."""
    def start(**kw):
        return serve(
            sockets=[listening_socket(), listening_socket()],
            names='smtp:smtps', starttls='on',
            max_connections_per_source=10000, max_connections=500,
            ssl_certificate=[authority.path(n + '.pem')
                             for n in ('ec', 'rsa')],
            ssl_certificate_key=[authority.path(n + '.key')
                                 for n in ('ec', 'rsa')], **kw)
    return start


# --- scanners --------------------------------------------------------------

# What testssl.sh finds worse than "low", and why that is as it is.
ACCEPTED = {
    'cipher_order': 'ssl_prefer_server_ciphers is off, as in nginx: all that '
                    'is served is good, and the client knows what it does fast',
    'cert_revocation': "the test's own authority has no such address",
}
BAD = {'MEDIUM', 'HIGH', 'CRITICAL', 'FATAL'}

# What takes longest is asked at one of the ports only. (All of it by hand:
# testssl --add-ca CA --ip 127.0.0.1 [-t smtp] localhost:PORT.)
CHECKS = {
    PLAIN: ['--starttls', 'smtp', '--protocols', '--renegotiation'],
    TLS: ['--protocols', '--server-defaults', '--renegotiation',
          '--heartbleed', '--ccs-injection'],
}


def scan(s, port, authority, folder):
    folder.mkdir()
    return subprocess.Popen(
        ['testssl', '--quiet', '--color', '0', '--warnings', 'batch',
         '--nodns', 'none', '--ip', '127.0.0.1', '--add-ca',
         authority.certificate, '--jsonfile', str(folder / 'found.json'),
         *CHECKS[port], f'localhost:{s.address(port)[1]}'], cwd=folder,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True)


def found_by(scanner, folder):
    scanner.wait(SCAN)
    with open(folder / 'found.json') as f:
        return {x['id'].split(' ')[0]: x for x in json.load(f)}


def test_testssl(both_ports, authority, tmp_path):
    """Both ports at once: it takes its time to begin."""
    s = both_ports()
    scanners = {port: scan(s, port, authority, tmp_path / str(port))
                for port in CHECKS}
    try:
        all_findings = [found_by(scanner, tmp_path / str(port))
                        for port, scanner in scanners.items()]
    finally:
        for scanner in scanners.values():
            if scanner.poll() is None:
                os.killpg(scanner.pid, signal.SIGKILL)
                scanner.wait()
    for findings in all_findings:
        assert findings['TLS1_3']['severity'] == 'OK'
        assert findings['secure_client_renego']['severity'] == 'OK'
        bad = {k: v['finding'] for k, v in findings.items()
               if v['severity'] in BAD and k not in ACCEPTED}
        assert bad == {}
    # With the authority given, this is a finding about us.
    trust = [v for k, v in all_findings[TLS].items()
             if k.startswith('cert_chain_of_trust')]
    assert trust and all(v['severity'] == 'OK' for v in trust)


@pytest.mark.parametrize('port', [PLAIN, TLS], ids=['starttls', 'implicit'])
def test_sslscan(both_ports, port):
    s = both_ports()
    words = ['--starttls-smtp'] if port == PLAIN else []
    done = subprocess.run(
        ['sslscan', '--no-colour', *words, f'127.0.0.1:{s.address(port)[1]}'],
        capture_output=True, timeout=SCAN)
    out = done.stdout.decode()
    states = dict(re.findall(r'^((?:SSL|TLS)v[\d.]+) +(\w+)$', out, re.M))
    assert states == {'SSLv2': 'disabled', 'SSLv3': 'disabled',
                      'TLSv1.0': 'disabled', 'TLSv1.1': 'disabled',
                      'TLSv1.2': 'enabled', 'TLSv1.3': 'enabled'}
    assert 'Session renegotiation not supported' in out
    assert 'Server supports TLS Fallback SCSV' in out
    assert out.count('not vulnerable to heartbleed') == 2
    served = re.findall(
        r'^(?:Preferred|Accepted) +TLSv1\.\d +(\d+) bits +(\S+)', out, re.M)
    assert len(served) > 10
    for bits, cipher in served:
        assert int(bits) >= 128
        assert not re.search('NULL|RC4|DES|MD5|EXP|anon|ADH', cipher), cipher
        assert cipher.startswith(('TLS_', 'ECDHE-')), cipher
    # A client that computes nothing could have us compute much.
    assert 'ffdhe' not in out
    assert 'secp256r1' in out and 'x25519' in out


# --- hellos ----------------------------------------------------------------

def answer(c, seconds=DEADLINE):
    """All that comes, as records, until the end or a whole flight is there."""
    data = b''
    while not any(kind == tlshello.ALERT or body.endswith(b'\x0e\0\0\0')
                  for kind, body in tlshello.records(data)):
        got = c.raw_recv_some(seconds)
        if not got:
            break
        data += got
    return tlshello.records(data)


def begin(s, port):
    """A client about to shake hands."""
    c = s.connect(port)
    if port == PLAIN:
        c.greeting()
        c.ask('STARTTLS', '220 ')
    return c


every_port = pytest.mark.parametrize('port', [PLAIN, TLS],
                                     ids=['starttls', 'implicit'])


@every_port
def test_old_hellos_are_refused_and_logged(both_ports, port):
    s = both_ports()
    old = [tlshello.record(tlshello.HANDSHAKE, tlshello.hello(version=v), v)
           for v in (tlshello.SSL30, tlshello.TLS10, tlshello.TLS11)]
    for count, hello in enumerate(old, 1):
        c = begin(s, port)
        c.send(hello)
        kind, alert = answer(c)[0]
        # protocol_version; what SSL 3.0 was is not known any more.
        assert kind == tlshello.ALERT and alert in (b'\x02\x46', b'\x02\x28')
        assert c.raw_recv_some() == b''
        e = s.await_event('tls', count, result='failed')
        assert 'version' in e['reason'] or 'protocol' in e['reason']


def test_hello_of_ssl_2(both_ports):
    s = both_ports()
    c = begin(s, TLS)
    ciphers, challenge = b'\x07\x00\xc0\x01\x00\x80', b'c' * 16
    body = b'\x01\x00\x02' + tlshello.words((6, 0, 16)) + ciphers + challenge
    c.send((0x8000 | len(body)).to_bytes(2, 'big') + body)
    c.raw_recv_some()
    assert s.await_event('tls', result='failed')['reason']


@every_port
@pytest.mark.parametrize('size', [16000, 16384, 40000, 100000])
def test_large_hellos(both_ports, port, size):
    """Of whatever the records that carry them."""
    s = both_ports()
    c = begin(s, port)
    pad = (size - 200) // 2
    hello = tlshello.hello((tlshello.PADDING, bytes(min(pad, 65000))),
                           (0x4a4a, bytes(pad if size < 100000 else 0)))
    for at in range(0, len(hello), 16384):
        c.send(tlshello.record(tlshello.HANDSHAKE, hello[at:at + 16384],
                               tlshello.TLS10))
    kind, body = answer(c)[0]
    # What is too large for OpenSSL is told so; nothing else happens.
    assert (kind, body[:1]) == (tlshello.HANDSHAKE, b'\x02') or \
        (kind, body[:1]) == (tlshello.ALERT, b'\x02')
    if size <= 16384:
        assert kind == tlshello.HANDSHAKE


def test_a_hello_that_claims_to_be_endless(both_ports):
    s = both_ports()
    c = begin(s, TLS)
    c.send(tlshello.record(tlshello.HANDSHAKE, b'\x01\xff\xff\xff\x03\x03'))
    assert answer(c)[0][0] == tlshello.ALERT
    assert 'excessive' in s.await_event('tls', result='failed')['reason']


def test_a_record_that_is_too_long(both_ports):
    s = both_ports()
    c = begin(s, TLS)
    c.send(b'\x16\x03\x03\xff\xff' + bytes(70000))
    c.raw_recv_some()
    assert s.await_event('tls', result='failed')['reason']


FLOODS = {
    'alerts': tlshello.record(tlshello.ALERT, b'\x01\x5a'),
    'empty records': tlshello.record(tlshello.HANDSHAKE, b''),
    'changes of the cipher': tlshello.record(20, b'\x01'),
    'hello requests': tlshello.record(tlshello.HANDSHAKE, b'\0\0\0\0'),
    'application data': tlshello.record(tlshello.APPLICATION, b'x'),
}


@every_port
@pytest.mark.parametrize('flood', list(FLOODS))
@pytest.mark.parametrize('when', ['before the hello', 'behind it'])
def test_floods(both_ports, port, flood, when):
    """They end the handshake long before they do."""
    s = both_ports(timeout='30s')
    c = begin(s, port)
    if when == 'behind it':
        c.send(tlshello.flights())
        assert answer(c)[0][0] == tlshello.HANDSHAKE
    started = time.monotonic()
    try:
        for _ in range(100):
            c.send(FLOODS[flood] * 100)
    except OSError:
        pass
    e = s.await_event('tls', result='failed')
    assert e['reason'] != 'timeout' and time.monotonic() - started < DEADLINE


@every_port
def test_a_hello_octet_by_octet_and_slowly(both_ports, port):
    """The deadline is the handshake's, not one that each octet moves."""
    s = both_ports(timeout='1s')
    c = begin(s, port)
    hello = tlshello.flights()
    started = time.monotonic()
    try:
        for at in range(len(hello)):
            c.send(hello[at:at + 1])
            if s.events('tls'):
                break
            time.sleep(0.1)
    except OSError:
        pass
    assert s.await_event('tls')['reason'] == 'timeout'
    assert time.monotonic() - started < 0.1 * len(hello)


@every_port
@pytest.mark.parametrize('low', [V12, V13])
@pytest.mark.parametrize('how', ['close', 'half_close', 'reset'])
def test_handshakes_that_are_cut(both_ports, port, low, how):
    """At all boundaries of records and of their headers, and elsewhere, of
    each flight."""
    s = both_ports(timeout='5s')
    cuts = 0
    for flight in (1, 2):
        length = len(cut_at(begin(s, port), low, flight, None, how))
        places = {0, 1, 2, 3, 4, 5, 6, 9, length // 2, length - 1}
        random.seed(flight)
        places |= set(random.sample(range(length), 6))
        for place in sorted(places):
            if flight == 1 and place == 0 and port == TLS:
                continue  # that is no handshake
            cut_at(begin(s, port), low, flight, place, how)
            cuts += 1
    until(lambda: len(s.events('close')) >= cuts, 'their ends')
    failed = s.events('tls', result='failed')
    # A client whose last flight is cut has not been served.
    assert len(failed) >= cuts
    assert all(e['reason'] != 'timeout' for e in failed)
    c = begin(s, port)
    c.start_tls(version(low))
    c.close()


def cut_at(c, low, flight, place, how):
    """Shakes hands up to octet `place` of a flight (None: to its end), and
    leaves. The whole flight."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = version(low).wrap_bio(incoming, outgoing)
    for n in range(1, flight + 1):
        while True:
            try:
                tls.do_handshake()
            except ssl.SSLWantReadError:
                pass
            data = outgoing.read()
            if data:
                break
            incoming.write(c.raw_recv_some())
        if n < flight:
            c.send(data)
    c.send(data[:place])
    getattr(c, how)()
    c.close()
    return data


# --- behind the handshake --------------------------------------------------

def test_a_flood_of_key_updates(both_ports):
    """One after the other they are read in one call, which knows nothing of
    deadlines: it has to end by itself."""
    s = both_ports()
    c = s.connect(TLS)
    client = rawtls.RawTls(c, rawtls.TLS13)
    client.handshake()
    client.read_until(b'220 ')
    # Some of them are nothing unusual.
    c.raw_send(client.key_updates(100, asked=True) +
               client.write(b'NOOP\r\n'))
    client.read_until(b'250 ')
    flood = client.key_updates(80000)
    with pytest.raises(OSError):
        c.raw_send(flood + client.write(b'NOOP\r\n'))
        client.read_until(b'250 ')
    client.close()
    assert s.await_event('close')['cause'] != 'timeout'


@pytest.mark.parametrize('how', ['s_client', 'flood'])
def test_renegotiation(both_ports, how):
    """It is refused; the session goes on, or the client ends it."""
    s = both_ports()
    if how == 's_client':
        client = subprocess.Popen(
            ['openssl', 's_client', '-tls1_2', '-crlf', '-connect',
             f'127.0.0.1:{s.address(TLS)[1]}'], stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        s.await_event('tls', result='ok')
        _, said = client.communicate(b'R\n', DEADLINE)
        assert b'RENEGOTIATING' in said and b'no renegotiation' in said
        s.await_event('close')
        return
    c = s.connect(TLS)
    client = rawtls.RawTls(c, rawtls.TLS12)
    client.handshake()
    client.read_until(b'220 ')
    hello = client.renegotiation()
    assert hello
    c.raw_send(hello)
    # A warning (100, no_renegotiation) in a record of its own comes back.
    kind = c.raw_recv_some()[0]
    assert kind == tlshello.ALERT
    assert len(s.events('tls')) == 1


def test_cpu_of_a_client_that_does_nothing(both_ports):
    """Half a record in the buffer is not asked for again and again."""
    s = both_ports()
    c = begin(s, TLS)
    c.start_tls()
    c.greeting()
    c.tls.write(b'NOOP\r\n')
    c.raw_send(c.tls_out.read()[:-3])
    pid = s.await_sessions(1)[0]
    before = cpu_seconds(pid)
    c.expect_nothing(1)
    assert cpu_seconds(pid) - before < 0.3


# --- the other protocol ----------------------------------------------------

@pytest.mark.parametrize('line', [
    b'EHLO client.example\r\n', b'QUIT\r\n', b'GET / HTTP/1.1\r\n\r\n',
    b'\r\n\r\n\r\n', b'CONNECT a:25 HTTP/1.1\r\n\r\n'])
def test_plain_text_on_a_port_for_tls(both_ports, line):
    """It is closed at once, and the log says what it was."""
    s = both_ports(timeout='60s')
    c = s.connect(TLS)
    c.send(line)
    while c.raw_recv_some():
        pass
    assert s.await_event('tls')['reason'] == 'not TLS (plain SMTP or HTTP)'
    assert s.await_event('close')['cause'] == 'tls'


def test_tls_on_a_port_for_plain_text(both_ports):
    s = both_ports(timeout='60s')
    c = s.connect(PLAIN)
    c.greeting()
    c.send(tlshello.flights())
    c.expect('(421|5..) ')
    c.expect_end()
    c.close()
    assert s.await_event('close')['cause'] == 'tls'


# --- ends ------------------------------------------------------------------

@every_port
@pytest.mark.parametrize('low', [V12, V13])
def test_close_notify_alone_is_a_half_close(both_ports, port, low):
    """Without a FIN, too: what is due still comes, then ours."""
    s = both_ports()
    c = begin(s, port)
    c.start_tls(version(low))
    if port == TLS:
        c.greeting()
    c.send('EHLO me\r\nNOOP\r\nHELP\r\n')
    with pytest.raises(ssl.SSLWantReadError):
        c.tls.unwrap()
    c.raw_send(c.tls_out.read())
    for reply in ('250', '250 2.0.0 ', '214 '):
        c.expect(reply)
    c.expect_end()
    assert c.clean_end
    c.close()
    assert s.await_event('close')['cause'] == 'eof'


@pytest.mark.parametrize('low', [V12, V13])
def test_both_ends_are_mapped_behind_the_hand_over(both_ports, backend, low):
    """The client's close_notify is the backend's end of file, and what the
    backend says then arrives before ours."""
    def last_words(c):
        while c.recv():
            pass
        c.sock.sendall(b'250 2.0.0 heard the end\r\n221 2.0.0 bye\r\n')
        c.sock.shutdown(socket.SHUT_WR)
    b = backend(takeover=last_words, takeover_at='NOOP')
    s = both_ports(backend=b.address)
    c = begin(s, TLS)
    c.start_tls(version(low))
    c.greeting()
    c.hello()
    c.ask('AUTH PLAIN AGFsaWNlAHdvbmRlcmxhbmQ=', '235 ')
    c.line('NOOP')
    with pytest.raises(ssl.SSLWantReadError):
        c.tls.unwrap()
    c.raw_send(c.tls_out.read())
    c.expect('250 2.0.0 heard the end')
    c.expect('221 ')
    c.expect_end()
    assert c.clean_end
    c.close()
    assert b.await_end().eof
