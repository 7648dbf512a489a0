"""The provider pam: with a module that does what it is told, and with
pam_unix. PAM has its services in /etc/pam.d, so these tests are root's; what
they put there they take away again."""

import os
import pwd
import secrets
import subprocess
import time

import pytest

import listener as workshop
from fakes import plain
from harness import (
    BUILD, TOP, children, command_of, descendants, run, until)
from listener import Listener, listening_socket

HELPER = os.path.join(BUILD, 'lib', 'smtp-frontd', 'smtp-frontd-pam')
GOOD = plain('alice', 'ecila')
DENIED = '535 5.7.8 '
PAM = {'AUTH_ERR': 7, 'PERM_DENIED': 6, 'USER_UNKNOWN': 10, 'MAXTRIES': 11,
       'NEW_AUTHTOK_REQD': 12, 'ACCT_EXPIRED': 13, 'SYSTEM_ERR': 4,
       'CRED_INSUFFICIENT': 8, 'AUTHINFO_UNAVAIL': 9, 'AUTHTOK_EXPIRED': 27,
       'SERVICE_ERR': 3, 'ABORT': 26}


@pytest.fixture(scope='session')
def module(tmp_path_factory):
    out = str(tmp_path_factory.mktemp('pam') / 'pam_try.so')
    subprocess.run(
        ['cc', '-D_GNU_SOURCE', '-shared', '-fPIC', '-Wall', '-Werror', '-o',
         out, os.path.join(TOP, 'tests', 'pam', 'pam_try.c'), '-lpam'],
        check=True, timeout=60)
    return out


@pytest.fixture
def service():
    """service(lines) is the name of a service with these lines."""
    made = []

    def make(text):
        name = f'smtp-frontd-try-{secrets.token_hex(6)}'
        made.append(f'/etc/pam.d/{name}')
        with open(made[-1], 'w') as f:
            f.write(text)
        return name
    yield make
    for path in made:
        os.unlink(path)


@pytest.fixture
def tried(service, module):
    """A service of the module that does what it is told."""
    return lambda *words: service(
        f'auth required {module} {" ".join(words)}\n'
        f'account required {module} {" ".join(words)}\n')


@pytest.fixture
def at(front, backend, tried):
    """at(words of the module's, ...): a session past EHLO."""
    def start(*words, name=None, **kw):
        kw.setdefault('backend', backend().address)
        kw.setdefault('max_errors', 100)
        s = front(auth_provider=f'pam:{name or tried(*words)}', **kw)
        s.client.greeting()
        s.client.hello()
        return s
    return start


def login(s, user, password, reply):
    return s.client.ask('AUTH PLAIN ' + plain(user, password), reply)


def reason(s, result='denied'):
    return s.events('auth', result=result)[-1]['reason']


# --- yes and no ------------------------------------------------------------

def test_right_password(at):
    s = at()
    assert not any('CRAM' in line for line in s.client.hello())
    login(s, 'alice', 'ecila', '235 2.7.0 ')
    s.client.ask('NOOP', '250 2.0.0 backend here')
    s.quit()
    assert s.event('auth')['user'] == 'alice'


def test_login_mechanism(at):
    s = at()
    s.client.ask('AUTH LOGIN', '334 ')
    s.client.ask('YWxpY2U=', '334 ')
    s.client.ask('ZWNpbGE=', '235 ')
    s.quit()


def test_no_name_is_told_from_another(at):
    s = at()
    wrong = login(s, 'alice', 'wrong', DENIED)
    assert login(s, 'nobody-knows', 'wrong', DENIED) == wrong
    assert login(s, 'nobody-knows', 'swonk-ydobon', DENIED) == wrong
    assert login(s, 'alice', '', DENIED) == wrong
    login(s, 'alice', 'ecila', '235 ')
    s.quit()
    assert 'pam: Authentication failure' in s.lines()[1]


@pytest.mark.parametrize('name', [
    'AUTH_ERR', 'PERM_DENIED', 'USER_UNKNOWN', 'MAXTRIES', 'ACCT_EXPIRED',
    'NEW_AUTHTOK_REQD'])
def test_no_of_the_authentication_tells_no_more(at, name):
    s = at(f'auth={PAM[name]}')
    right = login(s, 'alice', 'ecila', DENIED)
    assert login(s, 'alice', 'wrong', DENIED) == right
    s.quit()


@pytest.mark.parametrize('phase', ['auth', 'acct'])
@pytest.mark.parametrize('name', [
    'SYSTEM_ERR', 'CRED_INSUFFICIENT', 'AUTHINFO_UNAVAIL', 'SERVICE_ERR',
    'ABORT'])
def test_trouble_is_no_judgement(at, name, phase):
    s = at(f'{phase}={PAM[name]}')
    login(s, 'alice', 'ecila', '454 4.7.0 ')
    s.quit(status=75)
    assert reason(s, 'unavailable').startswith('pam: ')


@pytest.mark.parametrize('name, reply', [
    ('NEW_AUTHTOK_REQD', '535 5.7.8 Password expired'),
    ('AUTHTOK_EXPIRED', '535 5.7.8 Password expired'),
    ('ACCT_EXPIRED', '535 5.7.13 Account expired'),
    ('PERM_DENIED', '535 5.7.13 Account disabled')])
def test_account_phase(at, name, reply):
    s = at(f'acct={PAM[name]}')
    wrong = login(s, 'alice', 'wrong', DENIED)
    assert login(s, 'alice', 'ecila', reply) != wrong
    # Without the right password the account's state is nobody's business.
    assert login(s, 'alice', 'wrong', DENIED) == wrong
    s.quit()


@pytest.mark.parametrize('name', ['AUTH_ERR', 'USER_UNKNOWN', 'MAXTRIES'])
def test_account_phase_denied(at, name):
    s = at(f'acct={PAM[name]}')
    wrong = login(s, 'alice', 'wrong', DENIED)
    assert login(s, 'alice', 'ecila', DENIED) == wrong
    s.quit()


# --- the conversation ------------------------------------------------------

def test_user_prompt(at):
    s = at('ask-user')
    login(s, 'alice', 'ecila', '235 ')
    s.quit()


def test_a_message_needs_no_answer(at):
    s = at('tell', 'say=hello')
    login(s, 'alice', 'wrong', DENIED)
    login(s, 'alice', 'ecila', '235 ')
    s.quit()
    assert s.events('auth', result='denied')[0]['reason'] == \
        'pam: Authentication failure: hello'


@pytest.mark.parametrize('ask', ['ask-code', 'ask-radio'])
def test_strange_prompts(at, ask):
    s = at(ask)
    login(s, 'alice', 'ecila', '454 4.7.0 ')
    s.quit(status=75)
    assert 'asks for more than a password: ' in reason(s, 'unavailable')


def test_what_modules_are_told(at, tmp_path):
    path = str(tmp_path / 'told')
    s = at(f'record={path}', env={'SECRET_OF_OURS': 'x'})
    login(s, 'alice', 'ecila', '235 ')
    s.quit()
    with open(path) as f:
        told = [line.rstrip('\n').split(' ', 1) for line in f]
    name = s.words[s.words.index('--auth-provider') + 1]
    assert dict(told[:4]) == {'service': name.removeprefix('pam:'),
                              'user': 'alice', 'rhost': '127.0.0.1',
                              'tty': 'smtp'}
    assert 'environment' not in dict(told)
    fds = [int(value) for key, value in told if key == 'descriptor']
    # Its three, and the answer's.
    assert sorted(fds)[:3] == [0, 1, 2] and len(fds) <= 5


def test_name_is_taken_back(at, backend):
    b = backend()
    s = at('rename=alice@example.org', backend=b.address)
    login(s, 'alice', 'ecila', '235 ')
    s.quit()
    assert 'LOGIN=alice@example.org' in \
        ' '.join(b.conversation().texts('XCLIENT'))


def test_long_names_and_passwords(at):
    s = at(xclient='off')
    login(s, 'a' * 511, 'a' * 511, '235 ')
    s.quit()
    s = at()
    login(s, 'a' * 500, 'a' * 512, DENIED)
    s.quit()
    assert reason(s).startswith('pam: a name or a password of more than 511')


# --- time, and modules that misbehave --------------------------------------

def test_delay_is_the_session_s(at):
    s = at('delay=600000')
    began = time.monotonic()
    s.client.line('AUTH PLAIN ' + plain('alice', 'wrong'))
    until(lambda: 'denied' in s.log.text, 'the verdict')
    judged = time.monotonic() - began
    s.client.expect(DENIED)
    # PAM makes it a random time around the one that was asked for.
    waited = time.monotonic() - began
    assert waited > 0.25
    assert judged < waited - 0.2
    login(s, 'alice', 'ecila', '235 ')
    s.quit()


def test_one_that_hangs(at):
    s = at('hang', auth_timeout='500ms')
    s.client.line('AUTH PLAIN ' + GOOD)
    # The helper and the module's own child.
    until(lambda: len([pid for pid in descendants(s.pid)
                       if 'smtp-frontd-pam' in command_of(pid)]) == 2,
          'the helper')
    keeper = children(s.pid)
    s.client.expect('454 4.7.0 ')
    # Nobody is left, the module's own child neither.
    until(lambda: not any(children(pid, alive=False) for pid in keeper),
          'the end of the helper')
    s.quit(status=75)
    assert reason(s, 'unavailable') == 'pam: no answer within auth_timeout'


@pytest.mark.parametrize('how, why', [
    ('crash', 'pam: a module has crashed: signal 11'),
    ('leave', 'pam: no answer: exit 0')])
def test_one_that_ends(at, how, why):
    s = at(how)
    login(s, 'alice', 'ecila', '454 4.7.0 ')
    login(s, 'alice', 'ecila', '454 4.7.0 ')
    s.quit(status=75)
    assert reason(s, 'unavailable') == why


def test_one_that_chatters(at):
    s = at('chatter')
    login(s, 'alice', 'wrong', DENIED)
    login(s, 'alice', 'ecila', '235 ')
    s.quit()


def test_library_is_in_the_helper_alone(at):
    s = at()
    login(s, 'alice', 'wrong', DENIED)
    for pid in [s.pid] + children(s.pid):
        with open(f'/proc/{pid}/maps') as f:
            assert 'libpam' not in f.read()
    s.quit()


def test_no_module(at, service):
    s = at(name=service('auth required /nowhere/pam_x.so\n'))
    login(s, 'alice', 'ecila', '454 4.7.0 ')
    s.quit(status=75)
    assert 'Module is unknown' in reason(s, 'unavailable')


def test_many_at_one_time(tried, backend, tmp_path):
    """One keeper, whose workers are threads: no module knows of that."""
    s = Listener({'auth_provider': f'pam:{tried("say=x")}',
                  'keeper_workers': 8, 'backend': backend().address},
                 sockets=[listening_socket()])
    try:
        clients = [s.session() for _ in range(8)]
        for c in clients:
            c.hello()
        for _ in range(2):
            for n, c in enumerate(clients):
                c.line('AUTH PLAIN ' + plain(f'user{n}', 'wrong'))
            for c in clients:
                c.expect(DENIED)
        for n, c in enumerate(clients):
            c.line('AUTH PLAIN ' + plain(f'user{n}', f'{n}resu'))
        for c in clients:
            c.expect('235 ')
        assert children(s.keeper(), alive=False) == []
        for c in clients:
            c.ask('QUIT', '221 ')
            c.expect_end()
        s.stop()
    finally:
        assert workshop.clean_up([s]) == []


# --- pam_unix --------------------------------------------------------------

@pytest.fixture
def account(tmp_path):
    """A user of this machine with the password `right`."""
    name = f'sfd-{secrets.token_hex(4)}'
    subprocess.run(['useradd', '-M', '-N', '-d', '/nonexistent', name],
                   check=True, timeout=30)
    try:
        subprocess.run(['chpasswd'], input=f'{name}:right\n', text=True,
                       check=True, timeout=30)
        yield name
    finally:
        subprocess.run(['userdel', name], check=True, timeout=30)


UNIX = 'auth required pam_unix.so nodelay\naccount required pam_unix.so\n'


def test_pam_unix(at, account, service):
    s = at(name=service(UNIX))
    wrong = login(s, account, 'wrong', DENIED)
    assert login(s, 'no-such-user', 'wrong', DENIED) == wrong
    login(s, account, 'right', '235 ')
    s.quit()


@pytest.mark.parametrize('change, reply', [
    (['chage', '-E', '1'], '535 5.7.13 Account expired'),
    (['chage', '-d', '0'], '535 5.7.8 Password expired')])
def test_pam_unix_expired(at, account, service, change, reply):
    subprocess.run([*change, account], check=True, timeout=30)
    s = at(name=service(UNIX))
    login(s, account, 'wrong', '535 5.7.8 ')
    login(s, account, 'right', reply)
    s.quit()


def as_user(account, *words):
    """A keeper that is not root's cannot be had through `front`, which starts
    the program itself: the helper is asked as the keeper asks it."""
    entry = pwd.getpwnam(account)
    reader, writer = os.pipe()
    os.write(writer, '\0'.join([*words, '']).encode())
    os.close(writer)
    command = ['setpriv', '--reuid', str(entry.pw_uid), '--clear-groups',
               '/bin/bash', '-c', f'exec "$0" 3<&{reader}', HELPER]
    done = subprocess.run(command, pass_fds=[reader], capture_output=True,
                          timeout=30)
    os.close(reader)
    return done


def test_pam_unix_without_root(account, service):
    name = service(UNIX)
    other = 'root'
    done = as_user(account, name, other, 'wrong', '192.0.2.1')
    result, delay, user, why = done.stdout.decode().split('\0')[:4]
    assert result in ('denied', 'unavailable')
    assert f'(asked as uid {pwd.getpwnam(account).pw_uid}, not as root)' in why
    # Its own, it can judge: by unix_chkpwd, which is setgid.
    done = as_user(account, name, account, 'right', '192.0.2.1')
    assert done.stdout.decode().split('\0')[0] == 'accepted', done


def test_helper_by_hand():
    done = subprocess.run([HELPER], stdin=subprocess.DEVNULL,
                          capture_output=True, timeout=10)
    assert (done.returncode, done.stdout) == (64, b'')
    assert b'is run by smtp-frontd' in done.stderr


# --- --check ---------------------------------------------------------------

def check(provider, uid=None):
    return run('--check', '--auth-provider', provider, '--backend', 'a:25').out


def test_check_warns(service):
    name = service(UNIX)
    assert 'auth_provider' not in ''.join(
        line for line in check(f'pam:{name}').splitlines()
        if line.startswith('# warning'))
    assert f'there is no /etc/pam.d/{name}x: PAM takes /etc/pam.d/other' in \
        check(f'pam:{name}x')
    done = subprocess.run(
        ['setpriv', '--reuid', '65534', '--clear-groups',
         os.path.join(BUILD, 'sbin', 'smtp-frontd'), '--check',
         '--auth-provider', f'pam:{name}', '--backend', 'a:25'],
        capture_output=True, text=True, timeout=10)
    assert 'PAM is asked by another user than root' in done.stdout
