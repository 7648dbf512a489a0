"""Certificates of clients: which are asked for, which are refused and how, who
is told of them, and EXTERNAL."""

import hashlib
import shutil
import smtplib
import socket
import ssl
import subprocess
import time
import urllib.parse

import pytest

import fakes
import listener as workshop
import pki as workbench
import starters
from fakes import b64, ok, plain
from harness import (
    DEADLINE, NAME, RELAYS, client_context, environment, run, until)
from listener import Listener, listening_socket

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
PAST = ('20200101000000Z', '20210101000000Z')
FUTURE = ('20980101000000Z', '20990101000000Z')
NO_CERTIFICATE = '421 4.7.1 No required SSL certificate'
BAD_CERTIFICATE = '421 4.7.1 SSL certificate error'
UPN = f'otherName:{workbench.UPN};UTF8:'


@pytest.fixture(scope='module')
def pki(tmp_path_factory):
    """The certificates that the tests are about."""
    p = workbench.Pki(tmp_path_factory.mktemp('pki'))
    p.client('alice', '/O=Example, Inc./CN=alice',
             san=f'email:alice@example.com,{UPN}alice@AD.EXAMPLE')
    p.client('carol')
    p.client('deep', by='middle')
    p.bundle('deep.pem', 'deep.pem', 'middle.pem')
    p.client('expired', dates=PAST)
    p.client('early', dates=FUTURE)
    p.client('stranger', by='other')
    p.client('server', usage='serverAuth')
    p.client('old stranger', by='other', dates=PAST)
    p.client('revoked')
    p.revoke('revoked')
    p.client('forsaken', by='middle')
    p.bundle('forsaken.pem', 'forsaken.pem', 'middle.pem')
    p.revoke('forsaken', by='middle')
    p.self_signed('loner')
    p.lists('lists.pem', 'root', 'middle')
    p.lists('half.pem', 'root')
    return p


@pytest.fixture(scope='module')
def directives(pki):
    """directives(mode, ...): they ask for certificates of the root's."""
    def make(mode, **kw):
        found = {'ssl_verify_client': mode,
                 'ssl_client_certificate': pki.path('root.pem')}
        found.update(kw)
        return {k: v for k, v in found.items() if v is not None}
    return make


def context(pki=None, name=None, version=None):
    c = client_context()
    if name is not None:
        c.load_cert_chain(*pki.pair(name))
    if version is not None:
        c.minimum_version = c.maximum_version = version
    return c


@pytest.fixture(params=['starttls', 'implicit'])
def connect(request, front, certificates, directives, pki):
    """connect(name, mode, ...): a session whose client has that certificate,
    just behind its handshake."""
    def start(name=None, mode='on', version=None, **kw):
        way = {'starttls': 'only'} if request.param == 'starttls' \
            else {'socket': 'ssl'}
        own = {k: kw.pop(k) for k in list(kw) if k.startswith('ssl_')}
        s = front(**way, **certificates.directives(),
                  **directives(mode, **own), **kw)
        if request.param == 'starttls':
            s.client.greeting()
            s.client.ask('STARTTLS', '220 2.0.0 ')
        s.client.start_tls(context(pki, name, version))
        return s
    start.implicit = request.param == 'implicit'
    return start


@pytest.fixture
def meet(front, certificates, directives, pki):
    """meet(name, mode, ...): a session past its EHLO behind STARTTLS."""
    def start(name=None, mode='on', **kw):
        own = {k: kw.pop(k) for k in list(kw) if k.startswith('ssl_')}
        s = front(starttls='only', **certificates.directives(),
                  **directives(mode, **own), **kw)
        s.client.greeting()
        s.client.ask('STARTTLS', '220 2.0.0 ')
        s.client.start_tls(context(pki, name))
        s.hello = s.client.hello()
        return s
    return start


def turned_away(s, words, verify):
    s.client.expect(words + r'$')
    s.client.expect_end()
    assert s.finish()['cause'] == 'certificate'
    seen = s.event('tls')
    assert (seen['result'], seen['verify']) == ('refused', verify)
    return seen


def served(s, implicit, verify):
    if implicit:
        s.client.greeting()
    s.client.hello()
    s.quit()
    seen = s.event('tls')
    assert (seen['result'], seen.get('verify')) == ('ok', verify)
    return seen


# --- who is served, and who is not -----------------------------------------

@pytest.mark.parametrize('version', [V12, V13])
@pytest.mark.parametrize('mode', ['on', 'optional', 'optional_no_ca'])
def test_a_good_certificate(connect, mode, version):
    s = connect('alice', mode, version=version)
    seen = served(s, connect.implicit, 'SUCCESS')
    assert seen['subject'] == r'CN=alice,O=Example\, Inc.'


@pytest.mark.parametrize('version', [V12, V13])
def test_no_certificate_where_one_is_required(connect, version):
    s = connect(None, 'on', version=version)
    assert 'subject' not in turned_away(s, NO_CERTIFICATE, 'NONE')


@pytest.mark.parametrize('mode', ['optional', 'optional_no_ca'])
def test_no_certificate_where_none_is_required(connect, mode):
    served(connect(None, mode), connect.implicit, 'NONE')


def test_a_client_that_is_not_asked_does_not_show_one(connect):
    s = connect('stranger', 'off')
    assert 'subject' not in served(s, connect.implicit, None)


BAD = [
    ('stranger', 'unable to verify the first certificate', True),
    ('loner', 'self-signed certificate', True),
    ('expired', 'certificate has expired', False),
    ('early', 'certificate is not yet valid', False),
    ('server', 'unsuitable certificate purpose', False),
    # Expired and of an unknown CA: the latter alone would be passed over.
    ('old stranger', 'certificate has expired', False),
]


@pytest.mark.parametrize('mode', ['on', 'optional'])
@pytest.mark.parametrize('name, why', [x[:2] for x in BAD],
                         ids=[x[0] for x in BAD])
def test_a_bad_certificate(connect, name, why, mode):
    s = connect(name, mode)
    seen = turned_away(s, BAD_CERTIFICATE, seen_as(name, why))
    assert seen['subject'] == 'CN=' + name


def seen_as(name, why):
    if name == 'stranger':
        why = 'unable to get local issuer certificate'
    return 'FAILED:' + why


@pytest.mark.parametrize('name, why, tolerated', BAD, ids=[x[0] for x in BAD])
def test_optional_no_ca(connect, name, why, tolerated):
    s = connect(name, 'optional_no_ca')
    if tolerated:
        served(s, connect.implicit, seen_as(name, why))
    else:
        turned_away(s, BAD_CERTIFICATE, 'FAILED:' + why)


def test_optional_no_ca_without_a_ca(connect):
    s = connect('alice', 'optional_no_ca', ssl_client_certificate=None)
    served(s, connect.implicit,
           'FAILED:unable to get local issuer certificate')


@pytest.mark.parametrize('depth, good', [(None, True), ('1', True),
                                         ('0', False)])
def test_ssl_verify_depth(connect, depth, good):
    s = connect('deep', **({'ssl_verify_depth': depth} if depth else {}))
    if good:
        served(s, connect.implicit, 'SUCCESS')
    else:
        turned_away(s, BAD_CERTIFICATE, 'FAILED:certificate chain too long')


@pytest.mark.parametrize('name, lists, why', [
    ('alice', 'half.pem', None),
    ('revoked', 'half.pem', 'certificate revoked'),
    ('deep', 'lists.pem', None),
    ('forsaken', 'lists.pem', 'certificate revoked'),
    # nginx, too: all that signed must say what they have revoked
    ('deep', 'half.pem', 'unable to get certificate CRL')])
def test_ssl_crl(connect, pki, name, lists, why):
    s = connect(name, ssl_crl=pki.path(lists))
    if why is None:
        served(s, connect.implicit, 'SUCCESS')
    else:
        turned_away(s, BAD_CERTIFICATE, 'FAILED:' + why)


def test_a_revoked_certificate_without_a_list(connect):
    served(connect('revoked'), connect.implicit, 'SUCCESS')


def test_optional_no_ca_does_not_hide_a_revocation(connect, pki):
    """OpenSSL reports the last of a chain's errors: here that would be that
    the middle's own issuer is not known, which is passed over."""
    s = connect('forsaken', 'optional_no_ca',
                ssl_client_certificate=pki.path('other.pem'),
                ssl_trusted_certificate=None,
                ssl_crl=pki.path('lists.pem'))
    s.client.expect(BAD_CERTIFICATE)
    s.client.expect_end()
    s.finish()


def test_an_old_revocation_list_is_none(connect, pki):
    lists = pki.lists('old.pem', 'root', days=0)
    end = pki.openssl('crl', '-in', 'root.crl', '-noout', '-nextupdate')
    until(lambda: ssl.cert_time_to_seconds(end.strip().split('=')[1]) <
          time.time(), 'the end of a list that is good for 1 s')
    s = connect('alice', ssl_crl=lists)
    turned_away(s, BAD_CERTIFICATE, 'FAILED:CRL has expired')


# --- which authorities are named -------------------------------------------

def named(session):
    """The authorities that s_client is told."""
    out = session['out']
    if 'Acceptable client certificate CA names' not in out:
        return []
    text = out.split('Acceptable client certificate CA names\n')[1]
    return [x for x in text.split('\n') if x.startswith('CN = ')]


@pytest.fixture
def s_client(front, certificates):
    """s_client(*args, ...) -> what openssl's client and the program said."""
    def start(*args, **kw):
        return peer(front, ['openssl', 's_client', '-crlf', '-ign_eof', *args, '-connect',
                            '127.0.0.1:{port}'], **kw,
                    **certificates.directives())
    return start


def peer(front, words, **kw):
    """A client that connects to {port} and is served once."""
    listener = socket.create_server(('127.0.0.1', 0))
    listener.settimeout(DEADLINE)
    port = str(listener.getsockname()[1])
    client = subprocess.Popen(
        [w.replace('{port}', port) for w in words], stdin=subprocess.PIPE,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env=environment({'HOME': '/nonexistent'}))
    try:
        server, _ = listener.accept()
        server.setblocking(True)
        s = front(server_sock=server, **kw)
        out, _ = client.communicate(b'EHLO me\nQUIT\n', DEADLINE)
        s.finish()
        return {'out': out.decode().replace('\r', ''), 'session': s,
                'status': client.returncode}
    finally:
        listener.close()
        if client.poll() is None:
            client.kill()
            client.wait()


def test_names_of_ssl_client_certificate_alone_are_told(s_client, pki):
    seen = s_client('-cert', pki.pair('stranger')[0], '-key',
                    pki.pair('stranger')[1], socket='ssl',
                    ssl_verify_client='on',
                    ssl_client_certificate=pki.path('root.pem'),
                    ssl_trusted_certificate=pki.path('other.pem'))
    assert named(seen) == ['CN = root']
    assert seen['session'].event('tls')['verify'] == 'SUCCESS'


# --- where the files are read ----------------------------------------------

@pytest.mark.parametrize('starttls', ['on', 'only'])
def test_files_are_read_in_a_session_that_has_given_up_its_own(
        front, certificates, directives, pki, starttls):
    """With `on` TLS begins after the session has shut itself in."""
    s = front(starttls=starttls, **certificates.directives(),
              **directives('on', ssl_crl=pki.path('half.pem'),
                           ssl_trusted_certificate=pki.path('other.pem')))
    s.client.greeting()
    s.client.ask('STARTTLS', '220 2.0.0 ')
    s.client.start_tls(context(pki, 'alice'))
    s.client.hello()
    s.quit()
    assert s.event('tls')['verify'] == 'SUCCESS'


@pytest.mark.parametrize('directive, text, why', [
    ('ssl_client_certificate', None, 'cannot be opened'),
    ('ssl_trusted_certificate', None, 'cannot be opened'),
    ('ssl_crl', None, 'cannot be opened'),
    ('ssl_client_certificate', '', 'there is no certificate in it'),
    ('ssl_crl', '', 'there is no revocation list in it'),
    ('ssl_client_certificate', 'lists.pem', 'there is no certificate in it'),
    ('ssl_crl', 'root.pem', 'there is no revocation list in it'),
    ('ssl_client_certificate', '-----BEGIN CERTIFICATE-----\nMII=\n'
     '-----END CERTIFICATE-----\n', 'is not PEM')])
def test_no_tls_with_a_file_that_is_no_good(
        talk, certificates, directives, pki, tmp_path, directive, text, why):
    path = tmp_path / 'file'
    if text is not None:
        path.write_text(pki.read(text) if text.endswith('.pem') else text)
    s = talk(starttls='on', **certificates.directives(),
             **directives('on', **{directive: str(path)}))
    s.client.ask('STARTTLS', '454 4.7.0 ')
    s.client.ask('NOOP', '250 ')
    s.quit()
    assert s.event('tls')['reason'] == f'{directive} {path}: {why}'


def test_a_key_with_a_passphrase_in_the_file_is_not_asked_about(
        talk, certificates, directives, pki, tmp_path):
    path = tmp_path / 'file'
    with open(certificates.locked[1]) as f:
        path.write_text(f.read() + pki.read('root.pem'))
    s = talk(starttls='on', **certificates.directives(),
             **directives('on', ssl_client_certificate=str(path)))
    s.client.ask('STARTTLS', '220 2.0.0 ')
    s.client.start_tls(context(pki, 'alice'))
    s.client.hello()
    s.quit()


@pytest.fixture
def serve(users):
    """serve(...) is a Listener on one socket."""
    running = []

    def start(**kw):
        kw = {'auth_provider': users, 'backend': fakes.dead_address(), **kw}
        s = Listener(kw, sockets=[listening_socket()])
        running.append(s)
        return s
    yield start
    complaints = workshop.clean_up(running)
    if complaints:
        pytest.fail('\n'.join(complaints))


def test_a_listener_reads_them_once_and_again_at_a_reload(
        serve, certificates, directives, pki, tmp_path):
    lists = tmp_path / 'lists'
    pki.client('ed')
    lists.write_text(pki.read('half.pem'))
    s = serve(starttls='only', **certificates.directives(),
              **directives('on', ssl_crl=str(lists)))

    def comes(name):
        c = s.session()
        c.ask('STARTTLS', '220 ')
        c.start_tls(context(pki, name))
        c.line('EHLO me')
        lines = c.reply()
        if lines[0].startswith('250'):
            c.ask('QUIT', '221 ')
        c.expect_end()
        c.close()
        return lines[0]

    assert comes('ed').startswith('250')
    pki.revoke('ed')
    lists.write_text(pki.read(pki.lists('new.pem', 'root').split('/')[-1]))
    assert comes('ed').startswith('250')
    s.proc.send_signal(workshop.signal.SIGHUP)
    s.await_event('reload', result='ok')
    assert comes('ed') == BAD_CERTIFICATE
    assert comes('alice').startswith('250')
    # A list that is no good leaves the old one in force.
    lists.write_text('')
    s.proc.send_signal(workshop.signal.SIGHUP)
    s.await_event('reload', result='failed')
    assert comes('ed') == BAD_CERTIFICATE


# --- sessions that are resumed ---------------------------------------------

@pytest.fixture
def returns(s_client, directives, pki, tmp_path):
    """returns(name, mode, ...): s_client comes with that certificate, or with
    the session that it was given before and `shows` no certificate again."""
    key = tmp_path / 'ticket.key'
    key.write_bytes(bytes(range(80)))
    key.chmod(0o600)
    kept = str(tmp_path / 'session')

    def start(name, mode, version, shows=True, again=False, **kw):
        own = {k: kw.pop(k) for k in list(kw) if k.startswith('ssl_')}
        words = ['-cert', pki.pair(name)[0], '-key', pki.pair(name)[1]] \
            if name and shows else []
        words += ['-sess_in' if again else '-sess_out', kept, version]
        seen = s_client(*words, socket='ssl', smtp_auth='plain external',
                        ssl_session_ticket_key=str(key),
                        **directives(mode, **own), **kw)
        assert ('\nReused, ' in seen['out']) or ('\nNew, ' in seen['out'])
        seen['resumed'] = '\nReused, ' in seen['out']
        return seen
    return start


VERSIONS = ['-tls1_2', '-tls1_3']


@pytest.mark.parametrize('version', VERSIONS)
def test_a_resumed_session_has_its_certificate(returns, version, pki):
    assert not returns('alice', 'on', version)['resumed']
    seen = returns('alice', 'on', version, again=True, shows=False)
    assert seen['resumed']
    assert '250 AUTH PLAIN EXTERNAL' in seen['out'].split('\n')
    event = seen['session'].event('tls')
    assert (event['verify'], event['subject']) == (
        'SUCCESS', r'CN=alice,O=Example\, Inc.')


@pytest.mark.parametrize('version', VERSIONS)
def test_a_resumed_session_without_a_certificate_has_none(returns, version):
    returns(None, 'optional', version)
    seen = returns(None, 'optional', version, again=True)
    assert seen['resumed']
    assert seen['session'].event('tls')['verify'] == 'NONE'


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('name, before', [
    (None, 'off'), (None, 'optional'), ('loner', 'optional_no_ca'),
    ('alice', 'optional')])
def test_a_session_of_another_mode_is_not_resumed(returns, version, name,
                                                  before):
    returns(name, before, version)
    seen = returns(name, 'on', version, again=True, shows=False)
    assert not seen['resumed']
    assert NO_CERTIFICATE in seen['out'].split('\n')


@pytest.mark.parametrize('version', VERSIONS)
def test_a_session_is_not_resumed_past_a_revocation(returns, pki, version,
                                                    tmp_path):
    name = 'fickle' + version
    pki.client(name)
    lists = tmp_path / 'lists'
    lists.write_text(pki.read('half.pem'))
    returns(name, 'on', version, ssl_crl=str(lists))
    pki.revoke(name)
    lists.write_text(pki.read(pki.lists(name + '.crls', 'root')
                              .split('/')[-1]))
    seen = returns(name, 'on', version, again=True, ssl_crl=str(lists))
    assert not seen['resumed']
    assert BAD_CERTIFICATE in seen['out'].split('\n')


@pytest.mark.parametrize('version', VERSIONS)
def test_a_session_is_not_resumed_with_another_ca(returns, pki, version):
    returns('alice', 'on', version)
    seen = returns('alice', 'on', version, again=True,
                   ssl_client_certificate=pki.path('other.pem'))
    assert not seen['resumed']
    assert BAD_CERTIFICATE in seen['out'].split('\n')


def test_a_certificate_expires_while_its_session_sleeps(returns, pki):
    end = int(time.time()) + 5
    pki.client('brief', dates=(PAST[0], time.strftime(
        '%Y%m%d%H%M%SZ', time.gmtime(end))))
    returns('brief', 'on', '-tls1_3')
    until(lambda: time.time() > end + 1, 'the end of a certificate')
    seen = returns('brief', 'on', '-tls1_3', again=True, shows=False)
    assert seen['resumed']
    assert BAD_CERTIFICATE in seen['out'].split('\n')
    assert seen['session'].event('tls')['verify'] == \
        'FAILED:certificate has expired'


# --- who is told -----------------------------------------------------------

def asked_with(meet, auth_server, name, mode, **kw):
    """The auth server's request for a PLAIN login of such a client."""
    a = auth_server({'Auth-Status': 'no'})
    s = meet(name, mode, auth_provider=a.url, **kw)
    s.client.ask('AUTH PLAIN ' + plain('alice', 'x'), '535 ')
    s.quit()
    [request] = a.requests
    return request, s


def headers(request):
    return [k for k, _ in request.headers if k.startswith('Auth-SSL')]


def test_headers_of_a_verified_certificate(meet, auth_server, pki):
    request, s = asked_with(meet, auth_server, 'alice', 'on')
    assert headers(request) == [
        'Auth-SSL', 'Auth-SSL-Protocol', 'Auth-SSL-Cipher', 'Auth-SSL-Verify',
        'Auth-SSL-Subject', 'Auth-SSL-Issuer', 'Auth-SSL-Serial',
        'Auth-SSL-Fingerprint']
    with open(pki.pair('alice')[0]) as f:
        der = ssl.PEM_cert_to_DER_cert(f.read())
    assert request.get('Auth-SSL') == 'on'
    assert request.get('Auth-SSL-Protocol') == s.client.tls.version()
    assert request.get('Auth-SSL-Cipher') == s.client.tls.cipher()[0]
    assert request.get('Auth-SSL-Verify') == 'SUCCESS'
    assert request.get('Auth-SSL-Subject') == \
        pki.field('alice', '-subject', '-nameopt', 'RFC2253')
    assert request.get('Auth-SSL-Issuer') == 'CN=root'
    assert request.get('Auth-SSL-Serial') == pki.field('alice', '-serial')
    assert request.get('Auth-SSL-Fingerprint') == hashlib.sha1(der).hexdigest()


def test_auth_http_pass_client_cert(meet, auth_server, pki):
    request, _ = asked_with(meet, auth_server, 'alice', 'on',
                            auth_http_pass_client_cert='on')
    sent = request.get('Auth-SSL-Cert')
    # As nginx escapes it: 0x00-0x20 and %, and nothing else of base64.
    assert '%0A' in sent and '+' in sent + '+' and '%2B' not in sent
    assert urllib.parse.unquote(sent) == pki.read('alice.pem')


def test_headers_without_a_certificate(meet, auth_server):
    request, _ = asked_with(meet, auth_server, None, 'optional',
                            auth_http_pass_client_cert='on')
    assert headers(request)[3:] == ['Auth-SSL-Verify']
    assert request.get('Auth-SSL-Verify') == 'NONE'


def test_headers_where_none_was_asked_for(meet, auth_server):
    request, _ = asked_with(meet, auth_server, 'alice', 'off')
    assert headers(request) == [
        'Auth-SSL', 'Auth-SSL-Protocol', 'Auth-SSL-Cipher']


def test_headers_of_an_unknown_ca(meet, auth_server):
    request, _ = asked_with(meet, auth_server, 'loner', 'optional_no_ca')
    assert request.get('Auth-SSL-Verify') == 'FAILED:self-signed certificate'
    assert request.get('Auth-SSL-Subject') == 'CN=loner'


def test_a_subject_that_would_write_headers(meet, auth_server, pki):
    pki.client('writer', '/CN=x\nAuth-SSL-Verify: SUCCESS', by='other')
    request, s = asked_with(meet, auth_server, 'writer', 'optional_no_ca')
    assert request.get('Auth-SSL-Verify').startswith('FAILED:')
    assert request.get('Auth-SSL-Subject') == \
        r'CN=x\0AAuth-SSL-Verify: SUCCESS'
    assert s.event('tls')['subject'] == r'CN=x\0AAuth-SSL-Verify: SUCCESS'


def test_a_subject_too_long_to_be_told_is_left_out(meet, auth_server, pki):
    pki.client('long', '/O=' + 'o' * 64 + ('/CN=' + 'é' * 32) * 8)
    request, _ = asked_with(meet, auth_server, 'long', 'on')
    assert headers(request)[3:] == [
        'Auth-SSL-Verify', 'Auth-SSL-Issuer', 'Auth-SSL-Serial',
        'Auth-SSL-Fingerprint']


def test_environment_of_a_relay(meet, pki, tmp_path):
    import json
    out = str(tmp_path / 'record')
    s = meet('alice', relay=[RELAYS + '/record', out],
             env={'SSL_CLIENT_VERIFY': 'SUCCESS', 'SSL_CLIENT_S_DN': 'CN=eve'})
    s.client.ask('AUTH PLAIN ' + plain('alice', 'wonderland'), '235 ')
    s.client.ask('QUIT', '221 ')
    s.client.expect_end()
    s.finish()
    with open(out) as f:
        found = [x.split('=', 1) for x in json.load(f)['environ']]
    assert {k: v for k, v in found if k.startswith('SSL_CLIENT')} == {
        'SSL_CLIENT_VERIFY': 'SUCCESS',
        'SSL_CLIENT_S_DN': r'CN=alice,O=Example\, Inc.',
        'SSL_CLIENT_I_DN': 'CN=root',
        'SSL_CLIENT_M_SERIAL': pki.field('alice', '-serial')}


# --- EXTERNAL --------------------------------------------------------------

@pytest.fixture(scope='module')
def listed(tmp_path_factory, pki):
    """A password file of which certificates name the users."""
    path = tmp_path_factory.mktemp('external') / 'users'
    sha256 = hashlib.sha256(ssl.PEM_cert_to_DER_cert(
        pki.read('carol.pem'))).hexdigest()
    path.write_text('alice:{PLAIN}wonderland\n'
                    'alice@example.com:\n'
                    'alice@AD.EXAMPLE:!\n'
                    f'{sha256}:*\n'
                    'locked:!{PLAIN}wonderland\n'
                    'locked too:{CRYPT}!$6$salt$hash\n')
    path.chmod(0o600)
    return f'file:{path}', sha256


@pytest.fixture
def external(meet, backend, listed):
    """external(name, ...): a session where EXTERNAL is listed."""
    def start(name=None, mode='optional', **kw):
        b = backend(xclient='LOGIN')
        kw.setdefault('auth_provider', listed[0])
        kw.setdefault('max_errors', 100)
        s = meet(name, mode, smtp_auth='plain external', backend=b.address,
                 **kw)
        s.backend = b
        return s
    return start


def auth_line(s):
    return [x for x in s.hello if x.startswith('AUTH')]


def logged_in_as(s, user):
    s.client.ask('NOOP', '250 ')
    s.quit()
    login = fakes.xclient_attributes(s.backend.conversation())['LOGIN']
    seen = s.event('auth')
    assert (seen['result'], seen['mech'], seen['user'], login) == \
        ('accepted', 'EXTERNAL', user, user)


def test_external(external):
    s = external('alice')
    assert auth_line(s) == ['AUTH PLAIN EXTERNAL']
    assert s.client.ask('AUTH EXTERNAL', '334') == ['334 ']
    s.client.ask('', '235 2.7.0 ')
    logged_in_as(s, 'alice')


@pytest.mark.parametrize('response', ['=', b64('alice')])
def test_external_initial_response(external, response):
    s = external('alice')
    s.client.ask('AUTH EXTERNAL ' + response, '235 2.7.0 ')
    logged_in_as(s, 'alice')


@pytest.mark.parametrize('name, mode', [
    (None, 'optional'), ('loner', 'optional_no_ca'),
    ('stranger', 'optional_no_ca'), ('alice', 'off')])
def test_external_is_not_offered_without_a_verified_certificate(
        external, name, mode):
    s = external(name, mode)
    assert auth_line(s) == ['AUTH PLAIN']
    for command in ('EXTERNAL', 'EXTERNAL =', 'EXTERNAL ' + b64('alice')):
        s.client.ask('AUTH ' + command, '504 5.5.4 ')
    s.quit()
    assert s.events('auth') == []


@pytest.mark.parametrize('authzid', ['bob', 'Alice', 'alice ', 'anonymous'])
def test_another_name_is_refused(external, authzid):
    s = external('alice')
    s.client.ask('AUTH EXTERNAL ' + b64(authzid), '535 5.7.8 ')
    s.quit()
    seen = s.event('auth')
    assert (seen['result'], seen['user'], seen['reason']) == (
        'denied', authzid, 'authorization name of another')
    assert s.backend.conversations == []


@pytest.mark.parametrize('authzid', ['=', b64('alice'), b64('bob'),
                                     b64('anonymous'), b64('a' * 500)])
def test_auth_external_authzid_ignore(external, authzid):
    s = external('alice', auth_external_authzid='ignore')
    s.client.ask('AUTH EXTERNAL ' + authzid, '235 2.7.0 ')
    logged_in_as(s, 'alice')


def test_a_name_with_a_nul_is_malformed(external):
    s = external('alice', auth_external_authzid='ignore')
    s.client.ask('AUTH EXTERNAL ' + b64('alice\0bob'), '501 5.5.2 ')
    s.quit()


def test_another_name_counts_as_an_attempt(external):
    s = external('alice', max_auth_attempts=2)
    for _ in range(2):
        s.client.ask('AUTH EXTERNAL ' + b64('bob'), '535 5.7.8 ')
    s.client.ask('AUTH EXTERNAL =', '421 4.7.0 ')
    s.client.expect_end()
    assert s.finish()['cause'] == 'attempts'


def test_a_user_who_is_not_listed(external):
    s = external('carol')
    s.client.ask('AUTH EXTERNAL =', '535 5.7.8 ')
    s.quit()
    assert s.event('auth')['reason'] == 'unknown user'


@pytest.mark.parametrize('name', ['locked', 'locked too'])
def test_a_user_who_is_locked(external, pki, name):
    pki.client(name)
    s = external(name)
    s.client.ask('AUTH EXTERNAL =', '535 5.7.8 ')
    s.quit()
    assert s.event('auth')['reason'] == 'the user is locked'


@pytest.mark.parametrize('field, user', [
    ('san_email', 'alice@example.com'), ('san_upn', 'alice@AD.EXAMPLE')])
def test_ssl_identity(external, field, user):
    s = external('alice', ssl_identity=field)
    s.client.ask('AUTH EXTERNAL =', '235 2.7.0 ')
    logged_in_as(s, user)


def test_ssl_identity_fingerprint(external, listed):
    s = external('carol', ssl_identity='fingerprint')
    s.client.ask('AUTH EXTERNAL =', '235 2.7.0 ')
    logged_in_as(s, listed[1])


@pytest.mark.parametrize('user', ['alice@example.com', 'alice@AD.EXAMPLE'])
@pytest.mark.parametrize('password', ['', '!', '*', 'wonderland'])
def test_a_user_of_external_has_no_password(external, user, password):
    s = external('alice')
    s.client.ask('AUTH PLAIN ' + plain(user, password), '535 5.7.8 ')
    s.quit()


NOBODY = {
    'no common name': ('/O=nobody', None, 'subject_cn'),
    'two common names': ('/CN=alice/CN=bob', None, 'subject_cn'),
    'two at one level': ('/CN=alice+CN=bob', None, 'subject_cn'),
    'a control character': ('/CN=alice\tx', None, 'subject_cn'),
    'no address': ('/CN=alice', 'DNS:alice.example', 'san_email'),
    'two addresses': ('/CN=alice', 'email:alice@example.com,email:b@b.example',
                      'san_email'),
    'no upn': ('/CN=alice', 'email:alice@example.com', 'san_upn'),
    'two upns': ('/CN=alice', f'{UPN}alice,{UPN}bob', 'san_upn'),
    'another othername': ('/CN=alice', 'otherName:1.2.3.4;UTF8:alice',
                          'san_upn'),
    'an upn of another type': (
        '/CN=alice', f'otherName:{workbench.UPN};IA5:alice', 'san_upn'),
}


@pytest.mark.parametrize('case', NOBODY)
def test_a_certificate_that_does_not_say_who(external, pki, case):
    subject, san, field = NOBODY[case]
    pki.client('nobody', subject, san=san)
    s = external('nobody', ssl_identity=field)
    assert auth_line(s) == ['AUTH PLAIN']
    s.client.ask('AUTH EXTERNAL ' + b64('alice'), '504 5.5.4 ')
    s.quit()
    assert s.event('tls')['verify'] == 'SUCCESS'


def test_a_name_in_utf_8(external, pki, tmp_path):
    path = tmp_path / 'users'
    path.write_text('renée:\n')
    path.chmod(0o600)
    pki.client('renee', '/CN=renée')
    s = external('renee', auth_provider=f'file:{path}')
    s.client.ask('AUTH EXTERNAL ' + b64('renée'.encode()), '235 2.7.0 ')
    s.client.ask('NOOP', '250 ')
    s.quit()
    assert s.event('auth')['result'] == 'accepted'


def test_external_is_gone_with_starttls(front, certificates, directives, pki):
    """Before TLS there is no certificate."""
    s = front(starttls='on', smtp_auth='plain external',
              **certificates.directives(), **directives('optional'))
    s.client.greeting()
    assert 'AUTH PLAIN' in s.client.hello()
    s.client.ask('AUTH EXTERNAL =', '504 5.5.4 ')
    s.quit()


@pytest.mark.parametrize('name, mode, response, user', [
    # nginx's auth servers judge by the headers.
    (None, 'optional', '=', ''),
    (None, 'off', b64('eve'), 'eve'),
    ('loner', 'optional_no_ca', b64('eve'), 'eve'),
    ('alice', 'on', b64('bob'), 'bob'),
    ('alice', 'on', '=', 'alice')])
def test_external_with_an_auth_server(external, auth_server, name, mode,
                                      response, user):
    a = auth_server({'Auth-Status': 'no'})
    s = external(name, mode, auth_provider=a.url)
    assert auth_line(s) == ['AUTH PLAIN EXTERNAL']
    s.client.ask('AUTH EXTERNAL ' + response, '535 ')
    s.quit()
    [request] = a.requests
    assert request.get('Auth-Method') == 'external'
    assert request.get('Auth-User') == user
    assert request.get('Auth-Pass') == ''


def test_ignore_with_an_auth_server(external, auth_server):
    a = auth_server({'Auth-Status': 'no'})
    s = external('alice', auth_provider=a.url, auth_external_authzid='ignore')
    s.client.ask('AUTH EXTERNAL ' + b64('bob'), '535 ')
    s.quit()
    assert a.requests[0].get('Auth-User') == 'alice'


# --- without AUTH ----------------------------------------------------------

MAIL = 'MAIL FROM:<a@a.example> SIZE=100 BODY=8BITMIME'


@pytest.fixture
def implicit(external):
    def start(name='alice', **kw):
        return external(name, auth_external_implicit='on', **kw)
    return start


def test_mail_is_external(implicit):
    """The client's MAIL is the backend's to answer, and is not lost."""
    s = implicit()
    s.client.send(f'{MAIL}\r\nRCPT TO:<b@b.example>\r\nDATA\r\n')
    for code in ('250 ', '250 ', '354 '):
        s.client.expect(code)
    s.client.send('Subject: x\r\n\r\nhello\r\n.\r\n')
    s.client.expect('250 ')
    s.client.ask(MAIL, '250 ')
    logged_in_as(s, 'alice')
    seen = s.backend.conversation()
    assert seen.texts('MAIL') == [MAIL, MAIL]
    assert len(seen.messages) == 1
    assert seen.verbs()[:4] == ['EHLO', 'XCLIENT', 'EHLO', 'MAIL']


def test_mail_is_external_once_auth_has_not_been_said(implicit):
    s = implicit()
    s.client.ask('AUTH PLAIN ' + plain('alice', 'wonderland'), '235 ')
    s.client.ask(MAIL, '250 ')
    s.quit()
    assert s.event('auth')['mech'] == 'PLAIN'


def test_a_backend_that_refuses_the_mail_says_so(meet, backend, listed):
    b = backend(xclient='LOGIN', replies={'MAIL': [
        '452 4.3.1 later', '250 2.1.0 now']})
    s = meet('alice', 'optional', smtp_auth='external', backend=b.address,
             auth_provider=listed[0], auth_external_implicit='on')
    s.client.ask(MAIL, '452 4.3.1 later')
    s.client.ask(MAIL, '250 2.1.0 now')
    s.quit()
    assert [e['result'] for e in s.events('auth')] == ['accepted']


def test_a_backend_that_leaves_with_its_answer(meet, backend, listed):
    b = backend(xclient='LOGIN', replies={'MAIL': '421 4.3.2 bye'})
    s = meet('alice', 'optional', smtp_auth='external', backend=b.address,
             auth_provider=listed[0], auth_external_implicit='on')
    s.client.ask(MAIL, '421 4.3.2 bye')
    s.client.expect_end()
    s.finish()


def test_a_relay_program_gets_the_mail(meet, listed, tmp_path):
    s = meet('alice', 'optional', smtp_auth='external',
             auth_provider=listed[0], auth_external_implicit='on',
             relay=[RELAYS + '/record', str(tmp_path / 'record')])
    s.client.ask('MAIL FROM:<a@a.example>', '250 2.0.0 relay heard MAIL')
    s.client.ask('QUIT', '221 ')
    s.client.expect_end()
    s.finish()
    assert '"SMTPAUTHUSER=alice"' in (tmp_path / 'record').read_text()


def test_after_a_refused_session_mail_may_be_tried_again(
        meet, backend, listed):
    b = backend(xclient='LOGIN', replies={'XCLIENT': '550 5.7.1 no'})
    s = meet('alice', 'optional', smtp_auth='external', backend=b.address,
             auth_provider=listed[0], auth_external_implicit='on')
    for _ in range(2):
        s.client.ask(MAIL, '451 4.3.0 ')
    s.quit(status=75)
    assert len(b.conversations) == 2


def test_a_user_who_is_not_listed_needs_auth(implicit):
    s = implicit('carol')
    s.client.ask(MAIL, '530 5.7.0 ')
    assert s.await_event('auth')['result'] == 'denied'
    # Another login is open to it.
    s.client.ask('AUTH PLAIN ' + plain('alice', 'wonderland'), '235 ')
    s.quit()


def test_attempts_are_counted(implicit):
    s = implicit('carol', max_auth_attempts=2)
    for _ in range(4):
        s.client.ask(MAIL, '530 5.7.0 ')
    s.client.ask('AUTH PLAIN ' + plain('alice', 'wonderland'), '421 4.7.0 ')
    s.client.expect_end()
    s.finish()
    assert len(s.events('auth', result='denied')) == 2


def test_with_none_a_user_who_is_not_listed_is_anybody(meet, backend, listed):
    b = backend(xclient='LOGIN')
    s = meet('carol', 'optional', smtp_auth='none external', max_errors=100,
             backend=b.address, auth_provider=listed[0],
             auth_external_implicit='on')
    s.client.ask(MAIL, '250 2.1.0 ')
    s.client.ask(MAIL, '503 5.5.1 ')
    s.client.ask('AUTH EXTERNAL =', '503 5.5.1 ')
    s.client.ask('RCPT TO:<b@b.example>', '250 ')
    s.quit()
    assert 'XCLIENT' not in b.conversation().verbs()
    assert s.event('auth')['result'] == 'denied'


@pytest.mark.parametrize('name, mode', [
    (None, 'optional'), ('loner', 'optional_no_ca'), ('alice', 'off')])
def test_no_identity_no_implicit_login(external, name, mode):
    s = external(name, mode, auth_external_implicit='on')
    s.client.ask(MAIL, '530 5.7.0 ')
    s.quit()
    assert s.events('auth') == []


@pytest.mark.parametrize('kw', [{}, {'auth_external_implicit': 'off'}])
def test_not_unless_asked_for(external, kw):
    s = external('alice', **kw)
    s.client.ask(MAIL, '530 5.7.0 ')
    s.quit()
    assert s.events('auth') == []


def test_not_unless_external_is_listed(meet, listed):
    s = meet('alice', auth_provider=listed[0], auth_external_implicit='on')
    s.client.ask(MAIL, '530 5.7.0 ')
    s.quit()


@pytest.mark.parametrize('line', ['MAIL', 'MAIL TO:<a@a.example>',
                                  'MAIL FROM:<' + 'a' * 3000 + '>'])
def test_a_malformed_mail_is_no_login(implicit, line):
    s = implicit()
    s.client.ask(line, '501 5.5.4 ')
    s.quit()
    assert s.events('auth') == []


def test_implicit_with_an_auth_server(external, auth_server):
    a = auth_server({'Auth-Status': 'no'}, {'Auth-Status': 'WAIT'})
    s = external('alice', auth_provider=a.url, auth_external_implicit='on',
                 auth_http_timeout='400ms')
    s.client.ask(MAIL, '530 5.7.0 ')
    s.client.ask(MAIL, '454 4.7.0 ')
    s.quit(status=(0, 75))
    assert a.requests[0].get('Auth-Method') == 'external'
    assert a.requests[0].get('Auth-User') == 'alice'


# --- other programs --------------------------------------------------------

@pytest.mark.parametrize('how', [[], ['-tls1_2']])
@pytest.mark.parametrize('name, shown', [
    ('alice', '250 AUTH PLAIN EXTERNAL'), ('expired', BAD_CERTIFICATE),
    ('revoked', BAD_CERTIFICATE), (None, NO_CERTIFICATE)])
def test_s_client(s_client, directives, pki, name, shown, how):
    pair = ['-cert', pki.pair(name)[0], '-key', pki.pair(name)[1]] \
        if name else []
    seen = s_client(*how, *pair, socket='ssl', smtp_auth='plain external',
                    **directives('on', ssl_crl=pki.path('half.pem')))
    assert shown in seen['out'].split('\n')


@pytest.mark.skipif(not shutil.which('gnutls-cli'), reason='no gnutls-cli')
@pytest.mark.parametrize('way', ['starttls', 'implicit'])
@pytest.mark.parametrize('priority', ['NORMAL', 'NORMAL:-VERS-ALL:+VERS-TLS1.2'])
@pytest.mark.parametrize('name, shown', [
    ('deep', '250 AUTH PLAIN EXTERNAL'), ('expired', BAD_CERTIFICATE),
    ('stranger', BAD_CERTIFICATE), (None, NO_CERTIFICATE)])
def test_gnutls(front, certificates, directives, pki, name, shown, way,
                priority):
    words = ['gnutls-cli', '--x509cafile', certificates.ec[0],
             '--verify-hostname', NAME, '--priority', priority, '-p', '{port}',
             '--crlf']
    if name:
        words += ['--x509certfile', pki.pair(name)[0], '--x509keyfile',
                  pki.pair(name)[1]]
    if way == 'starttls':
        words += ['--starttls-proto=smtp']
    seen = peer(front, [*words, '127.0.0.1'],
                **({'starttls': 'only'} if way == 'starttls'
                   else {'socket': 'ssl'}),
                smtp_auth='plain external', **certificates.directives(),
                **directives('on'))
    assert shown in seen['out'].split('\n'), seen['out']


@pytest.fixture
def door(tmp_path, certificates, directives, backend, listed):
    """door(...) -> (port, backend) of a front end where EXTERNAL is all."""
    running = []

    def start(**kw):
        b = backend(xclient='LOGIN')
        s = starters.Starter(
            starters.systemd, str(tmp_path),
            {'starttls': 'only', 'smtp_auth': 'external',
             'smtp_auth_unlisted': 'off', 'auth_provider': listed[0],
             'backend': b.address, **certificates.directives(),
             **directives('on'), **kw}, None)
        running.append(s)
        return s.port, b
    yield start
    for s in running:
        s.stop()


needs_systemd = pytest.mark.skipif(
    not starters.has('systemd-socket-activate'),
    reason='no systemd-socket-activate')


def delivered_by(b, user):
    seen = b.await_end()
    assert fakes.xclient_attributes(seen)['LOGIN'] == user
    assert len(seen.messages) == 1


@needs_systemd
@pytest.mark.parametrize('authzid, user', [('alice', None), ('surprise', 'ign')])
def test_curl(door, certificates, pki, authzid, user):
    port, b = door(**({'auth_external_authzid': 'ignore'} if user else {}))
    done = subprocess.run(
        ['curl', '-sS', '--ssl-reqd', '--cacert', certificates.ec[0],
         '--cert', pki.pair('alice')[0], '--key', pki.pair('alice')[1],
         '--resolve', f'{NAME}:{port}:127.0.0.1', '--login-options',
         'AUTH=EXTERNAL', '-u', authzid + ':', '--crlf', '--mail-from',
         'a@a.example', '--mail-rcpt', 'b@b.example', '-T', '-',
         f'smtp://{NAME}:{port}/client.example'],
        input=b'Subject: x\n\nhello\n', capture_output=True, timeout=30,
        env=environment({'HOME': '/nonexistent'}))
    assert done.returncode == 0, done.stderr.decode()
    delivered_by(b, 'alice')


@needs_systemd
@pytest.mark.skipif(not shutil.which('swaks'), reason='no swaks')
@pytest.mark.parametrize('name', ['alice', 'expired'])
def test_swaks(door, pki, name):
    """It knows no EXTERNAL, and needs none."""
    port, b = door(auth_external_implicit='on')
    done = subprocess.run(
        ['swaks', '-s', '127.0.0.1', '-p', str(port), '--tls', '--tls-cert',
         pki.pair(name)[0], '--tls-key', pki.pair(name)[1], '-f',
         'a@a.example', '-t', 'b@b.example', '--ehlo', 'client.example'],
        capture_output=True, timeout=30,
        env=environment({'HOME': '/nonexistent'}))
    out = done.stdout.decode()
    if name == 'alice':
        assert done.returncode == 0, out
        delivered_by(b, 'alice')
    else:
        assert done.returncode != 0
        assert BAD_CERTIFICATE in out, out


@needs_systemd
def test_smtplib(door, certificates, pki):
    port, b = door()
    c = ssl.create_default_context(cafile=certificates.ec[0])
    c.load_cert_chain(*pki.pair('alice'))

    class Client(smtplib.SMTP):
        def _get_socket(self, host, port, timeout):
            return socket.create_connection(('127.0.0.1', port), timeout)

    with Client(NAME, port, 'client.example', DEADLINE) as client:
        client.starttls(context=c)
        client.ehlo()
        client.auth('EXTERNAL', lambda challenge=None: '')
        client.sendmail('a@a.example', ['b@b.example'], 'Subject: x\n\nhello\n')
    delivered_by(b, 'alice')


# --- --check ---------------------------------------------------------------

def check(certificates, *args):
    c, k = certificates.ec
    return run('--check', '--backend', '127.0.0.1:25', '--starttls', 'on',
               '--ssl-certificate', c, '--ssl-certificate-key', k, *args)


@pytest.mark.parametrize('mode', ['on', 'optional'])
def test_check_asks_for_a_ca(certificates, users, mode):
    done = check(certificates, '--ssl-verify-client', mode,
                 '--auth-provider', users)
    assert done.returncode == 78
    assert 'ssl_verify_client' in done.err
    assert 'needs ssl_client_certificate or ssl_trusted_certificate' in \
        done.err


@pytest.mark.parametrize('args, said', [
    (['--ssl-verify-client', 'on', '--ssl-client-certificate', '{root}'],
     'ssl_verify_client: a client that stays in the clear'),
    (['--ssl-client-certificate', '{root}'], 'ssl_verify_client: is off'),
    (['--smtp-auth', 'external'], 'smtp_auth: EXTERNAL is never offered'),
    (['--auth-external-implicit', 'on'],
     'auth_external_implicit: EXTERNAL is not in smtp_auth'),
    (['--ssl-verify-client', 'optional', '--ssl-client-certificate',
      '/nonexistent'], 'ssl_client_certificate: /nonexistent cannot be read'),
    (['--ssl-verify-client', 'optional', '--ssl-client-certificate', '{root}',
      '--ssl-crl', '/nonexistent'], 'ssl_crl: /nonexistent cannot be read'),
    (['--ssl-verify-client', 'optional', '--ssl-trusted-certificate',
      '/nonexistent'],
     'ssl_trusted_certificate: /nonexistent cannot be read')])
def test_check_warns(certificates, users, pki, args, said):
    args = [a.replace('{root}', pki.path('root.pem')) for a in args]
    done = check(certificates, '--auth-provider', users, *args)
    assert done.returncode == 0, done.err
    assert '# warning: ' + said in done.out


def test_check_is_content_where_all_is_well(certificates, users, pki):
    done = check(certificates, '--auth-provider', users, '--starttls', 'only',
                 '--ssl-verify-client', 'on', '--ssl-client-certificate',
                 pki.path('root.pem'), '--ssl-crl', pki.path('half.pem'))
    assert done.returncode == 0
    assert 'warning' not in done.out
