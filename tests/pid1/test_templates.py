"""The three templates under a real systemd: a process a connection, started by
the .socket unit, lean and restricted."""

import base64
import hashlib
import hmac
import os
import re
import socket

import pytest

import fakes
import harness

TEMPLATES = ['submission', 'submissions', 'mx']
SIGSYS = 31
each = pytest.mark.parametrize('site', TEMPLATES, indirect=True)
each_of_submission = pytest.mark.parametrize('site', TEMPLATES[:2],
                                             indirect=True)


def status(pid):
    """/proc/PID/status as a dictionary."""
    with open(f'/proc/{pid}/status') as f:
        return dict(re.findall(r'(\w+):\s*(.*)', f.read()))


def family_of(site):
    """(session, keeper) of the only instance: a child and its parent."""
    both = harness.until(
        lambda: len(site.processes()) == 2 and site.processes(),
        'a session and its keeper')
    parents = {pid: int(status(pid)['PPid']) for pid in both}
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


# --- many at a time ---------------------------------------------------------

@each
def test_clients_of_one_address_are_limited(site):
    """Past the limit a connection is closed without a word; others are
    served."""
    site.configure(smtp_greeting_delay='0')
    limit = int(site.machine.property(site.socket, 'MaxConnectionsPerSource'))
    held = [site.connect('192.0.2.7') for _ in range(limit)]
    for client in held:
        client.greeting()
    host = ('127.0.0.1', site.port)
    with socket.create_connection(host, 10, ('192.0.2.7', 0)) as surplus:
        try:
            assert surplus.recv(100) == b''
        except ConnectionResetError:
            pass
    site.connect('192.0.2.8').greeting()
    site.connect('2001:db8::7').greeting()
    held[0].ask('QUIT', '221 ')
    held[0].expect_end()
    held[0].close()
    harness.until(lambda: len(site.instances()) == limit + 1,
                  'a place for another one')
    site.connect('192.0.2.7').greeting()


@each
def test_port_stays_open_in_a_flood(site):
    """300 connections at once, from more addresses than a limit could hold
    off, and all gone at once. By default systemd would stop listening."""
    for i in range(300):
        with socket.create_connection(('127.0.0.1', site.port), 10,
                                      (f'127.0.1.{i % 40}', 0)):
            pass
    site.await_quiet()
    assert site.accepts()
    site.send()
    assert site.accepts()


def test_nothing_is_left_of_300_sessions(site):
    """A fifth each: whole, with a wrong password, left in the middle, left
    before the greeting, in the clear."""
    for i in range(60):
        source = f'127.0.2.{i}'
        site.send(source)
        client = site.greeted(source)
        client.ask('AUTH PLAIN ' + fakes.plain('alice', 'guess'), '535 ')
        client.ask('QUIT', '221 ')
        client.close()
        site.greeted(source).close()
        site.connect(source).close()
        client = site.greeted(source, starttls=False)
        client.ask('QUIT', '221 ')
        client.close()
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
        s = status(pid)
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
    s = status(pid)
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
        site.mark, EXIT_CODE='killed', EXIT_STATUS='SYS'), 'the kill')
    if not site.machine.kernel.killed(site.machine.uid):
        pytest.skip('the kernel does not log such kills here: a keeper that '
                    'dies of one is seen by what its session answers')


# --- the filter kills no session --------------------------------------------

def cram_md5(client, user, secret):
    challenge = base64.b64decode(client.ask('AUTH CRAM-MD5', '334 ')[0][4:])
    digest = hmac.new(secret.encode(), challenge, hashlib.md5).hexdigest()
    client.ask(fakes.b64(f'{user} {digest}'), '235 ')
