"""Dovecot's auth server: the real one, and a fake that says what a test wants.

Dovecot      Debian's, with a configuration of its own in a folder of its own;
             nothing of the machine's is used
FakeDovecot  a server that greets, and answers AUTH and CONT by a function
"""

import os
import shutil
import signal
import socket
import subprocess
import tempfile

from fakes import ENDLESS_LINE, SILENCE, Act, Server
from harness import (
    DEADLINE, beside, descendants, environment, kill, reap, until)

CONFIG = '''
base_dir = {folder}/run
state_dir = {folder}/state
log_path = {folder}/log
protocols =
ssl = no
auth_mechanisms = {mechanisms}
auth_debug = yes
auth_verbose = yes
auth_failure_delay = {delay}
passdb {{
  driver = passwd-file
  args = scheme=PLAIN username_format=%u {folder}/users
}}
{more}
passdb {{
  driver = oauth2
  mechanisms = xoauth2 oauthbearer
  args = {folder}/oauth2
}}
userdb {{
  driver = static
  args = uid=65534 gid=65534 home=/nonexistent
}}
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = {penalty}
  }}
}}
service auth {{
  unix_listener auth-client {{
    mode = 0666
  }}
  inet_listener {{
    address = 127.0.0.1
    port = {port}
  }}
}}
'''
# Tokens are judged without anybody being asked: there is no key for any.
OAUTH2 = '''
introspection_mode = local
local_validation_key_dict = fs:posix:prefix={folder}/keys/
'''


class Dovecot:
    """users      lines of its passwd-file
    penalty    its delays for those that fail again, with the first one's
    more       lines of its configuration
    """

    def __init__(self, users, mechanisms='plain login cram-md5 scram-sha-1 '
                 'scram-sha-256 xoauth2 oauthbearer anonymous',
                 penalty=False, more=''):
        # A UNIX socket's path is short; and its users must reach it.
        self.folder = tempfile.mkdtemp(prefix='smtp-frontd-dovecot.')
        os.chmod(self.folder, 0o755)
        for name in ('run', 'state', 'keys'):
            os.mkdir(os.path.join(self.folder, name), 0o755)
        self.errors = []
        self.proc = None
        with socket.socket() as s:
            s.bind(('127.0.0.1', 0))
            self.port = s.getsockname()[1]
        self.write('users', users)
        self.write('oauth2', OAUTH2.format(folder=self.folder))
        self.write('config', CONFIG.format(
            folder=self.folder, mechanisms=mechanisms, port=self.port,
            more=more, penalty='0600' if penalty else '0',
            delay='2secs' if penalty else '0'))
        self.path = os.path.join(self.folder, 'run', 'auth-client')
        self.provider = 'dovecot:' + self.path
        self.start()

    def write(self, name, text):
        with open(os.path.join(self.folder, name), 'w') as f:
            f.write(text)

    def log(self):
        try:
            with open(os.path.join(self.folder, 'log'),
                      encoding='latin-1') as f:
                return f.read()
        except FileNotFoundError:
            return ''

    def start(self):
        self.proc = subprocess.Popen(
            ['dovecot', '-F', '-c', os.path.join(self.folder, 'config')],
            env=environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True)
        beside.add(self.proc.pid)
        until(self.is_there, 'Dovecot')

    def is_there(self):
        assert self.proc.poll() is None, self.log()
        try:
            with socket.socket(socket.AF_UNIX) as s:
                s.settimeout(DEADLINE)
                s.connect(self.path)
                return s.recv(8) == b'VERSION\t'
        except OSError:
            return False

    def auth_process(self):
        """The process that talks to us, once it has begun."""
        def find():
            for pid in descendants(self.proc.pid):
                try:
                    with open(f'/proc/{pid}/comm') as f:
                        if f.read().strip() == 'auth':
                            return pid
                except OSError:
                    pass
            return None
        return until(find, "Dovecot's auth process")

    def halt(self):
        """Ends it at once, with all its processes."""
        family = descendants(self.proc.pid) | {self.proc.pid}
        for pid in family:
            kill(pid)
        self.proc.wait(DEADLINE)
        beside.discard(self.proc.pid)
        for pid in family - {self.proc.pid}:
            reap(pid)

    def hang(self):
        os.kill(self.auth_process(), signal.SIGSTOP)

    def remove(self):
        try:
            shutil.rmtree(self.folder)
        except OSError:
            pass
        return not os.path.exists(self.folder)

    def stop(self):
        self.halt()
        # A process that was just being made may write there once more.
        until(self.remove, "Dovecot's folder to be gone")

    def said(self, what):
        """Its debug lines behind these words: 'client in: ', with which it
        hides the secrets, or 'client passdb out: '."""
        return [line.split(what, 1)[1] for line in self.log().splitlines()
                if what in line]


MECHS = 'MECH\tPLAIN\tplaintext\nMECH\tCRAM-MD5\n'
GREETING = f'VERSION\t1\t2\n{MECHS}SPID\t1\nCUID\t1\nCOOKIE\t0\nDONE\n'
HANG_UP = Act('hang up')


class FakeDovecot(Server):
    """`answer` is what is said to each line behind the handshake: text, an
    Act, or a function of (number of the request, line) that returns one."""

    def __init__(self, answer, greeting=GREETING):
        self.answer = answer
        self.greeting = greeting
        self.connections = []  # the lines that each was sent
        super().__init__()
        self.provider = 'dovecot:' + self.address

    def serve(self, sock):
        lines = []
        self.connections.append(lines)
        f = sock.makefile('rb')
        for _ in range(2):
            lines.append(f.readline().decode('latin-1').rstrip('\n'))
        if not self.say(sock, self.greeting):
            return
        for line in f:
            line = line.decode('latin-1').rstrip('\n')
            lines.append(line)
            answer = self.answer
            if callable(answer):
                answer = answer(line.split('\t')[1], line)
            if not self.say(sock, answer):
                return

    def say(self, sock, what):
        if isinstance(what, str):
            sock.sendall(what.encode('latin-1'))
            return True
        if what is SILENCE:
            self.stopped.wait()
        if what is ENDLESS_LINE:
            while not self.stopped.is_set():
                sock.sendall(b'x' * 1000)
        return False
