"""What the session's process and its keeper hold, and what they have given
up."""

import os
import re
import signal

import pytest

from fakes import ok, plain
from harness import children, is_alive, kill, until

GOOD = plain('alice', 'wonderland')


@pytest.fixture
def pair(front):
    """pair(...) -> (session past EHLO, its keeper's pid)."""
    def start(**kw):
        s = front(**kw)
        s.client.greeting()
        s.client.hello()
        [keeper] = children(s.pid)
        return s, keeper
    return start


def status(pid):
    with open(f'/proc/{pid}/status') as f:
        return dict(line.rstrip('\n').split(':\t', 1) for line in f
                    if ':\t' in line)


def descriptors(pid):
    found = {}
    for n in os.listdir(f'/proc/{pid}/fd'):
        found[int(n)] = os.readlink(f'/proc/{pid}/fd/{n}')
    return found


def maps(pid):
    with open(f'/proc/{pid}/maps') as f:
        return f.read()


def test_no_new_privileges_and_no_core(pair):
    """(A keeper may need the privileges of its provider's helpers.)"""
    s, keeper = pair()
    assert status(s.pid)['NoNewPrivs'] == '1'
    for pid in (s.pid, keeper):
        with open(f'/proc/{pid}/limits') as f:
            [line] = [x for x in f if x.startswith('Max core file size')]
        assert line.split()[4] == '0'
    s.quit()


def test_no_descriptor_but_its_own(pair):
    stray = os.open('/etc/hostname', os.O_RDONLY)
    try:
        s, keeper = pair(extra_fds=[stray])
    finally:
        os.close(stray)
    assert '/etc/hostname' not in descriptors(s.pid).values()
    assert '/etc/hostname' not in descriptors(keeper).values()
    s.quit()


@pytest.mark.parametrize('way', ['fd0', 'fd3', 'pipes'])
def test_keeper_does_not_hold_the_client(pair, way):
    """A client's connection must end with its session."""
    s, keeper = pair(way=way)
    session = descriptors(s.pid)
    client = {session[n] for n in ((3,) if way == 'fd3' else (0, 1))}
    assert all(re.match('socket:|pipe:', x) for x in client)
    assert not client & set(descriptors(keeper).values())
    s.quit()


def test_session_holds_no_key_and_no_password_file(pair, certificates, users):
    s, keeper = pair(starttls='on', **certificates.directives())
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls()
    s.client.ask('AUTH PLAIN ' + plain('alice', 'x'), '535 ')
    held = ' '.join(descriptors(s.pid).values())
    assert certificates.folder not in held
    assert users.removeprefix('file:') not in held
    s.quit()


def test_openssl_is_loaded_when_tls_begins(pair, certificates):
    s, keeper = pair(starttls='on', **certificates.directives())
    assert 'libssl' not in maps(s.pid) and 'libssl' not in maps(keeper)
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls()
    assert 'libssl' in maps(s.pid)
    s.quit()


def test_libcurl_is_the_keepers_alone(pair, auth_server):
    a = auth_server({'Auth-Status': 'no'})
    s, keeper = pair(auth_provider=a.url)
    s.client.ask('AUTH PLAIN ' + GOOD, '535 ')
    assert 'libcurl' in maps(keeper)
    assert 'libcurl' not in maps(s.pid)
    s.quit()


@pytest.mark.skipif(os.geteuid() != 0, reason='needs root to become another')
def test_user(pair, backend):
    """The session becomes nobody; the keeper still reads root's file."""
    s, keeper = pair(user='nobody', backend=backend().address)
    ids = status(s.pid)
    assert '0' not in ids['Uid'].split() and '0' not in ids['Gid'].split()
    assert '0' not in ids['Groups'].split()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    s.quit()


def test_user_that_is_nobody_at_all(front):
    s = front(user='no-such-user-anywhere')
    try:
        s.client.rest()
    except OSError:
        pass
    assert s.wait() in (71, 78)
    assert 'no-such-user-anywhere' in s.log.text


def test_keeper_ends_with_a_session_that_is_killed(pair):
    s, keeper = pair()
    kill(s.pid)
    until(lambda: not is_alive(keeper), 'the keeper\'s end')
    s.proc.wait(5)
    s.proc.returncode = 0  # as asked for


@pytest.mark.parametrize('how', [signal.SIGKILL, signal.SIGSTOP])
def test_session_without_its_keeper(pair, auth_server, backend, how):
    """Killed or stuck: an honest 454, in time, and no success."""
    b = backend()
    a = auth_server(ok(b))
    s, keeper = pair(auth_provider=a.url, auth_http_timeout='300ms')
    os.kill(keeper, how)
    s.client.ask('AUTH PLAIN ' + GOOD, '454 4.7.0 ')
    s.client.ask('NOOP', '250 ')
    if how == signal.SIGSTOP:
        os.kill(keeper, signal.SIGCONT)
    s.quit(75)
    assert b.conversations == []
