"""The PROXY protocol towards backends: what it says, and to whom; HAProxy and a
second front end as those who read it. (Postfix has a file of its own.)"""

import pytest

import fakes
import proxies
import starters
from fakes import plain
from harness import NAME, client_context
from proxies import (
    ALPN, AUTHORITY, CLIENT, CLIENT6, CRC32C, HERE, HERE6, SSL_CIPHER,
    SSL_VERSION, UNIQUE_ID, Haproxy, HeaderBackend, ssl_tlv, v1, v2)
from test_peers import FROM, TO
from test_proxy_protocol import behind, proxy  # noqa: F401 (fixtures)

GOOD = 'AUTH PLAIN ' + plain('alice', 'wonderland')


@pytest.fixture
def reader(servers, tmp_path):
    """reader(...) is a HeaderBackend."""
    def start(family='inet', **kw):
        path = str(tmp_path / f'reader{len(servers)}')
        servers.append(HeaderBackend(
            family, path if family == 'unix' else None, **kw))
        return servers[-1]
    return start


def log_in(c, pattern='235 '):
    c.greeting()
    c.hello()
    c.ask(GOOD, pattern)


def header_of(s, reader):
    """What the backend is told when the session `s` logs in."""
    log_in(s.client)
    s.client.ask('QUIT', '221 ')
    s.client.expect_end()
    s.finish()
    return reader.await_end().header


def ends(s):
    return s.client.sock.getsockname()[:2], s.client.sock.getpeername()[:2]


# --- whose session it is ---------------------------------------------------

@pytest.mark.parametrize('how', ['on', 'v2'])
@pytest.mark.parametrize('family', ['inet', 'inet6', 'mapped'])
@pytest.mark.parametrize('to', ['inet', 'unix'])
def test_addresses(front, reader, how, family, to):
    b = reader(to)
    s = front(backend=b.address, proxy_protocol=how, family=family)
    client, here = ends(s)
    header = header_of(s, b)
    assert header['version'] == (1 if how == 'on' else 2)
    assert header['client'] == client and header['here'] == here
    if how == 'on':
        assert header['family'] == ('TCP6' if family == 'inet6' else 'TCP4')
    else:
        assert header['command'] == proxies.PROXY
        assert header['family'] == (0x21 if family == 'inet6' else 0x11)
        # parse() has verified the sum.
        assert set(header['tlv']) == {CRC32C, UNIQUE_ID}
        assert header['tlv'][UNIQUE_ID].decode() == \
            s.event('connect')['session']
    assert fakes.xclient_attributes(b.conversation())['ADDR'] == client[0] \
        or family == 'inet6'


@pytest.mark.parametrize('how', ['on', 'v2'])
@pytest.mark.parametrize('way, family', [('pipes', 'inet'), ('fd0', 'unix')])
def test_nobody_known(front, reader, how, way, family):
    b = reader()
    s = front(backend=b.address, proxy_protocol=how, way=way, family=family)
    header = header_of(s, b)
    if how == 'on':
        assert header == {'version': 1, 'family': 'UNKNOWN'}
    else:
        assert header == {'version': 2, 'command': proxies.LOCAL, 'family': 0,
                          'tlv': {}}


@pytest.mark.parametrize('how', ['on', 'v2'])
@pytest.mark.parametrize('client, here', [(CLIENT, HERE), (CLIENT6, HERE6)])
def test_client_behind_a_proxy(front, reader, how, client, here):
    """In and out: what has come goes on."""
    b = reader()
    s = front(backend=b.address, proxy_protocol=how, early=v1(client, here),
              socket='proxy_protocol', set_real_ip_from='127.0.0.1')
    header = header_of(s, b)
    assert header['client'] == client and header['here'] == here


def test_claims_do_not_go_on(front, reader):
    b = reader()
    s = front(backend=b.address, proxy_protocol='v2', early=v2(
        tlvs=ssl_tlv()), socket='proxy_protocol')
    client, here = ends(s)
    header = header_of(s, b)
    assert header['client'] == client and header['here'] == here
    assert 'ssl' not in header


def test_backend_of_a_verdict(front, reader, auth_server):
    b = reader()
    auth = auth_server(fakes.ok(b))
    s = front(auth_http=auth.url, proxy_protocol='on')
    client, here = ends(s)
    header = header_of(s, b)
    assert header['client'] == client and header['here'] == here


def test_with_no_authentication(front, reader):
    b = reader()
    s = front(backend=b.address, smtp_auth='none', proxy_protocol='v2')
    client, _ = ends(s)
    s.client.greeting()
    s.client.hello()
    s.client.ask(f'MAIL FROM:<{FROM}>', '250 ')
    s.client.ask(f'RCPT TO:<{TO}>', '250 ')
    s.client.ask('QUIT', '221 ')
    assert b.await_end().header['client'] == client


def test_relay_program_gets_none(front, tmp_path):
    from test_relay import RECORD
    s = front(relay=[RECORD, str(tmp_path / 'record')], proxy_protocol='v2')
    log_in(s.client)
    s.client.ask('QUIT', '221 2.0.0 relay leaves')
    s.client.expect_end()
    s.finish()


# --- TLS -------------------------------------------------------------------

def test_tls_of_the_client(front, reader, certificates):
    b = reader()
    s = front(backend=b.address, proxy_protocol='v2', starttls='only',
              **certificates.directives())
    c = s.client
    c.greeting()
    c.hello()
    c.ask('STARTTLS', '220 ')
    context = client_context()
    context.set_alpn_protocols(['smtp'])
    c.start_tls(context, server_hostname=NAME)
    c.hello()
    c.ask(GOOD, '235 ')
    c.ask('QUIT', '221 ')
    c.expect_end()
    header = b.await_end().header
    assert header['tlv'][ALPN] == b'smtp'
    assert header['tlv'][AUTHORITY] == NAME.encode()
    flags, verify, tls = header['ssl']
    # No certificate, so none that is good.
    assert flags == 1 and verify != 0
    assert tls == {SSL_VERSION: b'TLSv1.3', SSL_CIPHER: c.tls.cipher()[0]
                   .encode()}


@pytest.mark.parametrize('trusts', [True, False])
def test_certificate_of_the_client(front, reader, certificates, trusts):
    b = reader()
    s = front(backend=b.address, proxy_protocol='v2', socket='ssl',
              ssl_verify_client='optional_no_ca',
              ssl_client_certificate=certificates.ec[0] if trusts
              else certificates.rsa[0], **certificates.directives())
    context = client_context()
    context.load_cert_chain(*certificates.ec)
    s.client.start_tls(context)
    header = header_of(s, b)
    flags, verify, tls = header['ssl']
    assert flags == 7 and (verify == 0) == trusts
    assert tls[proxies.SSL_CN] == NAME.encode()
    assert ALPN not in header['tlv'] and AUTHORITY not in header['tlv']


def test_tls_with_a_proxy_goes_on(front, reader):
    b = reader()
    s = front(backend=b.address, proxy_protocol='v2', socket='proxy_protocol',
              set_real_ip_from='127.0.0.1',
              early=v2(tlvs=ssl_tlv(7, 0, name=b'alice') +
                       proxies.tlv(AUTHORITY, b'mail.example') +
                       proxies.tlv(ALPN, b'smtp')))
    header = header_of(s, b)
    assert header['ssl'] == (7, 0, {
        SSL_VERSION: b'TLSv1.3', SSL_CIPHER: b'TLS_AES_256_GCM_SHA384',
        proxies.SSL_CN: b'alice'})
    assert header['tlv'][AUTHORITY] == b'mail.example'
    assert header['tlv'][ALPN] == b'smtp'


# --- those who do not expect it --------------------------------------------

@pytest.mark.parametrize('how', ['on', 'v2'])
@pytest.mark.parametrize('words', [
    '502 5.5.2 Error: command not recognized', '500 unrecognized command',
    '503 5.5.1 send hello first'])
def test_backend_that_does_not_expect_it(front, backend, how, words):
    """It has greeted already, and takes the header for commands; what it says
    to that is no answer to EHLO. No bare LF may stop the fake."""
    def take(c):
        while c.recv():
            while b'\n' in c.buffer:
                line, c.buffer = c.buffer.split(b'\n', 1)
                c.send('250 hello\n' if line.startswith(b'EHLO')
                       else words + '\n')
    b = backend(takeover=take, takeover_at='')
    s = front(backend=b.address, proxy_protocol=how)
    log_in(s.client, '421 4.3.0 ')
    s.client.expect_end()
    s.finish(75)
    failed = s.event('upstream')
    assert failed['result'] == 'failed'
    assert 'PROXY header' in failed['reason'] or \
        'more than it was asked' in failed['reason']


def test_next_backend_is_asked(front, backend, reader):
    b, good = backend(), reader()
    s = front(backend=[b.address, good.address], proxy_protocol='on')
    log_in(s.client)
    s.client.ask('QUIT', '221 ')
    s.client.expect_end()
    s.finish()
    assert [e['result'] for e in s.events('upstream')] == ['failed', 'ok']


def test_refusal_of_the_client_stays_one(front, reader):
    """A backend that has read the header, and wants none of that client."""
    b = reader(replies={'CONNECT': '554 5.7.1 not from there'})
    s = front(backend=b.address, proxy_protocol='v2',
              proxy_pass_error_message='on')
    log_in(s.client, '554 5.7.1 not from there')
    s.client.ask('QUIT', '221 ')


def test_backend_that_waits_for_ever(front, backend):
    b = backend(replies={'CONNECT': fakes.SILENCE})
    s = front(backend=b.address, proxy_protocol='on',
              proxy_connect_timeout='300ms')
    log_in(s.client, '421 4.3.0 ')
    assert b.conversation().received.startswith(b'PROXY TCP4 ')


# --- HAProxy and ourselves -------------------------------------------------

needs_haproxy = pytest.mark.skipif(not starters.has('haproxy'),
                                   reason='no haproxy')


@needs_haproxy
@pytest.mark.parametrize('how', ['on', 'v2'])
@pytest.mark.parametrize('ssl', [False, True])
def test_haproxy(behind, reader, proxy, certificates,  # noqa: F811
                 tmp_path, how, ssl):
    """It takes our header, in the clear before TLS, and makes its own of what
    that says."""
    b = reader()
    pem = tmp_path / 'both.pem'
    pem.write_text(''.join(open(x).read() for x in certificates.ec))
    other = proxy(Haproxy, '''
listen in
    bind 127.0.0.1:{port0} accept-proxy {ssl}
    server sink {sink} send-proxy-v2
''', ssl=f'ssl crt {pem}' if ssl else '', sink=b.address)
    front = behind(backend=f'127.0.0.1:{other.ports[0]}', proxy_protocol=how,
                   socket='', proxy_ssl='on' if ssl else 'off',
                   proxy_ssl_verify='off')
    c = front.connect(source='127.0.0.7')
    port = c.sock.getsockname()[1]
    log_in(c)
    c.ask('QUIT', '221 ')
    c.expect_end()
    c.close()
    header = b.await_end().header
    assert header['client'] == ('127.0.0.7', port)
    assert header['here'] == front.address()


@pytest.mark.parametrize('how', ['on', 'v2'])
def test_ourselves(front, behind, backend, certificates, how):  # noqa: F811
    """A front end behind a front end, which is told of TLS with the client."""
    mail = backend()
    second = behind(backend=mail.address, smtp_auth='none', starttls='only',
                    **certificates.directives())
    s = front(backend=f'127.0.0.1:{second.address()[1]}', proxy_protocol=how,
              starttls='only', source='127.0.0.7',
              proxy_ssl='starttls' if how == 'on' else 'off',
              proxy_ssl_verify='off', **certificates.directives())
    c = s.client
    c.greeting()
    c.hello()
    c.ask('STARTTLS', '220 ')
    c.start_tls(server_hostname=NAME)
    c.hello()
    c.ask(GOOD, '235 ')
    c.ask(f'MAIL FROM:<{FROM}>', '250 ')
    c.ask(f'RCPT TO:<{TO}>', '250 ')
    c.ask('QUIT', '221 ')
    c.expect_end()
    told = fakes.xclient_attributes(mail.await_end())
    assert told['ADDR'] == '127.0.0.7' and told['PORT'] == str(s.port)
    connected = second.await_event('connect')
    assert connected['client'] == '127.0.0.7'
    if how == 'v2':
        assert connected['id'] == s.await_event('connect')['session']
        tls = second.await_event('tls')
        assert tls['from'] == 'proxy' and tls['name'] == NAME
