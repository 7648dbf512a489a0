"""The provider checkpassword: with programs of a few lines, and with
cvm-checkpassword."""

import base64
import hashlib
import hmac
import json
import os

import pytest

import listener as workshop
from fakes import b64, plain
from harness import RELAYS, children, descendants, is_alive, run, until
from listener import Listener, listening_socket

GOOD = plain('alice', 'wonderland')
DENIED = '535 5.7.8 '


@pytest.fixture
def program(tmp_path):
    """program(text) is a script's path; {tmp} in it is a folder."""
    def make(text, interpreter='/bin/sh'):
        path = tmp_path / f'check{len(list(tmp_path.iterdir()))}'
        path.write_text(f'#!{interpreter}\n' + text.replace(
            '{tmp}', str(tmp_path)))
        path.chmod(0o755)
        return str(path)
    return make


@pytest.fixture
def at(front, backend, program):
    """at(script, arguments...): a session past EHLO whose logins the script
    judges."""
    def start(script, *words, interpreter='/bin/sh', **kw):
        kw.setdefault('max_errors', 100)
        if 'relay' not in kw:
            kw.setdefault('backend', backend().address)
        command = ' '.join([program(script, interpreter), *words])
        s = front(auth_provider=f'checkpassword:{command}', **kw)
        s.client.greeting()
        s.client.hello()
        return s
    return start


PYTHON = '/usr/bin/python3'
# Writes what it was given as JSON to its first argument, then runs the rest.
RECORD = r'''
import json, os, sys
with os.fdopen(3, 'rb') as f:
    login = f.read()
with open(sys.argv[1], 'w') as f:
    json.dump({'login': login.decode('latin-1'), 'argv': sys.argv[1:],
               'env': dict(os.environ), 'pgid': os.getpgid(0),
               'pid': os.getpid(),
               'fds': sorted(int(n) for n in os.listdir('/proc/self/fd')
                             if os.path.exists('/proc/self/fd/' + n)),
               'signals': [line.split()[1] for line in
                           open('/proc/self/status')
                           if line.startswith(('SigBlk', 'SigIgn'))]}, f)
'''
JUDGE = '''
if login.split(b'\\0')[:2] != [b'alice', b'wonderland']:
    sys.exit(1)
'''


def login(s, reply, credentials=GOOD):
    return s.client.ask('AUTH PLAIN ' + credentials, reply)


def reason(s, result):
    return s.events('auth', result=result)[-1]['reason']


def read(path):
    with open(path) as f:
        return json.load(f)


# --- the interface ---------------------------------------------------------

def test_what_the_program_gets(at, tmp_path):
    out = str(tmp_path / 'out')
    s = at(RECORD + JUDGE, out, 'one', '"two words"', interpreter=PYTHON,
           env={'SECRET_OF_OURS': 'x', 'RELAYCLIENT': ''})
    login(s, '235 2.7.0 ')
    got = read(out)
    # The third field is for CRAM-MD5; what is after it runs on success.
    assert got['login'] == 'alice\0wonderland\0\0'
    assert got['argv'] == [out, 'one', 'two words', '/usr/bin/env', '-0']
    local = s.client.sock.getpeername()[1]
    # Python adds its own LC_CTYPE.
    got['env'].pop('LC_CTYPE', None)
    assert got['env'] == {
        'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:'
                '/bin',
        'PROTO': 'TCP', 'TCPREMOTEIP': '127.0.0.1',
        'TCPREMOTEPORT': str(s.port), 'TCPLOCALIP': '127.0.0.1',
        'TCPLOCALPORT': str(local)}
    assert got['pgid'] == got['pid']
    assert got['fds'][:3] == [0, 1, 2] and len(got['fds']) <= 4
    blocked, ignored = (int(x, 16) for x in got['signals'])
    # Python itself ignores PIPE and XFSZ.
    assert blocked == 0 and ignored & ~(1 << 12 | 1 << 24) == 0
    s.quit()
    assert s.event('auth')['user'] == 'alice'


def test_ipv6(at, tmp_path):
    out = str(tmp_path / 'out')
    s = at(RECORD, out, interpreter=PYTHON, family='inet6')
    login(s, '235 ')
    env = read(out)['env']
    assert env['PROTO'] == 'TCP6'
    assert env['TCP6REMOTEIP'] == env['TCPREMOTEIP'] == '::1'
    assert env['TCP6REMOTEPORT'] == env['TCPREMOTEPORT'] == str(s.port)
    s.quit()


def test_no_peer(at, tmp_path):
    out = str(tmp_path / 'out')
    s = at(RECORD, out, interpreter=PYTHON, way='pipes')
    login(s, '235 ')
    assert not [name for name in read(out)['env'] if name.startswith('TCP')]
    s.quit()


@pytest.mark.parametrize('status, reply, result', [
    (0, '235 2.7.0 ', 'accepted'), (1, DENIED, 'denied'),
    (2, DENIED, 'denied'), (100, DENIED, 'denied'),
    (111, '454 4.7.0 ', 'unavailable'), (3, '454 4.7.0 ', 'unavailable'),
    (99, '454 4.7.0 ', 'unavailable'), (127, '454 4.7.0 ', 'unavailable'),
    (255, '454 4.7.0 ', 'unavailable')])
def test_exit_status(at, status, reply, result):
    s = at(f'echo "why it is" >&2\necho more >&2\nexit {status}')
    login(s, reply)
    s.quit(status=(0, 75))
    event = s.event('auth', result=result)
    if status:
        assert event['reason'] == f'checkpassword: exit {status}: why it is'


def test_refusals_look_the_same(at):
    s = at('tr "\\0" " " <&3 | grep -q "^alice " && exit 1\nexit 2')
    wrong = login(s, DENIED)
    assert login(s, DENIED, plain('nobody', 'x')) == wrong
    s.quit()


def test_one_that_does_not_read(at):
    s = at('exit 1')
    login(s, DENIED)
    s.quit()


@pytest.mark.parametrize('octets, reply', [(512, '235 '), (513, DENIED)])
def test_at_most_512_octets(at, tmp_path, octets, reply):
    out = str(tmp_path / 'out')
    s = at(RECORD, out, interpreter=PYTHON)
    password = 'x' * (octets - len('alice') - 3)
    login(s, reply, plain('alice', password))
    s.quit()
    if octets == 512:
        assert read(out)['login'] == f'alice\0{password}\0\0'
    else:
        # It is not even run.
        assert not os.path.exists(out)
        assert reason(s, 'denied') == \
            'checkpassword: a login of more than 512 octets'


def test_there_is_no_shell(at, tmp_path):
    s = at('exit 1', f'"$(touch {tmp_path}/mark)"', '"; touch /nowhere"')
    login(s, DENIED, plain(f'`touch {tmp_path}/mark`', '$(exit 0)'))
    assert not (tmp_path / 'mark').exists()
    s.quit()


# --- CRAM-MD5 --------------------------------------------------------------

CRAM = r'''
import hashlib, hmac, sys, os
user, challenge, response = os.fdopen(3, 'rb').read().split(b'\0')[:3]
if sys.argv[1] == 'response_challenge':
    challenge, response = response, challenge
right = hmac.new(b'tanstaaf', challenge, hashlib.md5).hexdigest()
sys.exit(user != b'tim' or right.encode() != response)
'''


@pytest.mark.parametrize('order', [
    None, 'challenge_response', 'response_challenge'])
def test_cram_md5(at, order):
    s = at(CRAM, order or 'challenge_response', interpreter=PYTHON,
           smtp_auth='cram-md5', checkpassword_cram=order)
    for secret, reply in (('wrong', DENIED), ('tanstaaf', '235 ')):
        [line] = s.client.ask('AUTH CRAM-MD5', '334 ')
        digest = hmac.new(secret.encode(), base64.b64decode(line[4:]),
                          hashlib.md5).hexdigest()
        s.client.ask(b64(f'tim {digest}'), reply)
    s.quit()
    assert s.event('auth', result='accepted')['user'] == 'tim'


# --- programs that misbehave -----------------------------------------------

@pytest.mark.parametrize('script', [
    'sleep 60', 'trap "" TERM INT HUP; sleep 60 & sleep 60; sleep 60',
    'yes >&2', 'exec sleep 60 3<&-'])
def test_one_that_hangs(at, script):
    s = at(script, auth_timeout='400ms')
    login(s, '454 4.7.0 ')
    [keeper] = [pid for pid in children(s.pid)]
    assert children(keeper, alive=False) == []
    s.quit(status=75)
    assert reason(s, 'unavailable').startswith(
        'checkpassword: no end within auth_timeout')


def test_its_whole_group_goes(at, tmp_path):
    s = at('sleep 61 & echo $! > {tmp}/pid; exit 0')
    # What it leaves behind has its standard output, and is not waited for.
    login(s, '235 ')
    pid = int((tmp_path / 'pid').read_text())
    until(lambda: not is_alive(pid), 'the end of what it left behind')
    s.quit()


@pytest.mark.parametrize('signal', [9, 11, 15])
def test_one_that_dies(at, signal):
    s = at(f'kill -{signal} $$')
    login(s, '454 4.7.0 ')
    login(s, '454 4.7.0 ')
    s.quit(status=75)
    assert reason(s, 'unavailable') == f'checkpassword: signal {signal}'


def test_one_that_is_not_there(front, backend):
    s = front(auth_provider='checkpassword:/nowhere/check x',
              backend=backend().address)
    s.client.greeting()
    s.client.hello()
    login(s, '454 4.7.0 ')
    s.quit(status=75)
    assert reason(s, 'unavailable') == \
        'checkpassword: exit 127: No such file or directory'


def test_it_says_too_much(at):
    s = at('yes; exit 0')
    login(s, '454 4.7.0 ')
    s.quit(status=75)
    assert reason(s, 'unavailable').startswith(
        'checkpassword: an environment of 16 kB or more')


def test_its_complaints_forge_nothing(at):
    s = at('printf "a\\033[2J\\"\\r session=x event=auth\\nsession=y\\n" >&2; '
           'exit 1')
    login(s, DENIED)
    s.quit()
    assert reason(s, 'denied') == \
        'checkpassword: exit 1: a\033[2J"\r session=x event=auth'
    assert len(s.events('auth')) == 1


def test_password_is_in_no_log(at):
    s = at('set -x; password=$(tr "\\0" " " <&3); echo "$password" >&2; exit 1')
    login(s, DENIED)
    s.quit()
    assert 'wonderland' not in s.log.text


def test_password_is_in_no_environment_and_no_argument(at, tmp_path):
    s = at(': > {tmp}/begun; sleep 60', auth_timeout='2s')
    s.client.line('AUTH PLAIN ' + GOOD)
    until(lambda: (tmp_path / 'begun').exists() and
          len(descendants(s.pid)) > 2, 'the program and what it runs')
    for pid in [s.pid, *descendants(s.pid)]:
        for name in ('cmdline', 'environ'):
            with open(f'/proc/{pid}/{name}', 'rb') as f:
                assert b'wonderland' not in f.read()
    s.client.expect('454 4.7.0 ')
    s.quit(status=75)


# --- the login's environment -----------------------------------------------

LOGIN = '''
export USER=alice HOME=/home/alice SHELL=/bin/sh UID_=x GROUP=users
export AUTHUSER=alice@example AUTHENTICATED=mallory VPOPUSER=v MAILDIR=M
export RELAYCLIENT=evil TCPREMOTEIP=6.6.6.6 LD_PRELOAD=/nowhere.so IFS=x
export BASH_ENV=/nowhere GCONV_PATH=/nowhere PYTHONPATH=/nowhere PATH=$PATH:/x
export SMTP_SESSION=evil SSL_PROTOCOL=evil AUTHBAD="a
b" REALNAME="Alice L"
'''


@pytest.mark.parametrize('follow', ['exec "$@"', 'echo hello; "$@"'])
def test_environment_reaches_the_relay(at, tmp_path, follow):
    record = str(tmp_path / 'record')
    s = at(LOGIN + 'unset LD_PRELOAD\n' + follow,
           relay=[os.path.join(RELAYS, 'record'), record],
           env={'HOME': '/ours'})
    login(s, '235 ')
    s.client.ask('QUIT', '221 2.0.0 relay leaves')
    s.client.expect_end()
    s.finish()
    env = dict(x.split('=', 1) for x in read(record)['environ'])
    wanted = {'HOME': '/home/alice', 'SHELL': '/bin/sh', 'GROUP': 'users',
              'AUTHUSER': 'alice@example', 'VPOPUSER': 'v', 'MAILDIR': 'M',
              'REALNAME': 'Alice L', 'AUTHENTICATED': 'alice',
              'SMTPAUTHUSER': 'alice', 'RELAYCLIENT': '',
              'TCPREMOTEIP': '127.0.0.1', 'PATH': s.env['PATH'],
              'SMTP_SESSION': s.event('close')['session']}
    assert {k: env.get(k) for k in wanted} == wanted
    assert not set(env) & {'LD_PRELOAD', 'IFS', 'BASH_ENV', 'GCONV_PATH',
                           'PYTHONPATH', 'SSL_PROTOCOL', 'AUTHBAD', 'UID_'}
    # "hello" stands before the first variable, whichever that is.
    assert 'hello' not in ''.join(env)


# --- a keeper that many ask ------------------------------------------------

@pytest.fixture
def serve():
    """serve(directives) is a Listener."""
    running = []

    def start(**kw):
        running.append(Listener(kw, sockets=[listening_socket()]))
        return running[-1]
    yield start
    complaints = workshop.clean_up(running)
    if complaints:
        pytest.fail('\n'.join(complaints))


def test_many_at_one_time(serve, backend, program, tmp_path):
    check = program("""
user=$(tr '\\0' ' ' <&3)
: > "{tmp}/begun-${user%% *}"
while [ ! -e {tmp}/go ]; do sleep 0.01; done
[ "$user" = "${user%% *} right  " ]
""")
    s = serve(auth_provider=f'checkpassword:{check}', keeper_workers=8,
              backend=backend().address)
    clients = [s.session() for _ in range(8)]
    for n, c in enumerate(clients):
        c.hello()
        c.line('AUTH PLAIN ' + plain(f'u{n}', 'wrong' if n % 3 else 'right'))
    until(lambda: len(list(tmp_path.glob('begun-*'))) == 8,
          'eight programs at once')
    (tmp_path / 'go').touch()
    for n, c in enumerate(clients):
        c.expect(DENIED if n % 3 else '235 ')
    # Its threads bury their own.
    assert children(s.keeper(), alive=False) == []
    for c in clients:
        c.ask('QUIT', '221 ')
        c.expect_end()
    s.stop()


# --- a real one ------------------------------------------------------------

@pytest.fixture
def cvm(tmp_path):
    """auth_provider's value: cvm-checkpassword with a file of its own."""
    path = tmp_path / 'passwd'
    path.write_text('alice:wonderland:65534:65534:Alice L:/:/bin/false\n')
    path.chmod(0o600)
    # It becomes the user before it runs what follows.
    return (f'checkpassword:/usr/bin/env CVM_PWFILE_PATH={path} '
            'CVM_ACCOUNT_SPLIT_CHARS= cvm-checkpassword cvm-pwfile')


def test_cvm_checkpassword(front, cvm, tmp_path):
    record = str(tmp_path / 'record')
    s = front(auth_provider=cvm,
              relay=[os.path.join(RELAYS, 'record'), record])
    s.client.greeting()
    s.client.hello()
    wrong = login(s, DENIED, plain('alice', 'wrong'))
    assert login(s, DENIED, plain('nobody', 'wrong')) == wrong
    login(s, '235 ')
    s.client.ask('QUIT', '221 2.0.0 relay leaves')
    s.client.expect_end()
    s.finish()
    env = dict(x.split('=', 1) for x in read(record)['environ'])
    assert {k: env.get(k) for k in ('USER', 'HOME', 'SHELL', 'UID', 'GID')} \
        == {'USER': 'alice', 'HOME': '/', 'SHELL': '/bin/false',
            'UID': '65534', 'GID': '65534'}
    assert env['NAME'] == 'Alice L'
    assert 'CVM_PWFILE_PATH' not in env


# --- --check ---------------------------------------------------------------

def test_check_warns(program):
    good = program('exit 0')
    for path, warned in ((good, False), ('/nowhere/x', True)):
        out = run('--check', '--auth-provider', f'checkpassword:{path} a',
                  '--backend', 'a:25').out
        assert (f'auth_provider: {path} cannot be run' in out) == warned
