"""Sessions of TLS that begin where an earlier one ended: in another process, at
another front end, after a restart, and not where they must not."""

import base64
import os
import re
import shutil
import signal
import socket
import ssl
import subprocess

import pytest

from harness import DEADLINE, NAME, client_context, run, until
from listener import Keeper, Listener, listening_socket

V12, V13 = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
both_versions = pytest.mark.parametrize('version', [V12, V13])
VALIDITY = 1  # seconds, of a ticket that a test lets expire


class Visitor:
    """A client that comes again, with what it has kept of the last time."""

    def __init__(self, version, name=NAME):
        self.context = client_context()
        self.context.minimum_version = version
        self.context.maximum_version = version
        self.name = name
        self.session = None

    def visit(self, c):
        """A short session from the greeting on; whether it was resumed."""
        c.greeting()
        c.hello()
        c.ask('STARTTLS', '220 ')
        c.start_tls(self.context, self.name, session=self.session)
        c.hello()  # with TLS 1.3 the ticket comes before the reply
        if c.tls.session is not None:
            self.session = c.tls.session
        c.ask('QUIT', '221 ')
        c.expect_end()
        c.close()
        return c.tls.session_reused


def key_file(folder, name, length=80):
    path = folder / name
    path.write_bytes(os.urandom(length))
    path.chmod(0o600)
    return str(path)


@pytest.fixture
def runtime(tmp_path):
    """A directory such as systemd makes for RuntimeDirectory=."""
    path = tmp_path / 'run'
    path.mkdir(mode=0o700)
    return str(path)


@pytest.fixture
def alone(front, certificates):
    """alone(...): a process for one client that may say STARTTLS."""
    def start(**kw):
        return front(starttls='on', **certificates.directives(), **kw)
    return start


@pytest.fixture
def many(serve, certificates):
    """many(...): a listener for those clients."""
    def start(**kw):
        return serve(starttls='on', **certificates.directives(), **kw)
    return start


def visited(s):
    """The tls event of a process for one client that has been served."""
    s.finish()
    return s.event('tls')


# --- where it is resumed ---------------------------------------------------

@both_versions
def test_in_another_process(alone, runtime, version):
    v = Visitor(version)
    s = alone(runtime_directory=runtime)
    assert not v.visit(s.client)
    e = visited(s)
    assert 'resumed' not in e and e['group']
    for _ in range(3):
        s = alone(runtime_directory=runtime)
        assert v.visit(s.client)
        e = visited(s)
        assert e['resumed'] == 'yes' and e['name'] == NAME and e['group']


def test_systemd_says_where_the_runtime_directory_is(alone, runtime):
    v = Visitor(V13)
    for expected in (False, True):
        s = alone(env={'RUNTIME_DIRECTORY': runtime})
        assert v.visit(s.client) is expected
        visited(s)
    s = alone(env={'SMTP_RUNTIME_DIRECTORY': runtime,
                   'RUNTIME_DIRECTORY': '/nonexistent'})
    assert v.visit(s.client)
    visited(s)


@both_versions
def test_in_another_process_of_a_listener(many, version):
    s = many()
    v = Visitor(version)
    assert not v.visit(s.connect())
    for _ in range(3):
        assert v.visit(s.connect())
    first = s.await_event('tls', result='ok')
    later = s.await_event('tls', count=3, resumed='yes')
    assert first['session'] != later['session'] and 'resumed' not in first


@both_versions
def test_at_another_front_end_with_the_same_file(many, tmp_path, version):
    key = key_file(tmp_path, 'key')
    copy = str(tmp_path / 'copy')
    shutil.copy(key, copy)
    v = Visitor(version)
    assert not v.visit(many(ssl_session_ticket_key=key).connect())
    assert v.visit(many(ssl_session_ticket_key=copy).connect())


@both_versions
def test_by_a_listener_and_by_a_process_of_its_own(alone, many, tmp_path,
                                                   version):
    key = key_file(tmp_path, 'key', 48)
    v = Visitor(version)
    assert not v.visit(many(ssl_session_ticket_key=key).connect())
    s = alone(ssl_session_ticket_key=key)
    assert v.visit(s.client)
    visited(s)
    assert v.visit(many(ssl_session_ticket_key=key).connect())


def test_after_a_restart_with_a_file(many, tmp_path):
    key = key_file(tmp_path, 'key')
    v = Visitor(V13)
    s = many(ssl_session_ticket_key=key)
    assert not v.visit(s.connect())
    s.stop()
    assert v.visit(many(ssl_session_ticket_key=key).connect())


def test_a_listener_forgets_its_own_keys(many, runtime):
    """They are in its memory alone, whatever directory there is."""
    v = Visitor(V13)
    s = many(runtime_directory=runtime)
    assert not v.visit(s.connect())
    assert v.visit(s.connect())
    s.stop()
    assert os.listdir(runtime) == []
    assert not v.visit(many(runtime_directory=runtime).connect())


def test_with_a_keeper_that_lives_on_and_is_restarted(
        service, alone, certificates, runtime, tmp_path):
    path = str(tmp_path / 'keeper')
    v = Visitor(V13)

    def keeper():
        sock = listening_socket('unix', path, kind=socket.SOCK_SEQPACKET)
        return service(Keeper, sockets=[sock], runtime_directory=runtime,
                       **certificates.directives())

    for expected in (False, True):
        k = keeper()
        for before in (expected, True):
            s = alone(keeper_socket=path)
            assert v.visit(s.client) is before
            visited(s)
        k.stop()
        os.unlink(path)


def test_many_processes_at_once(front, certificates, runtime):
    """They find nothing there: those that have tickets have the same key."""
    sessions = [front(starttls='on', runtime_directory=runtime,
                      **certificates.directives()) for _ in range(8)]
    visitors = [Visitor(V13) for _ in sessions]
    for s, v in zip(sessions, visitors):
        v.visit(s.client)
        visited(s)
    kept = [v for v in visitors if v.session is not None and
            v.session.has_ticket]
    assert kept
    for v in kept:
        s = front(starttls='on', runtime_directory=runtime,
                  **certificates.directives())
        assert v.visit(s.client)
        visited(s)


# --- keys that change ------------------------------------------------------

@both_versions
@pytest.mark.parametrize('old,new', [(80, 80), (48, 80), (80, 48)])
def test_the_first_key_encrypts_and_all_decrypt(many, tmp_path, version, old,
                                                new):
    a, b = key_file(tmp_path, 'a', old), key_file(tmp_path, 'b', new)
    v = Visitor(version)
    assert not v.visit(many(ssl_session_ticket_key=a).connect())
    kept = v.session
    assert v.visit(many(ssl_session_ticket_key=[b, a]).connect())
    # It was given one of the new key meanwhile.
    last = many(ssl_session_ticket_key=b)
    assert v.visit(last.connect())
    # And the ticket of a key that nobody has any more is none.
    v.session = kept
    assert not v.visit(last.connect())
    assert 'resumed' not in last.await_event('tls', count=2, result='ok')


@both_versions
def test_a_reload_keeps_the_keys_of_a_listener(many, version):
    s = many()
    v = Visitor(version)
    assert not v.visit(s.connect())
    for count in (1, 2):
        s.signal(signal.SIGHUP)
        s.await_event('reload', count=count, result='ok')
        assert v.visit(s.connect())


def test_a_reload_takes_new_files(many, tmp_path):
    key = key_file(tmp_path, 'key')
    other = Visitor(V13)
    s = many(ssl_session_ticket_key=key)
    assert not other.visit(s.connect())
    os.rename(key_file(tmp_path, 'new'), key)
    s.signal(signal.SIGHUP)
    s.await_event('reload', result='ok')
    assert not other.visit(s.connect())
    assert other.visit(s.connect())


def test_a_reload_with_a_bad_file_keeps_the_old_keys(many, tmp_path):
    key = key_file(tmp_path, 'key')
    v = Visitor(V13)
    s = many(ssl_session_ticket_key=key)
    assert not v.visit(s.connect())
    with open(key, 'wb') as f:
        f.write(b'short')
    s.signal(signal.SIGHUP)
    s.await_event('reload', result='failed')
    assert key in s.await_event('tls', result='failed')['reason']
    assert v.visit(s.connect())


@both_versions
@pytest.mark.parametrize('way', ['alone', 'many'])
def test_a_ticket_expires(request, runtime, version, way):
    """And with it the key that was made for it, and the next one is good."""
    settings = {'ssl_session_timeout': f'{VALIDITY}s'}
    v = Visitor(version)
    if way == 'many':
        listener = request.getfixturevalue('many')(**settings)

    def visit():
        if way == 'many':
            return v.visit(listener.connect())
        s = request.getfixturevalue('alone')(
            runtime_directory=runtime, **settings)
        resumed = v.visit(s.client)
        assert visited(s)['result'] == 'ok'
        return resumed

    def is_over():
        v.session = first
        return not visit()

    visit()
    first = v.session
    # Each of these is served, resumed or not.
    until(is_over, 'the end of the ticket')


# --- tickets that are none -------------------------------------------------

class Peer:
    """openssl s_client, and what it keeps in a file."""

    def __init__(self, folder, port, version):
        self.folder, self.port = folder, port
        self.words = ['openssl', 's_client', '-starttls', 'smtp', '-crlf',
                      '-ign_eof', '-servername', NAME,
                      '-tls1_2' if version == V12 else '-tls1_3']

    def talk(self, *words):
        """What it prints for a session that is ended by QUIT (a letter Q at the
        beginning would be a command of its own)."""
        done = subprocess.run(
            [*self.words, *words, '-connect', f'127.0.0.1:{self.port}'],
            input=b'EHLO again\nquit\n', capture_output=True, timeout=DEADLINE)
        out = done.stdout.decode('latin-1') + done.stderr.decode('latin-1')
        assert '221 2.0.0 ' in out, out
        return out

    def keep(self):
        path = str(self.folder / 'session.pem')
        out = self.talk('-sess_out', path)
        assert os.path.exists(path), out
        return path

    def offer(self, path):
        """Whether it was resumed."""
        out = self.talk('-sess_in', path)
        resumed = re.search(r'^(Reused|New), TLS', out, re.M).group(1)
        return resumed == 'Reused'


def peer(s, tmp_path, version):
    return Peer(tmp_path, s.address()[1], version)


def mangled(path, change):
    """The same with another ticket: `change` takes and gives its octets."""
    text = subprocess.run(['openssl', 'sess_id', '-in', path, '-noout',
                           '-text'], capture_output=True,
                          check=True).stdout.decode()
    dump = text.split('TLS session ticket:', 1)[1]
    ticket = bytes.fromhex(''.join(re.findall(
        r'^ +[0-9a-f]+ - ((?:[0-9a-f]{2}[ -]?){1,16})', dump, re.M)
    ).replace('-', '').replace(' ', ''))
    with open(path) as f:
        lines = f.read().split('-----')
    der = base64.b64decode(lines[2])
    assert der.count(ticket) == 1
    new = change(ticket)
    assert len(new) == len(ticket) and new != ticket
    out = path + '.mangled'
    with open(out, 'w') as f:
        f.write('-----BEGIN SSL SESSION PARAMETERS-----\n' +
                base64.encodebytes(der.replace(ticket, new)).decode() +
                '-----END SSL SESSION PARAMETERS-----\n')
    return out


def flip(at):
    def change(ticket):
        octets = bytearray(ticket)
        octets[at] ^= 1
        return bytes(octets)
    return change


@both_versions
@pytest.mark.parametrize('change', [
    flip(0), flip(15), flip(16), flip(31), flip(40), flip(-32), flip(-1),
    lambda t: bytes(len(t)), lambda t: b'\xff' * len(t),
    lambda t: t[:16] + os.urandom(len(t) - 16), lambda t: t[::-1]],
    ids=['name', 'name end', 'iv', 'iv end', 'body', 'mac', 'mac end',
         'zeros', 'ones', 'noise behind the name', 'backwards'])
def test_a_mangled_ticket_is_no_ticket(many, tmp_path, version, change):
    s = many()
    p = peer(s, tmp_path, version)
    kept = p.keep()
    assert p.offer(kept)
    assert not p.offer(mangled(kept, change))
    assert p.offer(kept)
    assert not s.events('tls', result='failed')


@both_versions
def test_a_ticket_of_somebody_else(many, tmp_path, version):
    kept = peer(many(), tmp_path, version).keep()
    s = many()
    assert not peer(s, tmp_path, version).offer(kept)
    assert not s.events('tls', result='failed')


# --- how many --------------------------------------------------------------

@both_versions
def test_one_ticket_a_handshake(many, tmp_path, version):
    s = many()
    p = peer(s, tmp_path, version)
    kept = str(tmp_path / 'kept')
    assert p.talk('-msg', '-sess_out', kept).count('NewSessionTicket') == 1
    again = p.talk('-msg', '-sess_in', kept)
    assert re.search('^Reused', again, re.M)
    # TLS 1.2: the old one is good still, and says for how long.
    assert again.count('NewSessionTicket') == (1 if version == V13 else 0)


@both_versions
@pytest.mark.parametrize('more', ['', 'files', 'directory'])
def test_tickets_off(many, tmp_path, runtime, version, more):
    kw = {'files': {'ssl_session_ticket_key': key_file(tmp_path, 'key')},
          'directory': {'runtime_directory': runtime}}.get(more, {})
    s = many(ssl_session_tickets='off', **kw)
    p = peer(s, tmp_path, version)
    assert 'NewSessionTicket' not in p.talk('-msg')
    v = Visitor(version)
    assert not v.visit(s.connect())
    assert not v.visit(s.connect())
    assert os.listdir(runtime) == []


def test_tickets_off_in_a_process_of_its_own(alone, runtime):
    v = Visitor(V13)
    for _ in range(2):
        s = alone(ssl_session_tickets='off', runtime_directory=runtime)
        assert not v.visit(s.client)
        visited(s)
    assert os.listdir(runtime) == []


def test_no_directory_and_no_file(alone):
    """As a process by hand is started: nobody would open its tickets."""
    v = Visitor(V13)
    for _ in range(2):
        s = alone()
        assert not v.visit(s.client)
        assert visited(s)['result'] == 'ok'
    assert not v.session.has_ticket


# --- names -----------------------------------------------------------------

@both_versions
@pytest.mark.parametrize('other', ['b.example', None])
def test_a_session_of_another_name_is_not_resumed(many, version, other):
    """RFC 6066 section 3: for another name it is a full handshake."""
    s = many()
    v = Visitor(version, 'a.example')
    assert not v.visit(s.connect())
    kept = v.session
    v.name = other
    assert not v.visit(s.connect())
    e = s.await_event('tls', count=2, result='ok')
    assert e.get('name') == other and 'resumed' not in e
    v.name, v.session = 'A.Example', kept
    assert v.visit(s.connect())
    e = s.await_event('tls', resumed='yes')
    assert e['name'].lower() == 'a.example'


@both_versions
def test_a_session_without_a_name(many, version):
    s = many()
    v = Visitor(version, None)
    assert not v.visit(s.connect())
    assert v.visit(s.connect())
    assert 'name' not in s.await_event('tls', resumed='yes')


# --- what is wrong with keys -----------------------------------------------

def bad_key(folder, how):
    path = folder / 'key'
    if how != 'missing':
        path.write_bytes(os.urandom(79 if how == 'short' else 80))
        path.chmod(0o644 if how == 'open to all' else 0o600)
    return str(path)


BAD = ['missing', 'short', 'open to all']


@pytest.mark.parametrize('how', BAD)
def test_a_listener_does_not_start_with_a_bad_key(many, tmp_path, how):
    path = bad_key(tmp_path, how)
    s = many(ssl_session_ticket_key=path)
    assert s.wait() == 78
    assert path in s.events('tls', result='failed')[0]['reason']


@pytest.mark.parametrize('how', BAD)
def test_no_tls_with_a_bad_key(alone, tmp_path, how):
    path = bad_key(tmp_path, how)
    s = alone(ssl_session_ticket_key=path)
    s.client.greeting()
    s.client.ask('STARTTLS', '454 4.7.0 ')
    s.quit()
    assert path in s.events('tls')[0]['reason']


@pytest.mark.parametrize('how', BAD)
def test_check_tells_of_a_bad_key(certificates, users, tmp_path, how):
    cert, key = certificates.ec
    path = bad_key(tmp_path, how)
    done = run('--check', '--starttls', 'on', '--auth-provider', users,
               '--backend', '127.0.0.1:25', '--ssl-certificate', cert,
               '--ssl-certificate-key', key, '--ssl-session-ticket-key', path)
    assert any(path in x for x in done.out.splitlines() if 'warning' in x)


@pytest.mark.parametrize('how', ['open to all', 'not there'])
def test_a_directory_that_is_not_ours_alone(alone, runtime, how):
    """There are no tickets then, and the log says why; TLS goes on."""
    path = runtime if how == 'open to all' else runtime + '/none'
    os.chmod(runtime, 0o777)
    s = alone(runtime_directory=path)
    assert not Visitor(V13).visit(s.client)
    s.finish()
    told, done = s.events('tls')
    assert told['result'] == 'no tickets' and path in told['reason']
    assert done['result'] == 'ok'
    assert os.listdir(runtime) == []


# --- other clients ---------------------------------------------------------

@pytest.mark.parametrize('version', ['1.2', '1.3'])
def test_gnutls(serve, certificates, version):
    """gnutls-cli --resume connects twice by itself."""
    s = serve(sockets=[listening_socket()], **certificates.directives(),
              socket='ssl')
    done = subprocess.run(
        ['gnutls-cli', '--resume', '--insecure', '--crlf', '--priority',
         f'NORMAL:-VERS-ALL:+VERS-TLS{version}', '--port',
         str(s.address()[1]), '127.0.0.1'],
        input=b'EHLO again\nQUIT\n', capture_output=True, timeout=DEADLINE)
    out = done.stdout.decode()
    assert 'This is a resumed session' in out, out
    assert s.await_event('tls', resumed='yes')['protocol'] == 'TLSv' + version


def test_two_processes_of_s_client(alone, certificates, runtime, tmp_path):
    """Client and server are other processes the second time."""
    kept, outputs = str(tmp_path / 'kept'), []
    for words in (['-sess_out', kept], ['-sess_in', kept]):
        with listening_socket() as listener:
            client = subprocess.Popen(
                ['openssl', 's_client', '-starttls', 'smtp', '-crlf',
                 '-ign_eof', *words, '-connect', '127.0.0.1:%d' %
                 listener.getsockname()[1]], stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
            try:
                listener.settimeout(DEADLINE)
                server, _ = listener.accept()
                server.setblocking(True)
                s = alone(server_sock=server, runtime_directory=runtime)
                out, _ = client.communicate(b'EHLO me\nquit\n', DEADLINE)
                outputs.append(out.decode())
            finally:
                if client.poll() is None:
                    client.kill()
                client.wait()
        visited(s)
    assert 'New, TLSv1.3' in outputs[0] and 'Reused, TLSv1.3' in outputs[1]
