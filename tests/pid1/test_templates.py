"""The three templates under a real systemd: a process a connection, started by
the .socket unit, lean and restricted."""

import base64
import contextlib
import hashlib
import hmac
import os
import re
import socket
import ssl
from concurrent import futures

import pytest

import fakes
import harness
import inside

TEMPLATES = ['submission', 'submissions', 'mx']
SIGSYS = 31
each = pytest.mark.parametrize('site', TEMPLATES, indirect=True)
each_of_submission = pytest.mark.parametrize('site', TEMPLATES[:2],
                                             indirect=True)


def family_of(site):
    """(session, keeper) of the only instance: a child and its parent."""
    both = harness.until(
        lambda: len(site.processes()) == 2 and site.processes(),
        'a session and its keeper')
    parents = {pid: int(inside.status(pid)['PPid']) for pid in both}
    [keeper] = [pid for pid in both if parents[pid] in both]
    return parents[keeper], keeper


# --- how it starts ----------------------------------------------------------

@each
def test_starts_on_the_first_connection(site):
    assert site.instances() == [] and site.processes() == []
    assert site.accepts()
    client = site.connect()
    client.greeting()
    [unit] = site.instances()
    assert site.machine.property(unit, 'SubState') == 'running'
    client.ask('QUIT', '221 ')
    client.expect_end()
    client.close()
    site.await_quiet()


@each
@pytest.mark.parametrize('source', ['127.0.0.9', '192.0.2.7', '2001:db8::7'])
def test_knows_its_client(site, source):
    """IPv4 comes over the same socket as IPv6, and is IPv4 nevertheless."""
    client = site.connect(source)
    port = client.sock.getsockname()[1]
    client.greeting()
    found = site.event('connect', client=source, port=port)
    assert found['SYSLOG_IDENTIFIER'] == 'smtp-frontd'
    assert found['SYSLOG_FACILITY'] == '2'
    assert found['PRIORITY'] == '6'
    assert re.fullmatch('[0-9a-f]{16}', found['SMTP_SESSION'])
    assert found['_SYSTEMD_UNIT'].startswith(site.template)
    assert found['_SYSTEMD_UNIT'].endswith('.service')
    assert found['_UID'] == str(site.machine.uid)
    assert found['MESSAGE'] == f'session={found["SMTP_SESSION"]} ' \
        f'event=connect client={source} port={port}'


# --- whole sessions ---------------------------------------------------------

@each_of_submission
def test_a_message_of_a_user(site):
    site.send('192.0.2.7')
    c = site.backend.await_end()
    assert c.messages == [b'Subject: test\r\n\r\nhello\r\n']
    told = fakes.xclient_attributes(c)
    assert told['ADDR'] == '192.0.2.7'
    assert told['LOGIN'] == 'alice'
    assert told['DESTPORT'] == str(site.port)
    auth = site.event('auth', result='accepted', client='192.0.2.7')
    assert auth['SMTP_USER'] == 'alice' and auth['SMTP_MECH'] == 'PLAIN'
    ours = {'session': auth['SMTP_SESSION']}
    assert site.event('tls', **ours)['SMTP_RESULT'] == 'ok'
    assert site.event('upstream', **ours)['SMTP_RESULT'] == 'ok'
    assert site.event('close', **ours)['SMTP_CAUSE'] == 'done'


@pytest.mark.parametrize('site', ['mx'], indirect=True)
def test_a_message_of_a_stranger(site):
    site.send('2001:db8::7')
    c = site.backend.await_end()
    assert len(c.messages) == 1
    assert fakes.xclient_attributes(c)['ADDR'] == 'IPV6:2001:db8::7'
    assert site.event('close', client='2001:db8::7')['SMTP_CAUSE'] == 'done'


@each_of_submission
def test_a_wrong_password(site):
    client = site.greeted('192.0.2.8')
    client.ask('AUTH PLAIN ' + fakes.plain('alice', 'guess'), '535 5.7.8 ')
    client.ask('QUIT', '221 ')
    client.expect_end()
    found = site.event('auth', result='denied', client='192.0.2.8')
    assert found['SMTP_USER'] == 'alice'
    assert site.backend.conversations == []


def test_password_is_not_taken_in_the_clear(site):
    client = site.greeted(starttls=False)
    client.ask('AUTH PLAIN ' + fakes.plain('alice', 'wonderland'), '538 ')
    client.ask('MAIL FROM:<a@example.com>', '530 ')


@pytest.mark.parametrize('site', ['mx'], indirect=True)
def test_early_talker(site):
    site.configure(smtp_greeting_delay='5s')
    client = site.connect('192.0.2.7')
    client.line('EHLO bot.example')
    client.expect('503 5.5.0 ')
    client.expect_end()
    found = site.event('early', client='192.0.2.7')
    assert found['SMTP_RESULT'] == 'refused'
    assert site.event('close', client='192.0.2.7')['SMTP_CAUSE'] == 'early'


# --- session tickets --------------------------------------------------------

@each_of_submission
def test_a_tls_session_goes_on_in_another_instance(site):
    """Their keepers share a directory that outlives them."""
    context, kept = harness.client_context(), None
    for expected in (False, True, True):
        tls = {'context': context, 'session': kept,
               'server_hostname': harness.NAME}
        client = site.connect(**tls)
        client.greeting()
        if site.name == 'submission':
            client.ask('STARTTLS', '220 ')
            client.start_tls(**tls)
        client.hello()
        assert client.tls.session_reused is expected
        kept = client.tls.session
        client.ask('QUIT', '221 ')
        client.expect_end()
        client.close()
        site.await_quiet()
    found = os.stat(f'{site.machine.root}/run/smtp-frontd-tickets')
    assert found.st_mode & 0o777 == 0o700
    assert found.st_uid == site.machine.uid


# --- many at a time ---------------------------------------------------------

def knock(site, source, times):
    """Connections that are all made before the first of them is looked at; how
    many of them were closed without a word."""
    refused = 0
    with contextlib.ExitStack() as stack:
        for sock in [stack.enter_context(socket.create_connection(
                ('127.0.0.1', site.port), 10, (source, 0)))
                for _ in range(times)]:
            with contextlib.suppress(ConnectionResetError):
                if sock.recv(100) != b'':
                    continue
            refused += 1
    return refused


@each
def test_one_address_has_its_limit_and_the_port_stays_open(site):
    """An address that holds all it may, and knocks 300 times more, is refused
    so often, and nobody else. By default systemd would stop listening when 200
    have come in two seconds, refused ones included."""
    site.configure(smtp_greeting_delay='0')
    limit = int(site.machine.property(site.socket, 'MaxConnectionsPerSource'))
    held = [site.connect('192.0.2.7') for _ in range(limit)]
    for client in held:
        client.greeting()
    assert knock(site, '192.0.2.7', 300) == 300
    assert site.accepts()
    site.connect('192.0.2.8').greeting()
    site.connect('2001:db8::7').greeting()
    held[0].ask('QUIT', '221 ')
    held[0].expect_end()
    held[0].close()
    harness.until(lambda: len(site.instances()) == limit + 1,
                  'a place for another one')
    site.connect('192.0.2.7').greeting()


def some_session(site, number):
    """One of five kinds: whole, with a wrong password, in the clear, left in
    the middle, left at once."""
    kind, source = number % 5, f'127.0.2.{number // 5}'
    if kind == 0:
        site.send(source)
        return
    if kind == 4:
        site.connect(source).close()
        return
    client = site.greeted(source, starttls=kind != 2)
    if kind == 1:
        client.ask('AUTH PLAIN ' + fakes.plain('alice', 'guess'), '535 ')
    if kind != 3:
        client.ask('QUIT', '221 ')
    client.close()


def test_nothing_is_left_of_300_sessions(site):
    with futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: some_session(site, number), range(300)))
    assert len(site.backend.conversations) == 60
    site.await_quiet()
    site.machine.journal.await_event(site.mark, 'close', count=300)
    left = [folder for folder, _, _ in os.walk(site.machine.cgroup)
            if os.path.basename(folder).startswith(site.template)]
    assert left == []


# --- what a session may do --------------------------------------------------

@each_of_submission
def test_restrictions_are_in_force(site):
    client = site.greeted()
    client.ask('NOOP', '250 ')
    for pid in family_of(site):
        s = inside.status(pid)
        assert set(s['Uid'].split()) == {str(site.machine.uid)}
        assert set(s['Gid'].split()) == {str(site.machine.gid)}
        assert set(s['Groups'].split()) <= {str(site.machine.gid)}
        assert s['NoNewPrivs'] == '1'
        assert s['Seccomp'] == '2'  # a filter
        for kind in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'):
            assert int(s[kind], 16) == 0, kind
        with open(f'/proc/{pid}/limits') as f:
            assert re.search(r'Max core file size +0 +0 ', f.read())
        # Not dumpable: its files in /proc are root's.
        assert os.stat(f'/proc/{pid}/mem').st_uid == 0
        with open(f'/proc/{pid}/environ') as f:
            assert 'wonderland' not in f.read()


def test_session_without_keeper_is_restricted(site_of):
    site = site_of('mx')
    client = site.greeted()
    client.ask('NOOP', '250 ')
    [pid] = site.processes()
    s = inside.status(pid)
    assert set(s['Uid'].split()) == {str(site.machine.uid)}
    assert (s['NoNewPrivs'], s['Seccomp']) == ('1', '2')
    assert int(s['CapBnd'], 16) == int(s['CapEff'], 16) == 0


def test_a_forbidden_call_would_be_seen(site):
    """What looks over each of these tests does see: here is a program with
    the template's restrictions that asks for its priority."""
    site.machine.drop_in(
        site.template + '.service', '[Service]\nExecStart=\nExecStart='
        '/usr/bin/python3 -c "import os; os.getpriority(0, 0)"\n')
    site.connect()
    harness.until(lambda: site.machine.journal.since(
        site.mark, EXIT_CODE='killed', EXIT_STATUS=SIGSYS), 'the kill')
    try:
        harness.until(lambda: site.machine.kernel.killed(site.machine.uids),
                      'the kernel\'s line', 3)
    except harness.WireError:
        pytest.skip('the kernel does not log such kills here: a keeper that '
                    'dies of one is seen by what its session answers')


# --- the filter of system calls kills no session ---------------------------
# machine's end looks for the kernel's word of a process that was killed, a
# keeper included.

def with_plain(client, user, secret):
    client.ask('AUTH PLAIN ' + fakes.plain(user, secret), '235 ')


def with_login(client, user, secret):
    client.ask('AUTH LOGIN', '334 ')
    client.ask(fakes.b64(user), '334 ')
    client.ask(fakes.b64(secret), '235 ')


def with_cram_md5(client, user, secret):
    challenge = base64.b64decode(client.ask('AUTH CRAM-MD5', '334 ')[0][4:])
    digest = hmac.new(secret.encode(), challenge, hashlib.md5).hexdigest()
    client.ask(fakes.b64(f'{user} {digest}'), '235 ')


@each_of_submission
@pytest.mark.parametrize('authenticate,user', [
    (with_plain, 'alice'), (with_login, 'alice'), (with_cram_md5, 'alice'),
    (with_plain, 'yes'), (with_plain, 'salt')])
def test_every_way_to_authenticate(site, authenticate, user):
    site.configure(smtp_auth='plain login cram-md5')
    client = site.greeted()
    authenticate(client, user, inside.USERS[user][0])
    site.deliver(client)
    assert len(site.backend.await_end().messages) == 1


def test_session_in_the_clear(site):
    site.configure(starttls='off')
    client = site.connect()
    client.greeting()
    client.hello()
    with_plain(client, 'alice', 'wonderland')
    site.deliver(client)


@pytest.mark.parametrize('version', ['TLSv1_2', 'TLSv1_3'])
def test_handshakes(site, version):
    version = getattr(ssl.TLSVersion, version)
    client = site.greeted(starttls=False)
    client.ask('STARTTLS', '220 ')
    client.start_tls(harness.client_context(
        minimum_version=version, maximum_version=version))
    client.hello()
    with_plain(client, 'alice', 'wonderland')
    site.deliver(client)


def test_broken_handshake(site):
    client = site.greeted(starttls=False)
    client.ask('STARTTLS', '220 ')
    client.raw_send(b'\x16\x03\x01\x00\x05hello')
    client.rest()
    assert site.event('tls')['SMTP_RESULT'] == 'failed'


@pytest.mark.parametrize('host', ['127.0.0.1', '[::1]', 'auth.example'])
def test_auth_server(site, host):
    """By a name, libcurl has a thread of its own that looks it up."""
    site.machine.hosts('127.0.0.1 auth.example')
    family = 'inet6' if ':' in host else 'inet'
    server = site.fake(fakes.AuthServer([fakes.ok(site.backend)], family))
    site.configure(auth_provider=f'http://{host}:{server.port}/auth',
                   backend='')
    site.send('192.0.2.7')
    [question] = server.requests
    assert question.get('Client-IP') == '192.0.2.7'
    assert question.get('Auth-User') == 'alice'


def test_auth_server_that_is_away(site):
    site.machine.hosts('')
    site.configure(auth_provider='http://nowhere.example/auth',
                   auth_http_timeout='300ms', backend='')
    client = site.greeted()
    client.ask('AUTH PLAIN ' + fakes.plain('alice', 'wonderland'), '454 ')
    assert site.event('auth')['SMTP_RESULT'] == 'unavailable'


def test_client_name_and_backend_name(site_of):
    site = site_of('mx')
    site.machine.hosts('127.0.0.1 backend.example')
    names = site.fake(fakes.NameServer({
        (fakes.ptr_name('192.0.2.7'), fakes.PTR): ['client.example'],
        ('client.example', fakes.A): ['192.0.2.7'],
        ('backend.example', fakes.A): ['127.0.0.1']}))
    site.configure(resolver=names.address, resolver_timeout='5s',
                   backend=f'backend.example:{site.backend.port}')
    site.send('192.0.2.7')
    assert site.event('connect')['SMTP_HOST'] == 'client.example'
    told = fakes.xclient_attributes(site.backend.await_end())
    assert told['NAME'] == 'client.example'


def test_backend_name_from_hosts(site):
    site.machine.hosts('127.0.0.1 backend.example')
    site.configure(backend=f'backend.example:{site.backend.port}')
    site.send()


def test_backend_by_unix_socket(site):
    """Which the session connects to itself, whatever files it may open."""
    path = '/run/backend'
    backend = site.fake(fakes.Backend('unix', site.machine.root + path))
    os.chmod(site.machine.root + path, 0o666)
    try:
        site.configure(backend='unix:' + path)
        site.send()
    finally:
        os.unlink(site.machine.root + path)
    assert len(backend.await_end().messages) == 1


def test_big_message(site_of):
    """So big that it is spliced, and that both sides have to wait."""
    site = site_of('mx')
    client = site.greeted()
    text = 'Subject: big\r\n\r\n' + ('x' * 70 + '\r\n') * 50000
    site.deliver(client, text)
    assert site.backend.await_end().messages[0].decode() == text


@pytest.mark.parametrize('log', ['syslog', 'journal', 'stderr'])
def test_log_targets(site, log):
    site.configure(log=log)
    site.send('192.0.2.7')
    entry = harness.until(lambda: [
        e for e in site.machine.journal.since(
            site.mark, SYSLOG_IDENTIFIER='smtp-frontd')
        if 'event=close client=192.0.2.7 cause=done' in e['MESSAGE']],
        'the line')[0]
    assert entry['_TRANSPORT'] == {'stderr': 'stdout'}.get(log, log)
    if log != 'stderr':
        assert entry['SYSLOG_FACILITY'] == '2'  # mail


# --- relay programs ---------------------------------------------------------

FRONTD = '/usr/local/sbin/smtp-frontd'


def relay_unit(words, more=''):
    return f'[Service]\nExecStart=\nExecStart={FRONTD} --backend= -- {words}' \
        f'\n{more}'


def test_relay_program(site):
    """One that is content with the unit's filter: ourselves."""
    site.machine.drop_in(site.template + '.service', relay_unit(
        f'{FRONTD} --smtp-auth none --log syslog '
        f'--backend {site.backend.address}'))
    site.send('192.0.2.7')
    assert site.event('relay')['SMTP_STATUS'] == 'exit:0'
    told = fakes.xclient_attributes(site.backend.await_end())
    assert told['ADDR'] == '192.0.2.7'


def test_relay_program_in_place_of_the_greeting(site_of):
    site = site_of('mx')
    site.configure(relay_at='greeting')
    site.machine.drop_in(site.template + '.service', relay_unit(
        f'{FRONTD} --smtp-auth none --server-name {harness.NAME} '
        f'--backend {site.backend.address}'))
    site.send('192.0.2.7')
    told = fakes.xclient_attributes(site.backend.await_end())
    assert told['ADDR'] == '192.0.2.7'


def test_relay_program_that_needs_more(site):
    """The drop-in that the template speaks of, with the relay program that
    comes with it."""
    folder = '/var/lib/smtp-frontd'
    site.machine.run('install', '-d', '-o', 'smtp-frontd', folder)
    site.machine.drop_in(site.template + '.service', relay_unit(
        '/usr/local/share/doc/smtp-frontd/maildir-relay ' + folder,
        'SystemCallFilter=@system-service\n'))
    site.send()
    [name] = os.listdir(f'{site.machine.root}{folder}/new')
    message = site.machine.read(f'{folder}/new/{name}')
    assert '(Authenticated sender: alice)' in message


# --- what fails ------------------------------------------------------------

def test_bad_directive(site):
    """The client is told nothing; the log says what, and systemd that it was
    the configuration; and the unit does not stay as a failed one."""
    site.configure(timeout='soon')
    client = site.connect()
    client.expect_end()
    found = site.event('fatal')
    assert 'timeout' in found['SMTP_REASON']
    assert found['PRIORITY'] == '2'
    ended = harness.until(lambda: site.machine.journal.since(
        site.mark, EXIT_STATUS=78), 'the exit status')[0]
    assert ended['UNIT'].startswith(site.template)
    client.close()
    site.await_quiet()
    assert site.machine.failed_units() == []
    assert site.accepts()
    site.configure()
    site.send()


def test_no_file_of_directives(site):
    os.unlink(f'{site.machine.root}/etc/smtp-frontd/{site.name}.conf')
    client = site.connect()
    client.expect_end()
    site.await_quiet()
    assert site.machine.failed_units() == []
    assert site.accepts()


@each_of_submission
def test_key_that_cannot_be_read(site):
    site.configure(ssl_certificate_key='/root/key.pem')
    if site.name == 'submission':
        client = site.greeted(starttls=False)
        client.ask('STARTTLS', '454 4.7.0 ')
    else:
        with pytest.raises((ConnectionError, harness.WireError)):
            site.connect()
    assert '/root/key.pem' in site.event('tls', result='failed')['SMTP_REASON']


def test_backend_that_is_away(site):
    site.configure(backend=fakes.dead_address())
    client = site.greeted()
    client.ask('AUTH PLAIN ' + fakes.plain('alice', 'wonderland'), '421 ')
    client.expect_end()
    client.close()
    harness.until(lambda: site.machine.journal.since(
        site.mark, EXIT_STATUS=75), 'the exit status')
    site.await_quiet()
