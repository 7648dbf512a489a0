"""TLS towards a mail server: what it must prove, and what becomes of sessions
whose backend cannot."""

import os
import re
import socket
import ssl
import threading

import pytest

from authority import Authority
from fakes import CLOSE, SILENCE, Backend, plain
from harness import DEADLINE, run, until

HOST = 'mail.backend.example'
GOOD = plain('alice', 'wonderland')
AWAY = r'421 4\.3\.0 '
BOTH = pytest.mark.parametrize('mode', ['on', 'starttls'])


@pytest.fixture(scope='module')
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp('authority') / 'a')


@pytest.fixture(scope='module')
def stranger(tmp_path_factory):
    """An authority that nobody trusts."""
    return Authority(tmp_path_factory.mktemp('stranger') / 'a')


@pytest.fixture(scope='module')
def good(authority):
    """A certificate for HOST and for 127.0.0.1."""
    return authority.issue('good', HOST, [f'DNS:{HOST}', 'IP:127.0.0.1'])


def context(pair, **kw):
    c = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    c.load_cert_chain(*pair)
    for name, value in kw.items():
        setattr(c, name, value)
    return c


@pytest.fixture
def secure(backend):
    """secure(mode, context) is a backend with TLS."""
    def start(mode, tls, **kw):
        return backend(tls=tls, implicit=mode == 'on', **kw)
    return start


@pytest.fixture
def login(front, authority):
    """A session that has sent AUTH; its backend is verified by HOST."""
    def start(mode, b, **kw):
        kw.setdefault('proxy_ssl_trusted_certificate', authority.certificate)
        kw.setdefault('proxy_ssl_verify', 'on')
        kw.setdefault('proxy_ssl_name', HOST)
        kw.setdefault('proxy_connect_timeout', '5s')
        s = front(proxy_ssl=mode, backend=b.address, **kw)
        s.client.greeting()
        s.client.hello()
        s.client.line('AUTH PLAIN ' + GOOD)
        return s
    return start


def leave(s):
    s.client.ask('QUIT', '221 2.0.0 backend leaves')
    s.client.expect_end()
    s.finish()


def nothing_in_clear(b):
    """What the backend was sent in the clear tells nobody anything."""
    for c in b.conversations:
        text = bytes(c.received if not c.secure else c.clear)
        assert not re.search(rb'XCLIENT|AUTH|MAIL|client\.example', text), text


def refused(s, b, reason, status=75):
    """The session is over, the backend knows nothing, the log says why."""
    s.client.expect(AWAY)
    s.client.expect_end()
    s.finish(status)
    event = s.event('upstream')
    assert event['result'] == 'failed'
    assert re.search(reason, event['reason']), event
    nothing_in_clear(b)
    for c in b.conversations:
        assert not {'XCLIENT', 'AUTH', 'MAIL'} & set(c.verbs()), c.commands


# --- how it goes well ------------------------------------------------------

def test_in_the_clear_unless_asked(front, backend, good):
    b = backend(tls=context(good))
    s = front(backend=b.address)
    s.client.greeting()
    s.client.hello()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    assert not [x for x in open(f'/proc/{s.pid}/maps') if 'libssl' in x]
    leave(s)
    assert 'STARTTLS' not in b.conversation().verbs()
    assert 'protocol' not in s.event('upstream')


@BOTH
@pytest.mark.parametrize('trusted', ['certificate', 'directory'])
def test_verified(mode, trusted, login, secure, good, authority):
    """By a file, and by a directory after the session has given up files."""
    b = secure(mode, context(good))
    s = login(mode, b,
              proxy_ssl_trusted_certificate=getattr(authority, trusted))
    s.client.expect('235 ')
    leave(s)
    c = b.conversation()
    assert c.secure and not c.clear == b'' or mode == 'on'
    nothing_in_clear(b)
    expected = ['EHLO', 'XCLIENT', 'EHLO', 'QUIT']
    if mode == 'starttls':
        expected = ['EHLO', 'STARTTLS'] + expected
    assert c.verbs() == expected
    assert 'client.example' not in c.texts('EHLO')[0] or mode == 'on'
    event = s.event('upstream')
    assert event['result'] == 'ok' and event['protocol'] == 'TLSv1.3'
    assert event['cipher'].startswith('TLS_') and event['group']
    assert event['verified'] == 'pkix' and event['resumed'] == 'no'


@BOTH
def test_both_versions_and_a_cipher(mode, login, secure, good):
    tls = context(good)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    b = secure(mode, tls)
    s = login(mode, b, proxy_ssl_ciphers='ECDHE-ECDSA-AES128-GCM-SHA256')
    s.client.expect('235 ')
    leave(s)
    event = s.event('upstream')
    assert event['protocol'] == 'TLSv1.2'
    assert event['cipher'] == 'ECDHE-ECDSA-AES128-GCM-SHA256'


@BOTH
def test_version_that_is_not_allowed(mode, login, secure, good):
    tls = context(good)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    b = secure(mode, tls)
    refused(login(mode, b, proxy_ssl_protocols='TLSv1.3'), b, 'TLS: ')


@BOTH
def test_name_is_asked_for(mode, login, secure, good):
    asked = []
    tls = context(good)
    tls.sni_callback = lambda sock, name, c: asked.append(name)
    b = secure(mode, tls)
    s = login(mode, b)
    s.client.expect('235 ')
    leave(s)
    assert asked == [HOST]


def test_backend_by_address(login, secure, good):
    """Its certificate must be for the address; an address is no name to ask
    for."""
    asked = []
    tls = context(good)
    tls.sni_callback = lambda sock, name, c: asked.append(name)
    b = secure('on', tls)
    s = login('on', b, proxy_ssl_name='')
    s.client.expect('235 ')
    leave(s)
    assert asked == [None]
    assert s.event('upstream')['verified'] == 'pkix'


def test_backend_by_name(login, secure, authority):
    b = secure('on', context(authority.issue('local', 'localhost',
                                             ['DNS:localhost'])))
    b.address = f'localhost:{b.port}'
    s = login('on', b, proxy_ssl_name=None)
    s.client.expect('235 ')
    leave(s)


@BOTH
def test_auth_and_message_go_by_tls(mode, login, secure, good):
    b = secure(mode, context(good))
    s = login(mode, b, proxy_smtp_auth='on')
    s.client.expect('235 ')
    message = b''.join(b'%07d %s\r\n' % (i, b'x' * 54) for i in range(16384))
    assert len(message) == 1 << 20
    s.client.ask('MAIL FROM:<a@a.example>', '250 ')
    s.client.ask('RCPT TO:<b@b.example>', '250 ')
    s.client.ask('DATA', '354 ')
    s.client.send(message + b'.\r\n')
    s.client.expect('250 2.0.0 queued')
    leave(s)
    c = b.conversation()
    assert c.messages == [message]
    assert c.texts('AUTH') == ['AUTH PLAIN ' + GOOD]
    nothing_in_clear(b)
    assert int(s.event('close')['bytes_up']) > len(message)


@BOTH
def test_much_comes_back(mode, login, secure, good):
    """A megabyte from the backend, which the client reads late."""
    data = b'250-' + b'y' * 1016 + b'\r\n'
    data = data * 1024 + b'250 end\r\n'

    def much(c):
        c.sock.sendall(data)
        while c.recv():
            pass
    b = secure(mode, context(good), takeover=much, takeover_at='HELP')
    s = login(mode, b)
    s.client.expect('235 ')
    s.client.line('HELP')
    assert s.client.read_bytes(len(data)) == data


@BOTH
def test_client_in_tls_too(mode, front, secure, good, authority, certificates):
    b = secure(mode, context(good))
    s = front(proxy_ssl=mode, backend=b.address, proxy_ssl_verify='on',
              proxy_ssl_name=HOST, starttls='only',
              proxy_ssl_trusted_certificate=authority.certificate,
              **certificates.directives())
    s.client.greeting()
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls()
    s.client.hello()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)
    assert s.event('tls')['result'] == 'ok'
    assert s.event('upstream')['verified'] == 'pkix'


# --- what it must prove ----------------------------------------------------

def bad(name):
    def make(authority, stranger):
        if name == 'expired':
            return authority.issue(name, HOST, [f'DNS:{HOST}'],
                                   ('20200101000000Z', '20200201000000Z'))
        if name == 'not yet':
            return authority.issue('future', HOST, [f'DNS:{HOST}'],
                                   ('20900101000000Z', '20900201000000Z'))
        if name == 'unknown':
            return stranger.issue(name, HOST, [f'DNS:{HOST}'])
        return authority.issue('other', 'other.example', ['DNS:other.example',
                                                          f'DNS:x.{HOST}'])
    return make


BAD = {'expired': 'certificate has expired',
       'not yet': 'certificate is not yet valid',
       'unknown': 'unable to get local issuer|self-signed',
       'name': 'hostname mismatch'}


@BOTH
@pytest.mark.parametrize('name', BAD)
def test_certificate_that_is_not_good(mode, name, login, secure, authority,
                                      stranger):
    b = secure(mode, context(bad(name)(authority, stranger)))
    refused(login(mode, b), b, BAD[name])
    [c] = b.conversations
    assert not c.secure or not c.received.startswith(b'XCLIENT')


@pytest.mark.parametrize('name', BAD)
def test_any_certificate_where_none_is_verified(name, login, secure, authority,
                                                stranger):
    b = secure('starttls', context(bad(name)(authority, stranger)))
    s = login('starttls', b, proxy_ssl_verify='off')
    s.client.expect('235 ')
    leave(s)
    assert s.event('upstream')['verified'] == 'off'


def test_auto_does_not_verify_loopback(login, secure, stranger):
    b = secure('starttls', context(bad('unknown')(None, stranger)))
    s = login('starttls', b, proxy_ssl_verify='auto')
    s.client.expect('235 ')
    leave(s)
    assert s.event('upstream')['verified'] == 'off'
