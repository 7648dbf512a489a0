"""TLS towards a mail server: what it must prove, and what becomes of sessions
whose backend cannot."""

import hashlib
import re
import signal
import ssl
import subprocess

import pytest

from authority import Authority
from fakes import A, CLOSE, SILENCE, TLSA, plain, swallow
from harness import run
from listener import Listener, clean_up, listening_socket

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
    return Authority(tmp_path_factory.mktemp('stranger') / 'a', 'Stranger')


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


@BOTH
def test_no_name_to_verify(mode, login, secure, good, authority):
    b = secure(mode, context(good), family='unix')
    s = login(mode, b, proxy_ssl_name='')
    refused(s, b, 'there is no name to verify')
    b = secure(mode, context(good), family='unix')
    s = login(mode, b)
    s.client.expect('235 ')
    leave(s)


def test_revoked(login, secure, authority):
    pairs = {name: authority.issue(name, HOST, [f'DNS:{HOST}'])
             for name in ('sound', 'revoked')}
    crl = authority.revoke(pairs['revoked'][0])
    b = secure('on', context(pairs['revoked']))
    refused(login('on', b, proxy_ssl_crl=crl), b, 'certificate revoked')
    b = secure('on', context(pairs['sound']))
    s = login('on', b, proxy_ssl_crl=crl)
    s.client.expect('235 ')
    leave(s)


def test_crl_of_another(login, secure, good, stranger):
    b = secure('on', context(good))
    refused(login('on', b, proxy_ssl_crl=stranger.revoke()), b,
            'unable to get certificate CRL')


@pytest.mark.parametrize('name, text, reason', [
    ('proxy_ssl_trusted_certificate', None, 'No such file'),
    ('proxy_ssl_trusted_certificate', 'x', 'no certificate in it'),
    ('proxy_ssl_crl', 'x', 'no list of revoked'),
    ('proxy_ssl_ciphers', 'NOTHING', 'no cipher')])
def test_settings_that_are_no_good(name, text, reason, login, secure, good,
                                   tmp_path):
    """Found when they are needed, and nothing is said to the backend."""
    value = text
    if not name.endswith('ciphers'):
        value = tmp_path / 'file'
        if text:
            value.write_text(text)
    b = secure('on', context(good))
    refused(login('on', b, **{name: value}), b, f'{name}.*{reason}')


def test_no_cipher_without_certificate(login, secure, good):
    """A server that needs none would be one that is verified."""
    tls = context(good)
    tls.maximum_version = ssl.TLSVersion.TLSv1_2
    tls.set_ciphers('ADH:AECDH:@SECLEVEL=0')
    b = secure('on', tls)
    refused(login('on', b, proxy_ssl_ciphers='ALL:@SECLEVEL=0'), b, 'TLS: ')


# --- backends that have no TLS ---------------------------------------------

def test_plain_backend_where_tls_comes_first(login, backend):
    b = backend(takeover=swallow, takeover_at='')
    refused(login('on', b), b, 'TLS: not TLS')
    assert b.conversation().received.startswith(b'\x16\x03')


def test_starttls_is_not_offered(login, backend):
    b = backend()
    refused(login('starttls', b), b, 'STARTTLS: the backend does not offer')
    assert b.conversation().verbs() == ['EHLO', 'QUIT']


@pytest.mark.parametrize('reply', ['454 4.7.0 not now', '502 5.5.1 what?'])
@pytest.mark.parametrize('passed', ['on', 'off'])
def test_starttls_is_refused(reply, passed, login, secure, good):
    """It refuses us, so its words are not for the client."""
    b = secure('starttls', context(good), replies={'STARTTLS': reply})
    s = login('starttls', b, proxy_pass_error_message=passed)
    s.client.expect(r'451 4\.3\.0 ')
    s.client.ask('QUIT', '221 ')
    s.client.expect_end()
    s.finish((0, 75))
    assert s.event('upstream')['reason'] == 'STARTTLS: ' + reply
    assert b.conversation().verbs() == ['EHLO', 'STARTTLS', 'QUIT']
    nothing_in_clear(b)


@pytest.mark.parametrize('behind', [b'250 sure\r\n', b'250', b'\x16\x03\x01'])
def test_bytes_behind_the_answer(behind, login, secure, good):
    """What was said in the clear must not be taken for what is said in TLS."""
    b = secure('starttls', context(good),
               replies={'STARTTLS': b'220 go\r\n' + behind})
    refused(login('starttls', b), b, 'STARTTLS: it says more')


def test_what_was_offered_in_the_clear_is_forgotten(login, secure, good):
    b = secure('starttls', context(good), replies={
        'EHLO': ['250-x\n250-STARTTLS\n250-AUTH PLAIN\n'
                 '250 XCLIENT ADDR LOGIN', '250 x']})
    s = login('starttls', b, proxy_pass_error_message='on')
    s.client.expect('235 ')
    leave(s)
    assert b.conversation().verbs() == ['EHLO', 'STARTTLS', 'EHLO', 'QUIT']


@pytest.mark.parametrize('mode, act, reason', [
    ('on', CLOSE, 'connection lost'), ('on', SILENCE, 'no handshake in time'),
    ('starttls', CLOSE, 'connection lost'),
    ('starttls', SILENCE, 'no handshake in time')])
def test_backend_that_leaves_the_handshake(mode, act, reason, login, backend):
    def act_now(c):
        if mode == 'starttls':
            c.sock.sendall(b'220 go\r\n')
        while act is SILENCE and c.recv():
            pass
        c.recv()
    b = backend(takeover=act_now, tls=True,
                takeover_at='' if mode == 'on' else 'STARTTLS',
                replies={'CONNECT': b''} if mode == 'on' else {})
    b.tls = True
    refused(login(mode, b, proxy_connect_timeout='700ms'), b, reason)


def test_backend_that_resets(login, backend):
    b = backend(replies={'CONNECT': CLOSE})
    refused(login('on', b), b, 'TLS: ')


@BOTH
def test_next_backend(mode, login, secure, backend, good, authority, stranger):
    """The first cannot be verified, the second has no TLS."""
    bs = [secure(mode, context(bad('unknown')(authority, stranger))),
          backend(takeover=swallow, takeover_at='' if mode == 'on' else None),
          secure(mode, context(good))]

    class All:
        address = [b.address for b in bs]
    s = login(mode, All)
    s.client.expect('235 ')
    leave(s)
    assert [e['result'] for e in s.events('upstream')] == \
        ['failed', 'failed', 'ok']
    for b in bs[:2]:
        nothing_in_clear(b)


# --- our own certificate ---------------------------------------------------

@pytest.fixture(scope='module')
def own(authority):
    """Certificates of this front end, by kind of key."""
    return {rsa: authority.issue('front' + kind, 'front.example',
                                 ['DNS:front.example'], rsa=rsa)
            for rsa, kind in ((False, 'ec'), (True, 'rsa'))}


def demanding(pair, authority, version):
    tls = context(pair, maximum_version=version)
    tls.load_verify_locations(authority.certificate)
    tls.verify_mode = ssl.CERT_REQUIRED
    return tls


VERSIONS = pytest.mark.parametrize(
    'version', [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3],
    ids=['1.2', '1.3'])


@VERSIONS
@pytest.mark.parametrize('rsa', [False, True], ids=['ec', 'rsa'])
@pytest.mark.parametrize('mode', ['on', 'starttls'])
def test_client_certificate(mode, rsa, version, login, secure, good, own,
                            authority):
    """The keeper signs for it; the session has no key."""
    b = secure(mode, demanding(good, authority, version))
    shown = []
    b.replies['EHLO'] = lambda c, text: shown.append(
        c.secure and c.sock.getpeercert()) or '250-x\n250 STARTTLS'
    certificate, key = own[rsa]
    s = login(mode, b, proxy_ssl_certificate=certificate,
              proxy_ssl_certificate_key=key)
    s.client.expect('235 ')
    leave(s)
    assert dict(x[0] for x in shown[-1]['subject']) == \
        {'commonName': 'front.example'}


@VERSIONS
def test_certificate_by_what_the_backend_takes(version, login, secure, good,
                                               own, authority):
    b = secure('on', demanding(good, authority, version))
    s = login('on', b, proxy_ssl_certificate=[c for c, _ in own.values()],
              proxy_ssl_certificate_key=[k for _, k in own.values()])
    s.client.expect('235 ')
    leave(s)


def test_client_certificate_that_is_not_there(login, secure, good, authority):
    b = secure('on', demanding(good, authority, ssl.TLSVersion.TLSv1_2))
    refused(login('on', b), b, 'TLS: |greeting: ')
    b = secure('on', demanding(good, authority, ssl.TLSVersion.TLSv1_3))
    # With TLS 1.3 the refusal comes behind our end of the handshake.
    refused(login('on', b), b, 'greeting: connection lost')


def test_key_of_another_certificate(login, secure, good, own, authority):
    b = secure('on', demanding(good, authority, ssl.TLSVersion.TLSv1_3))
    s = login('on', b, proxy_ssl_certificate=own[False][0],
              proxy_ssl_certificate_key=good[1])
    refused(s, b, 'proxy_ssl_certificate_key.*does not belong')


def test_key_that_everybody_reads(login, secure, good, own, authority,
                                  tmp_path):
    key = tmp_path / 'key'
    key.write_bytes(open(own[False][1], 'rb').read())
    key.chmod(0o644)
    b = secure('on', demanding(good, authority, ssl.TLSVersion.TLSv1_3))
    s = login('on', b, proxy_ssl_certificate=own[False][0],
              proxy_ssl_certificate_key=key)
    refused(s, b, 'proxy_ssl_certificate_key.*others')


# --- DANE ------------------------------------------------------------------

def public_key(certificate):
    """Its subjectPublicKeyInfo, in DER."""
    pem = subprocess.run(
        ['openssl', 'x509', '-in', certificate, '-noout', '-pubkey'],
        capture_output=True, check=True, timeout=30).stdout
    return ssl.PEM_cert_to_DER_cert(
        pem.decode().replace('PUBLIC KEY', 'CERTIFICATE'))


def whole(certificate):
    with open(certificate) as f:
        return ssl.PEM_cert_to_DER_cert(f.read())


def record(usage, certificate, selector=1, matching=1):
    data = (public_key if selector else whole)(certificate)
    if matching:
        data = hashlib.new(f'sha{256 * matching}', data).digest()
    return bytes([usage, selector, matching]) + data


@pytest.fixture
def with_dane(login, secure, name_server):
    """with_dane(mode, pair, records): a session whose backend HOST has such a
    certificate and such TLSA records, and that name server."""
    def start(mode, pair, records, dns=None, **kw):
        b = secure(mode, context(pair))
        known = {(HOST, A): ['127.0.0.1']}
        if records:
            known[(f'_{b.port}._tcp.{HOST}', TLSA)] = records
        ns = name_server(known, **(dns or {'authentic': True}))
        b.address = f'{HOST}:{b.port}'
        kw.setdefault('proxy_ssl_name', '')
        kw.setdefault('resolver', ns.address)
        return login(mode, b, **kw), b, ns
    return start


def asked_for_records(ns):
    return any(kind == TLSA for _, kind in ns.questions)


SHAPES = [(1, 1), (0, 1), (1, 2), (1, 0)]


@pytest.mark.parametrize('selector, matching', SHAPES)
def test_dane_ee(selector, matching, with_dane, stranger):
    """From nobody who is trusted, expired and for another name, but its owner
    has said in DNS that it is his."""
    pair = stranger.issue('ee', 'other.example', ['DNS:other.example'],
                          ('20200101000000Z', '20200201000000Z'))
    s, b, ns = with_dane('on', pair, [record(3, pair[0], selector, matching)])
    s.client.expect('235 ')
    leave(s)
    assert asked_for_records(ns)
    assert s.event('upstream')['verified'] == 'dane-ee'


@BOTH
def test_dane_ta(mode, with_dane, stranger, tmp_path):
    certificate, key = stranger.issue('ta', HOST, [f'DNS:{HOST}'])
    chain = tmp_path / 'chain'
    chain.write_text(''.join(open(x).read()
                             for x in (certificate, stranger.certificate)))
    records = [record(2, stranger.certificate)]
    s, b, ns = with_dane(mode, (chain, key), records)
    s.client.expect('235 ')
    leave(s)
    assert s.event('upstream')['verified'] == 'dane-ta'


def test_dane_ta_wants_the_name(with_dane, stranger, tmp_path):
    certificate, key = stranger.issue('ta2', 'x.example', ['DNS:x.example'])
    chain = tmp_path / 'chain'
    chain.write_text(''.join(open(x).read()
                             for x in (certificate, stranger.certificate)))
    s, b, _ = with_dane('on', (chain, key), [record(2, stranger.certificate)])
    refused(s, b, 'hostname mismatch')


@BOTH
@pytest.mark.parametrize('verify', ['on', 'off', 'auto'])
def test_dane_decides_against_a_good_certificate(mode, verify, with_dane, good,
                                                 stranger):
    """Even where nothing was to be verified: the record is the owner's no."""
    other = stranger.issue('record', HOST, [f'DNS:{HOST}'])
    s, b, _ = with_dane(mode, good, [record(3, other[0])],
                        proxy_ssl_verify=verify)
    refused(s, b, 'the certificate is not good')


def test_dane_one_of_several(with_dane, stranger):
    """Before and after a change of keys; records of no use are left out."""
    pair, other = (stranger.issue(x, HOST, [f'DNS:{HOST}'])
                   for x in ('now', 'before'))
    s, b, _ = with_dane('on', pair, [
        record(3, other[0]), b'\x03', b'\x03\x01\x09' + b'x' * 32,
        b'\x03\x01\x01short', record(0, other[0]), record(3, pair[0])])
    s.client.expect('235 ')
    leave(s)
    assert s.event('upstream')['verified'] == 'dane-ee'


@pytest.mark.parametrize('case', ['none', 'not validated', 'of no use', 'off'])
def test_without_dane_as_ever(case, with_dane, good, stranger):
    other = stranger.issue('unheeded', HOST, [f'DNS:{HOST}'])
    records = {'none': [], 'of no use': [record(1, other[0]),
                                         b'\x03\x01\x07' + b'x' * 32]}
    s, b, ns = with_dane(
        'on', good, records.get(case, [record(3, other[0])]),
        {'authentic': case != 'not validated'},
        proxy_ssl_dane='off' if case == 'off' else 'on')
    s.client.expect('235 ')
    leave(s)
    assert s.event('upstream')['verified'] == 'pkix'
    assert asked_for_records(ns) == (case != 'off')


@pytest.mark.parametrize('dns', [{'failing': TLSA}, {'silent': TLSA}])
def test_dane_fails_closed(dns, with_dane, good):
    """Somebody may be hiding a record."""
    s, b, _ = with_dane('on', good, [], dns, proxy_connect_timeout='1500ms')
    refused(s, b, 'TLS: no resolver on this host')


def test_no_records_without_a_resolver(login, secure, good):
    """auto: nobody is asked; and an address has no records."""
    b = secure('on', context(good))
    s = login('on', b, proxy_ssl_name='', proxy_ssl_dane='auto')
    s.client.expect('235 ')
    leave(s)


def test_resolver_elsewhere_is_not_trusted():
    done = run('--backend', 'a.example:25', '--auth-provider', 'file:/x',
               '--resolver', '127.0.0.1 192.0.2.1', '--proxy-ssl-dane', 'on',
               '--check')
    assert done.returncode == 78 and 'not authenticated' in done.err


# --- a listener, which has it all ready before it forks ---------------------

@pytest.fixture
def serve(servers, users):
    running = []

    def start(args=(), **kw):
        ls = Listener({'auth_provider': users, **kw},
                      sockets=[listening_socket()], args=args)
        running.append(ls)
        return ls
    yield start
    complaints = clean_up(running)
    if complaints:
        pytest.fail('\n'.join(complaints))


def log_in(c, reply):
    c.greeting()
    c.hello()
    c.ask('AUTH PLAIN ' + GOOD, reply)
    if reply == '235 ':
        c.ask('QUIT', '221 ')
    c.expect_end()
    c.close()


def test_listener(serve, secure, good, own, authority):
    """Sessions verify by files that they open themselves, and show a
    certificate whose key only the keeper has."""
    b = secure('starttls', demanding(good, authority, ssl.TLSVersion.TLSv1_3))
    ls = serve(backend=b.address, proxy_ssl='starttls', proxy_ssl_verify='on',
               proxy_ssl_name=HOST,
               proxy_ssl_trusted_certificate=authority.directory,
               proxy_ssl_certificate=own[False][0],
               proxy_ssl_certificate_key=own[False][1])
    for i in range(1, 4):
        log_in(ls.connect(), '235 ')
        assert ls.await_event('upstream', i)['verified'] == 'pkix'
    ls.stop()


def test_listener_reload(serve, secure, good, authority, stranger, tmp_path):
    """Whom to trust is read anew; what is no good changes nothing."""
    b = secure('on', context(good))
    trusted, config = tmp_path / 'trusted', tmp_path / 'conf'
    config.write_text(f'SMTP_PROXY_SSL_TRUSTED_CERTIFICATE={trusted}\n')

    def trust(a):
        trusted.write_bytes(open(a.certificate, 'rb').read())

    def reload(count, result):
        ls.signal(signal.SIGHUP)
        assert ls.await_event('reload', count)['result'] == result
    trust(authority)
    ls = serve(backend=b.address, proxy_ssl='on', proxy_ssl_verify='on',
               proxy_ssl_name=HOST, args=['--config', str(config)])
    log_in(ls.connect(), '235 ')
    trust(stranger)
    log_in(ls.connect(), '235 ')
    reload(1, 'ok')
    log_in(ls.connect(), AWAY)
    trusted.write_text('nothing')
    reload(2, 'failed')
    assert 'proxy_ssl_trusted_certificate' in \
        ls.await_event('tls', result='failed')['reason']
    log_in(ls.connect(), AWAY)
    # A directory that the rules of earlier sessions do not know.
    config.write_text(
        f'SMTP_PROXY_SSL_TRUSTED_CERTIFICATE={authority.directory}\n')
    reload(3, 'ok')
    log_in(ls.connect(), '235 ')
    ls.stop()


def test_listener_does_not_start_without_its_certificate(serve, own, good):
    ls = serve(backend='127.0.0.1:1', proxy_ssl='on',
               proxy_ssl_certificate=own[False][0],
               proxy_ssl_certificate_key=good[1])
    assert ls.wait() not in (0, None)
    assert 'does not belong' in ls.log.text


# --- what --check says -----------------------------------------------------

FAR, NEAR = 'mail.example:25', '127.0.0.1:25'
CLEAR, UNSEEN = 'passwords go to another host in the clear', 'taken for'


@pytest.mark.parametrize('words, warning', [
    (['--backend', FAR, '--proxy-smtp-auth', 'on'], CLEAR),
    (['--backend', FAR, '--proxy-smtp-auth', 'on', '--proxy-ssl', 'on'], None),
    (['--backend', NEAR, '--proxy-smtp-auth', 'on'], None),
    (['--backend', 'unix:/x', '--proxy-smtp-auth', 'on'], None),
    (['--backend', NEAR, '--backend', FAR, '--proxy-smtp-auth', 'on'], CLEAR),
    (['--backend', FAR, '--proxy-ssl', 'starttls', '--proxy-ssl-verify',
      'off'], UNSEEN),
    (['--backend', FAR, '--proxy-ssl', 'starttls'], None),
    (['--backend', 'localhost:25', '--backend', '[::1]:25', '--proxy-ssl',
      'on', '--proxy-ssl-verify', 'off'], None)])
def test_warnings(words, warning, users):
    said = run('--auth-provider', users, '--starttls', 'off', *words,
               '--check').out
    for text in (CLEAR, UNSEEN):
        assert (text in said) == (text == warning), said


@pytest.mark.parametrize('words, reason', [
    (['--proxy-ssl-certificate', '/x'], 'must be as many files'),
    (['--proxy-ssl-name', 'a b'], 'must be a host name'),
    (['--proxy-ssl', 'yes'], 'must be off, on or starttls'),
    (['--proxy-ssl-protocols', 'TLSv1'], 'must hold'),
    (['--proxy-ssl-dane', 'on', '--resolver', '[2001:db8::1]:53'],
     'needs a resolver on this host')])
def test_directives_that_are_no_good(words, reason):
    done = run('--backend', NEAR, '--auth-provider', 'file:/x', *words,
               '--check')
    assert done.returncode in (64, 78) and reason in done.err


@pytest.mark.parametrize('resolver', ['system', '127.0.0.1', '[::1]:53 ::1'])
def test_dane_with_a_resolver_on_this_host(resolver, users):
    done = run('--backend', NEAR, '--auth-provider', users, '--resolver',
               resolver, '--proxy-ssl-dane', 'on', '--check')
    assert done.returncode == 0, done.err
