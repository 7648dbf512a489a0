"""TLS towards the servers of others: OpenSSL's, GnuTLS's and Postfix."""

import os
import shutil
import socket
import subprocess
import threading

import pytest

import starters
from authority import Authority
from fakes import Backend, plain
from harness import DEADLINE, until
from test_peers import Postfix, started, submit  # noqa: F401

HOST = 'mail.backend.example'
VERSIONS = ['1.2', '1.3']


@pytest.fixture(scope='module')
def authority(tmp_path_factory):
    return Authority(tmp_path_factory.mktemp('authority') / 'a')


@pytest.fixture(scope='module')
def good(authority):
    return authority.issue('good', HOST, [f'DNS:{HOST}'], rsa=True)


@pytest.fixture(scope='module')
def own(authority):
    return authority.issue('front', 'front.example', ['DNS:front.example'])


@pytest.fixture
def processes(front):
    """What is appended is ended at the test's end, before `front` looks for
    what it has left over."""
    running = []
    yield running
    for p in running:
        p.kill()
        p.wait(DEADLINE)


def verified(authority, **more):
    return {'proxy_ssl_verify': 'on', 'proxy_ssl_name': HOST,
            'proxy_ssl_trusted_certificate': authority.certificate, **more}


def with_certificate(own):
    return {'proxy_ssl_certificate': own[0],
            'proxy_ssl_certificate_key': own[1]}


def turned_away(c):
    c.greeting()
    c.hello()
    c.ask('AUTH PLAIN ' + plain('alice', 'wonderland'), r'421 4\.3\.0 ')
    c.expect_end()


def await_port(port):
    until(lambda: starters.is_served(port), f'port {port}')


# --- openssl s_server, with a mail server at its standard input and output ---

class Piped(Backend):
    """A mail server for one connection, which another program has."""

    def __init__(self, **kw):
        super().__init__(**kw)
        ours, self.theirs = socket.socketpair()
        self.sockets.append(ours)
        self.ours = ours

    def begin(self):
        threading.Thread(target=self._serve, args=(self.ours,),
                         daemon=True).start()


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('wanted', [False, True], ids=['', 'certificate'])
def test_openssl(version, wanted, front, servers, processes, authority, good,
                 own):
    b = Piped(xclient=None)
    servers.append(b)
    [port] = starters.free_ports(1)
    words = ['openssl', 's_server', '-quiet', '-accept', f'127.0.0.1:{port}',
             '-naccept', '1', '-cert', good[0], '-key', good[1],
             '-tls' + version.replace('.', '_'), '-no_dhe']
    if wanted:
        words += ['-Verify', '2', '-verify_return_error', '-CAfile',
                  authority.certificate]
    p = subprocess.Popen(words, stdin=b.theirs, stdout=b.theirs,
                         stderr=subprocess.DEVNULL)
    b.theirs.close()
    processes.append(p)
    await_port(port)
    s = front(backend=f'127.0.0.1:{port}', proxy_ssl='on',
              **verified(authority), **with_certificate(own))
    s.client.greeting()
    s.client.hello()
    s.client.line('AUTH PLAIN ' + plain('alice', 'wonderland'))
    b.begin()
    s.client.expect('235 ')
    s.client.ask('MAIL FROM:<a@a.example>', '250 ')
    s.client.ask('RCPT TO:<b@b.example>', '250 ')
    s.client.ask('DATA', '354 ')
    # What s_server reads is not mail to it, but it heeds no letters there.
    message = b'one line of text\r\n' * 4096
    s.client.send(message + b'.\r\n')
    s.client.expect('250 ')
    assert b.conversation().messages == [message]
    s.client.ask('QUIT', '221 ')
    p.kill()
    s.client.close()
    s.wait()
    event = s.event('upstream')
    assert event['protocol'] == 'TLSv' + version
    assert event['verified'] == 'pkix'


# --- gnutls-serv, which speaks no SMTP: what is tried is the handshake -------

@pytest.fixture
def gnutls(processes, good, authority):
    if not shutil.which('gnutls-serv'):
        pytest.skip('no gnutls-serv')

    def start(version, wanted):
        [port] = starters.free_ports(1)
        words = ['gnutls-serv', '--quiet', '--echo', '--port', str(port),
                 '--x509certfile', good[0], '--x509keyfile', good[1],
                 '--priority', f'NORMAL:-VERS-ALL:+VERS-TLS{version}']
        if wanted:
            words += ['--require-client-cert', '--verify-client-cert',
                      '--x509cafile', authority.certificate]
        else:
            words += ['--disable-client-cert']
        processes.append(subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL))
        await_port(port)
        return f'127.0.0.1:{port}'
    return start


@pytest.mark.parametrize('version', VERSIONS)
@pytest.mark.parametrize('wanted, shown', [
    (False, False), (True, True), (True, False)],
    ids=['', 'certificate', 'no-certificate'])
def test_gnutls(version, wanted, shown, gnutls, front, authority, own):
    s = front(backend=gnutls(version, wanted), proxy_ssl='on',
              proxy_connect_timeout='2s', **verified(authority),
              **(with_certificate(own) if shown else {}))
    turned_away(s.client)
    s.finish(75)
    event = s.event('upstream')
    if wanted and not shown:
        assert event['reason'] != 'greeting: no reply in time'
        return
    # It was let in, and had nothing to say.
    assert event['reason'] == 'greeting: no reply in time'
    assert event['protocol'] == 'TLSv' + version
    assert event['verified'] == 'pkix'


# --- Postfix ---------------------------------------------------------------

class TLSPostfix(Postfix):
    """STARTTLS, which it insists on, at the first port, TLS at once at the
    second."""

    MAIN = Postfix.MAIN + '''
smtpd_tls_security_level = encrypt
smtpd_tls_chain_files = {{key}} {{certificate}}
smtpd_tls_CAfile = {{authority}}
smtpd_tls_ask_ccert = yes
smtpd_tls_received_header = yes
'''
    MASTER = Postfix.MASTER.replace(
        '-o smtpd_authorized_xclient_hosts=192.0.2.1',
        '-o smtpd_tls_wrappermode=yes') + '''
tlsmgr  unix - - n 1000? 1 tlsmgr
'''

    def __init__(self, pair, authority):
        self.MAIN = self.MAIN.replace('{{certificate}}', pair[0]).replace(
            '{{key}}', pair[1]).replace('{{authority}}', authority)
        super().__init__()


@pytest.fixture(scope='module')
def postfix(good, authority, tmp_path_factory):
    if not starters.has('postfix') or os.getuid() != 0:
        pytest.skip('no Postfix, or not root')
    p = TLSPostfix(good, authority.certificate)
    yield p
    p.stop()


def ports(p):
    return {'starttls': p.address, 'on': f'127.0.0.1:{p.strange_port}'}


@pytest.mark.parametrize('mode', ['starttls', 'on'])
@pytest.mark.parametrize('shown', [False, True], ids=['', 'certificate'])
def test_postfix(mode, shown, started, postfix, authority, own):  # noqa: F811
    s = started(backend=ports(postfix)[mode], proxy_ssl=mode, xclient='on',
              **verified(authority), **(with_certificate(own) if shown else {}))
    subject = f'by {mode} {shown}'
    submit(s.connect(), subject, 1 << 20)
    text = postfix.delivered(subject)
    assert text.count('x' * 70) == (1 << 20) // 72
    event = s.await_event('upstream')
    assert f'(using {event["protocol"]} with cipher {event["cipher"]}' in text
    assert ('Client CN "front.example"' in text) == shown
    if shown:
        assert '(verified OK)' in text
    assert event['verified'] == 'pkix'
    assert s.await_event('close')['cause'] == 'done'


@pytest.mark.parametrize('mode', ['starttls', 'on'])
def test_postfix_of_another_name(mode, started, postfix,  # noqa: F811
                                 authority):
    s = started(backend=ports(postfix)[mode], proxy_ssl=mode,
              **verified(authority, proxy_ssl_name='other.example'))
    turned_away(s.connect())
    assert 'hostname mismatch' in s.await_event('upstream')['reason']


@pytest.mark.parametrize('mode, other', [('starttls', 'on'),
                                         ('on', 'starttls')])
def test_postfix_at_the_other_port(mode, other, started,  # noqa: F811
                                   postfix, authority):
    s = started(backend=ports(postfix)[other], proxy_ssl=mode,
                proxy_connect_timeout='2s', **verified(authority))
    turned_away(s.connect())
    assert s.await_event('upstream')['result'] == 'failed'
