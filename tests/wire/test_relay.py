"""Relay programs: what they are given, and what becomes of them."""

import json
import os
import re
import time

import pytest

from fakes import plain
from harness import RELAYS, children, is_alive, until

RECORD = os.path.join(RELAYS, 'record')
GOOD = plain('alice', 'wonderland')


@pytest.fixture
def relayed(front, tmp_path):
    """relayed(how, ...): a session whose relay writes to s.record."""
    def start(*how, relay=None, **kw):
        out = str(tmp_path / 'record')
        if 'max_errors' not in kw:
            kw['max_errors'] = 100
        kw.setdefault('proxy_connect_timeout', '3s')
        s = front(relay=relay or [RECORD, out, *how], **kw)
        s.record = out
        return s
    return start


def login(s):
    s.client.greeting()
    s.client.hello()
    s.client.line('AUTH PLAIN ' + GOOD)


def read(s):
    until(lambda: os.path.exists(s.record), 'the relay\'s record')
    with open(s.record) as f:
        found = json.load(f)
    found['env'] = dict(x.split('=', 1) for x in found['environ'])
    return found


def leave(s):
    s.client.ask('QUIT', '221 2.0.0 relay leaves')
    s.client.expect_end()
    return s.finish()


def ended(s):
    """How the relay ended, as the log has it."""
    return s.event('relay')['status']


# --- relay_at auth ---------------------------------------------------------

def test_session_with_a_relay(relayed):
    s = relayed()
    login(s)
    # Its greeting and its reply to EHLO are not the client's.
    s.client.expect('235 2.7.0 ')
    s.client.ask('NOOP', '250 2.0.0 relay heard NOOP')
    s.client.ask('MAIL FROM:<a@a.example>', '250 2.0.0 relay heard MAIL')
    s.client.ask('DATA', '354 relay waits')
    s.client.send('Subject: x\r\n\r\nhello\r\n.\r\n')
    s.client.expect('250 2.0.0 relay has 21')
    leave(s)
    assert ended(s) == 'exit:0'


def test_leftovers_reach_the_relay(relayed):
    s = relayed()
    s.client.greeting()
    s.client.send(f'EHLO x\r\nAUTH PLAIN {GOOD}\r\nNOOP\r\nRSET\r\nQUIT\r\n')
    s.client.expect('250')
    for reply in ('235 ', '250 2.0.0 relay heard NOOP',
                  '250 2.0.0 relay heard RSET', '221 2.0.0 relay leaves'):
        s.client.expect(reply)
    s.client.expect_end()
    s.finish()


def test_relay_in_tls(relayed, certificates):
    s = relayed(starttls='only', **certificates.directives())
    s.client.greeting()
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls()
    s.client.hello()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)
    env = read(s)['env']
    assert env['SSL_PROTOCOL'] == 'TLSv1.3'
    assert env['SSL_CIPHER'].startswith('TLS_')


@pytest.mark.parametrize('way', ['fd0', 'fd3', 'pipes'])
def test_relay_from_every_way_in(relayed, way):
    s = relayed(way=way)
    login(s)
    s.client.expect('235 ')
    leave(s)


def test_environment_after_auth(relayed):
    s = relayed()
    login(s)
    s.client.expect('235 ')
    local = s.client.sock.getpeername()[1]
    leave(s)
    env = read(s)['env']
    wanted = {
        'PROTO': 'TCP', 'TCPREMOTEIP': '127.0.0.1',
        'TCPREMOTEPORT': str(s.port), 'TCPLOCALIP': '127.0.0.1',
        'TCPLOCALPORT': str(local), 'REMOTE_ADDR': '127.0.0.1',
        'REMOTE_PORT': str(s.port), 'RELAYCLIENT': '',
        'TCPREMOTEINFO': 'alice', 'SMTPAUTHUSER': 'alice',
        'AUTHENTICATED': 'alice', 'SMTP_SESSION': s.event('close')['session']}
    assert {k: env.get(k) for k in wanted} == wanted
    assert env['PATH'] == s.env['PATH']


def test_environment_for_ipv6(relayed):
    s = relayed(family='inet6')
    login(s)
    s.client.expect('235 ')
    leave(s)
    env = read(s)['env']
    assert env['PROTO'] == 'TCP6'
    assert env['TCP6REMOTEIP'] == '::1'
    assert env['TCP6REMOTEPORT'] == str(s.port)


HOSTILE = {
    'RELAYCLIENT': '@evil.example', 'TCPREMOTEIP': '192.0.2.66',
    'TCPREMOTEHOST': 'evil.example', 'TCPREMOTEINFO': 'evil',
    'TCP6REMOTEIP': '2001:db8::66', 'TCPLOCALHOST': 'evil',
    'REMOTE_ADDR': '192.0.2.66', 'REMOTE_HOST': 'evil', 'REMOTE_PORT': '66',
    'SMTPAUTHUSER': 'evil', 'SMTPAUTHMETHOD': 'evil',
    'AUTHENTICATED': 'evil', 'AUTH_USER': 'evil', 'SSL_PROTOCOL': 'evil',
    'SSL_CIPHER': 'evil', 'SSL_CLIENT_S_DN': 'evil', 'PROTO': 'evil',
    'LD_PRELOAD': '', 'LD_LIBRARY_PATH': '/evil', 'SMTP_SESSION': 'evil'}


@pytest.mark.parametrize('at', ['auth', 'greeting'])
def test_hostile_environment_is_scrubbed(relayed, at):
    s = relayed(env=HOSTILE, relay_at=at)
    if at == 'auth':
        login(s)
        s.client.expect('235 ')
    else:
        s.client.expect('220 relay.example ')
    s.client.ask('QUIT', '221 2.0.0 relay leaves')
    s.client.expect_end()
    s.wait()
    found = read(s)
    assert 'evil' not in '\n'.join(found['environ'])
    assert '.66' not in '\n'.join(found['environ'])
    names = [x.split('=')[0] for x in found['environ']]
    assert len(names) == len(set(names))
    assert [n for n in names if n.startswith(('LD_', 'LISTEN_'))] == []
    if at == 'greeting':
        for name in ('RELAYCLIENT', 'TCPREMOTEINFO', 'SMTPAUTHUSER',
                     'AUTHENTICATED', 'SSL_PROTOCOL', 'SSL_CLIENT_S_DN'):
            assert name not in names


def test_directives_do_not_reach_the_relay(relayed, users):
    s = relayed(env={'SMTP_TIMEOUT': '9s', 'SMTP_AUTH_PROVIDER': users},
                way='fd3')
    login(s)
    s.client.expect('235 ')
    leave(s)
    names = set(read(s)['env'])
    assert {n for n in names if n.startswith('SMTP_')} == {'SMTP_SESSION'}
    assert not {n for n in names if n.startswith('LISTEN_')}


def test_relayclient_only_after_auth(relayed):
    s = relayed(smtp_auth='none')
    s.client.greeting()
    s.client.hello()
    s.client.ask('MAIL FROM:<a@a.example>', '250 ')
    s.client.ask('RCPT TO:<b@b.example>', '250 2.0.0 relay heard RCPT')
    leave(s)
    env = read(s)['env']
    assert env['TCPREMOTEIP'] == '127.0.0.1'
    for name in ('RELAYCLIENT', 'TCPREMOTEINFO', 'SMTPAUTHUSER',
                 'AUTHENTICATED'):
        assert name not in env


def test_arguments_are_passed(relayed, tmp_path):
    s = relayed(relay=[RECORD, str(tmp_path / 'record'), 'exit 0 NEVER',
                       '--max-errors', 'a b', ''])
    login(s)
    s.client.expect('235 ')
    leave(s)
    assert read(s)['arguments'][2:] == ['exit 0 NEVER', '--max-errors', 'a b',
                                        '']


@pytest.mark.parametrize('at', ['auth', 'greeting'])
@pytest.mark.parametrize('way', ['fd0', 'fd3', 'pipes'])
def test_no_other_descriptor_is_open(relayed, at, way):
    """Not even those that we were given by mistake."""
    stray = os.open('/dev/null', os.O_RDONLY)
    try:
        s = relayed(relay_at=at, way=way,
                    extra_fds=[stray] if stray > 3 else [])
    finally:
        os.close(stray)
    if at == 'auth':
        login(s)
        s.client.expect('235 ')
    else:
        s.client.expect('220 relay.example ')
    s.client.ask('QUIT', '221 2.0.0 relay leaves')
    s.client.expect_end()
    s.wait()
    found = read(s)
    assert set(found['fds']) == {'0', '1', '2'}
    assert found['blocking'] is True


@pytest.mark.parametrize('at', ['auth', 'greeting'])
def test_signals_are_as_programs_expect_them(relayed, tmp_path, at):
    out = tmp_path / 'signals'
    s = relayed(relay=[os.path.join(RELAYS, 'signals'), str(out)], relay_at=at)
    if at == 'auth':
        login(s)
        s.client.expect('235 ')
    else:
        s.client.expect('220 relay.example ')
    s.client.close()
    s.wait()
    lines = dict(x.split(':\t') for x in out.read_text().splitlines())
    assert int(lines['SigIgn'], 16) == 0
    assert int(lines['SigBlk'], 16) == 0


@pytest.mark.parametrize('how,status', [
    ('exit 3 DATA', 'exit:3'), ('exit 0 DATA', 'exit:0'),
    ('signal 9 DATA', 'signal:9'), ('signal 15 DATA', 'signal:15')])
def test_relay_that_ends_in_the_session(relayed, how, status):
    s = relayed(how)
    login(s)
    s.client.expect('235 ')
    s.client.ask('NOOP', '250 ')
    s.client.ask('DATA', '421 4.3.0 ')
    s.client.expect_end()
    s.finish((0, 75))
    assert ended(s) == status


def test_exit_status_after_quit_is_logged(relayed):
    s = relayed('exit 7 EOF')
    login(s)
    s.client.expect('235 ')
    s.client.close()
    s.finish()
    assert ended(s) == 'exit:7'


@pytest.mark.parametrize('how', ['exit 1 START', 'signal 9 START',
                                 'exit 0 START', 'exit 1 EHLO'])
def test_relay_that_dies_at_once(relayed, how):
    s = relayed(how)
    login(s)
    s.client.expect('4[25]1 4.3.0 ')
    s.client.close()
    s.wait()
    assert s.exit_status in (0, 75)
    kind, number, _ = how.split()
    assert ended(s) == f'{kind}:{number}'
    assert s.events('upstream')[-1]['result'] in ('failed', 'refused')


@pytest.mark.parametrize('code', ['554', '421'])
def test_relay_that_refuses(relayed, code):
    s = relayed(f'refuse {code} EHLO')
    login(s)
    s.client.expect('4[25]1 4.3.[02] ')
    s.client.close()
    s.wait()


@pytest.mark.parametrize('program', ['/nonexistent/relay', '/etc/passwd',
                                     '/etc', 'no-such-program-anywhere'])
def test_relay_that_cannot_be_run(relayed, program):
    s = relayed(relay=[program])
    if s.proc.poll() is None:
        try:
            login(s)
            s.client.expect('4[25]1 4.3.0 ')
        except (AssertionError, OSError):
            pass
    s.client.close()
    assert s.wait() in (75, 78)
    assert s.log.text.strip() != ''


def test_relay_that_says_nothing(relayed):
    s = relayed(relay=[os.path.join(RELAYS, 'deaf')],
                proxy_connect_timeout='500ms')
    begun = time.monotonic()
    login(s)
    s.client.expect('4[25]1 4.3.0 ')
    assert time.monotonic() - begun < 4
    s.client.close()
    s.wait()


def test_relay_that_does_not_want_to_end(relayed):
    """The client has gone; so must it, in the end by force."""
    s = relayed(relay=[os.path.join(RELAYS, 'stubborn')],
                proxy_timeout='500ms')
    login(s)
    s.client.expect('235 ')
    s.client.ask('NOOP', '250 2.0.0 heard')
    family = children(s.pid)
    s.client.close()
    s.wait(9)  # its time to end by itself is in there
    assert [pid for pid in family if is_alive(pid)] == []
    assert re.match('signal:(9|15)$', ended(s))


def test_wrong_password_never_runs_it(relayed):
    s = relayed()
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + plain('alice', 'wrong'), '535 ')
    s.quit()
    assert not os.path.exists(s.record)
    assert s.events('relay') == []


# --- relay_at greeting -----------------------------------------------------

def test_relay_greets_by_itself(relayed):
    s = relayed(relay_at='greeting')
    s.client.expect('220 relay.example ')
    with open(f'/proc/{s.pid}/cmdline') as f:
        assert RECORD in f.read()  # in our place, not below us
    s.client.ask('EHLO x', '250')
    s.client.ask('QUIT', '221 2.0.0 relay leaves')
    s.client.expect_end()
    assert s.wait() == 0
    env = read(s)['env']
    assert env['TCPREMOTEIP'] == '127.0.0.1' and 'RELAYCLIENT' not in env


def test_relay_greets_after_the_delay(relayed):
    s = relayed(relay_at='greeting', smtp_greeting_delay='600ms')
    s.client.expect('220 relay.example ')
    assert time.monotonic() - s.started >= 0.6
    s.client.ask('QUIT', '221 ')
    s.client.expect_end()
    s.wait()


def test_early_talker_never_reaches_the_relay(relayed):
    s = relayed(relay_at='greeting', smtp_greeting_delay='8s',
                early=b'EHLO early\r\n')
    assert s.client.rest() == \
        b'503 5.5.0 Improper use of SMTP command pipelining\r\n'
    assert s.finish()['cause'] == 'early'
    assert not os.path.exists(s.record)


def test_leaving_in_the_delay_never_reaches_the_relay(relayed):
    s = relayed(relay_at='greeting', smtp_greeting_delay='8s')
    s.client.expect_nothing(0.2)
    s.client.half_close()
    assert s.client.rest() == b''
    assert s.finish()['cause'] == 'left'
    assert not os.path.exists(s.record)


def test_commands_sent_without_delay_reach_the_relay(relayed):
    """Nothing is read before the program is replaced."""
    s = relayed(relay_at='greeting', early=b'EHLO x\r\nNOOP\r\nQUIT\r\n')
    s.client.expect('220 relay.example ')
    s.client.expect('250')
    s.client.expect('250 2.0.0 relay heard NOOP')
    s.client.expect('221 ')
    s.client.expect_end()
    s.wait()


@pytest.mark.parametrize('how,status', [('exit 3 NOOP', 3),
                                        ('signal 15 NOOP', -15)])
def test_its_exit_status_is_ours(relayed, how, status):
    s = relayed(how, relay_at='greeting')
    s.client.expect('220 ')
    s.client.line('NOOP')
    s.client.expect_end()
    assert s.proc.wait(5) == status
    s.proc.returncode = 0  # as asked for


def test_missing_relay_at_greeting(relayed):
    s = relayed(relay=['/nonexistent/relay'], relay_at='greeting')
    said = s.client.rest()
    assert said == b'' or said.startswith(b'421 ')
    assert s.wait() in (71, 75, 78)
    assert s.log.text.strip() != ''
