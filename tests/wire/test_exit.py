"""Exit statuses, and what the program does without a client."""

import os
import re
import socket
import subprocess

import pytest

from fakes import dead_address, plain
from harness import DEADLINE, PROGRAM, environment, run

GOOD = plain('alice', 'wonderland')
ENOUGH = ['--smtp-auth', 'none', '--backend', '127.0.0.1:25']


def one_line(err):
    """Standard error is one clear line."""
    assert err.endswith('\n') and err.count('\n') == 1, err
    return err


# --- 0 ---------------------------------------------------------------------

def test_0_whatever_the_client_did(front):
    for bytes_ in (b'QUIT\r\n', b'NONSENSE\r\n' * 20, b'', b'\0' * 30000,
                   b'GET / HTTP/1.0\r\n\r\n'):
        s = front()
        s.client.greeting()
        try:
            s.client.send(bytes_)
            s.client.half_close()
        except OSError:
            pass
        assert s.wait() == 0


# --- 64, 78 ----------------------------------------------------------------

@pytest.mark.parametrize('args,named', [
    (['--nonsense', '1'], ['nonsense']),
    (['--smtp-greeting-delay'], ['smtp-greeting-delay']),
    (['--timeout', 'soon'], ['timeout', 'soon']),
    (['--smtp-auth', 'plain digest-md5'], ['smtp-auth', 'digest-md5']),
    (['--starttls', 'maybe'], ['starttls', 'maybe']),
    (['--smtp-client-buffer', '0'], ['smtp-client-buffer', '0']),
    (['--max-errors', '-1'], ['max-errors', '-1']),
    (['--backend', 'nowhere'], ['backend', 'nowhere']),
    (['--auth-provider', 'nonsense:x'], ['auth-provider', 'nonsense:x']),
    (['--server-name', 'a b'], ['server-name', 'a b']),
    (['stray'], ['stray']),
])
@pytest.mark.parametrize('check', [True, False])
def test_64_bad_argument(args, named, check):
    done = run(*ENOUGH, *args, *(['--check'] if check else []))
    assert done.returncode == 64
    err = one_line(done.err)
    for word in named:
        assert word in err.replace('_', '-')
    assert done.out == ''


@pytest.mark.parametrize('name,value', [
    ('SMTP_TIMEOUT', 'soon'), ('SMTP_STARTTLS', 'maybe'),
    ('SMTP_AUTH', 'plain nonsense'), ('SMTP_BACKEND', 'nowhere'),
    ('SMTP_CLIENT_BUFFER', '4x')])
def test_78_bad_value_in_the_environment(name, value):
    done = run('--auth-provider', 'file:/dev/null', env={
        'SMTP_BACKEND': '127.0.0.1:25', name: value})
    assert done.returncode == 78
    err = one_line(done.err)
    assert name.removeprefix('SMTP_').lower() in err.lower()
    assert value.split()[-1] in err
    assert 'environment' in err.lower() or name in err


@pytest.mark.parametrize('text,named', [
    ('SMTP_TIMEOUT=soon\n', 'soon'), ('SMTP_NONSENSE=1\n', 'NONSENSE'),
    ('SMTP_STARTTLS\n', 'STARTTLS')])
def test_78_bad_file(tmp_path, text, named):
    path = tmp_path / 'conf'
    path.write_text('# a comment\n\n' + text)
    done = run('--config', str(path), *ENOUGH)
    assert done.returncode == 78
    err = one_line(done.err)
    assert str(path) in err and '3' in err
    assert named in err


def test_78_missing_file(tmp_path):
    done = run('--config', str(tmp_path / 'none'), *ENOUGH)
    assert done.returncode in (64, 78)
    assert str(tmp_path / 'none') in one_line(done.err)


@pytest.mark.parametrize('args', [
    ['--smtp-auth', 'plain'],                           # nobody to judge
    ['--backend', '127.0.0.1:25'],                      # nobody gets in
    ['--smtp-auth', 'none'],                            # nothing behind
    [*ENOUGH, '--starttls', 'on'],                      # no certificate
    [*ENOUGH, '--socket', 'ssl'],
    [*ENOUGH, '--ssl-certificate', '/x'],               # no key
    [*ENOUGH, '--relay-at', 'greeting'],                # no relay
])
def test_78_contradictions(args):
    done = run(*args)
    assert done.returncode == 78
    one_line(done.err)


def test_unknown_variable_is_only_warned_of(front):
    s = front(env={'SMTP_NONSENSE': '1'})
    s.client.greeting()
    s.client.ask('QUIT', '221 ')
    s.client.expect_end()
    assert s.wait() == 0
    assert 'SMTP_NONSENSE' in s.log.text


# --- 71 --------------------------------------------------------------------

def test_71_no_descriptors_left():
    """The keeper cannot be made: the client is not served without it."""
    client, server = socket.socketpair()
    client.shutdown(socket.SHUT_WR)
    try:
        done = subprocess.run(
            ['/bin/sh', '-c', 'ulimit -n 4; exec "$@"', 'sh', PROGRAM,
             '--log', 'stderr', '--backend', '127.0.0.1:25',
             '--auth-provider', 'file:/dev/null'],
            stdin=server, stdout=server, stderr=subprocess.PIPE,
            env=environment(), timeout=DEADLINE)
    finally:
        client.close()
        server.close()
    assert done.returncode == 71
    assert b'reason=' in done.stderr


def test_no_connection():
    done = subprocess.run(
        ['/bin/sh', '-c', 'exec "$@" <&- >&-', 'sh', PROGRAM, *ENOUGH,
         '--log', 'stderr'], env=environment(), stderr=subprocess.PIPE,
        timeout=DEADLINE)
    assert done.returncode in (64, 71)
    one_line(done.stderr.decode())


def test_listen_fds_that_are_not_there():
    done = subprocess.run(
        ['/bin/sh', '-c', 'LISTEN_FDS=1 LISTEN_PID=$$ exec "$@" 3<&-', 'sh',
         PROGRAM, *ENOUGH], env=environment(), stderr=subprocess.PIPE,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=DEADLINE)
    assert done.returncode in (64, 71)
    one_line(done.stderr.decode())


# --- 75 --------------------------------------------------------------------

def test_75_dead_backend(front):
    s = front(backend=dead_address())
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + GOOD, '421 4.3.0 ')
    s.client.expect_end()
    s.finish(75)


def test_75_dead_provider(front):
    s = front(auth_provider=f'http://{dead_address()}/')
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + GOOD, '454 4.7.0 ')
    s.quit(75)


def test_missing_password_file_is_unavailable(front, tmp_path):
    s = front(auth_provider=f'file:{tmp_path}/none')
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + GOOD, '454 4.7.0 ')
    s.quit(75)
    assert s.event('auth')['result'] == 'unavailable'


def test_password_file_for_everybody(front, tmp_path):
    """It is warned of by --check; whether it is used is the provider's."""
    path = tmp_path / 'passwd'
    path.write_text('alice:{PLAIN}wonderland\n')
    path.chmod(0o644)
    done = run('--check', '--auth-provider', f'file:{path}', '--backend',
               '127.0.0.1:25')
    assert done.returncode == 0
    assert re.search(r'^# warning: .*passwd', done.out, re.M)


# --- without a client ------------------------------------------------------

def test_help():
    done = run('--help')
    assert done.returncode == 0 and done.err == ''
    for name in ('smtp-auth', 'smtp-capabilities', 'smtp-client-buffer',
                 'smtp-greeting-delay', 'starttls', 'backend', 'relay-at',
                 'auth-provider', 'max-errors', 'log', 'check'):
        assert '--' + name in done.out
    assert max(map(len, done.out.splitlines())) <= 80


def test_version():
    done = run('--version')
    assert done.returncode == 0
    assert re.fullmatch(r'smtp-frontd \d+\.\d+(\.\d+)?\n', done.out)


def test_check_says_where_values_come_from(tmp_path):
    path = tmp_path / 'conf'
    path.write_text('SMTP_TIMEOUT=90s\nSMTP_MAX_ERRORS=7\nSMTP_AUTH=none\n')
    done = run('--check', '--config', str(path), '--backend', '127.0.0.1:25',
               env={'SMTP_MAX_ERRORS': '8'})
    assert done.returncode == 0, done.err
    lines = done.out.splitlines()

    def source(setting):
        at = next(i for i, x in enumerate(lines) if x.startswith(setting))
        assert lines[at - 1].startswith('#')
        return lines[at], lines[at - 1]
    assert str(path) in source('SMTP_TIMEOUT=')[1]
    line, comment = source('SMTP_MAX_ERRORS=')
    assert '8' in line and 'environment' in comment.lower()
    assert 'argument' in source('SMTP_BACKEND=')[1] or \
        '--backend' in source('SMTP_BACKEND=')[1]
    assert 'default' in source('SMTP_STARTTLS=')[1]


def test_check_can_be_read_again(tmp_path):
    args = ['--smtp-auth', 'plain none', '--smtp-capabilities', 'SIZE 1000',
            '--smtp-capabilities', '8BITMIME', '--backend', '127.0.0.1:25',
            '--backend', 'unix:/run/x', '--auth-provider',
            'http://127.0.0.1:9/', '--auth-http-header', 'X-A: b "c" $d',
            '--timeout', '1m', '--server-name', 'front.example']
    first = run('--check', *args)
    assert first.returncode == 0, first.err
    path = tmp_path / 'conf'
    path.write_text(first.out)
    second = run('--check', '--config', str(path))
    assert second.returncode == 0, second.err

    def settings(text):
        return [x for x in text.splitlines() if not x.startswith('#')]
    assert settings(first.out) == settings(second.out)


def test_arguments_win_over_environment_over_file(front, tmp_path):
    path = tmp_path / 'conf'
    path.write_text('SMTP_SERVER_NAME=file.example\n'
                    'SMTP_CAPABILITIES=FILE\nSMTP_CLIENT_BUFFER=128\n')
    s = front(server_name='arg.example', config=str(path), env={
        'SMTP_SERVER_NAME': 'env.example', 'SMTP_CAPABILITIES': 'ENV'})
    assert s.client.expect('220 ')[0].startswith('220 arg.example ')
    lines = s.client.ask('EHLO x', '250')
    assert '250-ENV' in lines and '250-FILE' not in lines
    s.client.ask('NOOP ' + 'x' * 200, '500 5.5.6 ')
    s.quit()


@pytest.mark.parametrize('value,reply', [
    ('"SIZE 1000" 8BITMIME', ['SIZE 1000', '8BITMIME']),
    ('DSN', ['DSN'])])
def test_list_in_the_environment(front, value, reply):
    s = front(env={'SMTP_CAPABILITIES': value})
    s.client.greeting()
    assert s.client.hello()[1:-1] == reply
    s.quit()


def test_check_warns_of_what_is_unsafe(users):
    def warnings(*args):
        done = run('--check', *args)
        assert done.returncode == 0, done.err
        return [x for x in done.out.splitlines() if 'warning' in x]
    some = ['--backend', '127.0.0.1:25', '--auth-provider', users]
    assert any('TLS' in x for x in warnings(*some))
    assert any('relay' in x for x in warnings(
        '--smtp-auth', 'none', '--xclient', 'off', '--backend',
        '127.0.0.1:25'))


def test_relay_program_is_not_run_by_check(tmp_path):
    done = run('--check', '--smtp-auth', 'none', '--', '/bin/sh', '-c',
               f'touch {tmp_path}/ran')
    assert done.returncode == 0
    assert not os.path.exists(f'{tmp_path}/ran')
