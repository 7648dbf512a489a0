"""Certificates by the name that a client asks for: ssl_sni_directory, and OCSP
responses that go with them."""

import ctypes
import os
import shutil
import signal
import ssl
import struct
import subprocess

import pytest

import tlshello
from authority import Authority
from harness import DEADLINE, NAME, client_context, run

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3


@pytest.fixture(scope='module')
def authority(tmp_path_factory):
    ca = Authority(tmp_path_factory.mktemp('names') / 'ca')
    for name in ('a.example', 'b.example', 'exact.wild.example'):
        ca.issue(name, names=['DNS:' + name])
    ca.issue('renewed', 'a.example', ['DNS:a.example'])
    ca.issue('wild', '*.wild.example', ['DNS:*.wild.example'])
    ca.issue('under', '*.under.example', ['DNS:*.under.example'])
    ca.issue('rsa', 'rsa.example', ['DNS:rsa.example'], rsa=True)
    return ca


def der(path):
    with open(path) as f:
        return ssl.PEM_cert_to_DER_cert(f.read())


class Folder:
    """An ssl_sni_directory, with names laid out as others do it."""

    def __init__(self, root, authority):
        self.root = root
        self.authority = authority
        self.path = root / 'live'
        self.path.mkdir()
        self.generation = 0

    def pair(self, name):
        return self.authority.path(name + '.pem'), \
            self.authority.path(name + '.key')

    def haproxy(self, name, pair=None):
        """One file with both."""
        path = self.path / (name + '.pem')
        with open(path, 'wb') as out:
            for part in self.pair(pair or name):
                with open(part, 'rb') as f:
                    out.write(f.read())
        path.chmod(0o600)
        return str(path)

    def certbot(self, name, pair=None):
        """Links into an archive; again for a renewal. Beside them the README
        that certbot writes."""
        self.generation += 1
        archive = self.root / 'archive' / name
        archive.mkdir(parents=True, exist_ok=True)
        (self.path / name).mkdir(exist_ok=True)
        (self.path / 'README').write_text('This is not a name.\n')
        for kind, part in zip(('fullchain', 'privkey'),
                              self.pair(pair or name)):
            file = f'{kind}{self.generation}.pem'
            shutil.copy(part, archive / file)
            (archive / file).chmod(0o600 if kind == 'privkey' else 0o644)
            link = self.path / name / (kind + '.pem')
            link.unlink(missing_ok=True)
            link.symlink_to(f'../../archive/{name}/{file}')
        return str(self.path / name)


@pytest.fixture
def folder(tmp_path, authority):
    return Folder(tmp_path, authority)


class Asker:
    """Asks for names: a process for each client, or a listener."""

    def __init__(self, way, front, serve, directives):
        self.way, self.front = way, front
        self.directives = directives
        self.listener = serve(**directives) if way == 'many' else None
        self.last = None

    def connect(self):
        if self.listener is not None:
            return self.listener.connect()
        self.last = self.front(**self.directives)
        return self.last.client

    def event(self):
        """The tls event of the last client."""
        if self.last is not None:
            self.last.finish()
            return self.last.events('tls')[-1]
        self.count = getattr(self, 'count', 0) + 1
        return self.listener.await_event('tls', self.count)

    def shown(self, name, version=V13):
        """The certificate that a client which asks for `name` is shown."""
        context = client_context()
        context.minimum_version = context.maximum_version = version
        c = self.connect()
        c.start_tls(context, name)
        c.greeting()
        c.hello()
        c.ask('QUIT', '221 ')
        c.expect_end()
        c.close()
        return c.tls.getpeercert(True)

    def shown_to(self, hello):
        """What comes for such a hello, in TLS 1.2."""
        c = self.connect()
        c.send(hello)
        data = b''
        while not any(kind == tlshello.ALERT or m[-4:] == b'\x0e\0\0\0'
                      for kind, m in tlshello.records(data)):
            got = c.raw_recv_some()
            if not got:
                break
            data += got
        c.close()
        return data


@pytest.fixture(params=['alone', 'many'])
def ask(request, front, serve, certificates):
    """ask(folder, ...) is an Asker."""
    def start(folder, **kw):
        return Asker(request.param, front, serve, {
            'socket': 'ssl', 'ssl_sni_directory': str(folder.path),
            **certificates.directives(), **kw})
    return start


# --- which certificate -----------------------------------------------------

@pytest.mark.parametrize('layout', ['haproxy', 'certbot'])
@pytest.mark.parametrize('version', [V12, V13])
def test_names(ask, folder, certificates, layout, version):
    for name in ('a.example', 'b.example', 'rsa'):
        getattr(folder, layout)('rsa.example' if name == 'rsa' else name,
                                name)
    a = ask(folder)
    for name in ('a.example', 'b.example', 'rsa.example'):
        pair = name.replace('rsa.example', 'rsa')
        assert a.shown(name, version) == der(folder.pair(pair)[0])
        e = a.event()
        assert e['result'] == 'ok' and e['name'] == name
    for name in ('c.example', 'sub.a.example', 'example', NAME):
        assert a.shown(name, version) == der(certificates.ec[0])
        assert a.event()['name'] == name
    assert a.shown(None, version) == der(certificates.ec[0])
    assert 'name' not in a.event()


def test_names_in_any_case(ask, folder):
    folder.haproxy('a.example')
    folder.certbot('b.example')
    a = ask(folder)
    for name in ('A.Example', 'B.EXAMPLE'):
        assert a.shown(name) == der(folder.pair(name.lower())[0])


def test_wildcards(ask, folder, certificates):
    folder.certbot('*.wild.example', 'wild')
    folder.haproxy('_.under.example', 'under')
    folder.haproxy('exact.wild.example')
    a = ask(folder)
    wild, under = (der(folder.pair(x)[0]) for x in ('wild', 'under'))
    for name, expected in (
            ('a.wild.example', wild), ('b-1.WILD.example', wild),
            ('exact.wild.example', der(folder.pair('exact.wild.example')[0])),
            ('x.under.example', under),
            # One label, and one only (RFC 6125 section 6.4.3).
            ('wild.example', der(certificates.ec[0])),
            ('a.b.wild.example', der(certificates.ec[0])),
            ('a.exact.wild.example', der(certificates.ec[0])),
            ('under.example', der(certificates.ec[0]))):
        assert a.shown(name) == expected, name


def test_the_file_is_taken_before_the_directory(ask, folder):
    folder.certbot('a.example', 'renewed')
    folder.haproxy('a.example')
    assert ask(folder).shown('a.example') == der(folder.pair('a.example')[0])


def test_what_else_lies_there_does_not_matter(ask, folder):
    folder.haproxy('a.example')
    (folder.path / 'notes.txt').write_text('nothing\n')
    (folder.path / '.hidden.pem').write_text('nothing\n')
    (folder.path / 'Upper.Example.pem').write_text('nothing\n')
    (folder.path / 'empty.example').mkdir()
    (folder.path / 'a b.pem').write_text('nothing\n')
    (folder.path / '..pem').write_text('nothing\n')
    assert ask(folder).shown('a.example') == der(folder.pair('a.example')[0])


def test_a_client_that_verifies(ask, folder, authority):
    folder.certbot('a.example')
    a = ask(folder)
    context = ssl.create_default_context(cafile=authority.certificate)
    c = a.connect()
    c.start_tls(context, 'a.example')
    c.greeting()
    c.ask('QUIT', '221 ')
    c.expect_end()
    c.close()


def test_key_with_a_passphrase(ask, folder, certificates):
    path = folder.path / 'locked.example'
    path.mkdir()
    shutil.copy(certificates.locked[0], path / 'fullchain.pem')
    shutil.copy(certificates.locked[1], path / 'privkey.pem')
    a = ask(folder, ssl_password_file=certificates.passwords)
    assert a.shown('locked.example') == der(certificates.locked[0])


# --- hostile names ---------------------------------------------------------

@pytest.mark.parametrize('name', [
    b'../secret', b'../secret.example', b'..', b'.', b'/', b'a/../../secret',
    b'.a.example', b'a..example', b'a.example/', b'*.wild.example',
    b'_.wild.example', b'*', b'a.example\n', b'a example', b'%2e%2e',
    b'\xff\xfe', b'a' * 250, b'a.' * 125, b'secret.pem\x01', b'~root',
    b'../ca/a.example', b'a.example.', b'README', b''])
def test_names_that_are_no_hosts(ask, folder, certificates, authority, name):
    """They get what everybody gets, and lead nowhere."""
    folder.haproxy('a.example')
    folder.certbot('*.wild.example', 'wild')
    shutil.copy(folder.haproxy('b.example'), folder.root / 'secret.pem')
    os.unlink(folder.path / 'b.example.pem')
    a = ask(folder)
    data = a.shown_to(tlshello.flights(tlshello.server_name(name)))
    assert der(certificates.ec[0]) in data
    for other in ('a.example', 'b.example', 'wild'):
        assert der(folder.pair(other)[0]) not in data


@pytest.mark.parametrize('name', [b'a\0b.example', b'a.example\0',
                                  b'a' * 256, b'a' * 5000])
def test_names_that_break_the_protocol(ask, folder, name):
    folder.haproxy('a.example')
    a = ask(folder)
    data = a.shown_to(tlshello.flights(tlshello.server_name(name)))
    assert tlshello.records(data)[0][0] == tlshello.ALERT
    assert len(data) < 100
    assert a.event()['result'] == 'failed'
    assert a.shown('a.example') == der(folder.pair('a.example')[0])


@pytest.mark.parametrize('data', [
    b'', b'\0', b'\0\0', b'\0\x05\0\0\x09abc', b'\xff' * 40,
    tlshello.sized(b'\0' + tlshello.sized(b'a.example') +
                   b'\0' + tlshello.sized(b'b.example'))])
def test_broken_extensions(ask, folder, data):
    folder.haproxy('a.example')
    a = ask(folder)
    got = a.shown_to(tlshello.flights((tlshello.SERVER_NAME, data)))
    assert tlshello.records(got)[0][0] == tlshello.ALERT
    assert a.event()['result'] == 'failed'


# --- what is wrong with a pair ---------------------------------------------

def broken(folder, how):
    """b.example in a bad way; the file that is to be named."""
    at = folder.certbot('b.example')
    key, chain = at + '/privkey.pem', at + '/fullchain.pem'
    if how == 'key of another':
        shutil.copy(folder.pair('a.example')[1], os.path.realpath(key))
    elif how == 'no key':
        os.unlink(key)
    elif how == 'dangling link':
        os.unlink(os.path.realpath(key))
    elif how == 'key for all':
        os.chmod(os.path.realpath(key), 0o644)
    elif how == 'garbage':
        with open(os.path.realpath(chain), 'w') as f:
            f.write('-----BEGIN CERTIFICATE-----\nnonsense\n')
        return chain
    elif how == 'a directory':
        os.unlink(key)
        os.mkdir(key)
    return key


BROKEN = ['key of another', 'no key', 'dangling link', 'key for all',
          'garbage', 'a directory']
every_fault = pytest.mark.parametrize('how', BROKEN)


@every_fault
def test_a_listener_does_not_start(serve, folder, certificates, how):
    folder.haproxy('a.example')
    path = broken(folder, how)
    s = serve(starttls='on', ssl_sni_directory=str(folder.path),
              **certificates.directives())
    assert s.wait() == 78
    reason = s.events('tls', result='failed')[0]['reason']
    assert reason.startswith(f'ssl_sni_directory {path}: ')


@every_fault
def test_a_listener_keeps_what_it_has(serve, folder, certificates, how):
    folder.haproxy('a.example')
    s = serve(socket='ssl', ssl_sni_directory=str(folder.path),
              **certificates.directives())
    s.connect().start_tls(None, 'a.example')  # it is at work
    path = broken(folder, how)
    folder.haproxy('a.example', 'renewed')
    s.signal(signal.SIGHUP)
    s.await_event('reload', result='failed')
    assert path in s.await_event('tls', result='failed')['reason']
    c = s.connect()
    c.start_tls(None, 'a.example')
    c.greeting()
    assert c.tls.getpeercert(True) == der(folder.pair('a.example')[0])


@every_fault
def test_a_process_of_its_own_serves_the_others(front, folder, certificates,
                                                how):
    folder.haproxy('a.example')
    path = broken(folder, how)
    kw = {'socket': 'ssl', 'ssl_sni_directory': str(folder.path),
          **certificates.directives()}
    s = front(**kw)
    with pytest.raises((ssl.SSLError, ConnectionError)):
        s.client.start_tls(None, 'b.example')
    assert s.finish()['cause'] == 'tls'
    e = s.event('tls')
    assert e['result'] == 'failed' and path in e['reason']
    s = front(**kw)
    s.client.start_tls(None, 'a.example')
    s.client.greeting()
    s.quit()


@every_fault
def test_check_tells_of_it(folder, certificates, users, how):
    path = broken(folder, how)
    done = run('--check', '--starttls', 'on', '--auth-provider', users,
               '--backend', '127.0.0.1:25', '--ssl-certificate',
               certificates.ec[0], '--ssl-certificate-key',
               certificates.ec[1], '--ssl-sni-directory', str(folder.path))
    assert any(path in x for x in done.out.splitlines() if 'warning' in x)


def test_no_directory(serve, folder, certificates):
    s = serve(starttls='on', ssl_sni_directory=str(folder.path) + '/none',
              **certificates.directives())
    assert s.wait() == 78
    assert str(folder.path) + '/none' in s.events('tls')[0]['reason']


# --- renewal ---------------------------------------------------------------

@pytest.mark.parametrize('layout', ['haproxy', 'certbot'])
def test_renewal(ask, folder, layout):
    getattr(folder, layout)('a.example')
    a = ask(folder)
    assert a.shown('a.example') == der(folder.pair('a.example')[0])
    getattr(folder, layout)('a.example', 'renewed')
    folder.haproxy('b.example')
    if a.listener is not None:
        # Until it is told, it has what it has loaded.
        assert a.shown('a.example') == der(folder.pair('a.example')[0])
        a.listener.signal(signal.SIGHUP)
        a.listener.await_event('reload', result='ok')
    assert a.shown('a.example') == der(folder.pair('renewed')[0])
    assert a.shown('b.example') == der(folder.pair('b.example')[0])


def test_a_name_that_goes(ask, folder, certificates):
    path = folder.haproxy('a.example')
    a = ask(folder)
    assert a.shown('a.example') == der(folder.pair('a.example')[0])
    os.unlink(path)
    if a.listener is not None:
        a.listener.signal(signal.SIGHUP)
        a.listener.await_event('reload', result='ok')
    assert a.shown('a.example') == der(certificates.ec[0])


# --- what is read ----------------------------------------------------------

IN_OPEN = 0x20


class Opened:
    """The files of directories that are opened, told by inotify(7)."""

    def __init__(self, *folders):
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        assert self.fd >= 0
        self.folders = {}
        for folder in folders:
            watch = libc.inotify_add_watch(
                self.fd, str(folder).encode(), IN_OPEN)
            assert watch >= 0
            self.folders[watch] = str(folder)

    def names(self):
        try:
            data = os.read(self.fd, 1 << 20)
        except BlockingIOError:
            data = b''
        found = set()
        while data:
            watch, _, _, length = struct.unpack_from('iIII', data)
            name = data[16:16 + length].rstrip(b'\0').decode()
            found.add(os.path.join(self.folders[watch], name))
            data = data[16 + length:]
        return found

    def close(self):
        os.close(self.fd)


def watched(folder):
    """Of five names, all that are opened."""
    folder.haproxy('a.example')
    for name in ('b.example', 'c.example', 'd.example'):
        folder.certbot(name, 'b.example')
    folder.haproxy('e.example', 'a.example')
    archives = [folder.root / 'archive' / x
                for x in ('b.example', 'c.example', 'd.example')]
    return Opened(folder.path, *archives)


@pytest.mark.parametrize('name,opened', [
    ('a.example', ['live/a.example.pem']),
    ('c.example', ['archive/c.example/fullchain2.pem',
                   'archive/c.example/privkey2.pem']),
    ('f.example', []), (None, [])])
def test_only_what_is_asked_for_is_read(front, folder, certificates, name,
                                        opened):
    w = watched(folder)
    w.names()
    s = front(socket='ssl', ssl_sni_directory=str(folder.path),
              **certificates.directives())
    s.client.start_tls(None, name)
    s.client.greeting()
    s.quit()
    assert w.names() == {str(folder.root / x) for x in opened}
    w.close()


def test_a_listener_reads_all_at_once_and_then_nothing(serve, folder,
                                                       certificates):
    w = watched(folder)
    w.names()
    s = serve(socket='ssl', ssl_sni_directory=str(folder.path),
              **certificates.directives())
    for name in ('a.example', 'c.example', 'f.example'):
        c = s.connect()
        c.start_tls(None, name)
        c.greeting()
        if name == 'a.example':
            assert len(w.names() - {str(folder.path) + '/'}) == 8
    assert w.names() == set()
    w.close()


# --- OCSP responses --------------------------------------------------------

def respond(authority, name, path):
    """The authority's word on a certificate, as a file in DER."""
    authority.openssl(
        'ocsp', '-index', authority.path('index'), '-CA',
        authority.certificate, '-rsigner', authority.certificate, '-rkey',
        authority.path('ca.key'), '-issuer', authority.certificate, '-cert',
        authority.path(name + '.pem'), '-ndays', '7', '-noverify', '-respout',
        str(path))
    return str(path)


def stapled(port, authority, name=None, version='-tls1_3'):
    """openssl s_client's words about the response."""
    asked = ['-servername', name] if name else ['-noservername']
    done = subprocess.run(
        ['openssl', 's_client', '-status', '-crlf', '-ign_eof', version,
         '-CAfile', authority.certificate, *asked, '-connect',
         f'127.0.0.1:{port}'], input=b'EHLO me\nquit\n', capture_output=True,
        timeout=DEADLINE)
    out = done.stdout.decode('latin-1')
    assert '221 2.0.0 ' in out
    return out.split('OCSP response', 1)[1].split('---', 1)[0] \
        if 'OCSP response: no' in out else out


@pytest.mark.parametrize('version', ['-tls1_2', '-tls1_3'])
@pytest.mark.parametrize('layout', ['haproxy', 'certbot'])
def test_each_name_has_its_response(serve, folder, authority, layout,
                                    version):
    names = ('a.example', 'b.example')
    for name in names:
        at = getattr(folder, layout)(name)
        respond(authority, name, folder.path / (name + '.ocsp')
                if layout == 'haproxy' else at + '/ocsp.der')
    getattr(folder, layout)('exact.wild.example')
    usual = authority.issue('usual-' + layout + version, NAME)
    response = respond(authority, 'usual-' + layout + version,
                       folder.root / 'usual.der')
    s = serve(socket='ssl', ssl_certificate=usual[0],
              ssl_certificate_key=usual[1], ssl_stapling_file=response,
              ssl_sni_directory=str(folder.path))
    port = s.address()[1]
    for name in (*names, None):
        out = stapled(port, authority, name, version)
        assert 'OCSP Response Status: successful' in out
        assert 'Cert Status: good' in out
        path = folder.pair(name or 'usual-' + layout + version)[0]
        serial = authority.openssl('x509', '-in', path, '-noout',
                                   '-serial').strip().split('=')[1]
        assert f'Serial Number: {serial}' in out
    out = stapled(port, authority, 'exact.wild.example', version)
    assert 'no response sent' in out


@pytest.mark.parametrize('name,trusted', [('a.example', True),
                                          ('b.example', False)])
def test_gnutls(serve, folder, authority, certificates, name, trusted):
    """A revoked certificate is told by what is stapled to it."""
    ca = authority
    if not trusted:
        ca = Authority(folder.root / 'other')
        ca.issue(name, names=['DNS:' + name])
        folder.authority = ca
        ca.revoke(ca.path(name + '.pem'))
    folder.haproxy(name)
    respond(ca, name, folder.path / (name + '.ocsp'))
    s = serve(socket='ssl', ssl_sni_directory=str(folder.path),
              **certificates.directives())
    done = subprocess.run(
        ['gnutls-cli', '--x509cafile', ca.certificate, '--sni-hostname', name,
         '--verify-hostname', name, '--crlf', '--port', str(s.address()[1]),
         '127.0.0.1'], input=b'EHLO me\nQUIT\n', capture_output=True,
        timeout=DEADLINE)
    out = done.stdout.decode()
    if trusted:
        assert 'OCSP status request' in out, out
        assert 'The certificate is trusted' in out
        assert '250-front.example' in out
    else:
        assert 'revoked' in out, out
        assert done.returncode != 0


@pytest.mark.parametrize('what', [b'', b'nonsense', b'\x30\x03\x0a\x01\x06'],
                         ids=['empty', 'nonsense', 'tryLater'])
def test_a_file_that_is_no_response(front, serve, folder, authority,
                                    certificates, what):
    folder.haproxy('a.example')
    path = folder.path / 'a.example.ocsp'
    path.write_bytes(what)
    kw = {'starttls': 'on', **certificates.directives()}
    for directive, value in (('ssl_sni_directory', folder.path),
                             ('ssl_stapling_file', path)):
        s = serve(**{directive: str(value)}, **kw)
        assert s.wait() == 78
        assert str(path) in s.events('tls')[0]['reason']
