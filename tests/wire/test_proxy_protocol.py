"""The PROXY protocol before a session: who is believed, what a header changes,
what is none, with HAProxy and nginx as those who send it."""

import fcntl
import os
import socket
import struct
import termios
import time

import pytest

import fakes
import listener as workshop
import proxies
import starters
from fakes import A, PTR, ok, plain, ptr_name
from harness import NAME, Client, client_context, kill, until
from listener import Listener, listening_socket
from proxies import (
    ALPN, AUTHORITY, CLIENT, CLIENT6, HERE, HERE6, NETNS, NOOP, UNIQUE_ID,
    Haproxy, Nginx, ssl_tlv, tlv, v1, v2)

GOOD = 'AUTH PLAIN ' + plain('alice', 'wonderland')
PROXY_ADDR = '127.0.0.1'
TRUSTED = {'socket': 'proxy_protocol', 'set_real_ip_from': PROXY_ADDR}
UNTRUSTED = {'socket': 'proxy_protocol', 'set_real_ip_from': '198.51.100.0/24'}

needs_haproxy = pytest.mark.skipif(not starters.has('haproxy'),
                                   reason='no haproxy')
needs_nginx = pytest.mark.skipif(not starters.has('nginx'), reason='no nginx')


@pytest.fixture
def behind(servers, users):
    """behind(...) is a Listener whose one socket has headers before each
    session, and trusts 127.0.0.1."""
    running = []

    def start(**kw):
        own = {k: kw.pop(k) for k in ('sockets', 'way', 'env') if k in kw}
        if 'listen' in kw:
            own['way'] = 'none'
        else:
            own.setdefault('sockets', [listening_socket()])
            kw.setdefault('socket', 'proxy_protocol')
        kw.setdefault('set_real_ip_from', PROXY_ADDR)
        kw.setdefault('auth_provider', None if 'auth_http' in kw else users)
        kw.setdefault('backend', fakes.dead_address())
        s = Listener(kw, **own)
        running.append(s)
        return s

    yield start
    complaints = workshop.clean_up(running)
    if complaints:
        pytest.fail('\n'.join(complaints))


@pytest.fixture
def proxy(behind, tmp_path):
    """proxy(Haproxy or Nginx, config, ...) starts it. It ends first: nothing
    of it is then taken for ours."""
    running = []

    def start(kind, config, **values):
        running.append(kind(tmp_path, config, **values))
        return running[-1]

    yield start
    for p in running:
        p.stop()


def connect(port, source=None):
    sock = socket.create_connection(
        ('127.0.0.1', port), timeout=10,
        source_address=(source, 0) if source else None)
    return Client(sock=sock)


def await_taken(client):
    """Until the program has read all that was sent over a UNIX socket."""
    def left():
        return struct.unpack('i', fcntl.ioctl(
            client.sock, termios.TIOCOUTQ, b'\0\0\0\0'))[0]
    until(lambda: left() == 0, 'the program reads')


def log_in(c):
    c.greeting()
    c.hello()
    c.ask(GOOD, '235 ')


def bye(c):
    c.ask('QUIT', '221 ')
    c.expect_end()
    c.close()


# --- whose word counts -----------------------------------------------------

HEADERS = {
    'v1': (v1(), CLIENT, HERE),
    'v1-tcp6': (v1(CLIENT6, HERE6), CLIENT6, HERE6),
    'v2': (v2(), CLIENT, HERE),
    'v2-tcp6': (v2(CLIENT6, HERE6), CLIENT6, HERE6),
    'v2-mapped': (v2(('::ffff:192.0.2.7', 40007), ('::ffff:203.0.113.9', 587)),
                  CLIENT, HERE),
    'v2-crc32c': (v2(checksum=True), CLIENT, HERE),
    'v2-more': (v2(tlvs=tlv(NOOP, b'abc') + tlv(NETNS, b'blue') +
                   tlv(0xe0, b'own'), checksum=True), CLIENT, HERE),
}


@pytest.mark.parametrize('which', HEADERS)
def test_trusted_header_says_who_the_client_is(front, backend, which):
    header, client, here = HEADERS[which]
    mail = backend()
    s = front(backend=mail.address, early=header, **TRUSTED)
    log_in(s.client)
    bye(s.client)
    assert s.finish()['client'] == client[0]
    connected = s.event('connect')
    assert connected['client'] == client[0]
    assert connected['port'] == str(client[1])
    assert connected['proxy'] == PROXY_ADDR
    assert 'claim' not in connected
    assert s.event('auth')['client'] == client[0]
    told = fakes.xclient_attributes(mail.await_end())
    prefix = 'IPV6:' if ':' in client[0] else ''
    assert told['ADDR'] == prefix + client[0]
    assert told['PORT'] == str(client[1])
    assert told['DESTADDR'] == prefix + here[0]
    assert told['DESTPORT'] == str(here[1])


@pytest.mark.parametrize('which', HEADERS)
def test_header_of_anybody_changes_nothing(front, backend, which):
    header, client, _ = HEADERS[which]
    mail = backend()
    s = front(backend=mail.address, early=header, **UNTRUSTED)
    log_in(s.client)
    bye(s.client)
    assert s.finish()['client'] == PROXY_ADDR
    connected = s.event('connect')
    assert connected['client'] == PROXY_ADDR
    assert connected['port'] == str(s.port)
    assert connected['claim'] == client[0]
    assert 'proxy' not in connected
    told = fakes.xclient_attributes(mail.await_end())
    assert told['ADDR'] == '127.0.0.1' and told['PORT'] == str(s.port)


@pytest.mark.parametrize('who', ['127.0.0.1', '127.0.0.0/8', '0.0.0.0/0'])
def test_networks(front, who):
    s = front(early=v1(), socket='proxy_protocol',
              set_real_ip_from=['2001:db8::/32', who])
    s.client.greeting()
    s.quit()
    assert s.event('connect')['client'] == CLIENT[0]


@pytest.mark.parametrize('who', ['127.0.0.2', '128.0.0.0/1', '::/0', 'unix:'])
def test_other_networks(front, who):
    s = front(early=v1(), socket='proxy_protocol', set_real_ip_from=who)
    s.client.greeting()
    s.quit()
    assert s.event('connect')['client'] == PROXY_ADDR


@pytest.mark.parametrize('family, who', [
    ('inet6', '::1'), ('mapped', '127.0.0.1'), ('unix', 'unix:')])
def test_other_families(front, family, who):
    s = front(family=family, early=v1(), socket='proxy_protocol',
              set_real_ip_from=who)
    s.client.greeting()
    s.quit()
    connected = s.event('connect')
    assert connected['client'] == CLIENT[0]
    assert connected['proxy'] == ('unix:' if family == 'unix' else who)


@pytest.mark.parametrize('way', ['fd3', 'pipes'])
def test_ways_of_starting(front, way):
    """A super-server that has pipes tells whose they are."""
    s = front(way=way, socket='proxy_protocol', set_real_ip_from=PROXY_ADDR,
              env={'TCPREMOTEIP': PROXY_ADDR})
    s.client.send(v1() + b'NOOP\r\n')
    s.client.greeting()
    s.client.expect('250 ')
    s.quit()
    assert s.event('connect')['client'] == CLIENT[0]


def test_pipes_of_nobody(front):
    s = front(way='pipes', early=v2(), socket='proxy_protocol',
              set_real_ip_from=['unix:', '0.0.0.0/0', '::/0'])
    s.client.greeting()
    s.quit()
    connected = s.event('connect')
    assert connected['client'] == 'unix:' and connected['claim'] == CLIENT[0]


# The proxy speaks for itself.
OWN = {
    'v1-unknown': b'PROXY UNKNOWN\r\n',
    'v1-unknown-with-more': b'PROXY UNKNOWN 192.0.2.7 203.0.113.9 1 2\r\n',
    'v2-local': v2(None, command=proxies.LOCAL),
    'v2-local-with-more': v2(tlvs=ssl_tlv(), command=proxies.LOCAL),
    'v2-unspecified': v2(None),
    'v2-unix': proxies.SIGNATURE + b'\x21\x31\0\xd8' + bytes(216),
    'v2-dgram': v2()[:13] + b'\x12' + v2()[14:],
}


@pytest.mark.parametrize('which', OWN)
def test_connections_of_the_proxys_own(front, which):
    s = front(early=OWN[which], starttls=None, **TRUSTED)
    s.client.greeting()
    s.quit()
    connected = s.event('connect')
    assert connected['client'] == PROXY_ADDR
    assert 'proxy' not in connected and 'claim' not in connected
    assert s.events('tls') == []


# --- what judges and relays are shown --------------------------------------

@pytest.mark.parametrize('trusted', [True, False])
def test_auth_server(front, backend, auth_server, trusted):
    mail = backend()
    auth = auth_server(ok(mail))
    s = front(auth_http=auth.url, early=v1(),
              **(TRUSTED if trusted else UNTRUSTED))
    log_in(s.client)
    bye(s.client)
    [request] = auth.requests
    seen = request.auth()
    assert seen['Client-IP'] == (CLIENT[0] if trusted else PROXY_ADDR)
    assert seen['Proxy-Protocol-Addr'] == CLIENT[0]
    assert seen['Proxy-Protocol-Port'] == str(CLIENT[1])
    assert seen['Proxy-Protocol-Server-Addr'] == HERE[0]
    assert seen['Proxy-Protocol-Server-Port'] == str(HERE[1])


def test_auth_server_without_a_header(front, backend, auth_server):
    auth = auth_server(ok(backend()))
    s = front(auth_http=auth.url, early=b'PROXY UNKNOWN\r\n', **TRUSTED)
    log_in(s.client)
    bye(s.client)
    assert not any(name.startswith('Proxy-Protocol')
                   for name in auth.requests[0].auth())


@pytest.mark.parametrize('trusted', [True, False])
def test_relays_environment(front, tmp_path, trusted):
    from test_relay import RECORD, read
    out = str(tmp_path / 'record')
    s = front(relay=[RECORD, out], early=v2(tlvs=ssl_tlv()),
              **(TRUSTED if trusted else UNTRUSTED))
    s.record = out
    log_in(s.client)
    env = read(s)['env']
    assert env['TCPREMOTEIP'] == (CLIENT[0] if trusted else PROXY_ADDR)
    assert env['TCPREMOTEPORT'] == str(CLIENT[1] if trusted else s.port)
    assert (env['TCPLOCALIP'] == HERE[0]) == trusted
    assert (env['TCPLOCALPORT'] == str(HERE[1])) == trusted
    assert env.get('SSL_PROTOCOL') == ('TLSv1.3' if trusted else None)
    s.client.ask('QUIT', '221 ')
    s.client.expect_end()
    s.finish()


@pytest.mark.parametrize('trusted', [True, False])
def test_reverse_look_up(front, backend, name_server, trusted):
    names = name_server({
        (ptr_name(CLIENT[0]), PTR): ['mx.client.example'],
        ('mx.client.example', A): [CLIENT[0]],
        (ptr_name(PROXY_ADDR), PTR): ['proxy.example'],
        ('proxy.example', A): [PROXY_ADDR]})
    mail = backend()
    s = front(backend=mail.address, resolver=names.address, early=v1(),
              **(TRUSTED if trusted else UNTRUSTED))
    log_in(s.client)
    bye(s.client)
    name = 'mx.client.example' if trusted else 'proxy.example'
    assert fakes.xclient_attributes(mail.await_end())['NAME'] == name
    s.finish()
    assert s.event('connect')['host'] == name


@pytest.mark.parametrize('octets, logged', [
    (b'\x01\xab"\n', '01ab220a'), (b'C0000207:9C40_1', 'C0000207:9C40_1'),
    (b'x client=192.0.2.8', b'x client=192.0.2.8'.hex())])
def test_unique_id_is_logged(front, octets, logged):
    s = front(early=v2(tlvs=tlv(UNIQUE_ID, octets)), **TRUSTED)
    s.client.greeting()
    s.quit()
    assert s.event('connect')['id'] == logged


# --- TLS that ends at the proxy --------------------------------------------

def test_tls_of_the_client_counts(front, backend, certificates):
    mail = backend()
    s = front(backend=mail.address, starttls='only', **TRUSTED,
              **certificates.directives(),
              early=v2(tlvs=ssl_tlv() + tlv(AUTHORITY, b'mail.example') +
                       tlv(ALPN, b'smtp')))
    s.client.greeting()
    offers = s.client.hello()
    assert 'STARTTLS' not in offers
    assert any(x.startswith('AUTH ') for x in offers)
    s.client.ask('STARTTLS', '503 5.5.1 ')
    s.client.ask(GOOD, '235 ')
    bye(s.client)
    s.finish()
    seen = s.event('tls')
    assert seen['protocol'] == 'TLSv1.3' and seen['from'] == 'proxy'
    assert seen['cipher'] == 'TLS_AES_256_GCM_SHA384'
    assert seen['name'] == 'mail.example'


@pytest.mark.parametrize('case', ['untrusted', 'no-tls', 'local'])
def test_tls_that_is_not_believed(front, certificates, case):
    header = v2(tlvs=ssl_tlv(flags=0 if case == 'no-tls' else 1),
                command=proxies.LOCAL if case == 'local' else proxies.PROXY)
    s = front(early=header, starttls='only', **certificates.directives(),
              **(UNTRUSTED if case == 'untrusted' else TRUSTED))
    s.client.greeting()
    offers = s.client.hello()
    assert 'STARTTLS' in offers
    assert not any(x.startswith('AUTH') for x in offers)
    s.client.ask(GOOD, '538 ')
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls()
    s.client.hello()
    s.quit()
    assert 'from' not in s.event('tls')


@pytest.mark.parametrize('flags, verify, name, shown', [
    (1, 0, None, ('NONE', None)),
    (7, 0, b'alice', ('SUCCESS', 'CN=alice')),
    (7, 18, b'alice', ('FAILED:by the proxy', 'CN=alice')),
    # What would be two names, or another, is quoted.
    (5, 0, b' a,CN=b+c"\\<>; ', (
        'SUCCESS', 'CN=\\ a\\,CN=b\\+c\\"\\\\\\<\\>\\;\\ ')),
    (5, 0, b'#1', ('SUCCESS', 'CN=\\#1')),
])
def test_certificate_that_the_proxy_has_seen(
        front, backend, auth_server, flags, verify, name, shown):
    auth = auth_server(ok(backend()))
    s = front(auth_http=auth.url, **TRUSTED,
              early=v2(tlvs=ssl_tlv(flags, verify, name=name)))
    log_in(s.client)
    bye(s.client)
    seen = auth.requests[0].auth()
    assert seen['Auth-SSL'] == 'on'
    assert (seen['Auth-SSL-Verify'], seen.get('Auth-SSL-Subject')) == shown
    s.finish()
    assert s.event('tls')['verify'] == shown[0]


@pytest.mark.parametrize('verify, trusted', [
    (0, True), (18, True), (0, False)])
def test_external_by_the_certificate(front, backend, verify, trusted):
    """Only a good one, and only on a trusted proxy's word."""
    mail = backend()
    s = front(backend=mail.address, smtp_auth='external',
              early=v2(tlvs=ssl_tlv(7, verify, name=b'alice')),
              **(TRUSTED if trusted else UNTRUSTED))
    s.client.greeting()
    good = verify == 0 and trusted
    assert ('AUTH EXTERNAL' in s.client.hello()) == good
    s.client.ask('AUTH EXTERNAL =', '235 ' if good else '5')
    bye(s.client)
    s.finish()
    if good:
        assert s.event('auth')['user'] == 'alice'


@pytest.mark.parametrize('flags, verify, admitted', [
    (7, 0, True), (7, 18, False), (1, 0, False), (3, 0, False)])
def test_certificate_that_must_be_there(
        front, certificates, flags, verify, admitted):
    s = front(starttls='only', ssl_verify_client='on',
              ssl_client_certificate=certificates.ec[0], **TRUSTED,
              early=v2(tlvs=ssl_tlv(flags, verify, name=b'alice')),
              **certificates.directives())
    if admitted:
        s.client.greeting()
        s.quit()
    else:
        s.client.expect('421 4.7.1 ')
        s.client.expect_end()
        assert s.finish()['cause'] == 'certificate'


@pytest.mark.parametrize('header', [v1(), v2(tlvs=ssl_tlv())],
                         ids=['v1', 'v2'])
@pytest.mark.parametrize('apart', [True, False])
def test_header_before_implicit_tls(front, certificates, header, apart):
    """The header and the client's hello may come in one segment."""
    s = front(socket='ssl proxy_protocol', set_real_ip_from=PROXY_ADDR,
              **certificates.directives())
    c = s.client
    if apart:
        c.send(header)
    else:
        send, c.raw_send = c.raw_send, lambda data, deadline=None: (
            setattr(c, 'raw_send', send), send(header + data, deadline))
    c.start_tls()
    c.greeting()
    c.hello()
    s.quit()
    assert s.event('connect')['client'] == CLIENT[0]
    # Our own TLS is the one that counts.
    assert s.events('tls')[-1]['cipher'].startswith('TLS_') and \
        'from' not in s.events('tls')[-1]


# --- when it comes ---------------------------------------------------------

FULL = v2(tlvs=tlv(UNIQUE_ID, b'0123456789abcdef') + ssl_tlv(), checksum=True)


@pytest.mark.parametrize('header', [v1(), FULL], ids=['v1', 'v2'])
def test_split_at_every_octet(behind, tmp_path, header):
    """Each half is read before the other is sent."""
    path = str(tmp_path / 'socket')
    front = behind(sockets=[listening_socket('unix', path)],
                   set_real_ip_from='unix:', max_connections=10)
    for at in range(1, len(header)):
        c = front.connect()
        c.send(header[:at])
        await_taken(c)
        c.send(header[at:])
        c.greeting()
        bye(c)
    front.await_event('close', count=len(header) - 1)
    assert len(front.events('connect', client=CLIENT[0])) == len(header) - 1


@pytest.mark.parametrize('way', ['fd0', 'pipes'])
def test_octet_by_octet(front, way):
    s = front(way=way, family='unix', socket='proxy_protocol',
              set_real_ip_from=PROXY_ADDR, env={'TCPREMOTEIP': PROXY_ADDR})
    for octet in FULL:
        s.client.send(bytes([octet]))
        if way == 'fd0':
            await_taken(s.client)
    s.client.greeting()
    s.quit()
    assert s.event('connect')['client'] == CLIENT[0]


@pytest.mark.parametrize('header', [v1(), FULL], ids=['v1', 'v2'])
def test_early_talker_behind_the_header(front, header):
    s = front(early=header + b'EHLO spam.example\r\n',
              smtp_greeting_delay='10s', **TRUSTED)
    s.client.expect('503 5.5.0 ')
    s.client.expect_end()
    assert s.finish()['cause'] == 'early'
    assert s.event('early')['client'] == CLIENT[0]
    assert s.event('connect')['client'] == CLIENT[0]


@pytest.mark.parametrize('header', [v1(), FULL], ids=['v1', 'v2'])
def test_header_is_no_early_talk(front, header):
    s = front(smtp_greeting_delay='300ms', **TRUSTED)
    s.client.send(header[:20])
    s.client.expect_nothing(0.5)
    s.client.send(header[20:])
    begun = time.monotonic()
    s.client.greeting()
    assert time.monotonic() - begun > 0.25
    s.quit()
    assert s.events('early') == []


def test_commands_behind_the_header_without_a_delay(front):
    s = front(early=v2() + b'EHLO client.example\r\nQUIT\r\n', **TRUSTED)
    s.client.greeting()
    s.client.expect('250')
    s.client.expect('221 ')
    s.client.expect_end()
    s.finish()


# --- no header -------------------------------------------------------------

NO_HEADERS = {
    'ehlo': b'EHLO client.example\r\n',
    'http': b'GET / HTTP/1.1\r\nHost: x\r\n\r\n',
    'hello': bytes.fromhex('16030100c8010000c40303') + bytes(200),
    'junk': b'\xff' * 4096,
    'junk-after-proxy': b'PROXY ' + b'x' * 4096,
    'nul': bytes(4096),
    'bare-lf': v1().replace(b'\r\n', b'\n'),
    'signature': proxies.SIGNATURE + b'\x11\x11\0\x0c' + bytes(12),
    'too-long': proxies.SIGNATURE + b'\x21\x11\xff\xff' + bytes(4096),
    'crc32c': v2(checksum=True)[:-1] + b'\0',
    'two': b'PROXY TCP4 1.2.3.4\r\n' + v1(),
}


@pytest.mark.parametrize('which', NO_HEADERS)
def test_no_header(front, which):
    s = front(early=NO_HEADERS[which], timeout='30s', **TRUSTED)
    s.client.expect_end()
    assert s.finish()['cause'] == 'proxy_protocol'
    assert [e.name for e in s.events()] == ['connect', 'close']
    assert s.event('connect')['client'] == PROXY_ADDR


@pytest.mark.parametrize('which', ['ehlo', 'junk'])
def test_no_header_before_tls(front, certificates, which):
    s = front(early=NO_HEADERS[which], socket='ssl proxy_protocol',
              **certificates.directives())
    s.client.expect_end()
    assert s.finish()['cause'] == 'proxy_protocol'
    assert s.events('tls') == []


@pytest.mark.parametrize('begun', [b'', v1()[:20], v2()[:20]],
                         ids=['nothing', 'v1', 'v2'])
def test_header_that_does_not_come(front, begun):
    s = front(early=begun, timeout='300ms', **TRUSTED)
    s.client.expect_end()
    assert s.finish()['cause'] == 'timeout'
    assert [e.name for e in s.events()] == ['connect', 'close']


def test_header_that_comes_too_slowly(front):
    """Each octet in time, the whole not."""
    s = front(timeout='600ms', **TRUSTED)
    begun = time.monotonic()
    header = iter(v1())
    while s.proc.poll() is None:
        try:
            s.client.send(bytes([next(header)]))
        except OSError:
            break
        s.client.eof = bool(select_end(s.client))
        if s.client.eof:
            break
    assert 0.5 < time.monotonic() - begun < 5
    assert s.finish()['cause'] == 'timeout'


def select_end(client):
    """Whether the end has come within a tenth of a second."""
    import select
    return select.select([client.rfd], [], [], 0.1)[0]


@pytest.mark.parametrize('begun', [b'', v1()[:20], v2()[:20]],
                         ids=['nothing', 'v1', 'v2'])
def test_client_that_leaves(front, begun):
    s = front(early=begun, **TRUSTED)
    s.client.close()
    assert s.finish()['cause'] == 'left'


def test_end_of_service_while_a_header_is_awaited(behind):
    front = behind()
    c = front.connect()
    front.await_sessions(1)
    front.stop()
    c.expect_end()
    assert front.await_event('close')['cause'] == 'stopped'


# --- the listener's limits -------------------------------------------------

def come(front, client=CLIENT, **kw):
    c = front.connect(**kw)
    c.send(v1((client[0], 1234), HERE6 if ':' in client[0] else HERE))
    return c


def test_limit_by_true_client(behind):
    front = behind(max_connections_per_source=2)
    first, second = come(front), come(front)
    first.greeting()
    second.greeting()
    third = come(front)
    third.expect('421 4.7.0 ')
    third.expect_end()
    third.close()
    refused = front.await_event('limit')
    assert refused['client'] == CLIENT[0]
    assert refused['limit'] == 'max_connections_per_source'
    # Others behind the same proxy are others.
    others = [come(front, (f'192.0.2.{i}', 1)) for i in range(100, 110)]
    for c in others:
        c.greeting()
    # IPv6: a network of 64 bits is one.
    for i in (1, 2):
        come(front, (f'2001:db8::{i}', 1)).greeting()
    come(front, ('2001:db8::3', 1)).expect('421 4.7.0 ')
    bye(first)
    front.await_event('close', client=CLIENT[0], cause='quit')
    until(lambda: admitted(come(front)), 'a free place')


def admitted(c):
    found = c.reply()[0].startswith('220')
    if not found:
        c.close()
    return found


def test_limit_after_sessions_were_killed(behind):
    front = behind(max_connections_per_source=2)
    for _ in range(3):
        clients = [come(front), come(front)]
        for c in clients:
            c.greeting()
        last = come(front)
        last.expect('421 4.7.0 ')
        last.expect_end()
        last.close()
        for pid in front.await_sessions(2):
            kill(pid)
        front.await_sessions(0)
        for c in clients:
            c.close()


def test_knocking_keeps_nobody_out(behind):
    """Those who are refused take no place while they are shown the door."""
    front = behind(max_connections_per_source=1)
    first = come(front)
    first.greeting()
    refused = [come(front) for _ in range(5)]
    for c in refused:
        c.expect('421 4.7.0 ')
    # They are still there, each waited for; the first one leaves.
    bye(first)
    front.await_event('close', cause='quit')
    until(lambda: admitted(come(front)), 'a free place', 1.5)


def test_limit_before_implicit_tls(behind, certificates):
    front = behind(max_connections_per_source=1, socket='ssl proxy_protocol',
                   **certificates.directives())
    first = come(front)
    first.start_tls()
    first.greeting()
    second = come(front)
    second.expect_end()
    assert front.await_event('limit')['client'] == CLIENT[0]
    assert front.await_event('close')['cause'] == 'limit'


def test_strangers_are_limited_by_their_own_address(behind):
    front = behind(max_connections_per_source=1,
                   set_real_ip_from='198.51.100.1')
    first = come(front)
    first.greeting()
    second = front.connect()
    second.expect('421 4.7.0 ')
    assert front.await_event('limit')['client'] == PROXY_ADDR


def test_kinds_of_sockets_beside_each_other(behind, certificates, tmp_path):
    ports = starters.free_ports(4)
    path = str(tmp_path / 'socket')
    front = behind(
        listen=[f'127.0.0.1:{ports[0]}', f'127.0.0.1:{ports[1]} ssl',
                f'127.0.0.1:{ports[2]} proxy_protocol',
                f'127.0.0.1:{ports[3]} proxy_protocol ssl backlog=5',
                f'unix:{path} proxy_protocol'],
        set_real_ip_from=[PROXY_ADDR, 'unix:'], **certificates.directives())
    until(lambda: all(map(starters.is_served, ports)), 'the ports')
    for i, (ssl, header) in enumerate([
            (False, False), (True, False), (False, True), (True, True)]):
        c = front.connect(port=ports[i])
        if header:
            c.send(v2())
        if ssl:
            c.start_tls()
        c.greeting()
        bye(c)
        client = front.await_event('close', count=i + 1)['client']
        assert client == (CLIENT[0] if header else PROXY_ADDR)
    sock = socket.socket(socket.AF_UNIX)
    sock.connect(path)
    c = Client(sock=sock)
    c.send(v2(CLIENT6, HERE6))
    c.greeting()
    bye(c)
    assert front.await_event('connect', count=5)['client'] == CLIENT6[0]


# --- HAProxy ---------------------------------------------------------------

HAPROXY = '''
listen v1
    bind 127.0.0.1:{port0}
    server front 127.0.0.1:{front} send-proxy
listen v2
    bind 127.0.0.1:{port1}
    server front 127.0.0.1:{front} send-proxy-v2 proxy-v2-options crc32c,unique-id
    unique-id-format id-%pid
listen tls
    bind 127.0.0.1:{port2} ssl crt {pem} ca-file {ca} verify optional alpn smtp
    server front 127.0.0.1:{front} send-proxy-v2-ssl-cn proxy-v2-options ssl,cert-cn,crc32c,authority,unique-id
    unique-id-format id
'''


@pytest.fixture
def pem(certificates, tmp_path):
    """Certificate and key in one file, as HAProxy wants them."""
    path = tmp_path / 'both.pem'
    path.write_text(''.join(open(x).read() for x in certificates.ec))
    return str(path)


@needs_haproxy
@pytest.mark.parametrize('which', ['v1', 'v2', 'tls'])
def test_haproxy(behind, backend, proxy, certificates, pem, which):
    mail = backend()
    front = behind(backend=mail.address, starttls='only',
                   **certificates.directives())
    other = proxy(Haproxy, HAPROXY, front=front.address()[1], pem=pem,
                    ca=certificates.ec[0])
    c = connect(other.ports[['v1', 'v2', 'tls'].index(which)], '127.0.0.7')
    if which == 'tls':
        context = client_context()
        context.load_cert_chain(*certificates.ec)
        context.set_alpn_protocols(['smtp'])
        c.start_tls(context, server_hostname='mail.example')
    port = c.sock.getsockname()[1]
    c.greeting()
    offers = c.hello()
    assert ('STARTTLS' in offers) == (which != 'tls')
    if which != 'tls':
        c.ask('STARTTLS', '220 ')
        c.start_tls()
        c.hello()
    c.ask(GOOD, '235 ')
    bye(c)
    connected = front.await_event('connect')
    assert connected['client'] == '127.0.0.7'
    assert connected['port'] == str(port)
    assert connected['proxy'] == PROXY_ADDR
    if which == 'v2':
        assert connected['id'].startswith('id-')
    tls = front.await_event('tls')
    assert tls['protocol'] == 'TLSv1.3'
    if which == 'tls':
        assert tls['from'] == 'proxy' and tls['name'] == 'mail.example'
        assert tls['verify'] == 'SUCCESS' and tls['subject'] == f'CN={NAME}'
    told = fakes.xclient_attributes(mail.await_end())
    assert told['ADDR'] == '127.0.0.7' and told['PORT'] == str(port)
    assert told['DESTPORT'] == str(
        other.ports[['v1', 'v2', 'tls'].index(which)])


@needs_haproxy
def test_early_talker_before_haproxy(behind, proxy, certificates, pem):
    front = behind(smtp_greeting_delay='1s')
    other = proxy(Haproxy, HAPROXY, front=front.address()[1], pem=pem,
                    ca=certificates.ec[0])
    for i, port in enumerate(other.ports[:2]):
        c = connect(port, '127.0.0.8')
        c.line('EHLO spam.example')
        c.expect('503 5.5.0 ')
        c.expect_end()
        assert front.await_event('early', count=i + 1)['client'] == '127.0.0.8'
        c = connect(port, '127.0.0.9')
        c.greeting()
        bye(c)


@needs_haproxy
@pytest.mark.parametrize('how', ['send-proxy', 'send-proxy-v2'])
def test_haproxy_asks_whether_we_live(behind, proxy, how):
    """It says LOCAL, and no limit is its own; or, by a line, that it is a
    client like others."""
    if how == 'send-proxy-v2':
        front = behind(max_connections_per_source=1)
        come(front, (PROXY_ADDR, 1)).greeting()
    else:
        front = behind()
    other = proxy(Haproxy, '''
listen checked
    bind 127.0.0.1:{port0}
    option smtpchk EHLO haproxy.example
    timeout check 10s
    server front 127.0.0.1:{front} {how} check inter 50ms
''', front=front.address()[1], how=how)
    front.await_event('close', cause='quit', count=3)
    assert front.events('limit') == []
    c = connect(other.ports[0], '127.0.0.7')
    c.greeting()
    bye(c)
    front.await_event('connect', client='127.0.0.7')


@needs_haproxy
def test_haproxy_over_a_unix_socket(behind, proxy, tmp_path):
    path = str(tmp_path / 'socket')
    front = behind(sockets=[listening_socket('unix', path)],
                   set_real_ip_from='unix:')
    os.chmod(path, 0o777)
    other = proxy(Haproxy, '''
listen local
    bind 127.0.0.1:{port0}
    server front {path} send-proxy-v2
''', path=path)
    c = connect(other.ports[0], '127.0.0.7')
    c.greeting()
    bye(c)
    connected = front.await_event('connect')
    assert connected['client'] == '127.0.0.7'
    assert connected['proxy'] == 'unix:'


@needs_haproxy
def test_haproxy_before_implicit_tls(behind, proxy, certificates):
    """It passes TLS on: the client's hello follows the header."""
    front = behind(socket='ssl proxy_protocol', **certificates.directives())
    other = proxy(Haproxy, '''
listen through
    bind 127.0.0.1:{port0}
    server front 127.0.0.1:{front} send-proxy-v2
''', front=front.address()[1])
    c = connect(other.ports[0], '127.0.0.7')
    c.start_tls()
    c.greeting()
    bye(c)
    assert front.await_event('tls')['client'] == '127.0.0.7'


# --- nginx -----------------------------------------------------------------

@needs_nginx
def test_nginx_stream(behind, proxy, backend):
    mail = backend()
    front = behind(backend=mail.address)
    other = proxy(Nginx, '''
stream {{
    server {{
        listen 127.0.0.1:{port0};
        proxy_pass 127.0.0.1:{front};
        proxy_protocol on;
    }}
}}
''', front=front.address()[1])
    c = connect(other.ports[0], '127.0.0.7')
    port = c.sock.getsockname()[1]
    log_in(c)
    bye(c)
    told = fakes.xclient_attributes(mail.await_end())
    assert told['ADDR'] == '127.0.0.7' and told['PORT'] == str(port)


@needs_nginx
def test_nginx_mail(behind, proxy, backend, auth_server):
    """nginx's own mail proxy before us."""
    mail = backend()
    front = behind(backend=mail.address, smtp_auth='none')
    auth = auth_server({'Auth-Status': 'OK', 'Auth-Server': '127.0.0.1',
                        'Auth-Port': str(front.address()[1])})
    other = proxy(Nginx, '''
mail {{
    server_name nginx.example;
    auth_http {auth};
    server {{
        listen 127.0.0.1:{port0};
        protocol smtp;
        smtp_auth none;
        xclient off;
        proxy_protocol on;
        proxy_pass_error_message on;
    }}
}}
''', auth=auth.url[len('http://'):], front=front.address()[1])
    c = connect(other.ports[0], '127.0.0.7')
    port = c.sock.getsockname()[1]
    c.expect('220 nginx.example ')
    c.hello()
    c.ask('MAIL FROM:<a@a.example>', '250 ')
    c.ask('RCPT TO:<b@b.example>', '250 ')
    c.ask('DATA', '354 ')
    c.ask('Subject: x\r\n\r\nx\r\n.', '250 ')
    c.ask('QUIT', '221 ')
    c.close()
    seen = mail.await_end()
    assert len(seen.messages) == 1
    told = fakes.xclient_attributes(seen)
    assert told['ADDR'] == '127.0.0.7' and told['PORT'] == str(port)
    assert front.await_event('connect')['client'] == '127.0.0.7'
