"""The listener under a real systemd: one service for all connections, fully
restricted, started by its sockets."""

import contextlib
import os
import re
import signal
import socket
import threading
import time

import pytest

import fakes
import harness
import inside
import sites

CREDENTIALS = '/run/credentials/smtp-frontd.service/'
FULL = '421 4.3.2 '       # max_connections, and the end of the service
FULL_SOURCE = '421 4.7.0 '
SIGSYS = 31


@pytest.fixture
def listener(machine):
    """The sockets are there, the service is not."""
    site = sites.Listener(machine)
    yield site
    site.close()


@pytest.fixture
def running(listener):
    """The service is there, too."""
    listener.begin()
    return listener


def quit(client):
    client.ask('QUIT', '221 ')
    client.expect_end()
    client.close()


def smtps(site, source='127.0.0.1'):
    """A client of the other port."""
    client = harness.Client(socket.create_connection(
        ('::1' if ':' in source else '127.0.0.1', 465), harness.DEADLINE,
        (source, 0)))
    site.opened.append(client)
    client.start_tls()
    return client


def log_in(client):
    client.ask('AUTH PLAIN ' + fakes.plain('alice', 'wonderland'), '235 ')


# --- how it starts ----------------------------------------------------------

def test_starts_on_the_first_connection(listener):
    assert listener.processes() == []
    assert listener.property('ActiveState') == 'inactive'
    client = listener.greeted('192.0.2.7')
    assert listener.property('ActiveState') == 'active'
    assert listener.property('Type') == 'notify'
    [keeper], [session] = listener.keepers(), listener.sessions()
    assert keeper != session
    quit(client)
    harness.until(lambda: listener.sessions() == [], 'the end of the session')
    assert listener.keepers() == [keeper]


def test_status_text(running):
    harness.until(lambda: re.fullmatch(
        r'0 sessions, 0 a second, 0 refused', running.property('StatusText')),
        'a status')
    client = running.greeted()
    harness.until(lambda: running.property('StatusText').startswith(
        '1 sessions, '), 'a status with a session')
    quit(client)


def test_both_ports(running):
    running.send('192.0.2.7')
    client = smtps(running, '2001:db8::7')
    client.greeting()
    client.hello()
    log_in(client)
    running.deliver(client)
    first, second = [fakes.xclient_attributes(running.backend.await_end(i))
                     for i in (0, 1)]
    assert (first['ADDR'], first['DESTPORT']) == ('192.0.2.7', '587')
    assert (second['ADDR'], second['DESTPORT']) == ('IPV6:2001:db8::7', '465')
    assert first['LOGIN'] == second['LOGIN'] == 'alice'


def test_journal(running):
    running.send('192.0.2.7')
    close = running.event('close', client='192.0.2.7', cause='done')
    ours = {'session': close['SMTP_SESSION']}
    assert re.fullmatch('[0-9a-f]{16}', close['SMTP_SESSION'])
    found = [running.event(name, **ours) for name in (
        'connect', 'tls', 'auth', 'upstream')] + [close]
    for entry in found:
        assert entry['_SYSTEMD_UNIT'] == running.service
        assert entry['SYSLOG_IDENTIFIER'] == 'smtp-frontd'
        assert entry['SYSLOG_FACILITY'] == '2'
        assert entry['MESSAGE'].startswith(
            f'session={close["SMTP_SESSION"]} event={entry["SMTP_EVENT"]} ')
    assert len({entry['_PID'] for entry in found}) == 1
    assert found[2]['SMTP_USER'] == 'alice'


# --- limits -----------------------------------------------------------------

def told(site, source):
    """The first line that a new connection is told."""
    client = site.connect(source)
    line = client.read_line()
    if not line.startswith('220 '):
        client.expect_end()
    return line


def test_limit_of_an_address(running):
    running.configure(max_connections_per_source=3)
    running.machine.systemctl('reload', running.service)
    for source in ('192.0.2.7', '2001:db8::7'):
        for _ in range(3):
            assert told(running, source).startswith('220 ')
    assert told(running, '192.0.2.7').startswith(FULL_SOURCE)
    assert told(running, '2001:db8::8').startswith(FULL_SOURCE)
    assert told(running, '192.0.2.8').startswith('220 ')
    assert told(running, '2001:db8:0:1::7').startswith('220 ')
    found = running.event('limit', client='192.0.2.7')
    assert found['SMTP_LIMIT'] == 'max_connections_per_source'


def test_limit_of_all(running):
    running.configure(max_connections=4)
    running.machine.systemctl('restart', running.service)
    held = [running.connect(f'127.0.3.{i}') for i in range(4)]
    for client in held:
        client.greeting()
    assert told(running, '192.0.2.7').startswith(FULL)
    # A session that is killed leaves its place to another one.
    os.kill(running.sessions()[0], signal.SIGKILL)
    harness.until(lambda: told(running, '192.0.2.7').startswith('220 '),
                  'a place')
    assert running.event('session')['SMTP_SIGNAL'] == '9'


def test_flood(running):
    """Past its limit an address is refused 300 times, and the port stays."""
    running.configure(max_connections_per_source=2)
    running.machine.systemctl('reload', running.service)
    for _ in range(2):
        running.connect('192.0.2.7').greeting()
    for _ in range(300):
        assert told(running, '192.0.2.7').startswith(FULL_SOURCE)
    running.send('192.0.2.8')


# --- reload and restart -----------------------------------------------------

def test_reload(running):
    before = running.main()
    client = running.greeted()
    running.configure(smtp_capabilities='X-NEW')
    running.machine.systemctl('reload', running.service)
    running.event('reload', result='ok')
    assert 'X-NEW' not in client.hello()
    assert 'X-NEW' in running.greeted().hello()
    log_in(client)
    running.deliver(client)
    assert running.main() == before
    harness.until(lambda: len(running.keepers()) == 1, 'the old keeper\'s end')


@pytest.mark.parametrize('bad', [
    {'timeout': 'soon'}, {'ssl_certificate': '/nowhere/cert.pem'},
    {'ssl_certificate_key': '/etc/smtp-frontd/key.pem'}])
def test_reload_of_what_is_wrong(running, bad):
    """A bad value, a file that is not there, one that may not be read: it is
    as it was, and the log says why."""
    running.configure(smtp_capabilities='X-NEW', **bad)
    running.machine.systemctl('reload', running.service)
    running.event('reload', result='failed')
    [value] = bad.values()
    assert [e for e in running.machine.journal.since(running.mark)
            if value in e.get('SMTP_REASON', '')]
    assert 'X-NEW' not in running.greeted().hello()
    running.send()
    assert running.property('ActiveState') == 'active'


class Load:
    """Clients in threads, one session after the other, until stopped."""

    def __init__(self, site, threads=4):
        self.site = site
        self.done = self.turned_away = 0
        self.errors, self.at = [], {}
        self.stopping = threading.Event()
        self.threads = [threading.Thread(target=self.run, args=(i,))
                        for i in range(threads)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        while not self.stopping.is_set():
            try:
                self.session(number)
            except Exception as e:
                self.errors.append(f'{self.at[number]}: {e!r}')
                return

    def session(self, number):
        """Told 421 in so many words, a client comes again: it is not lost.
        What it must not see is a refusal, a reset or a sudden end."""
        self.at[number] = 'connect'
        client = self.site.connect(f'127.0.4.{number}')
        steps = [(None, '220 '), ('EHLO me', '250'), ('STARTTLS', '220 '),
                 ('EHLO again', '250'),
                 ('AUTH PLAIN ' + fakes.plain('alice', 'wonderland'), '235 ')]
        for command, code in steps:
            self.at[number] = command
            if command is not None:
                with contextlib.suppress(BrokenPipeError):
                    client.line(command)
            if client.expect(f'{code}|{FULL}')[0].startswith(FULL):
                client.close()
                self.turned_away += 1
                return
            if command == 'STARTTLS':
                self.at[number] = 'handshake'
                client.start_tls()
        self.at[number] = 'message'
        self.site.deliver(client)
        self.done += 1

    def stop(self):
        self.stopping.set()
        for thread in self.threads:
            thread.join(inside.PATIENCE)
        assert self.errors == []
        assert self.done > 0


def test_reload_under_load(running):
    load = Load(running)
    for _ in range(5):
        done = load.done
        running.machine.systemctl('reload', running.service)
        harness.until(lambda: load.done > done + 4 or load.errors, 'sessions')
    load.stop()
    assert load.turned_away == 0


def test_restart_under_load(running):
    """Between the two processes connections wait in the sockets' queues."""
    load = Load(running)
    for _ in range(3):
        done, before = load.done, running.main()
        running.machine.systemctl('restart', running.service)
        assert running.main() != before
        harness.until(lambda: load.done > done + 4 or load.errors, 'sessions')
    load.stop()
    running.begin()


def test_session_outlives_a_restart(running):
    """What was handed over goes on; who waits meanwhile is served by the next
    process, who has not logged in yet is told to come again."""
    working, idle = running.greeted('192.0.2.7'), running.greeted('192.0.2.8')
    log_in(working)
    before = running.main()
    running.machine.systemctl('restart', '--no-block', running.service)
    idle.expect(FULL)
    idle.expect_end()
    waiting = running.connect('2001:db8::7')
    waiting.expect_nothing(0.3)
    running.deliver(working)
    waiting.greeting()
    assert running.main() != before
    assert len(running.backend.await_end().messages) == 1


# --- what goes wrong --------------------------------------------------------

def test_watchdog(running):
    """A listener that hangs is killed and replaced."""
    running.machine.drop_in(running.service, '[Service]\nWatchdogSec=3s\n')
    running.machine.systemctl('restart', running.service)
    main = running.main()
    os.kill(main, signal.SIGSTOP)
    client = running.connect()
    client.greeting(15)
    assert running.property('NRestarts') == '1'
    assert running.main() != main


def test_killed_over_and_over(running):
    """The ports stay open, however often: connections wait."""
    for i in range(7):
        os.kill(running.main(), signal.SIGKILL)
        running.connect().greeting()
    assert running.property('ActiveState') == 'active'
    running.send()


def test_keeper_is_replaced(running):
    [keeper] = running.keepers()
    os.kill(keeper, signal.SIGKILL)
    harness.until(lambda: running.keepers() not in ([], [keeper]),
                  'another keeper')
    running.send()
    assert running.event('keeper', result='restarted')


def test_bad_directives_at_the_start(listener):
    """The service cannot start, the connection waits, and when that has been
    put right it is served."""
    listener.configure(timeout='soon')
    client = listener.connect()
    harness.until(lambda: len(listener.machine.journal.since(
        listener.mark, EXIT_STATUS=78)) > 2, 'attempts')
    assert listener.machine.property(listener.socket, 'ActiveState') == 'active'
    attempts = int(listener.property('NRestarts'))
    client.expect_nothing(1)
    assert int(listener.property('NRestarts')) - attempts <= 5
    listener.configure()
    client.greeting()
    quit(client)


def test_nothing_is_left_of_many_sessions(running):
    """Descriptors and memory of the listener stay what they were; there is no
    zombie, and no process but the two that live on."""
    def size():
        main = running.main()
        return (len(os.listdir(f'/proc/{main}/fd')),
                int(inside.status(main)['VmRSS'].split()[0]))

    def some(n):
        for i in range(n):
            client = running.connect(f'127.0.5.{i % 200}')
            client.greeting()
            client.ask('QUIT', '221 ')
            client.close()
        harness.until(lambda: running.sessions() == [], 'the last session')

    some(100)
    fds, memory = size()
    some(900)
    assert size()[0] == fds
    assert size()[1] < memory + 200
    assert harness.children(running.main(), alive=False) == running.keepers()
    running.send()


# --- what it may do ---------------------------------------------------------

def test_restrictions_are_in_force(running):
    client = running.greeted()
    log_in(client)
    [session], [keeper] = running.sessions(), running.keepers()
    users = set()
    for pid in (running.main(), keeper, session):
        s = inside.status(pid)
        users |= set(s['Uid'].split())
        assert s['Groups'].split() in ([], s['Gid'].split()[:1])
        assert (s['NoNewPrivs'], s['Seccomp']) == ('1', '2')
        for kind in ('CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb'):
            assert int(s[kind], 16) == 0, kind
        with open(f'/proc/{pid}/limits') as f:
            assert re.search(r'Max core file size +0 +0 ', f.read())
        assert os.stat(f'/proc/{pid}/mem').st_uid == 0
    assert len(users) == 1
    assert users.isdisjoint({'0', str(running.machine.uid)})
    running.deliver(client)


def test_units_as_systemd_reads_them(machine):
    """verify ends well whatever it finds, so it has to be silent."""
    services = ['smtp-frontd.service', 'smtp-frontd-keeper.service']
    said = machine.run('systemd-analyze', 'verify', '--man=no', *services,
                       'smtp-frontd.socket', 'smtp-frontd-smtps.socket',
                       'smtp-frontd-keeper.socket')
    assert said == ''
    for unit in services:
        machine.run('systemd-analyze', 'security', '--offline=true',
                    '--threshold=15', unit)


@pytest.fixture
def session(running):
    """(process, site) of a session that waits for its client's commands."""
    client = running.greeted()
    client.ask('NOOP', '250 ')
    [pid] = running.sessions()
    return pid, running


# --- its filter kills no session --------------------------------------------

def test_auth_server_by_name(running):
    running.machine.hosts('127.0.0.1 auth.example')
    server = running.fake(fakes.AuthServer([fakes.ok(running.backend)]))
    running.configure(auth_provider=f'http://auth.example:{server.port}/auth',
                      backend='')
    running.machine.systemctl('reload', running.service)
    running.send('192.0.2.7')
    running.send('192.0.2.8')
    assert [q.get('Client-IP') for q in server.requests] == [
        '192.0.2.7', '192.0.2.8']


@pytest.mark.parametrize('user', ['alice', 'yes', 'salt'])
def test_passwords(running, user):
    client = running.greeted()
    client.ask('AUTH PLAIN ' + fakes.plain(user, inside.USERS[user][0]),
               '235 ')
    running.deliver(client)


def test_names(running):
    running.machine.hosts('127.0.0.1 backend.example')
    names = running.fake(fakes.NameServer({
        (fakes.ptr_name('192.0.2.7'), fakes.PTR): ['client.example'],
        ('client.example', fakes.A): ['192.0.2.7'],
        ('backend.example', fakes.A): ['127.0.0.1']}))
    running.configure(resolver=names.address, resolver_timeout='5s',
                      backend=f'backend.example:{running.backend.port}')
    running.machine.systemctl('reload', running.service)
    running.send('192.0.2.7')
    assert fakes.xclient_attributes(
        running.backend.await_end())['NAME'] == 'client.example'


@pytest.mark.parametrize('log', ['syslog', 'stderr'])
def test_log_targets(listener, log):
    listener.configure(log=log)
    listener.begin()
    listener.send('192.0.2.7')
    harness.until(lambda: [e for e in listener.machine.journal.since(
        listener.mark, SYSLOG_IDENTIFIER='smtp-frontd') if
        'event=close client=192.0.2.7 cause=done' in e['MESSAGE']], 'the line')


def test_big_message(running):
    running.configure(starttls='off')
    running.machine.systemctl('reload', running.service)
    client = running.greeted(starttls=False)
    log_in(client)
    text = 'Subject: big\r\n\r\n' + ('x' * 70 + '\r\n') * 50000
    running.deliver(client, text)
    assert running.backend.await_end().messages[0].decode() == text


# --- status -----------------------------------------------------------------

def test_status_command_and_metrics(listener):
    listener.configure(metrics_file='/run/smtp-frontd/metrics.prom')
    listener.begin()
    listener.send()
    listener.connect().greeting()
    said = listener.machine.run(
        'smtp-frontd', '--status', '--config',
        '/etc/smtp-frontd/smtp-frontd.conf')
    assert re.search(r'authenticated\D+1\b', said), said
    harness.until(lambda: 'authenticated_total 1' in listener.machine.read(
        '/run/smtp-frontd/metrics.prom'), 'the metrics')


# --- a keeper for the templates ----------------------------------------------

@pytest.fixture
def kept(site_of, machine):
    """The submission template, whose sessions ask the keeper's service."""
    site = site_of('submission')
    site.configure(keeper_socket='/run/smtp-frontd-keeper.socket')
    machine.systemctl('start', 'smtp-frontd-keeper.socket')
    yield site
    machine.systemctl('stop', 'smtp-frontd-keeper.socket',
                      'smtp-frontd-keeper.service')


def test_shared_keeper(kept):
    """Secrets that root alone can read; no keeper beside the session."""
    for name in ('key.pem', 'users'):
        os.chmod(f'{kept.machine.root}/etc/smtp-frontd/{name}', 0o600)
    try:
        client = kept.greeted()
        log_in(client)
        assert len(kept.processes()) == 1
        kept.deliver(client)
        kept.send()
        [keeper] = kept.machine.processes('smtp-frontd-keeper.service')
        s = inside.status(keeper)
        assert (s['NoNewPrivs'], s['Seccomp']) == ('1', '2')
        assert int(s['CapBnd'], 16) == 0
    finally:
        for name in ('key.pem', 'users'):
            os.chmod(f'{kept.machine.root}/etc/smtp-frontd/{name}', 0o640)


def test_shared_keeper_comes_back(kept):
    kept.send()
    [keeper] = kept.machine.processes('smtp-frontd-keeper.service')
    os.kill(keeper, signal.SIGKILL)
    harness.until(lambda: kept.machine.processes(
        'smtp-frontd-keeper.service') not in ([], [keeper]), 'another keeper')
    kept.send()
    kept.machine.systemctl('stop', 'smtp-frontd-keeper.socket',
                           'smtp-frontd-keeper.service')
    client = kept.greeted(starttls=False)
    client.ask('STARTTLS', '454 ')
