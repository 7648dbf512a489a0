"""TLS, server side: what is negotiated, and all that can go wrong."""

import os
import shutil
import socket
import ssl
import subprocess

import pytest

from fakes import plain
from harness import DEADLINE, NAME, client_context, run

GOOD = plain('alice', 'wonderland')
V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


def version(low, high=None, ciphers=None, **kw):
    context = client_context(**kw)
    if ciphers:
        context.set_ciphers(ciphers)
    with_old = low < V12
    if with_old:
        context.set_ciphers('ALL:@SECLEVEL=0')
    context.minimum_version, context.maximum_version = low, high or low
    return context


@pytest.fixture(params=['starttls', 'implicit'])
def secure(request, front, certificates):
    """secure(context, ...): a session just behind its handshake."""
    def start(context=None, which=('ec',), handshake=None, **kw):
        way = {'starttls': 'on'} if request.param == 'starttls' \
            else {'socket': 'ssl'}
        s = front(**way, **certificates.directives(*which), **kw)
        if request.param == 'starttls':
            s.client.greeting()
            s.client.ask('STARTTLS', '220 2.0.0 ')
        s.client.start_tls(context, **(handshake or {}))
        if request.param == 'implicit':
            s.client.greeting()
        return s
    return start


def refused(call):
    """The handshake fails with an alert or an end, never with a hang."""
    with pytest.raises((ssl.SSLError, ConnectionError)):
        call()


# --- versions, ciphers, keys -----------------------------------------------

@pytest.mark.parametrize('v,name', [(V12, 'TLSv1.2'), (V13, 'TLSv1.3')])
def test_versions(secure, v, name):
    s = secure(version(v))
    assert s.client.tls.version() == name
    s.client.hello()
    s.quit()
    e = s.event('tls')
    assert e['result'] == 'ok'
    assert e['protocol'] == name
    assert e['cipher'] == s.client.tls.cipher()[0]


@pytest.mark.parametrize('v', [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_old_versions_are_refused(front, certificates, v):
    s = front(starttls='on', **certificates.directives())
    s.client.greeting()
    s.client.ask('STARTTLS', '220 ')
    refused(lambda: s.client.start_tls(version(v)))
    assert s.finish()['cause'] == 'tls'
    assert s.event('tls')['result'] == 'failed'


def test_ssl_protocols(front, certificates):
    s = front(starttls='on', ssl_protocols='TLSv1.3',
              **certificates.directives())
    s.client.greeting()
    s.client.ask('STARTTLS', '220 ')
    refused(lambda: s.client.start_tls(version(V12)))
    s.finish()


def test_ssl_protocols_the_other_way(secure):
    s = secure(version(V12, V13), ssl_protocols='TLSv1.2')
    assert s.client.tls.version() == 'TLSv1.2'
    s.quit()


def test_ssl_ciphers(secure):
    s = secure(version(V12), ssl_ciphers='ECDHE-ECDSA-AES128-GCM-SHA256')
    assert s.client.tls.cipher()[0] == 'ECDHE-ECDSA-AES128-GCM-SHA256'
    s.quit()


@pytest.mark.parametrize('prefer,got', [('on', 'AES128'), ('off', 'AES256')])
def test_whose_preference_of_ciphers(secure, prefer, got):
    context = version(V12, ciphers='ECDHE-ECDSA-AES256-GCM-SHA384:'
                                   'ECDHE-ECDSA-AES128-GCM-SHA256')
    s = secure(context, ssl_prefer_server_ciphers=prefer,
               ssl_ciphers='ECDHE-ECDSA-AES128-GCM-SHA256:'
                           'ECDHE-ECDSA-AES256-GCM-SHA384')
    assert got in s.client.tls.cipher()[0]
    s.quit()


def test_ssl_ecdh_curve(front, certificates):
    s = front(starttls='on', ssl_ecdh_curve='secp384r1',
              **certificates.directives())
    s.client.greeting()
    s.client.ask('STARTTLS', '220 ')
    context = version(V12)
    context.set_ecdh_curve('prime256v1')
    refused(lambda: s.client.start_tls(context))
    s.finish()


@pytest.fixture(scope='session')
def dhparam(tmp_path_factory):
    path = tmp_path_factory.mktemp('dh') / 'dhparam.pem'
    subprocess.run(
        ['openssl', 'genpkey', '-genparam', '-algorithm', 'DH', '-pkeyopt',
         'group:ffdhe2048', '-pkeyopt', 'dh_paramgen_type:generator', '-out',
         str(path)], check=True, capture_output=True)
    return str(path)


DHE = 'DHE-RSA-AES128-GCM-SHA256'


def test_ssl_dhparam(secure, dhparam):
    s = secure(version(V12, ciphers=DHE), which=('rsa',), ssl_dhparam=dhparam)
    assert s.client.tls.cipher()[0] == DHE
    s.quit()


def test_no_dhe_without_parameters(front, certificates):
    s = front(starttls='on', **certificates.directives('rsa'))
    s.client.greeting()
    s.client.ask('STARTTLS', '220 ')
    refused(lambda: s.client.start_tls(version(V12, ciphers=DHE)))
    s.finish()


def test_parameters_that_are_none(front, certificates, users):
    s = front(starttls='on', ssl_dhparam='/etc/passwd',
              **certificates.directives())
    s.client.greeting()
    s.client.ask('STARTTLS', '454 ')
    s.quit()
    assert s.event('tls')['reason'].startswith('ssl_dhparam /etc/passwd: ')


def test_ssl_conf_command(secure):
    wanted = 'TLS_CHACHA20_POLY1305_SHA256'
    s = secure(version(V13), ssl_conf_command=f'Ciphersuites {wanted}')
    assert s.client.tls.cipher()[0] == wanted
    s.quit()


@pytest.mark.parametrize('command', ['Nonsense x', 'PrivateKey /etc/passwd',
                                     'Options Nonsense'])
def test_commands_that_openssl_does_not_take(front, certificates, command):
    s = front(starttls='on', ssl_conf_command=command,
              **certificates.directives())
    s.client.greeting()
    s.client.ask('STARTTLS', '454 ')
    s.quit()
    assert s.event('tls')['reason'] == (
        f'ssl_conf_command: OpenSSL does not take "{command}"')


def ktls_sessions():
    """Ends of connections whose encryption the kernel has taken over, ever;
    None where it has no such module."""
    try:
        with open('/proc/net/tls_stat') as f:
            counts = dict(line.split() for line in f)
    except FileNotFoundError:
        return None
    return int(counts['TlsTxSw']) + int(counts['TlsTxDevice'])


def test_kernel_tls(secure, record_property):
    """It is used where the kernel has it, and missed by nobody elsewhere."""
    before = ktls_sessions()
    s = secure(version(V12, ciphers='ECDHE-ECDSA-AES128-GCM-SHA256'),
               ssl_conf_command='Options KTLS')
    s.client.ask('NOOP', '250 ')
    after = ktls_sessions()
    s.quit()
    if before is None:
        record_property('kernel TLS', 'this kernel has no module tls')
        assert after is None
    else:
        assert after > before


@pytest.mark.parametrize('order', [('rsa', 'ec'), ('ec', 'rsa')])
@pytest.mark.parametrize('kind', ['RSA', 'ECDSA'])
def test_both_kinds_of_certificate_are_served(secure, certificates, order,
                                              kind):
    s = secure(version(V12, ciphers=f'ECDHE-{kind}-AES128-GCM-SHA256'),
               which=order)
    with open(getattr(certificates, {'RSA': 'rsa', 'ECDSA': 'ec'}[kind])[0]) \
            as f:
        wanted = ssl.PEM_cert_to_DER_cert(f.read())
    assert s.client.tls.getpeercert(True) == wanted
    s.quit()


@pytest.mark.parametrize('which', ['rsa', 'ec'])
def test_certificate_verifies(secure, certificates, which):
    context = ssl.create_default_context(
        cafile=getattr(certificates, which)[0])
    s = secure(context, which=(which,),
               handshake={'server_hostname': NAME})
    s.client.hello()
    s.quit()
    assert s.event('tls').get('name') == NAME


def test_key_with_a_passphrase(secure, certificates):
    s = secure(which=('locked',), ssl_password_file=certificates.passwords)
    s.client.hello()
    s.quit()


# --- ALPN ------------------------------------------------------------------

@pytest.mark.parametrize('offered', [['smtp'], ['http/1.1', 'smtp']])
def test_alpn_smtp(secure, offered):
    context = client_context()
    context.set_alpn_protocols(offered)
    s = secure(context)
    assert s.client.tls.selected_alpn_protocol() == 'smtp'
    s.quit()


@pytest.mark.parametrize('offered', [['http/1.1'], ['h2', 'imap'], ['smtps']])
def test_alpn_of_another_protocol_is_refused(front, certificates, offered):
    context = client_context()
    context.set_alpn_protocols(offered)
    s = front(socket='ssl', **certificates.directives())
    with pytest.raises(ssl.SSLError, match='(?i)no.application.protocol'):
        s.client.start_tls(context)
    assert s.finish()['cause'] == 'tls'


def test_no_alpn_is_fine(secure):
    s = secure()
    assert s.client.tls.selected_alpn_protocol() is None
    s.quit()


# --- STARTTLS --------------------------------------------------------------

@pytest.mark.parametrize('behind', [
    b'EHLO evil\r\nNOOP\r\n', b'NOOP\r\n', b'QUIT\r\n', b'x', b'\r\n',
    b'MAIL FROM:<evil@evil.example>\r\n' * 50])
def test_plaintext_behind_starttls_is_discarded(front, certificates, behind):
    s = front(starttls='on', smtp_auth='none', auth_provider=None,
              **certificates.directives())
    s.client.greeting()
    s.client.send(b'STARTTLS\r\n' + behind)
    s.client.expect('220 2.0.0 ')
    s.client.start_tls()
    # One reply to this command, and no other before or behind it.
    s.client.ask('HELP', '214 ')
    s.client.ask('VRFY x', '252 ')
    s.client.ask('RCPT TO:<a@a.example>', '503 5.5.1 ')
    s.quit()


def test_all_state_is_forgotten(front, certificates, backend):
    b = backend()
    s = front(starttls='on', smtp_auth='none', auth_provider=None,
              backend=b.address, **certificates.directives())
    s.client.greeting()
    s.client.hello('before.example')
    s.client.ask('MAIL FROM:<a@a.example>', '250 ')
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls()
    s.client.ask('RCPT TO:<b@b.example>', '503 5.5.1 ')
    s.client.ask('MAIL FROM:<a@a.example>', '250 ')
    s.client.ask('RCPT TO:<b@b.example>', '250 ')
    s.quit()
    assert 'before.example' not in str(b.conversation().commands)


def test_errors_are_not_forgotten(front, certificates):
    s = front(starttls='on', max_errors=1, **certificates.directives())
    s.client.greeting()
    s.client.ask('NONSENSE', '500 ')
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls()
    s.client.ask('NONSENSE', '421 4.7.0 ')
    s.client.expect_end()
    s.finish()


def test_starttls_twice(front, certificates):
    s = front(starttls='on', **certificates.directives())
    s.client.greeting()
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls()
    s.client.ask('STARTTLS', '503 5.5.1 ')
    s.client.ask('NOOP', '250 ')
    s.quit()


def test_commands_in_the_same_write_as_finished(front, certificates):
    """They lie in OpenSSL's buffer, not in the socket: no poll tells."""
    s = front(starttls='on', **certificates.directives())
    s.client.greeting()
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls(extra=b'EHLO me\r\nNOOP\r\nQUIT\r\n')
    s.client.expect('250[ -]')
    s.client.expect('250 2.0.0 ')
    s.client.expect('221 ')
    s.client.expect_end()
    s.finish()


def broken(certificates, tmp_path, how):
    cert, key = certificates.ec
    if how == 'no certificate':
        cert = str(tmp_path / 'none.pem')
    elif how == 'no key':
        key = str(tmp_path / 'none.key')
    elif how == 'a key of another':
        key = certificates.rsa[1]
    elif how == 'not a key':
        key = str(tmp_path / 'garbage')
        (tmp_path / 'garbage').write_text('nonsense\n')
        os.chmod(key, 0o600)
    elif how == 'a key for everybody':
        key = str(tmp_path / 'open.key')
        shutil.copy(certificates.ec[1], key)
        os.chmod(key, 0o644)
    elif how == 'a key that is locked':
        cert, key = certificates.locked
    return {'ssl_certificate': cert, 'ssl_certificate_key': key}


BROKEN = ['no certificate', 'no key', 'a key of another', 'not a key',
          'a key for everybody', 'a key that is locked']


@pytest.mark.parametrize('how', BROKEN)
def test_no_tls_to_be_had(front, certificates, tmp_path, how):
    s = front(starttls='on', **broken(certificates, tmp_path, how))
    s.client.greeting()
    s.client.ask('STARTTLS', '454 4.7.0 ')
    s.client.ask('NOOP', '250 ')
    s.client.ask('STARTTLS', '454 4.7.0 ')
    s.quit()
    e = s.events('tls')[0]
    assert e['result'] == 'failed' and e['reason']


@pytest.mark.parametrize('how', BROKEN[:3])
def test_no_tls_to_be_had_where_it_is_implicit(front, certificates, tmp_path,
                                               how):
    s = front(socket='ssl', **broken(certificates, tmp_path, how))
    refused(s.client.start_tls)
    assert s.wait() not in (0, 64)  # the fault is ours
    events = s.events('tls')
    assert events and all(e['result'] == 'failed' for e in events)
    assert any('ssl_certificate' in e['reason'] for e in events)


# --- a hostile or clumsy client --------------------------------------------

@pytest.mark.parametrize('nonsense', [
    b'EHLO me\r\n', b'\0' * 600, b'GET / HTTP/1.0\r\n\r\n',
    b'\x16\x03\x01\xff\xff' + b'a' * 70000,
    bytes.fromhex('1603010200010001fc0303') + b'a' * 600])
@pytest.mark.parametrize('way', ['starttls', 'implicit'])
def test_nonsense_for_a_handshake(front, certificates, way, nonsense):
    kw = {'starttls': 'on'} if way == 'starttls' else {'socket': 'ssl'}
    s = front(timeout='500ms', **kw, **certificates.directives())
    if way == 'starttls':
        s.client.greeting()
        s.client.ask('STARTTLS', '220 ')
    try:
        s.client.send(nonsense)
        s.client.rest()
    except OSError:
        pass
    assert s.finish()['cause'] in ('tls', 'timeout')
    e = s.event('tls')
    assert e['result'] == 'failed' and e['client'] == '127.0.0.1'


@pytest.mark.parametrize('way', ['starttls', 'implicit'])
@pytest.mark.parametrize('how', ['silence', 'close', 'reset', 'half_close'])
def test_no_handshake(front, certificates, way, how):
    kw = {'starttls': 'on'} if way == 'starttls' else {'socket': 'ssl'}
    s = front(timeout='400ms', **kw, **certificates.directives())
    if way == 'starttls':
        s.client.greeting()
        s.client.ask('STARTTLS', '220 ')
    if how == 'silence':
        try:
            s.client.rest()
        except OSError:
            pass
    else:
        getattr(s.client, how)()
    s.finish()


def test_half_a_handshake(front, certificates):
    s = front(socket='ssl', timeout='400ms', **certificates.directives())
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing)
    with pytest.raises(ssl.SSLWantReadError):
        tls.do_handshake()
    hello = outgoing.read()
    s.client.send(hello[:len(hello) // 2])
    try:
        s.client.rest()
    except OSError:
        pass
    assert s.finish()['cause'] in ('tls', 'timeout')


def test_handshake_octet_by_octet(front, certificates):
    s = front(socket='ssl', **certificates.directives())
    s.client.start_tls(octets=1)
    s.client.greeting()
    s.client.hello()
    s.quit()


def test_client_that_does_not_trust_us(front, certificates):
    s = front(socket='ssl', **certificates.directives())
    refused(lambda: s.client.start_tls(ssl.create_default_context(),
                                       server_hostname=NAME))
    s.client.raw_send(s.client.tls_out.read())  # its alert
    s.client.close()
    s.finish()


def test_end_without_close_notify(secure):
    s = secure()
    s.client.hello()
    s.client.sock.shutdown(socket.SHUT_WR)
    assert s.client.rest() == b''
    s.finish()


def test_half_close_in_tls(secure):
    s = secure()
    s.client.send('NOOP\r\nHELP\r\n')
    s.client.half_close()
    s.client.expect('250 ')
    s.client.expect('214 ')
    s.client.expect_end()
    assert s.finish()['cause'] == 'eof'


def test_nonsense_behind_the_handshake(secure):
    s = secure()
    s.client.hello()
    s.client.raw_send(b'QUIT\r\n' * 100)
    try:
        s.client.rest()
    except (OSError, ssl.SSLError):
        pass
    s.finish()


def test_timeout_in_tls(secure):
    s = secure(timeout='400ms')
    s.client.expect('421 4.4.2 ')
    s.client.expect_end()
    assert s.finish()['cause'] == 'timeout'


@pytest.mark.parametrize('way', ['pipes', 'fd3'])
def test_tls_over_other_ways_in(front, certificates, way):
    s = front(way=way, starttls='on', **certificates.directives())
    s.client.greeting()
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls()
    s.client.hello()
    s.quit()


# --- s_client --------------------------------------------------------------

def s_client(front, certificates, *args, **kw):
    """openssl's own client; its standard output."""
    listener = socket.create_server(('127.0.0.1', 0))
    listener.settimeout(DEADLINE)
    client = subprocess.Popen(
        ['openssl', 's_client', '-quiet', '-crlf', '-CAfile',
         certificates.ec[0], '-verify_return_error', '-connect',
         '127.0.0.1:%d' % listener.getsockname()[1], *args],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        server, _ = listener.accept()
        server.setblocking(True)
        s = front(server_sock=server, **kw, **certificates.directives())
        out, err = client.communicate(b'EHLO me\nQUIT\n', DEADLINE)
        s.finish()
        return out.decode(), err.decode(), s
    finally:
        listener.close()
        if client.poll() is None:
            client.kill()
            client.wait()


@pytest.mark.parametrize('args', [
    [], ['-tls1_2'], ['-tls1_2', '-groups', 'P-256'], ['-tls1_3'],
    ['-tls1_3', '-groups', 'P-384:P-256'],
    ['-tls1_2', '-no_ticket']])
@pytest.mark.parametrize('way', ['starttls', 'implicit'])
def test_s_client(front, certificates, way, args):
    if way == 'starttls':
        out, err, s = s_client(front, certificates, '-starttls', 'smtp', *args,
                               starttls='only')
    else:
        out, err, s = s_client(front, certificates, *args, socket='ssl')
    assert '250-front.example' in out, err
    assert 'AUTH PLAIN LOGIN' in out
    assert '221 2.0.0 ' in out
    assert s.event('close')['cause'] == 'quit'


def test_check_tells_of_a_key_that_others_read(certificates, tmp_path, users):
    files = broken(certificates, tmp_path, 'a key for everybody')
    done = run('--check', '--starttls', 'on', '--auth-provider', users,
               '--backend', '127.0.0.1:25', '--ssl-certificate',
               files['ssl_certificate'], '--ssl-certificate-key',
               files['ssl_certificate_key'])
    assert done.returncode == 0
    assert 'open.key' in ''.join(
        x for x in done.out.splitlines() if 'warning' in x)
