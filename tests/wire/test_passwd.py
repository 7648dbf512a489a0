"""smtp-frontd-passwd: what it writes, keeps, refuses and tells."""

import base64
import hashlib
import hmac
import os
import pty
import select
import signal
import subprocess
import termios
import time

import pytest

BUILD = os.environ.get('SMTP_FRONTD_BUILD', 'build')
PROGRAM = os.path.abspath(os.path.join(BUILD, 'bin', 'smtp-frontd-passwd'))


def run(*args, password=None, **kw):
    data = password.encode() if isinstance(password, str) else password
    return subprocess.run([PROGRAM, *map(str, args)], input=data or b'',
                          capture_output=True, timeout=30, **kw)


def add(path, user, password, *options):
    r = run('-c', *options, path, user, password=password + '\n')
    assert (r.returncode, r.stderr) == (0, b'')


def verifies(path, user, password):
    r = run('-v', path, user, password=password + '\n')
    assert r.returncode in (0, 1), r.stderr
    return r.returncode == 0


@pytest.fixture
def path(tmp_path):
    return tmp_path / 'users'


# Adding and verifying

@pytest.mark.parametrize('scheme, start', [
    (None, b'ann:{CRYPT}$y$'),
    ('yescrypt', b'ann:{CRYPT}$y$'),
    ('bcrypt', b'ann:{BLF-CRYPT}$2y$10$'),
    ('sha512', b'ann:{SHA512-CRYPT}$6$rounds='),
    ('scram-sha-256', b'ann:{SCRAM-SHA-256}'),
    ('plain', b'ann:{PLAIN}pa ss\n'),
])
def test_schemes(path, scheme, start):
    add(path, 'ann', 'pa ss', *(['-s', scheme] if scheme else []))
    data = path.read_bytes()
    assert data.startswith(start) and data.count(b'\n') == 1
    assert scheme == 'plain' or b'pa ss' not in data
    assert verifies(path, 'ann', 'pa ss')
    assert not verifies(path, 'ann', 'pa s')
    assert not verifies(path, 'ANN', 'pa ss')
    assert not verifies(path, 'bob', 'pa ss')


def scram(password, salt, iterations):
    """An entry as RFC 5802 and Dovecot have it, computed without OpenSSL."""
    salted = hashlib.pbkdf2_hmac('sha256', password, salt, iterations)
    client = hmac.digest(salted, b'Client Key', 'sha256')
    keys = (salt, hashlib.sha256(client).digest(),
            hmac.digest(salted, b'Server Key', 'sha256'))
    return '{SCRAM-SHA-256}%d,%s' % (
        iterations, ','.join(base64.b64encode(k).decode() for k in keys))


def test_scram_made_is_right(path):
    add(path, 'ann', 'pencil', '-s', 'scram-sha-256')
    secret = path.read_text().strip().split(':', 1)[1]
    iterations, salt = secret.split('}')[1].split(',')[:2]
    assert int(iterations) >= 4096
    assert secret == scram(b'pencil', base64.b64decode(salt), int(iterations))


def test_scram_of_others_is_read(path):
    path.write_text('ann:' + scram('p\u00e9ncil'.encode(), b'0123456789', 4096)
                    + ':1000:1000::/home/ann::\n')
    assert verifies(path, 'ann', 'p\u00e9ncil')
    assert not verifies(path, 'ann', 'pencil')


def test_only_first_line_of_stdin(path):
    assert run('-c', path, 'ann', password='one\ntwo\n').returncode == 0
    assert verifies(path, 'ann', 'one')
    assert run('-v', path, 'ann', password='one\r\ntwo').returncode == 0
    assert run('-v', path, 'ann', password='one').returncode == 0


# What is kept

def test_everything_else_is_kept(path):
    before = (b'# comment\r\n\n  odd line\n\xff\xfe:{PLAIN}x\r\n'
              b'ann:{PLAIN}old:h.example:25\n' + b'z' * 10000 + b':x\n'
              b'nul\0:y\nbob:{PLAIN}b:1000:1000::/home/bob::')
    path.write_bytes(before)
    add(path, 'ann', 'new', '-s', 'plain')
    assert path.read_bytes() == before.replace(b'{PLAIN}old', b'{PLAIN}new')
    add(path, 'cec', 'c', '-s', 'plain')
    assert path.read_bytes() == before.replace(
        b'{PLAIN}old', b'{PLAIN}new') + b'\ncec:{PLAIN}c\n'
    assert run('-D', path, 'cec').returncode == 0
    assert path.read_bytes() == before.replace(
        b'{PLAIN}old', b'{PLAIN}new') + b'\n'
    add(path, 'bob', 'B', '-s', 'plain')
    assert path.read_bytes().endswith(b'bob:{PLAIN}B:1000:1000::/home/bob::\n')


def test_long_lines_survive(path):
    for n in (4094, 4095, 4096, 4097, 8191, 8192, 8193):
        before = b'x' * n + b'\nann:{PLAIN}a\n' + b'y' * n
        path.write_bytes(before)
        add(path, 'ann', 'b', '-s', 'plain')
        assert path.read_bytes() == before.replace(b'}a', b'}b')


def test_backend(path):
    add(path, 'ann', 'a', '-s', 'plain', '-b', '[::1]:25')
    assert path.read_text() == 'ann:{PLAIN}a:[::1]:25\n'
    add(path, 'ann', 'b', '-s', 'plain')
    assert path.read_text() == 'ann:{PLAIN}b:[::1]:25\n'
    add(path, 'ann', 'b', '-s', 'plain', '-b', 'unix:/run/x:y')
    assert path.read_text() == 'ann:{PLAIN}b:unix:/run/x:y\n'
    add(path, 'ann', 'b', '-s', 'plain', '-b', '')
    assert path.read_text() == 'ann:{PLAIN}b\n'


def test_backend_does_not_eat_other_fields(path):
    path.write_text('ann:{PLAIN}a:1000:1000::/home/ann::\n')
    r = run('-b', 'h:25', path, 'ann', password='b\n')
    assert r.returncode == 1 and b'other fields' in r.stderr
    assert path.read_text() == 'ann:{PLAIN}a:1000:1000::/home/ann::\n'


def test_delete_leaves_no_second_entry(path):
    path.write_text('ann:{PLAIN}1\nbob:{PLAIN}2\nann:{PLAIN}3\n')
    assert run('-D', path, 'ann').returncode == 0
    assert path.read_text() == 'bob:{PLAIN}2\n'
    r = run('-D', path, 'ann')
    assert r.returncode == 1 and b'no such user' in r.stderr


@pytest.mark.parametrize('mode', [0o600, 0o640, 0o660, 0o444, 0o1640])
def test_mode_is_kept(path, mode):
    add(path, 'ann', 'a', '-s', 'plain')
    path.chmod(mode)
    add(path, 'ann', 'b', '-s', 'plain')
    assert path.stat().st_mode & 0o7777 == mode


@pytest.mark.skipif(os.getuid() != 0, reason='needs root')
def test_owner_is_kept(path):
    add(path, 'ann', 'a')
    os.chown(path, 12, 34)
    path.chmod(0o640)
    add(path, 'ann', 'b')
    st = path.stat()
    assert (st.st_uid, st.st_gid, st.st_mode & 0o7777) == (12, 34, 0o640)


@pytest.mark.parametrize('umask', [0, 0o22, 0o777])
def test_new_file_has_its_mode_whatever_the_umask(path, umask):
    r = run('-c', path, 'ann', password='a\n', umask=umask)
    assert r.returncode == 0
    assert path.stat().st_mode & 0o7777 == 0o640


def test_symbolic_link_stays(path, tmp_path):
    (tmp_path / 'sub').mkdir()
    real = tmp_path / 'sub' / 'real'
    real.write_text('')
    path.symlink_to('sub/real')
    add(path, 'ann', 'a', '-s', 'plain')
    assert path.is_symlink() and real.read_text() == 'ann:{PLAIN}a\n'


def test_relative_path_and_nothing_left_behind(path, tmp_path):
    r = run('-c', '-s', 'plain', 'users', 'ann', password='a\n', cwd=tmp_path)
    assert r.returncode == 0
    assert os.listdir(tmp_path) == ['users']


def test_replaced_at_once(path):
    """A reader that has the file open goes on reading the old one."""
    add(path, 'ann', 'a', '-s', 'plain')
    with open(path) as old:
        add(path, 'bob', 'b', '-s', 'plain')
        assert old.read() == 'ann:{PLAIN}a\n'


def test_runs_at_once_lose_nothing(path):
    names = [f'user{i}' for i in range(16)]
    procs = []
    for name in names:
        p = subprocess.Popen([PROGRAM, '-c', '-s', 'plain', path, name],
                             stdin=subprocess.PIPE)
        p.stdin.write(b'secret\n')
        p.stdin.close()
        procs.append(p)
    assert [p.wait(30) for p in procs] == [0] * len(names)
    lines = path.read_text().splitlines()
    assert sorted(lines) == sorted(f'{n}:{{PLAIN}}secret' for n in names)


# What is refused

def test_missing_file_needs_c(path):
    r = run(path, 'ann', password='a\n')
    assert r.returncode == 71 and b'-c' in r.stderr
    assert not path.exists()
    for option in ('-D', '-v'):
        assert run(option, path, 'ann', password='a\n').returncode == 71
    assert run('-l', path).returncode == 71
    assert run('-c', path / 'no' / 'x', 'ann', password='a\n').returncode == 71


@pytest.mark.parametrize('user', [
    '', 'a:b', 'a\nb', 'a\tb', 'a\x7f', '#a', 'x' * 512])
def test_bad_users(path, user):
    assert run('-c', path, user, password='a\n').returncode == 64
    assert not path.exists()


@pytest.mark.parametrize('password', [
    b'', b'\n', b'\r\n', b'x' * 512 + b'\n', b'x' * 100000, b'a\0b\n'])
def test_bad_passwords(path, password):
    assert run('-c', path, 'ann', password=password).returncode == 1
    assert not path.exists()


def test_sizes_at_the_limit(path):
    add(path, 'x' * 511, 'y' * 511)
    assert verifies(path, 'x' * 511, 'y' * 511)
    assert not verifies(path, 'x' * 511, 'y' * 510)


@pytest.mark.parametrize('password', ['a:b', 'a\tb'])
def test_plain_cannot_hold_all(path, password):
    r = run('-c', '-s', 'plain', path, 'ann', password=password)
    assert r.returncode == 1 and not path.exists()
    add(path, 'ann', password)
    assert verifies(path, 'ann', password)


def test_bcrypt_is_not_cut_short_silently(path):
    add(path, 'ann', 'x' * 72, '-s', 'bcrypt')
    r = run('-s', 'bcrypt', path, 'ann', password='x' * 73)
    assert r.returncode == 1 and b'72' in r.stderr


@pytest.mark.parametrize('args', [
    [], ['f'], ['f', 'u', 'x'], ['-x', 'f', 'u'], ['-s'], ['-l', 'f', 'u'],
    ['-D', 'f'], ['-D', '-v', 'f', 'u'], ['-D', '-c', 'f', 'u'],
    ['-v', '-s', 'plain', 'f', 'u'], ['-l', '-b', 'h:25', 'f'], ['', 'u'],
    ['-s', 'md5', 'f', 'u'], ['-s', '', 'f', 'u'], ['-b', 'host', 'f', 'u'],
    ['-b', 'h:25\n', 'f', 'u'], ['-b', '1000:1000', 'f', 'u']])
def test_usage(tmp_path, args):
    r = run(*args, password='a\n', cwd=tmp_path)
    assert r.returncode == 64 and r.stderr and not r.stdout
    assert os.listdir(tmp_path) == []


def test_file_that_others_may_write(path):
    path.write_text('ann:{PLAIN}a\n')
    path.chmod(0o646)
    for args in (['-v', path, 'ann'], [path, 'ann'], ['-l', path]):
        r = run(*args, password='a\n')
        assert r.returncode == 71 and b'writable by others' in r.stderr


@pytest.mark.parametrize('make', [os.mkdir, os.mkfifo])
def test_no_regular_file(path, make):
    make(path)
    for args in (['-v', path, 'ann'], ['-c', path, 'ann'], ['-l', path]):
        assert run(*args, password='a\n').returncode == 71


def test_full_disk_leaves_the_old_file(path):
    """The limit on a file's size stands in for a full disk."""
    before = 'ann:{PLAIN}a\n' + 'x' * 20000 + '\n'
    path.write_text(before)
    script = 'trap "" XFSZ; ulimit -f 16; exec "$@"'
    r = subprocess.run(['sh', '-c', script, 'sh', PROGRAM, str(path), 'ann'],
                       input=b'b\n', capture_output=True, timeout=30)
    assert r.returncode == 71 and b'too large' in r.stderr
    assert path.read_text() == before
    assert os.listdir(path.parent) == ['users']


# Listing

def test_list(path):
    path.write_text(
        '# x\nann:{PLAIN}secret:h:25\nbob:{CRYPT}$y$j9T$x$y\n'
        'cec:$2y$10$abcdefghijklmnopqrstuuB8TIKDCHRqbJjt6hS0XJ5nE3qOa5t0e\n'
        'dan:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/\neve:secret\n'
        'f\x1b[2J:{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=\n')
    r = run('-l', path)
    assert (r.returncode, r.stderr) == (0, b'')
    assert b'secret' not in r.stdout
    lines = [line.split('\t') for line in r.stdout.decode().splitlines()]
    assert lines == [
        ['ann', '{PLAIN}', 'h:25'], ['bob', '{CRYPT}$y$'], ['cec', '$2y$'],
        ['dan', '$apr1$ (not supported)'], ['eve', 'no known scheme'],
        ['f?[2J', '{SHA} (not supported)']]


def test_unsupported_does_not_verify(path):
    path.write_text('dan:$apr1$r31.....$HqJZimcKQFAMYayBlzkrA/\neve:e\n')
    for user, password in (('dan', 'myPassword'), ('eve', 'e')):
        r = run('-v', path, user, password=password)
        assert r.returncode == 1 and b'unsupported' in r.stderr


# At the terminal

class Terminal:
    """The program on a terminal of its own."""

    def __init__(self, *args):
        self.output = b''
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.execv(PROGRAM, [PROGRAM, *map(str, args)])

    def expect(self, text):
        end = time.monotonic() + 20
        while text not in self.output:
            left = end - time.monotonic()
            assert left > 0, self.output
            if select.select([self.fd], [], [], left)[0]:
                self.output += os.read(self.fd, 4096)

    def answer(self, prompt, text):
        self.expect(prompt)
        os.write(self.fd, text)

    def wait(self):
        try:
            while data := os.read(self.fd, 4096):
                self.output += data
        except OSError:
            pass
        os.close(self.fd)
        return os.waitpid(self.pid, 0)[1]


def test_prompt(path):
    t = Terminal('-c', path, 'ann')
    t.answer(b'Password: ', b'secret\n')
    t.answer(b'Again: ', b'secret\n')
    assert t.wait() == 0
    assert b'secret' not in t.output
    assert verifies(path, 'ann', 'secret')
    t = Terminal('-v', path, 'ann')
    t.answer(b'Password: ', b'secret\n')
    assert t.wait() == 0
    assert b'secret' not in t.output and b'Again' not in t.output


def test_prompt_twice_not_the_same(path):
    t = Terminal('-c', path, 'ann')
    t.answer(b'Password: ', b'secret\n')
    t.answer(b'Again: ', b'secrets\n')
    assert os.waitstatus_to_exitcode(t.wait()) == 1
    assert not path.exists()


def test_interrupted_prompt_gives_the_echo_back(path):
    """The parent keeps the terminal open and looks at it afterwards."""
    master, slave = pty.openpty()
    p = subprocess.Popen([PROGRAM, '-c', path, 'ann'], stdin=slave,
                         stderr=subprocess.PIPE)
    assert p.stderr.read(len('Password: ')) == b'Password: '
    assert not termios.tcgetattr(slave)[3] & termios.ECHO
    p.send_signal(signal.SIGTSTP)
    p.send_signal(signal.SIGINT)
    assert p.wait(20) == -signal.SIGINT
    assert termios.tcgetattr(slave)[3] & termios.ECHO
    p.stderr.close()
    os.close(master)
    os.close(slave)
    assert not path.exists()


# Size and time

def test_ten_thousand_lines(path):
    with open(path, 'w') as f:
        for i in range(10000):
            f.write(f'user{i}@example.org:{{PLAIN}}{i:0100}\n')
    path.chmod(0o600)
    begun = time.monotonic()
    add(path, 'ann', 'a', '-s', 'plain')
    assert verifies(path, 'ann', 'a')
    assert run('-D', path, 'user5000@example.org').returncode == 0
    assert len(run('-l', path).stdout.splitlines()) == 10000
    assert time.monotonic() - begun < 5
