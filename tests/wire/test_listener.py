"""The listener and the keeper that lives on: sockets, processes, limits,
reload, end, what is told of it, and bad times."""

import os
import re
import shutil
import signal
import socket
import ssl
import struct
import subprocess
import sys
import threading
import time

import pytest

import fakes
import harness
from fakes import ok, plain
from harness import (
    DEADLINE, LINGER, WireError, children, client_context, is_alive, kill,
    until)
from listener import (
    ANSWER_FAILURE, ANSWER_MECHANISMS, ANSWER_VERDICT, ASK_CERTIFICATES,
    ASK_MECHANISMS, ASK_VERDICT, Keeper, NotifySocket, channel,
    cpu_seconds, free_port, listening_socket, open_files, packet, status_of)

GOOD = plain('alice', 'wonderland')
BAD = plain('alice', 'hatter')
ROOT = os.geteuid() == 0
NOBODY = 65534
LONELY = 100000 + 2 * os.getpid()  # has no other process

# One that was built with a sanitizer keeps what is freed for a while.
with open(harness.PROGRAM, 'rb') as program:
    FLAT = 10 ** 6 if b'__asan_init' in program.read() else 1

only_root = pytest.mark.skipif(not ROOT, reason='only for root')


@pytest.fixture
def notify(tmp_path):
    n = NotifySocket(str(tmp_path / 'notify'))
    yield n
    n.close()


def log_in(c, pattern='235 2.7.0 '):
    return c.ask('AUTH PLAIN ' + GOOD, pattern)


def bye(c):
    c.ask('QUIT', '221 ')
    c.expect_end()
    c.close()


def secured(c, **kw):
    """STARTTLS and EHLO."""
    c.hello()
    c.ask('STARTTLS', '220 2.0.0 ')
    c.start_tls(**kw)
    c.hello()
    return c


def send_message(c, text='hello'):
    c.ask('MAIL FROM:<a@a.example>', '250 ')
    c.ask('RCPT TO:<b@b.example>', '250 ')
    c.ask('DATA', '354 ')
    c.send(f'Subject: {text}\r\n\r\n{text}\r\n.\r\n')
    c.expect('250 ')


def pid_of(listener, before):
    """The session that has come to those `before`."""
    return until(lambda: sorted(set(listener.sessions()) - set(before)),
                 'a new session')[0]


def with_free_port(start, family='inet', tries=5):
    """start(port), with another port when this one is taken meanwhile."""
    for _ in range(tries):
        port = free_port(family)
        s = start(port)
        try:
            until(lambda: s.proc.poll() is not None or
                  is_open(port, family), 'an open port')
        except WireError:
            continue
        if s.proc.poll() is None:
            return s, port
    pytest.fail(f'no port: {s.log.text}')


def is_open(port, family):
    """Whether somebody listens there (without connecting to it)."""
    name = '/proc/net/tcp6' if family == 'inet6' else '/proc/net/tcp'
    with open(name) as f:
        return any(re.match(rf'\s*\d+: [0-9A-F]+:{port:04X} \S+ 0A ', line)
                   for line in f)


# --- 1. sockets ------------------------------------------------------------

def test_listens_to_ipv4(serve):
    s, port = with_free_port(lambda p: serve(listen=f'127.0.0.1:{p}'))
    bye(s.session(port=port))
    s.await_event('close', client='127.0.0.1')
    s.stop()


@pytest.mark.parametrize('form', ['{}', '*:{}', '0.0.0.0:{}'])
def test_listens_to_a_port_alone(serve, form):
    s, port = with_free_port(lambda p: serve(listen=form.format(p)))
    bye(s.session(port=port, host='127.0.0.2'))
    s.stop()


def test_listens_to_ipv6(serve):
    s, port = with_free_port(
        lambda p: serve(listen=f'[::1]:{p}'), 'inet6')
    bye(s.session(port=port, host='::1', family=socket.AF_INET6))
    s.await_event('close', client='::1')
    s.stop()


def test_ipv6_wildcard_leaves_ipv4_alone(serve):
    """As with nginx, [::] and 0.0.0.0 stand side by side."""
    s, port = with_free_port(
        lambda p: serve(listen=[f'[::]:{p}', f'0.0.0.0:{p}']), 'inet6')
    bye(s.session(port=port, host='::1', family=socket.AF_INET6))
    bye(s.session(port=port))
    s.await_event('close', client='::1')
    s.await_event('close', client='127.0.0.1')
    s.stop()


def connect_unix(path):
    c = socket.socket(socket.AF_UNIX)
    until(lambda: os.path.exists(path) and c.connect_ex(path) == 0,
          'a UNIX socket')
    c.settimeout(DEADLINE)
    return harness.Client(sock=c)


def test_listens_to_a_unix_socket(serve, tmp_path):
    path = str(tmp_path / 'front')
    s = serve(listen=f'unix:{path}', max_connections_per_source=1)
    # What is not the network has no source that could be counted.
    clients = [connect_unix(path) for _ in range(3)]
    for c in clients:
        c.greeting()
    for c in clients:
        bye(c)
    s.await_event('close', client='unix:')
    s.stop()


def test_unix_socket_that_a_crash_left_is_replaced(serve, tmp_path):
    path = str(tmp_path / 'front')
    listening_socket('unix', path).close()
    s = serve(listen=f'unix:{path}')
    c = connect_unix(path)
    c.greeting()
    bye(c)
    s.stop()


def test_a_file_that_is_no_socket_is_not_removed(serve, tmp_path):
    path = tmp_path / 'precious'
    path.write_text('mail')
    s = serve(listen=f'unix:{path}')
    assert s.wait() == 78
    assert path.read_text() == 'mail'
    [e] = s.events('listen', result='failed')
    assert str(path) in e['reason']


def test_unix_socket_in_use_is_not_taken(serve, tmp_path):
    path = str(tmp_path / 'front')
    s = serve(listen=f'unix:{path}')
    c = connect_unix(path)
    c.greeting()
    second = serve(listen=f'unix:{path}')
    assert second.wait() == 78
    assert second.events('listen', result='failed')
    c2 = connect_unix(path)
    c2.greeting()
    bye(c2)
    bye(c)
    s.stop()


def test_several_with_ssl_and_backlog(serve, certificates, tmp_path):
    path = str(tmp_path / 'front')
    s, port = with_free_port(lambda p: serve(
        listen=[f'127.0.0.1:{p} ssl backlog=7', f'unix:{path}',
                f'127.0.0.2:{p} backlog=9'],
        starttls='on', **certificates.directives()))
    c = s.connect(port=port)
    c.start_tls()
    c.greeting()
    assert 'STARTTLS' not in c.hello()
    bye(c)
    c = s.session(port=port, host='127.0.0.2')
    assert 'STARTTLS' in c.hello()
    bye(secured(c))
    c = connect_unix(path)
    c.greeting()
    bye(c)
    # ss: Send-Q of a listening socket is its backlog.
    if shutil.which('ss'):
        out = subprocess.run(['ss', '-Hltn', f'sport = :{port}'],
                             capture_output=True, timeout=DEADLINE).stdout
        assert sorted(int(x.split()[2]) for x in out.splitlines()) == [7, 9]
    s.stop()


@pytest.mark.parametrize('value', [
    '127.0.0.1', 'localhost:25', '127.0.0.1:0', '127.0.0.1:65536',
    '127.0.0.1:25x', '[::1]', '[::1:25', '::1:25', '[127.0.0.1]:25', ':25',
    '127.0.0.256:25', 'unix:', 'unix:relative', 'unix:/' + 'x' * 120,
    '127.0.0.1:2525 tls', '127.0.0.1:2525 backlog=0',
    '127.0.0.1:2525 backlog=', '127.0.0.1:2525 backlog=1x',
    '127.0.0.1:2525 backlog=65536', '127.0.0.1:2525 "ssl',
    '127.0.0.1:2525 ssl'])
def test_bad_values_are_one_clear_line(users, value):
    args = ['--auth-provider', users, '--backend', '127.0.0.1:9']
    done = harness.run('--listen', value, *args)
    status = 78 if value == '127.0.0.1:2525 ssl' else 64
    assert (done.returncode, done.out) == (status, '')
    assert done.err.count('\n') == 1 and 'listen' in done.err
    done = harness.run(*args, env={'SMTP_LISTEN': f'"{value}"'.replace(
        ' "ssl"', ' \\"ssl"')})
    assert done.returncode == 78 and done.err.count('\n') == 1
    assert 'SMTP_LISTEN' in done.err or 'listen' in done.err


def test_list_in_a_file(serve, tmp_path, certificates):
    config = tmp_path / 'conf'
    path = tmp_path / 'front'

    def start(port):
        cert, key = certificates.ec
        config.write_text(
            f'SMTP_LISTEN="\\"127.0.0.1:{port} ssl\\" unix:{path}"\n'
            f'SMTP_SSL_CERTIFICATE={cert}\nSMTP_SSL_CERTIFICATE_KEY={key}\n')
        return serve(way='none', sockets=[], args=['--config', str(config)])
    s, port = with_free_port(start)
    c = s.connect(port=port)
    c.start_tls()
    c.greeting()
    bye(c)
    c = connect_unix(str(path))
    c.greeting()
    bye(c)
    s.stop()


@pytest.mark.parametrize('way', ['fd0', 'fd3'])
@pytest.mark.parametrize('source', ['environment', 'file'])
def test_listen_of_a_shared_file_is_not_for_a_connection(front, backend,
                                                         tmp_path, way,
                                                         source):
    """xinetd's session is no listener, though the listener's file is its,
    too."""
    config = tmp_path / 'conf'
    config.write_text(f'SMTP_LISTEN=unix:{tmp_path}/front\n')
    own = {'args': ['--config', str(config)]} if source == 'file' else \
        {'env': {'SMTP_LISTEN': f'unix:{tmp_path}/front'}}
    s = front(way=way, backend=backend().address, **own)
    s.client.greeting()
    s.client.hello()
    log_in(s.client)
    assert not (tmp_path / 'front').exists()
    s.quit()


@pytest.mark.parametrize('way', ['fd0', 'fd3'])
def test_listen_as_an_argument_is_not_for_a_connection(front, tmp_path, way):
    s = front(way=way, listen=f'unix:{tmp_path}/front')
    assert s.client.rest() == b''
    assert s.wait() == 64
    assert not (tmp_path / 'front').exists()


def test_port_in_use(serve):
    with listening_socket() as taken:
        port = taken.getsockname()[1]
        s = serve(listen=f'127.0.0.1:{port}')
        assert s.wait() == 78
        [e] = s.events('listen', result='failed')
        assert f'127.0.0.1:{port}' in e['reason'] and 'use' in e['reason']


def test_more_than_sixteen_sockets(serve):
    sockets = [listening_socket() for _ in range(17)]
    s = serve(sockets=sockets)
    assert s.wait() == 78
    assert len(s.events('listen', result='failed')) == 1


def test_sixteen_sockets(serve):
    s = serve(sockets=[listening_socket() for _ in range(16)])
    for i in (0, 15):
        bye(s.session(i=i))
    s.stop()


def test_inherited_socket_that_does_not_listen(serve):
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s = serve(sockets=[listening_socket(), udp])
    assert s.wait() == 78
    [e] = s.events('listen', result='failed')
    assert 'fd 4' in e['reason']


@pytest.mark.parametrize('name,is_ssl', [
    ('smtp', False), ('submission', False), ('submissions', True),
    ('smtps', True), ('connection', False)])
def test_names_of_inherited_sockets(serve, certificates, name, is_ssl):
    s = serve(sockets=[listening_socket(), listening_socket()],
              names=f'smtp:{name}', starttls='on', **certificates.directives())
    bye(s.session(i=0))
    c = s.connect(i=1)
    if is_ssl:
        c.start_tls()
    c.greeting()
    assert ('STARTTLS' in c.hello()) is not is_ssl
    bye(c)
    s.stop()


def test_submissions_without_a_certificate_does_not_start(serve):
    s = serve(names='submissions')
    assert s.wait() == 78
    assert 'ssl_certificate' in s.log.text


def test_relay_at_greeting_is_not_for_an_ssl_socket(certificates):
    cert, key = certificates.ec
    done = harness.run(
        '--listen', '127.0.0.1:2525 ssl', '--ssl-certificate', cert,
        '--ssl-certificate-key', key, '--relay-at', 'greeting', '--check',
        '--', '/bin/true')
    assert done.returncode == 78 and 'relay_at' in done.err


def test_socket_ssl_is_for_the_inherited_one_alone(serve, certificates):
    inherited = listening_socket()
    s, port = with_free_port(lambda p: serve(
        sockets=[inherited], way='fds', socket='ssl', listen=f'127.0.0.1:{p}',
        **certificates.directives()))
    c = s.connect(i=0, family=socket.AF_INET)
    c.start_tls()
    c.greeting()
    bye(c)
    bye(s.session(port=port))
    s.stop()


def test_inherited_and_its_own(serve):
    inherited = listening_socket()
    s, port = with_free_port(lambda p: serve(
        sockets=[inherited], way='fds', listen=f'127.0.0.1:{p}'))
    bye(s.session(i=0, family=socket.AF_INET))
    bye(s.session(port=port))
    s.stop()


def test_inetd_wait(serve, backend):
    b = backend()
    s = serve(way='fd0', backend=b.address)
    for _ in range(3):
        c = s.session()
        c.hello()
        log_in(c)
        send_message(c)
        bye(c)
    s.stop()
    assert len(b.conversations) == 3


@only_root
def test_inetd_wait_leaves_no_listening_socket_to_a_session(serve):
    """inetd gives the socket as 0, 1 and 2: whoever has it could accept the
    connections of others."""
    s = serve(way='fd0')
    c = s.session()
    c.hello()
    [pid] = s.await_sessions(1)
    inode = os.fstat(s.sockets[0].fileno()).st_ino
    assert f'socket:[{inode}]' not in open_files(pid).values()
    assert f'socket:[{inode}]' not in open_files(s.keeper()).values()
    bye(c)
    s.stop()


# --- 2. a process a connection ---------------------------------------------

def test_a_process_a_connection(serve, backend):
    b = backend()
    s = serve(backend=b.address)
    first = s.session()
    [one] = s.await_sessions(1)
    second = s.session()
    two = pid_of(s, [one])
    assert one != two
    for c in (first, second):
        c.hello()
        log_in(c)
    assert sorted(s.sessions()) == sorted([one, two])
    first.ask('MAIL FROM:<one@a.example>', '250 ')
    second.ask('MAIL FROM:<two@a.example>', '250 ')
    bye(second)
    until(lambda: s.sessions() == [one], 'the end of the second alone')
    bye(first)
    s.await_sessions(0)
    ids = {e['session'] for e in s.events('connect')}
    assert len(ids) == 2
    s.stop()
    for conversation, name in zip(b.conversations, ('one', 'two')):
        assert f'MAIL FROM:<{name}@a.example>' in conversation.texts('MAIL')


@only_root
def test_nothing_of_another_client_is_open_in_a_session(serve, backend):
    s = serve(backend=backend().address)
    clients = [s.session() for _ in range(5)]
    for c in clients:
        c.hello()
    pids = s.await_sessions(5)
    inodes = [{x for x in open_files(pid).values() if x.startswith('socket:')}
              for pid in pids]
    for i, own in enumerate(inodes):
        # The client and the keeper's channel.
        assert len(own) == 2
        for other in inodes[i + 1:]:
            assert not own & other
    listening = {f'socket:[{os.fstat(x.fileno()).st_ino}]' for x in s.sockets}
    own = set(open_files(s.pid).values())
    for each in inodes:
        assert not each & listening
        assert not each & own
    clients_at_keeper = set(open_files(s.keeper()).values())
    for each in inodes:
        assert not each & clients_at_keeper
    for c in clients:
        bye(c)
    s.stop()


@pytest.mark.skipif(not ROOT or not shutil.which('strace'),
                    reason='needs root and strace')
def test_listener_never_reads_from_a_client(serve, tmp_path):
    s = serve(max_connections_per_source=3)
    bye(s.session())
    out = tmp_path / 'trace'
    trace = subprocess.Popen(
        ['strace', '-y', '-o', str(out), '-p', str(s.pid), '-e',
         'trace=read,readv,pread64,recvfrom,recvmsg,recvmmsg,splice,accept4'],
        stderr=subprocess.PIPE)
    try:
        try:
            until(lambda: status_of(s.pid, 'TracerPid') == trace.pid or
                  trace.poll() is not None, 'strace')
        except WireError:
            pytest.skip('strace cannot attach')
        if trace.poll() is not None:
            pytest.skip('strace cannot attach')
        for _ in range(5):
            c = s.connect()
            c.send('EHLO early.example\r\nNOOP\r\n')
            c.greeting()
            c.expect('250')
            c.expect('250')
            bye(c)
            s.await_sessions(0)
        held = [s.session() for _ in range(3)]
        c = s.connect()
        c.send('EHLO early.example\r\n')
        c.expect('421 4.7.0 ')
        for c in held:
            bye(c)
        s.await_sessions(0)
    finally:
        trace.terminate()
        trace.wait(DEADLINE)
        trace.stderr.close()
    lines = out.read_text().splitlines()
    accepted = [re.search(r' = \d+<(.*)>', x)[1] for x in lines
                if 'accept4(' in x and 'EAGAIN' not in x]
    assert len(accepted) == 9
    # Signals, and its keeper's answers.
    reads = [x for x in lines if re.match('(p?read|recv|splice)', x)]
    assert reads and not [x for x in reads if any(a in x for a in accepted)]


# --- 3. the keeper ---------------------------------------------------------

def test_each_handshake_gives_a_ticket_for_the_next(serve, certificates):
    """A resumed one, too: a ticket of TLS 1.3 is for one use (RFC 8446, C.4).
    Each has an identity of its own, which is made from the ticket."""
    s = serve(backend='127.0.0.1:9', starttls='on',
              **certificates.directives())
    context = client_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    session, resumed, identities = None, [], set()
    for _ in range(3):
        client = s.session()
        client.ask('STARTTLS', '220 2.0.0 ')
        client.start_tls(context, session=session)
        client.hello()
        resumed.append(client.tls.session_reused)
        session = client.tls.session
        identities.add(session.id)
        client.ask('QUIT', '221 2.0.0 ')
    assert resumed == [False, True, True]
    assert len(identities) == 3


def test_starttls_and_auth_through_the_keeper(serve, backend, certificates):
    b = backend()
    s = serve(backend=b.address, starttls='only',
              **certificates.directives('rsa', 'ec'))
    for _ in range(4):
        c = secured(s.session())
        log_in(c)
        send_message(c)
        bye(c)
    assert len(s.keepers()) == 1
    s.stop()
    assert [len(x.messages) for x in b.conversations] == [1] * 4


@only_root
def test_sessions_that_become_a_user_may_ask_the_keeper(serve, backend,
                                                        certificates):
    b = backend()
    s = serve(user='nobody', backend=b.address, starttls='on',
              **certificates.directives())
    c = secured(s.session())
    assert [status_of(p, 'Uid') for p in s.sessions()] == [NOBODY]
    log_in(c)
    bye(c)
    s.stop()


def test_killed_keeper_costs_the_session_in_need_a_454(serve, backend):
    s = serve(backend=backend().address)
    idle, waiting = s.session(), s.session()
    idle.hello()
    waiting.hello()
    old = s.keeper()
    kill(old)
    until(lambda: not is_alive(old), 'its end')
    log_in(waiting, '454 4.7.0 ')
    begin = time.monotonic()
    until(lambda: s.keepers() and s.keepers() != [old], 'another keeper')
    assert time.monotonic() - begin < 2.5
    s.await_event('keeper', result='died', signal='9')
    s.await_event('keeper', result='restarted')
    log_in(waiting)
    bye(waiting)
    c = s.session()
    c.hello()
    log_in(c)
    bye(c)
    idle.ask('NOOP', '250 ')
    bye(idle)
    s.stop()


def test_starttls_without_a_keeper(serve, certificates, backend):
    """One that is killed while a handshake goes on costs that handshake."""
    s = serve(starttls='on', backend=backend().address,
              **certificates.directives())
    c = s.session()
    c.hello()
    old = s.keeper()
    kill(old)
    until(lambda: not is_alive(old), 'its end')
    c.ask('STARTTLS', '220|454 4.7.0')
    until(lambda: s.keepers() and s.keepers() != [old], 'another keeper')
    c = secured(s.session())
    log_in(c)
    bye(c)
    s.stop()


def test_keeper_that_dies_again_and_again_is_not_a_busy_loop(serve):
    s = serve()
    bye(s.session())
    before = cpu_seconds(s.pid)
    end = time.monotonic() + 3
    killed = set()
    while time.monotonic() < end:
        for pid in s.keepers():
            killed.add(pid)
            kill(pid)
        time.sleep(0.01)
    assert 2 <= len(killed) <= 5
    assert cpu_seconds(s.pid) - before < 0.5
    until(s.keepers, 'a keeper')
    c = s.session()
    c.hello()
    log_in(c, '421 4.3.0 ')  # let in; there is no backend
    s.stop()


def test_stopped_keeper(serve, backend):
    """454 after the deadline; who does not need it goes on."""
    b = backend()
    s = serve(backend=b.address, auth_http_timeout='200ms')
    proxied, idle = s.session(), s.session()
    proxied.hello()
    log_in(proxied)
    idle.hello()
    keeper = s.keeper()
    os.kill(keeper, signal.SIGSTOP)
    # (Each thread stops for itself.)
    until(lambda: all(harness.state(int(x)) == 'T' for x in
                      os.listdir(f'/proc/{keeper}/task')), 'its stop')
    try:
        begin = time.monotonic()
        idle.line('AUTH PLAIN ' + GOOD)
        send_message(proxied)
        fresh = s.session()
        fresh.ask('NOOP', '250 ')
        fresh.ask('HELO client.example', '250 ')
        bye(fresh)
        bye(proxied)
        assert time.monotonic() - begin < 2
        idle.expect('454 4.7.0 ', 8)
        took = time.monotonic() - begin
        assert 5 <= took < 7
    finally:
        if is_alive(keeper):
            os.kill(keeper, signal.SIGCONT)
    log_in(idle)
    bye(idle)
    s.stop()


def test_keeper_that_hangs_is_replaced(serve, backend):
    s = serve(backend=backend().address)
    bye(s.session())
    keeper = s.keeper()
    os.kill(keeper, signal.SIGSTOP)
    begin = time.monotonic()
    e = s.await_event('keeper', result='killed', seconds=20)
    assert 'answer' in e['reason']
    assert time.monotonic() - begin > 8
    s.await_event('keeper', result='restarted')
    assert s.keeper() != keeper
    c = s.session()
    c.hello()
    log_in(c)
    bye(c)
    time.sleep(2.5)  # the new one answers
    assert len(s.events('keeper', result='killed')) == 1
    s.stop()


def test_busy_keeper_is_not_replaced(serve, backend, auth_server):
    """All its judges wait for a slow auth server, and longer than that."""
    b = backend()
    judge = SlowJudge(b)
    a = auth_server(judge)
    s = serve(auth_provider=a.url, backend=b.address, keeper_workers=1,
              auth_timeout='30s')
    clients = [s.session() for _ in range(3)]
    for c in clients:
        c.hello()
        c.line('AUTH PLAIN ' + GOOD)
    time.sleep(12.5)
    assert s.events('keeper') == []
    judge.go.set()
    for c in clients:
        c.expect('235 ')
        bye(c)
    s.stop()


class SlowJudge:
    """Answers of an AuthServer: each waits until it is let go."""

    def __init__(self, backend):
        self.backend = backend
        self.go = threading.Event()
        self.lock = threading.Lock()
        self.waiting = self.most = 0

    def __call__(self, request):
        if request.get('Auth-User') == 'bob':
            return ok(self.backend)
        with self.lock:
            self.waiting += 1
            self.most = max(self.most, self.waiting)
        self.go.wait(DEADLINE)
        with self.lock:
            self.waiting -= 1
        return ok(self.backend)


def test_slow_judge_holds_up_nobody_else(serve, backend, auth_server,
                                         certificates):
    b = backend()
    judge = SlowJudge(b)
    a = auth_server(judge)
    s = serve(auth_provider=a.url, keeper_workers=4, backend=None,
              starttls='on', **certificates.directives())
    slow = [s.session() for _ in range(3)]
    for c in slow:
        c.hello()
        c.line('AUTH PLAIN ' + GOOD)
    until(lambda: judge.waiting == 3, 'three that are being judged')
    begin = time.monotonic()
    for _ in range(5):
        c = secured(s.session())
        c.ask('AUTH PLAIN ' + plain('bob', 'builder'), '235 ')
        bye(c)
    assert time.monotonic() - begin < 2
    judge.go.set()
    for c in slow:
        c.expect('235 ')
        bye(c)
    s.stop()


def test_judges_at_their_limit_hold_up_neither_tls_nor_ehlo(
        serve, backend, auth_server, certificates):
    b = backend()
    judge = SlowJudge(b)
    a = auth_server(judge)
    s = serve(auth_provider=a.url, keeper_workers=2, backend=None,
              smtp_auth='plain cram-md5', starttls='on',
              **certificates.directives())
    slow = [s.session() for _ in range(6)]
    for c in slow:
        c.hello()
        c.line('AUTH PLAIN ' + GOOD)
    until(lambda: judge.waiting == 2, 'two that are being judged')
    begin = time.monotonic()
    for _ in range(5):
        c = s.session()
        c.hello()  # asks what can be judged
        c.ask('STARTTLS', '220 ')
        c.start_tls()
        assert any(x.startswith('AUTH ') for x in c.hello())
        c.ask('AUTH CRAM-MD5', '334 ')
        c.ask('*', '501 ')
        bye(c)
    assert time.monotonic() - begin < 2
    judge.go.set()
    for c in slow:
        c.expect('235 ')
        bye(c)
    s.stop()


def test_more_questions_than_workers_are_all_answered(serve, backend,
                                                      auth_server):
    b = backend()
    judge = SlowJudge(b)
    a = auth_server(judge)
    s = serve(auth_provider=a.url, keeper_workers=3, backend=None,
              max_connections_per_source=50)
    clients = [s.session() for _ in range(20)]
    for c in clients:
        c.hello()
    for c in clients:
        c.line('AUTH PLAIN ' + GOOD)
    until(lambda: judge.waiting == 3, 'three that are being judged')
    time.sleep(0.3)  # a fourth would have come by now
    assert judge.most == 3
    # One in line that leaves costs nobody anything.
    clients.pop().close()
    judge.go.set()
    for c in clients:
        c.expect('235 ')
    assert judge.most <= 3
    assert status_of(s.keeper(), 'Threads') <= 1 + 3 + 2
    for c in clients:
        bye(c)
    s.stop()


def test_http_connections_are_kept_open(serve, backend, auth_server):
    b = backend()
    a = auth_server(ok(b))
    s = serve(auth_provider=a.url, backend=None)
    for _ in range(12):
        c = s.session()
        c.hello()
        log_in(c)
        bye(c)
    assert len(a.requests) == 12
    assert len(a.sockets) <= 3, f'{len(a.sockets)} connections'
    s.stop()


def test_auth_server_that_closes_its_connection(serve, backend, auth_server):
    """A connection that was kept open and has ended costs no 454."""
    b = backend()
    answer = fakes.http_response(ok(b))
    a = auth_server(answer)
    s = serve(auth_provider=a.url, backend=None)
    for _ in range(4):
        c = s.session()
        c.hello()
        log_in(c)
        bye(c)
        for sock in list(a.sockets):
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
    s.stop()


@only_root
def test_channel_is_closed_at_the_hand_over(serve, backend):
    """A session that needs the keeper no more holds nothing of it."""
    s = serve(backend=backend().address)
    bye(s.session())
    s.await_sessions(0)
    keeper = s.keeper()
    before = len(open_files(keeper))
    clients = [s.session() for _ in range(5)]
    for c in clients:
        c.hello()
    until(lambda: len(open_files(keeper)) == before + 5, 'five channels')
    for c in clients:
        log_in(c)
    until(lambda: len(open_files(keeper)) == before, 'no channel', 3)
    for c in clients:
        bye(c)
    s.stop()


def test_keeper_ends_with_its_listener(serve):
    """Nobody is left with the keys when the listener is killed."""
    s = serve()
    c = s.session()
    c.hello()
    keeper = s.keeper()
    bye(c)
    s.await_sessions(0)
    s.signal(signal.SIGKILL)
    s.wait()
    until(lambda: not is_alive(keeper), 'the end of the keeper', 3)


def test_key_file_that_is_replaced_is_not_used_before_a_reload(
        serve, backend, auth_server, certificates, tmp_path):
    """Whatever worker signs, it has the key of the certificate that is
    shown."""
    b = backend()
    judge = SlowJudge(b)
    a = auth_server(judge)
    cert, key = str(tmp_path / 'c.pem'), str(tmp_path / 'c.key')
    shutil.copy(certificates.ec[0], cert)
    shutil.copy(certificates.ec[1], key)
    s = serve(auth_provider=a.url, keeper_workers=4, backend=None,
              starttls='on', ssl_certificate=cert, ssl_certificate_key=key)
    bye(secured(s.session()))
    for name, other in ((cert, certificates.rsa[0]),
                        (key, certificates.rsa[1])):
        shutil.copy(other, name + '.new')
        os.rename(name + '.new', name)
    # All workers that there have been are busy; new ones have to sign.
    slow = [s.session() for _ in range(4)]
    for c in slow:
        c.hello()
        c.line('AUTH PLAIN ' + GOOD)
    until(lambda: judge.waiting == 4, 'four that are being judged')
    try:
        for _ in range(4):
            bye(secured(s.session()))
    finally:
        judge.go.set()
    for c in slow:
        c.expect('235 ')
        bye(c)
    s.stop()


# --- the keeper as a service

def keeper_socket(tmp_path, name='keeper'):
    path = str(tmp_path / name)
    return path, listening_socket('unix', path, kind=socket.SOCK_SEQPACKET)


@pytest.fixture(params=[False, True], ids=['nonblocking', 'blocking'])
def keeper_service(request, service, tmp_path, certificates):
    """(path, Keeper); systemd passes sockets on that block."""
    path, sock = keeper_socket(tmp_path)
    k = service(Keeper, sockets=[sock], keeper_workers=2,
                blocking=request.param, **certificates.directives())
    return path, k


def test_keeper_as_a_service(keeper_service, front, backend, certificates):
    path, k = keeper_service
    b = backend()
    for _ in range(3):
        s = front(keeper_socket=path, backend=b.address, starttls='on',
                  **certificates.directives())
        s.client.greeting()
        secured(s.client)
        assert children(s.pid) == []
        log_in(s.client)
        send_message(s.client)
        s.quit()
    k.stop()


def test_keeper_service_with_a_listener(keeper_service, serve, backend,
                                        certificates):
    path, k = keeper_service
    s = serve(keeper_socket=path, backend=backend().address, starttls='on',
              **certificates.directives())
    c = secured(s.session())
    log_in(c)
    bye(c)
    s.stop()
    k.stop()


def test_keeper_service_that_is_not_there(front, tmp_path):
    s = front(keeper_socket=str(tmp_path / 'nothing'))
    s.client.greeting()
    s.client.hello()
    log_in(s.client, '454 4.7.0 ')
    s.quit((0, 75))


GARBAGE = {
    'type 0': b'\0', 'type 99': b'\x63', 'half a field': b'\x01\xff',
    'no end': bytes([ASK_VERDICT]) + b'\x0a\0\x05plain',
    'noise': os.urandom(4000), 'an answer': packet(ANSWER_VERDICT),
    'great': b'\x01' * 49152, 'greater': b'\x01' * 60000,
    'no NUL': packet(ASK_VERDICT, M_METHOD='plain')[:-1]}


@pytest.mark.parametrize('what', GARBAGE)
def test_garbage_costs_the_asker_alone(keeper_service, what):
    path, k = keeper_service
    good, bad = channel(path), channel(path)
    bad.send(GARBAGE[what])
    assert bad.recv(100) == b''
    for asker in (good, channel(path)):
        asker.send(packet(ASK_MECHANISMS))
        assert asker.recv(1000)[0] == ANSWER_MECHANISMS
        asker.send(packet(ASK_VERDICT, M_METHOD='plain', M_USER='alice',
                          M_PASSWORD='wonderland'))
        answer = asker.recv(1000)
        assert answer[0] == ANSWER_VERDICT and b'accepted' in answer
        asker.close()
    bad.close()
    assert k.proc.poll() is None
    k.stop()


def test_descriptors_that_are_sent_along_fill_no_table(keeper_service):
    path, k = keeper_service
    asker = channel(path)
    before = len(open_files(k.pid)) if ROOT else 0
    for _ in range(20):
        socket.send_fds(asker, [packet(ASK_MECHANISMS)], [0, 1, 2])
        assert asker.recv(1000)[0] == ANSWER_MECHANISMS
    if ROOT:
        assert len(open_files(k.pid)) <= before + 2
    asker.close()
    k.stop()


def test_certificates_of_several_keys_do_not_mix(service, tmp_path,
                                                 certificates):
    path, sock = keeper_socket(tmp_path)
    k = service(Keeper, sockets=[sock], keeper_workers=4,
                **certificates.directives('rsa', 'ec'))
    wrong = []
    right = {}
    for key in '01':
        asker = channel(path)
        asker.send(packet(ASK_CERTIFICATES, M_KEY=key))
        right[key] = asker.recv(49152)
        asker.close()
    assert right['0'] != right['1'] and len(right['0']) > 500

    def ask(key):
        asker = channel(path)
        question = packet(ASK_CERTIFICATES, M_KEY=key)
        for _ in range(3000):
            asker.send(question)
            if asker.recv(49152) != right[key]:
                wrong.append(key)
        asker.close()
    threads = [threading.Thread(target=ask, args=(x,)) for x in '010101']
    for t in threads:
        t.start()
    for t in threads:
        t.join(60)
    assert wrong == []
    k.stop()


def test_asker_who_does_not_read_holds_up_nobody(keeper_service):
    path, k = keeper_service
    deaf = [channel(path) for _ in range(8)]
    for d in deaf:
        d.setblocking(False)
        try:
            for _ in range(3000):
                d.send(packet(ASK_MECHANISMS))
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):
            pass
    good = channel(path)
    begin = time.monotonic()
    for _ in range(20):
        good.send(packet(ASK_MECHANISMS))
        assert good.recv(1000)[0] == ANSWER_MECHANISMS
    assert time.monotonic() - begin < 2
    for d in deaf:
        d.close()
    good.close()
    k.stop()


def test_so_many_attempts_a_channel(service, tmp_path):
    path, sock = keeper_socket(tmp_path)
    k = service(Keeper, sockets=[sock], max_auth_attempts=3)
    asker = channel(path)
    kinds = []
    for _ in range(5):
        asker.send(packet(ASK_VERDICT, M_METHOD='plain', M_USER='alice',
                          M_PASSWORD='x'))
        kinds.append(asker.recv(1000)[0])
    assert kinds == [ANSWER_VERDICT] * 3 + [ANSWER_FAILURE] * 2
    asker.close()
    k.stop()


@only_root
def test_another_users_connection_is_refused(keeper_service, tmp_path):
    path, k = keeper_service
    if k.sockets[0].getblocking():
        pytest.skip('once is enough')
    os.chmod(path, 0o777)
    folder = str(tmp_path)
    while folder != '/':
        os.chmod(folder, os.stat(folder).st_mode | 0o011)
        folder = os.path.dirname(folder)
    code = (
        'import socket, sys\n'
        's = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n'
        's.settimeout(10)\n'
        's.connect(sys.argv[1])\n'
        'try:\n'
        '    s.send(bytes([1]))\n'
        '    print(s.recv(100).hex())\n'
        'except (BrokenPipeError, ConnectionResetError):\n'
        '    print()\n')

    def ask(*prefix):
        return subprocess.run(
            [*prefix, '/usr/bin/python3', '-c', code, path],
            capture_output=True, timeout=DEADLINE).stdout
    assert ask('setpriv', '--reuid', str(NOBODY), '--clear-groups') == b"\n"
    assert ask('setpriv', '--reuid', '0').startswith(
        b'%02x' % ANSWER_MECHANISMS)
    k.stop()


@only_root
def test_keeper_of_another_user_is_not_told_a_password(front, tmp_path):
    """One whose socket's file is not even its own."""
    path = str(tmp_path / 'keeper')
    os.chmod(tmp_path, 0o777)
    folder = str(tmp_path)
    while folder != '/':
        os.chmod(folder, os.stat(folder).st_mode | 0o011)
        folder = os.path.dirname(folder)
    code = (
        'import os, socket, sys\n'
        's = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n'
        's.bind(sys.argv[1])\n'
        's.listen(5)\n'
        'os.chmod(sys.argv[1], 0o777)\n'
        'print("ready", flush=True)\n'
        's.settimeout(20)\n'
        'while True:\n'
        '    c, _ = s.accept()\n'
        '    print(c.recv(49152), flush=True)\n')
    thief = subprocess.Popen(
        ['setpriv', '--reuid', str(NOBODY), '--clear-groups',
         '/usr/bin/python3', '-c', code, path], stdout=subprocess.PIPE)
    try:
        assert thief.stdout.readline() == b'ready\n'
        os.chown(path, 0, 0)
        s = front(keeper_socket=path, auth_http_timeout='200ms')
        s.client.greeting()
        log_in(s.client, '454 4.7.0 ')
        s.quit((0, 75))
    finally:
        thief.kill()
        out = thief.stdout.read()
        thief.stdout.close()
        thief.wait(DEADLINE)
    assert b'wonderland' not in out and b'alice' not in out


def test_keeper_without_a_socket(users):
    done = harness.run('--keeper', '--auth-provider', users)
    assert done.returncode in (64, 71) and done.err.count('\n') == 1


def test_keeper_socket_must_fit(users):
    done = harness.run('--check', '--auth-provider', users,
                       '--keeper-socket', '/' + 'x' * 120)
    assert done.returncode == 64 and 'keeper' in done.err


# --- 4. limits -------------------------------------------------------------

def test_max_connections(serve):
    s = serve(max_connections=3)
    held = [s.session() for _ in range(3)]
    s.await_sessions(3)
    last = s.sessions()
    for _ in range(3):
        c = s.connect()
        c.expect('421 4.3.2 ')
        c.expect_end()
        c.close()
    assert sorted(s.sessions()) == sorted(last)
    e = s.await_event('limit', 3)
    assert e['client'] == '127.0.0.1' and e['limit'] == 'max_connections'
    bye(held.pop())
    s.await_sessions(2)
    bye(s.session())
    for c in held:
        bye(c)
    s.stop()


def test_max_connections_per_source(serve):
    s = serve(max_connections_per_source=2, max_connections=50)
    held = [s.session(source='127.0.0.1') for _ in range(2)]
    c = s.connect(source='127.0.0.1')
    c.expect('421 4.7.0 ')
    c.expect_end()
    for i in range(2, 12):
        held.append(s.session(source=f'127.0.0.{i}'))
    assert len(s.await_sessions(12)) == 12
    e = s.await_event('limit')
    assert e['limit'] == 'max_connections_per_source'
    bye(held.pop(0))
    s.await_sessions(11)
    held.append(s.session(source='127.0.0.1'))
    s.connect(source='127.0.0.1').expect('421 4.7.0 ')
    for c in held:
        bye(c)
    s.stop()


def test_nothing_is_forked_for_a_client_that_is_turned_away(serve):
    s = serve(max_connections=1)
    held = s.session()
    with open('/proc/loadavg') as f:
        before = int(f.read().split()[-1])  # the last pid that was given
    for _ in range(50):
        c = s.connect()
        c.expect('421 4.3.2 ')
        c.close()
    with open('/proc/loadavg') as f:
        after = int(f.read().split()[-1])
    # Others on the machine fork, too, but not in step with us.
    assert after - before < 40
    bye(held)
    s.stop()


def test_early_talker_that_is_turned_away_gets_its_421(serve):
    s = serve(max_connections=1)
    held = s.session()
    for _ in range(5):
        c = s.connect()
        c.send('EHLO client.example\r\n')
        c.expect('421 4.3.2 ')
        c.close()
    bye(held)
    s.stop()


def test_on_an_ssl_socket_the_limit_is_a_close(serve, certificates):
    s = serve(names='submissions', max_connections=1,
              **certificates.directives())
    held = s.connect()
    held.start_tls()
    held.greeting()
    c = s.connect()
    assert c.rest() == b''
    bye(held)
    s.stop()


def test_mapped_addresses_are_counted_with_ipv4(serve):
    s = serve(sockets=[listening_socket('dual'), listening_socket()],
              max_connections_per_source=2)
    port = s.address(0)[1]
    one = s.session(port=port)
    two = s.session(i=1)
    s.connect(port=port).expect('421 4.7.0 ')
    s.connect(i=1).expect('421 4.7.0 ')
    six = s.session(i=0)
    assert {e['client'] for e in s.events('limit')} == {'127.0.0.1'}
    for c in (one, two, six):
        bye(c)
    s.stop()


@pytest.mark.skipif(not ROOT or not shutil.which('ip'),
                    reason='needs root and ip')
def test_ipv6_is_counted_by_64_bits(users, tmp_path):
    """In a network of its own."""
    script = tmp_path / 'script.py'
    script.write_text(f'''
import os, socket, subprocess, sys
sys.path.insert(0, {os.path.dirname(os.path.abspath(__file__))!r})
import harness, listener
for a in ('2001:db8:0:1::1', '2001:db8:0:1:ffff::2', '2001:db8:0:2::1'):
    subprocess.run(['ip', 'addr', 'add', a + '/128', 'dev', 'lo', 'nodad'],
                   check=True)
s = listener.Listener(dict(auth_provider={users!r}, backend='127.0.0.1:9',
                           max_connections_per_source=2),
                      sockets=[listener.listening_socket('dual')])
port = s.address()[1]
def connect(source):
    c = s.connect(source=source, host='2001:db8:0:1::1', port=port,
                  family=socket.AF_INET6)
    return c
connect('2001:db8:0:1::1').greeting()
connect('2001:db8:0:1:ffff::2').greeting()
connect('2001:db8:0:1::1').expect('421 4.7.0 ')
connect('2001:db8:0:2::1').greeting()
assert listener.clean_up([s]) == []
print('fine')
''')
    done = subprocess.run(
        ['unshare', '-n', 'sh', '-c', 'ip link set lo up && exec "$@"', 'sh',
         sys.executable, str(script)], capture_output=True, timeout=30)
    if b'unshare' in done.stderr:
        pytest.skip('no network namespaces here')
    assert done.stdout == b'fine\n', done.stderr.decode()


def test_counts_are_right_after_a_kill(serve, tmp_path):
    status = str(tmp_path / 'status')
    s = serve(max_connections=4, max_connections_per_source=2,
              status_file=status)
    for round_ in range(10):
        for source in ('127.0.0.1', '127.0.0.2'):
            s.session(source=source)
            s.session(source=source)
        s.connect(source='127.0.0.3').expect('421 4.3.2 ')
        for pid in s.await_sessions(4):
            kill(pid)
        s.await_sessions(0)
        s.await_event('session', 4 * round_ + 4, result='died', signal='9')
        until(lambda: sum(v for k, v in counted(status).items()
                          if k.startswith('sessions in')) == 0, 'no session')
    assert counted(status)['crashed'] == 40
    c = s.session(source='127.0.0.1')
    bye(c)
    s.stop()


# --- 5. SIGHUP -------------------------------------------------------------

def subject_key(c):
    return c.tls.getpeercert(True)


class Reloadable:
    """A listener whose directives and certificate can be changed."""

    def __init__(self, serve, certificates, folder, **kw):
        self.folder = folder
        self.certificates = certificates
        self.config = folder / 'conf'
        self.cert, self.key = folder / 'c.pem', folder / 'c.key'
        self.use('ec')
        self.write()
        self.s = serve(args=['--config', str(self.config)], starttls='on',
                       ssl_certificate=str(self.cert),
                       ssl_certificate_key=str(self.key), **kw)
        self.reloads = 0

    def use(self, which):
        cert, key = getattr(self.certificates, which)
        for name, source in ((self.cert, cert), (self.key, key)):
            shutil.copy(source, str(name) + '.new')
            os.rename(str(name) + '.new', name)

    def write(self, text=''):
        self.config.write_text(text)

    def reload(self, result='ok'):
        self.s.signal(signal.SIGHUP)
        self.reloads += 1
        until(lambda: len(self.s.events('reload')) >= self.reloads,
              f'a reload; log: {self.s.log.text}', 15)
        last = self.s.events('reload')[-1]
        assert last['result'] == result, self.s.log.text
        return last

    def certificate(self):
        c = secured(self.s.session())
        found = subject_key(c)
        bye(c)
        return found


@pytest.fixture
def reloadable(serve, certificates, tmp_path):
    def start(**kw):
        r = Reloadable(serve, certificates, tmp_path, **kw)
        bye(r.s.session())
        return r
    return start


def test_new_certificate_and_directives_for_new_sessions(reloadable, backend):
    r = reloadable(backend=backend().address)
    old = r.certificate()
    held = secured(r.s.session())
    r.use('rsa')
    r.write('SMTP_CAPABILITIES=VRFY\n')
    assert r.certificate() == old
    r.reload()
    new = r.certificate()
    assert new != old
    c = r.s.session()
    assert 'VRFY' in c.hello()
    bye(c)
    assert subject_key(held) == old
    held.ask('NOOP', '250 ')
    assert 'VRFY' not in held.hello()
    bye(held)
    until(lambda: len(r.s.keepers()) == 1, 'the end of the old keeper')
    r.s.stop()


@pytest.mark.parametrize('breakage', [
    'unknown directive', 'bad value', 'no file', 'garbled certificate',
    'no key', 'wrong key'])
def test_bad_file_keeps_the_old_and_says_why(reloadable, backend, breakage):
    r = reloadable(backend=backend().address)
    old = r.certificate()
    held = secured(r.s.session())
    expect = {
        'unknown directive': 'NOSUCH', 'bad value': 'MAX_ERRORS|max_errors',
        'no file': str(r.config), 'garbled certificate': 'c.pem',
        'no key': 'c.key', 'wrong key': 'c.key|c.pem'}[breakage]
    if breakage == 'unknown directive':
        r.write('SMTP_NOSUCH=1\n')
    elif breakage == 'bad value':
        r.write('SMTP_MAX_ERRORS=many\n')
    elif breakage == 'no file':
        r.config.unlink()
    elif breakage == 'garbled certificate':
        r.cert.write_text('garbage')
    elif breakage == 'no key':
        r.key.unlink()
    elif breakage == 'wrong key':
        shutil.copy(r.certificates.rsa[1], r.key)
    lines = len(r.s.lines())
    r.reload('failed')
    assert re.search(expect, '\n'.join(r.s.lines()[lines:])), r.s.log.text
    # In force is what was.
    assert r.certificate() == old
    c = secured(r.s.session())
    log_in(c)
    bye(c)
    log_in(held)
    bye(held)
    assert len(r.s.keepers()) == 1
    # And a good file is taken after it.
    r.use('rsa')
    r.write()
    r.reload()
    assert r.certificate() != old
    r.s.stop()


def test_provider_that_cannot_be_opened_is_not_taken(serve, users, backend,
                                                     tmp_path):
    config = tmp_path / 'conf'
    config.write_text(f'SMTP_AUTH_PROVIDER={users}\n')
    s = serve(args=['--config', str(config)], auth_provider=None,
              auth_http=None, backend=backend().address)
    bye(s.session())
    config.write_text('SMTP_AUTH_PROVIDER=http://[::1/\n')
    s.signal(signal.SIGHUP)
    s.await_event('reload', result='failed')
    assert '[::1' in s.await_event('keeper', result='failed')['reason']
    c = s.session()
    c.hello()
    log_in(c)
    bye(c)
    assert len(s.keepers()) == 1
    s.stop()


@only_root
def test_watchdog_goes_on_while_a_new_keeper_is_waited_for(serve, notify,
                                                           tmp_path):
    """One that never answers, as it can have no thread."""
    uid = LONELY + 2
    let_through(tmp_path)
    os.chmod(notify.path, 0o777)
    s = serve(env={'NOTIFY_SOCKET': notify.path}, uid=uid,
              auth_provider='http://127.0.0.1:9/')
    bye(s.session())
    s.await_sessions(0)
    tasks = sum(status_of(p, 'Threads') for p in (s.pid, s.keeper()))
    set_limit(s.pid, 'nproc', tasks + 1, uid)
    s.signal(signal.SIGHUP)
    notify.await_line('RELOADING=1')
    begun = len(notify.lines())
    s.await_event('reload', result='failed', seconds=20)
    notify.await_line('READY=1', 2)
    assert notify.lines()[begun:].count('WATCHDOG=1') >= 5
    set_limit(s.pid, 'nproc', 1000, uid)
    bye(s.session())
    s.stop()


@pytest.mark.parametrize('text,names', [
    ('SMTP_LISTEN={port}', ['listen']),
    ('SMTP_STATUS_FILE={folder}/status SMTP_LOG=syslog',
     ['status_file', 'log']),
    ('SMTP_MAX_CONNECTIONS=30', ['max_connections']),
    ('SMTP_SOCKET=ssl', ['socket']),
    ('SMTP_MAX_CONNECTIONS=10 SMTP_METRICS_FILE={folder}/prom', [])])
def test_reload_says_what_needs_a_restart(serve, certificates, tmp_path, text,
                                          names):
    """And takes the rest."""
    config = tmp_path / 'conf'
    config.write_text('SMTP_MAX_CONNECTIONS=20\n')
    s = serve(args=['--config', str(config)], log=None,
              **certificates.directives())
    bye(s.session())
    text = text.format(port=free_port(), folder=tmp_path).replace(' ', '\n')
    config.write_text(
        f'SMTP_MAX_CONNECTIONS=20\nSMTP_CAPABILITIES=VRFY\n{text}\n')
    # The same again: it is what is in force that counts.
    for n in (1, 2):
        s.signal(signal.SIGHUP)
        e = s.await_event('reload', n, result='ok')
        assert e.get('reason') == (
            'needs a restart: ' + ', '.join(names) if names else None)
    c = s.session()
    assert 'VRFY' in c.hello()
    bye(c)
    s.stop()


def test_sessions_of_before_a_reload_authenticate(reloadable, backend):
    r = reloadable(backend=backend().address)
    greeted, asked = r.s.session(), secured(r.s.session())
    r.reload()
    r.reload()
    log_in(asked)
    secured(greeted)
    log_in(greeted)
    bye(greeted)
    bye(asked)
    until(lambda: len(r.s.keepers()) == 1, 'the end of the old keeper')
    r.s.stop()


def test_judgement_goes_on_across_a_reload(reloadable, backend, auth_server):
    b = backend()
    judge = SlowJudge(b)
    a = auth_server(judge)
    r = reloadable(auth_provider=a.url, backend=None)
    c = r.s.session()
    c.hello()
    c.line('AUTH PLAIN ' + GOOD)
    until(lambda: judge.waiting == 1, 'a judgement')
    r.reload()
    judge.go.set()
    c.expect('235 ')
    bye(c)
    r.s.stop()


def test_new_limits_are_in_force(reloadable):
    r = reloadable(max_connections=5)
    r.write('SMTP_MAX_CONNECTIONS_PER_SOURCE=1\n')
    r.reload()
    held = r.s.session()
    r.s.connect().expect('421 4.7.0 ')
    r.write('SMTP_MAX_CONNECTIONS_PER_SOURCE=4\n')
    r.reload()
    more = [r.s.session() for _ in range(3)]
    r.s.connect().expect('421 4.7.0 ')
    for c in [held, *more]:
        bye(c)
    r.s.stop()


@only_root
def test_reloads_leak_nothing(reloadable):
    r = reloadable()
    r.reload()
    until(lambda: len(r.s.keepers()) == 1, 'one keeper')
    before = len(open_files(r.s.pid)), len(open_files(r.s.keeper()))
    rss = harness.memory(r.s.pid)
    for i in range(20):
        if i % 5 == 4:
            r.write('SMTP_NOSUCH=1\n')
            r.reload('failed')
            r.write()
        else:
            r.reload()
    until(lambda: len(r.s.keepers()) == 1, 'one keeper')
    r.certificate()
    r.s.await_sessions(0)
    until(lambda: len(open_files(r.s.pid)) <= before[0], 'no more than it had')
    assert len(open_files(r.s.keeper())) <= before[1] + 1
    assert harness.memory(r.s.pid) < rss + 4000 * FLAT
    r.s.stop()


# --- 6. SIGTERM ------------------------------------------------------------

def test_idle_clients_are_told(serve, certificates):
    s = serve(sockets=[listening_socket(), listening_socket()],
              names='smtp:smtps', starttls='on', **certificates.directives())
    plain_, tls = s.session(), secured(s.session())
    implicit = s.connect(i=1)
    implicit.start_tls()
    implicit.greeting()
    silent = s.connect(i=1)
    asked = s.session()
    asked.ask('AUTH LOGIN', '334 ')
    s.await_sessions(5)
    begin = time.monotonic()
    s.signal(signal.SIGTERM)
    for c in (plain_, tls, implicit, asked):
        c.expect('421 4.3.2 ')
        c.expect_end()
        c.close()
    assert silent.rest() == b''
    silent.close()
    assert s.wait() == 0
    assert time.monotonic() - begin < 2
    assert {e['cause'] for e in s.events('close')} == {'stopped'}


def test_listening_sockets_are_closed(serve):
    s, port = with_free_port(lambda p: serve(
        listen=f'127.0.0.1:{p}', shutdown_timeout='5s'))
    c = s.session(port=port)
    s.signal(signal.SIGTERM)
    c.expect('421 4.3.2 ')
    with pytest.raises(ConnectionRefusedError):
        s.connect(port=port)
    c.close()
    assert s.wait() == 0


def test_last_word_is_given_time_to_arrive(serve):
    """A socket that is closed before the client has read all, or with
    something of the client's unread, sends RST after the 421."""
    s = serve()
    c = s.session()
    s.signal(signal.SIGTERM)
    c.expect('421 4.3.2 ')
    c.send('NOOP\r\n')
    c.expect_end()
    time.sleep(0.3)
    c.send('NOOP\r\n')
    time.sleep(0.1)
    assert c.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
    c.close()
    assert s.wait() == 0


def test_message_is_finished(serve, backend):
    b = backend()
    s = serve(backend=b.address, shutdown_timeout='20s')
    c = s.session()
    c.hello()
    log_in(c)
    c.ask('MAIL FROM:<a@a.example>', '250 ')
    c.ask('RCPT TO:<b@b.example>', '250 ')
    c.ask('DATA', '354 ')
    c.send('Subject: half\r\n\r\nhalf a mess')
    s.signal(signal.SIGTERM)
    s.await_event('stop', sessions='1')
    s.signal(signal.SIGTERM)  # a second one changes nothing
    c.expect_nothing(0.3)
    c.send('age\r\n.\r\n')
    c.expect('250 ')
    bye(c)
    assert s.wait() == 0
    assert b.conversations[0].messages == [
        b'Subject: half\r\n\r\nhalf a message\r\n']


def test_login_that_is_being_judged_is_finished(serve, backend, auth_server):
    b = backend()
    judge = SlowJudge(b)
    a = auth_server(judge)
    s = serve(auth_provider=a.url, backend=None)
    c = s.session()
    c.hello()
    c.line('AUTH PLAIN ' + GOOD)
    until(lambda: judge.waiting == 1, 'a judgement')
    s.signal(signal.SIGTERM)
    s.await_event('stop')
    judge.go.set()
    c.expect('235 ')
    send_message(c)
    bye(c)
    assert s.wait() == 0


def test_client_that_waits_for_its_greeting_is_told(serve):
    s = serve(smtp_greeting_delay='20s', shutdown_timeout='3s')
    c = s.connect()
    s.await_sessions(1)
    begin = time.monotonic()
    s.signal(signal.SIGTERM)
    c.expect('421 4.3.2 ')
    c.close()
    assert s.wait() == 0
    assert time.monotonic() - begin < 2


@pytest.mark.parametrize('timeout', [0.3, 1.5])
def test_stuck_sessions_are_killed(serve, backend, timeout):
    b = backend()
    s = serve(backend=b.address, shutdown_timeout=f'{int(timeout * 1000)}ms')
    c = s.session()
    c.hello()
    log_in(c)
    [pid] = s.await_sessions(1)
    begin = time.monotonic()
    s.signal(signal.SIGTERM)
    assert s.wait() == 0
    took = time.monotonic() - begin
    assert timeout <= took < timeout + 0.5
    until(lambda: not is_alive(pid), 'its end')
    c.close()


def test_end_without_sessions_is_at_once(serve):
    for number in (signal.SIGTERM, signal.SIGINT):
        s = serve()
        bye(s.session())
        s.await_sessions(0)
        keeper = s.keeper()
        begin = time.monotonic()
        s.signal(number)
        assert s.wait() == 0
        assert time.monotonic() - begin < 0.5
        until(lambda: not is_alive(keeper), 'the end of the keeper', 2)


@pytest.mark.parametrize('how', ['idle', 'hangs', 'session'])
def test_nobody_is_left_when_the_listener_ends(serve, backend, how):
    """systemd kills what is left, and says so in the journal."""
    s = serve(backend=backend().address, shutdown_timeout='500ms')
    c = s.session()
    c.hello()
    log_in(c)
    pids = [s.keeper(), *s.await_sessions(1)]
    if how != 'session':
        bye(c)
        s.await_sessions(0)
    if how == 'hangs':
        os.kill(s.keeper(), signal.SIGSTOP)
    s.signal(signal.SIGTERM)
    assert s.wait() == 0
    # Not even a zombie: it would be ours by now.
    assert [harness.state(pid) for pid in pids] == ['', '']


def test_keeper_serves_until_the_last_session(serve, backend):
    """A session that was begun may need it still."""
    b = backend(replies={'AUTH': '535 no'})
    s = serve(backend=b.address, smtp_auth='plain')
    c = s.session()
    c.hello()
    # Its wait for input ends, but a batch that is there is served.
    c.send(f'NOOP\r\nAUTH PLAIN {BAD}\r\n')
    c.expect('250 ')
    s.signal(signal.SIGTERM)
    c.expect('535 5.7.8 ')
    c.expect('421 4.3.2 ')
    c.close()
    assert s.wait() == 0


# (A shell would unblock them by itself.)
SIGNALS = (
    'open(F, "/proc/self/status"); @x = grep /^Sig(Ign|Blk)/, <F>;'
    'open(G, ">$ARGV[0]"); print G @x; close(G); $| = 1;'
    'print "220 relay.example ESMTP\\r\\n";'
    'print "250 2.0.0 heard\\r\\n" while <STDIN>;')


@pytest.mark.parametrize('relay_at', ['auth', 'greeting'])
def test_relay_program_has_no_signal_blocked(serve, tmp_path, relay_at):
    out = tmp_path / 'signals'
    s = serve(relay=['/usr/bin/perl', '-e', SIGNALS, str(out)],
              relay_at=relay_at)
    c = s.connect()
    if relay_at == 'auth':
        c.greeting()
        c.hello()
        log_in(c)
    else:
        c.expect('220 relay.example')
    until(lambda: out.exists() and out.read_text().count('\n') == 2,
          'the relay')
    bits = dict(re.findall(r'(Sig\w+):\s+(\w+)', out.read_text()))
    assert int(bits['SigBlk'], 16) == 0
    assert not int(bits['SigIgn'], 16) & (
        1 << signal.SIGTERM - 1 | 1 << signal.SIGPIPE - 1)
    c.close()
    s.await_sessions(0)
    s.stop()


class Load:
    """Clients one after another, in a few threads; .broken are those that
    were refused or reset."""

    def __init__(self, address, threads=4):
        self.address = address
        self.ended = threading.Event()
        self.served = self.told = 0
        self.broken = []
        self.lock = threading.Lock()
        self.threads = [threading.Thread(target=self.run, daemon=True)
                        for _ in range(threads)]
        for t in self.threads:
            t.start()

    def run(self):
        while not self.ended.is_set():
            try:
                told = self.session()
            except Exception as e:
                with self.lock:
                    self.broken.append(repr(e))
                continue
            with self.lock:
                self.told += told
                self.served += not told

    def session(self):
        """Whether it was told to come back later."""
        s = socket.create_connection(self.address, timeout=DEADLINE)
        c = harness.Client(sock=s)
        try:
            for word in (None, 'EHLO client.example', 'QUIT'):
                if word is not None:
                    try:
                        c.line(word)
                    except (BrokenPipeError, ConnectionResetError):
                        if word is None or not c.buffer:
                            raise
                lines = c.reply()
                if lines[0].startswith('421 4.3.2 '):
                    c.rest()
                    return True
            c.expect_end()
            return False
        finally:
            c.close()

    def more(self, n=100):
        """Waits for n more."""
        target = self.served + n
        until(lambda: self.served >= target, f'{n} sessions more; '
              f'broken: {self.broken[:3]}', 30)

    def end(self):
        self.ended.set()
        for t in self.threads:
            t.join(2 * DEADLINE)


@pytest.mark.parametrize('overlap', [True, False])
def test_another_copy_takes_over_without_a_loss(serve, overlap):
    sock = listening_socket()
    spare = sock.dup()
    first = serve(sockets=[sock], max_connections_per_source=500)
    load = Load(sock.getsockname())
    try:
        load.more()
        for _ in range(2):
            if not overlap:
                first.stop(15)
            second = serve(sockets=[spare.dup()],
                           max_connections_per_source=500)
            if overlap:
                first.stop(15)
            load.more()
            first = second
    finally:
        load.end()
        spare.close()
    assert load.broken == []
    assert load.served >= 300
    first.stop()


# --- 7. what is told -------------------------------------------------------

def counted(path):
    done = harness.run('--status', '--status-file', path)
    assert done.returncode == 0, done.err
    found = {}
    for line in done.out.splitlines():
        m = re.fullmatch(r'(.*\S)\s+(\d+)', line)
        found[m.group(1)] = int(m.group(2))
    return found


def test_status(serve, backend, tmp_path):
    path = str(tmp_path / 'status')
    s = serve(status_file=path, backend=backend().address,
              max_connections_per_source=3, smtp_greeting_delay='1s')
    early = s.connect()
    early.send('EHLO early.example\r\n')
    early.expect('503 5.5.0 ')
    early.close()
    s.await_sessions(0)
    talking, logged_in = s.session(), s.session()
    waiting = s.connect()
    until(lambda: len(s.sessions()) == 3, 'three sessions')
    c = s.connect()
    c.expect('421 4.7.0 ')
    logged_in.hello()
    logged_in.ask('AUTH PLAIN ' + BAD, '535 ')
    log_in(logged_in)
    found = until(lambda: (lambda x: x if x['sessions in proxy'] == 1 else
                           None)(counted(path)), 'a session in proxy')
    assert found['sessions in dialogue'] == 1
    assert found['sessions in greeting'] == 1
    assert (found['accepted'], found['early'], found['authenticated'],
            found['denied'], found['refused_max_connections_per_source'],
            found['refused_max_connections'], found['upstream_failed'],
            found['crashed']) == (4, 1, 1, 1, 1, 0, 0, 0)
    send_message(logged_in)
    bye(logged_in)
    bye(talking)
    waiting.close()
    s.await_sessions(0)
    found = counted(path)
    assert found['bytes_up'] > 40 and found['bytes_down'] > 40
    assert sum(v for k, v in found.items() if k.startswith('sessions')) == 0
    s.stop()


@only_root
def test_session_that_writes_to_the_counters_does_no_more_harm(serve,
                                                               tmp_path):
    """They are in memory that every session may write to, and one of them may
    have been taken over."""
    path = tmp_path / 'status'
    s = serve(status_file=str(path), metrics_file=str(tmp_path / 'metrics'))
    bye(s.session())
    s.await_sessions(0)
    with open(path, 'r+b') as f:
        f.write(b'\xff' * 16)
    time.sleep(1.2)
    bye(s.session())
    s.await_sessions(0)
    time.sleep(1.2)
    s.stop()


@only_root
def test_status_file_on_a_full_disk_is_an_error_at_the_start(users, tmp_path):
    """Not a SIGBUS once there are sessions. In a mount namespace of its own:
    a disk of 64 kB."""
    done = subprocess.run(
        ['unshare', '-m', 'sh', '-c',
         'mount -t tmpfs -o size=64k tmpfs "$1" && shift && exec "$@"', 'sh',
         str(tmp_path), harness.PROGRAM, '--listen', str(free_port()),
         '--max-connections', '100000', '--auth-provider', users,
         '--backend', fakes.dead_address(), '--log', 'stderr',
         '--status-file', str(tmp_path / 'status')],
        env=harness.environment(), capture_output=True, timeout=DEADLINE)
    assert done.returncode == 71, done.stderr
    [line] = done.stderr.decode().splitlines()
    e = harness.Event(line)
    assert e.name == 'listen' and 'space' in e['reason']
    assert 'status' in e['reason']


@pytest.mark.parametrize('end', [signal.SIGTERM, signal.SIGKILL])
def test_status_of_a_listener_that_has_ended(serve, backend, tmp_path, end):
    """Though a session of its time may still be there."""
    path = str(tmp_path / 'status')
    s = serve(status_file=path, backend=backend().address)
    c = s.session()
    c.hello()
    log_in(c)
    until(lambda: counted(path)['sessions in proxy'] == 1, 'a session')
    [pid] = s.await_sessions(1)
    if ROOT:
        assert path not in open_files(pid).values()
        assert path not in open_files(s.keeper()).values()
    s.signal(end)
    if end == signal.SIGTERM:
        bye(c)
    s.wait()
    done = harness.run('--status', '--status-file', path)
    assert (done.returncode, done.out) == (71, '')
    assert done.err.count('\n') == 1 and 'no listener runs' in done.err


def test_status_of_nobody(tmp_path):
    for args in ([], ['--status-file', str(tmp_path / 'nothing')]):
        done = harness.run('--status', *args)
        assert done.returncode not in (0, 64) and done.out == ''
        assert done.err.count('\n') == 1


@pytest.mark.parametrize('content', [b'', b'x' * 10, b'x' * 4096,
                                     b'fscount1' + b'\xff' * 4096,
                                     b'fscount1' + b'\xff' * 8])
def test_status_file_that_is_none(tmp_path, content):
    path = tmp_path / 'file'
    path.write_bytes(content)
    done = harness.run('--status', '--status-file', str(path))
    assert done.returncode == 71 and done.out == ''


METRIC = re.compile(
    r'([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{([a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*"'
    r'(?:,[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*")*)\})? (\d+(?:\.\d+)?)')


def parse_openmetrics(text):
    """{name: {labels: value}}, by the grammar of OpenMetrics 1.0 as far as
    counters and gauges go."""
    assert text.endswith('# EOF\n')
    found, kind, seen, family, had_sample = {}, {}, set(), None, False
    for line in text[:-len('# EOF\n')].split('\n')[:-1]:
        m = re.fullmatch(r'# (TYPE|HELP|UNIT) ([a-zA-Z_:][\w:]*) (.+)', line)
        if m:
            what, name, rest = m.groups()
            if name != family:
                assert name not in seen, f'{name} in two places'
                family, had_sample = name, False
                seen.add(name)
            assert not had_sample, f'{line}: after a sample'
            if what == 'TYPE':
                assert name not in kind and rest in ('counter', 'gauge')
                kind[name] = rest
                assert not name.endswith('_total')
            continue
        m = METRIC.fullmatch(line)
        assert m, f'not a line of OpenMetrics: {line!r}'
        name, labels, value = m.groups()
        own = family + '_total' if kind[family] == 'counter' else family
        assert name == own, f'{name} in the family {family}'
        had_sample = True
        samples = found.setdefault(name, {})
        assert labels not in samples
        samples[labels] = float(value)
    return found


def test_metrics_file(serve, tmp_path):
    path = tmp_path / 'front.prom'
    s = serve(metrics_file=str(path))
    seen = []
    ended = threading.Event()

    def watch():
        while not ended.is_set():
            try:
                seen.append(path.read_text())
            except FileNotFoundError:
                if seen:
                    seen.append('')
            time.sleep(0.002)
    t = threading.Thread(target=watch, daemon=True)
    t.start()
    try:
        c = s.session()
        until(lambda: path.exists() and parse_openmetrics(path.read_text())
              ['smtp_frontd_sessions'].get('stage="dialogue"') == 1,
              'a session in the dialogue', 4)
        bye(c)
        until(lambda: parse_openmetrics(path.read_text())
              ['smtp_frontd_sessions'].get('stage="dialogue"') == 0,
              'none', 4)
    finally:
        ended.set()
        t.join(DEADLINE)
    # Never half of it, never nothing.
    for text in set(seen):
        parse_openmetrics(text)
    found = parse_openmetrics(path.read_text())
    assert found['smtp_frontd_accepted_total'] == {None: 1}
    assert os.listdir(tmp_path).count('front.prom.new') == 0
    assert path.stat().st_mode & 0o777 == 0o644
    s.stop()


def test_metrics_file_that_cannot_be_written_is_told_once(serve, tmp_path):
    s = serve(metrics_file=str(tmp_path / 'nothing' / 'front.prom'))
    time.sleep(2.5)
    lines = [x for x in s.lines() if 'metrics' in x or 'front.prom' in x]
    assert len(lines) == 1, s.log.text
    bye(s.session())
    s.stop()


def test_metrics_file_does_not_follow_a_link(serve, tmp_path):
    """Others may write to the collector's folder."""
    path, precious = tmp_path / 'front.prom', tmp_path / 'precious'
    precious.write_text('mail')
    os.symlink(precious, f'{path}.new')
    s = serve(metrics_file=str(path), umask=0o077)
    until(path.exists, 'metrics')
    assert precious.read_text() == 'mail'
    parse_openmetrics(path.read_text())
    assert not path.is_symlink() and path.stat().st_mode & 0o777 == 0o644
    s.stop()


def test_notifications(serve, notify, tmp_path):
    config = tmp_path / 'conf'
    config.write_text('')
    s = serve(env={'NOTIFY_SOCKET': notify.path},
              args=['--config', str(config)])
    notify.await_line('READY=1')
    assert notify.lines()[0] == 'READY=1'
    c = s.session()
    notify.await_line(r'STATUS=1 sessions?, \d+ a second, 0 refused')
    notify.await_line('WATCHDOG=1', 2)
    s.signal(signal.SIGHUP)
    notify.await_line('READY=1', 2)
    lines = notify.lines()
    assert lines.count('RELOADING=1') == 1
    assert lines.index('RELOADING=1') < len(lines) - 1 - \
        lines[::-1].index('READY=1')
    config.write_text('SMTP_NOSUCH=1\n')
    s.signal(signal.SIGHUP)
    notify.await_line('READY=1', 3)
    assert notify.lines().count('RELOADING=1') == 2
    s.signal(signal.SIGTERM)
    notify.await_line('STOPPING=1')
    c.expect('421 4.3.2 ')
    c.close()
    assert s.wait() == 0


def test_ready_is_said_when_it_is_true(serve, notify, certificates, tmp_path):
    """Not before the certificates have been tried."""
    key = tmp_path / 'key'
    key.write_text('garbage')
    s = serve(env={'NOTIFY_SOCKET': notify.path}, starttls='on',
              ssl_certificate=certificates.ec[0],
              ssl_certificate_key=str(key))
    assert s.wait(15) == 78
    assert 'READY=1' not in notify.lines()
    assert str(key) in s.log.text


def test_watchdog_goes_on_while_it_drains(serve, notify, backend):
    s = serve(env={'NOTIFY_SOCKET': notify.path}, backend=backend().address,
              shutdown_timeout='10s')
    c = s.session()
    c.hello()
    log_in(c)
    s.signal(signal.SIGTERM)
    notify.await_line('STOPPING=1')
    n = notify.lines().count('WATCHDOG=1')
    notify.await_line('WATCHDOG=1', n + 2)
    bye(c)
    assert s.wait() == 0


@only_root
def test_listener_maps_no_library_of_a_provider(serve, auth_server, backend):
    a = auth_server(ok(backend()))
    s = serve(auth_provider=a.url, backend=None)
    c = s.session()
    c.hello()
    log_in(c)
    with open(f'/proc/{s.pid}/maps') as f:
        maps = f.read()
    names = 'libcurl|auth-|libsystemd'
    if 'libasan' not in maps:  # which needs libcrypt in the program itself
        names += '|libcrypt'
    assert not re.search(names, maps)
    bye(c)
    s.stop()


# --- 8. bad times ----------------------------------------------------------

def test_no_descriptors(serve):
    """One line and a pause at a time, and it recovers."""
    s = serve()
    bye(s.session())
    s.await_sessions(0)
    set_limit(s.pid, 'nofile', 4)
    waiting = s.connect()
    s.await_event('listen', result='failed')
    before, lines = cpu_seconds(s.pid), len(s.events('listen'))
    time.sleep(1.5)
    assert cpu_seconds(s.pid) - before < 0.2
    assert len(s.events('listen')) - lines <= 10
    set_limit(s.pid, 'nofile', 1024)
    waiting.greeting()
    bye(waiting)
    s.stop()


def test_limit_below_the_sockets_it_has(serve):
    """poll(2) itself fails then."""
    s = serve()
    bye(s.session())
    s.await_sessions(0)
    set_limit(s.pid, 'nofile', 1)
    time.sleep(1.2)  # the wait that goes on ends with its tick
    before = cpu_seconds(s.pid)
    time.sleep(1)
    assert cpu_seconds(s.pid) - before < 0.2
    set_limit(s.pid, 'nofile', 1024)
    bye(s.session())
    s.stop()


def let_through(folder):
    """Everybody, to what is in it."""
    folder = str(folder)
    while folder != '/':
        os.chmod(folder, os.stat(folder).st_mode | 0o011)
        folder = os.path.dirname(folder)


def set_limit(pid, what, n, uid=None):
    own = [] if uid is None else [
        'setpriv', '--reuid', str(uid), '--clear-groups']
    subprocess.run([*own, 'prlimit', '--pid', str(pid), f'--{what}={n}:'],
                   check=True, timeout=DEADLINE)


@pytest.mark.parametrize('dead', [0, 1])
def test_socket_that_is_shut_down_by_another_is_not_a_busy_loop(serve, dead):
    """accept(2) says EINVAL at once, poll(2) that there is something; the
    others are served."""
    s = serve(sockets=[listening_socket(), listening_socket()])
    bye(s.session(i=dead))
    s.await_sessions(0)
    s.sockets[dead].shutdown(socket.SHUT_RDWR)
    time.sleep(0.2)
    before = cpu_seconds(s.pid)
    time.sleep(1)
    assert cpu_seconds(s.pid) - before < 0.2
    for _ in range(3):
        bye(s.session(i=1 - dead))
    s.stop()


@only_root
def test_no_processes(serve, tmp_path):
    """Of a user who has no other process."""
    uid = LONELY
    passwd = tmp_path / 'passwd'
    passwd.write_text('alice:{PLAIN}wonderland\n')
    os.chown(passwd, uid, uid)
    let_through(tmp_path)
    s = serve(uid=uid, auth_provider=f'file:{passwd}')
    c = s.session()
    c.hello()
    log_in(c, '421 4.3.0')
    c.close()
    s.await_sessions(0)
    set_limit(s.pid, 'nproc', 1, uid)
    c = s.connect()
    c.expect('421 4.3.2 ')
    c.expect_end()
    s.await_event('listen', result='failed')
    before = cpu_seconds(s.pid)
    for _ in range(20):
        s.connect()
    time.sleep(1)
    assert cpu_seconds(s.pid) - before < 0.3
    assert len(s.events('listen', result='failed')) < 15
    # The keeper has gone, too, and cannot be replaced yet.
    kill(s.keeper())
    time.sleep(2)
    assert s.events('keeper', result='restarted') == []
    set_limit(s.pid, 'nproc', 1000, uid)
    until(s.keepers, 'a keeper')
    s.await_event('keeper', result='restarted')

    def works():
        c = s.connect()
        try:
            c.greeting()
            c.hello()
            log_in(c, '421 4.3.0')
            return True
        except (WireError, ConnectionError):
            return False
        finally:
            c.close()
    until(works, f'better times; log: {s.log.text}')
    s.stop()


@only_root
def test_keeper_without_a_thread_is_not_kept(service, tmp_path):
    """One that could not start a worker must not sit there in silence."""
    uid = LONELY + 1
    path, sock = keeper_socket(tmp_path)
    k = service(Keeper, sockets=[sock], uid=uid, limits=['--nproc=1:1'])
    assert k.wait() == 71


def zombies(pid):
    n = 0
    for task in os.listdir(f'/proc/{pid}/task'):
        with open(f'/proc/{pid}/task/{task}/children') as f:
            n += sum(harness.state(int(p)) == 'Z' for p in f.read().split())
    return n


def rss(pid):
    return status_of(pid, 'VmRSS')


@only_root
def test_two_thousand_that_say_nothing(serve):
    s = serve(max_connections=300, max_connections_per_source=300)
    for _ in range(20):
        bye(s.session())
    s.await_sessions(0)
    before = len(open_files(s.pid)), rss(s.pid), len(open_files(s.keeper())), \
        rss(s.keeper())
    served = 0
    for i in range(2000):
        c = socket.create_connection(s.address(), timeout=DEADLINE)
        c.close()
        if i % 500 == 250:  # good clients are served meanwhile
            for _ in range(20):
                c = s.connect()
                if c.reply()[0].startswith('220'):
                    bye(c)
                    served += 1
                    break
    assert served == 4
    s.await_sessions(0, 20)
    until(lambda: zombies(s.pid) == 0, 'no zombie')
    until(lambda: len(open_files(s.pid)) == before[0], 'what it had')
    until(lambda: len(open_files(s.keeper())) <= before[2], 'closed channels')
    assert rss(s.pid) < before[1] + 1000 * FLAT
    assert rss(s.keeper()) < before[3] + 1000 * FLAT
    bye(s.session())
    s.stop()


@only_root
def test_a_thousand_sessions_in_a_row(serve, backend, certificates):
    b = backend()
    s = serve(backend=b.address, starttls='on', **certificates.directives())

    def run(n):
        for i in range(n):
            c = s.session()
            if i % 20 == 0:
                secured(c)
            elif i % 2:
                c.hello()
                c.ask('AUTH PLAIN ' + BAD, '535 ')
            else:
                c.hello()
                log_in(c)
            bye(c)
            s.clients.clear()
    run(100)
    s.await_sessions(0)
    keeper = s.keeper()
    before = len(open_files(s.pid)), rss(s.pid), len(open_files(keeper)), \
        rss(keeper)
    run(900)
    s.await_sessions(0)
    until(lambda: zombies(s.pid) == 0, 'no zombie')
    assert s.keeper() == keeper
    assert len(open_files(s.pid)) == before[0]
    assert rss(s.pid) < before[1] + 1000 * FLAT
    until(lambda: len(open_files(keeper)) <= before[2], 'closed channels')
    assert rss(keeper) < before[3] + 2000 * FLAT
    s.stop()
