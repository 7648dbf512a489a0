"""The listener at work, for many clients at a time.

Listener  one run of the program with listening sockets
Keeper    one run of the program as the keeper that lives on (--keeper)
"""

import os
import re
import signal
import socket
import subprocess
import threading
import time

from harness import (
    DEADLINE, LINGER, NAME, PROGRAM, SANITIZER, TOP, Client, Event, Stderr,
    WireError, argument, beside, children, descendants, environment, is_alive,
    kill, reap, until, where)

# LISTEN_PID has to be the program's own, and its sockets begin at 3. (dash
# knows no descriptor of two digits.)
BASH = '/bin/bash'
FIRST_SPARE_FD = 40


def listening_socket(family='inet', path=None, backlog=512,
                     kind=socket.SOCK_STREAM):
    """A socket on a port of the kernel's choice; 'dual' is [::] that takes
    IPv4, too."""
    if family == 'unix':
        s = socket.socket(socket.AF_UNIX, kind)
        s.bind(path)
    elif family == 'inet':
        s = socket.socket(socket.AF_INET, kind)
        s.bind(('127.0.0.1', 0))
    else:
        s = socket.socket(socket.AF_INET6, kind)
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY,
                     0 if family == 'dual' else 1)
        s.bind(('::' if family == 'dual' else '::1', 0))
    s.listen(backlog)
    return s


def free_port(family='inet'):
    """A port that was free a moment ago."""
    with socket.socket(
            socket.AF_INET6 if family == 'inet6' else socket.AF_INET) as s:
        s.bind(('::1' if family == 'inet6' else '127.0.0.1', 0))
        return s.getsockname()[1]


def open_files(pid):
    """{descriptor: what it is} (of our own programs only root may know)."""
    found = {}
    for n in os.listdir(f'/proc/{pid}/fd'):
        try:
            found[int(n)] = os.readlink(f'/proc/{pid}/fd/{n}')
        except OSError:
            pass
    return found


def status_of(pid, key):
    with open(f'/proc/{pid}/status') as f:
        return int(re.search(rf'^{key}:\s+(\d+)', f.read(), re.M).group(1))


def cpu_seconds(pid):
    with open(f'/proc/{pid}/stat', 'rb') as f:
        fields = f.read().rsplit(b') ', 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


class Service:
    """What Listener and Keeper have in common: a program that was given
    listening sockets, its log, and its end.

    way    how the sockets are given: 'fds' (LISTEN_FDS), 'fd0' (the first, on
           0, as inetd's wait does it) or 'none'
    names  LISTEN_FDNAMES
    uid    to be started as this user
    limits what to set before it starts, as prlimit's arguments
    umask  its own; -1: ours
    """

    def __init__(self, directives, sockets=(), way='fds', names=None, uid=None,
                 relay=None, env=None, args=(), limits=(), blocking=False,
                 umask=-1):
        words = [PROGRAM]
        for name, value in directives.items():
            if value is not None:
                words += argument(name, value)
        words += list(args)
        if relay is not None:
            words += ['--', *relay]
        if uid is not None:
            words = ['setpriv', '--reuid', str(uid), '--clear-groups', *words]
        if limits:
            words = ['prlimit', *limits, *words]
        self.sockets = list(sockets)
        self.clients = []
        self.exit_status = None
        env = environment(env)
        stdin, high = subprocess.DEVNULL, []
        stdout = subprocess.DEVNULL
        if way == 'fd0':
            stdin = stdout = self.sockets[0]
        elif way == 'fds':
            import fcntl
            high = [fcntl.fcntl(s.fileno(), fcntl.F_DUPFD, FIRST_SPARE_FD)
                    for s in self.sockets]
            moves = ''.join(f' {3 + i}<&{fd} {fd}<&-'
                            for i, fd in enumerate(high))
            words = [BASH, '-c', f'LISTEN_PID=$$ exec "$@"{moves}', 'sh',
                     *words]
            env['LISTEN_FDS'] = str(len(high))
            if names is not None:
                env['LISTEN_FDNAMES'] = names
        for s in self.sockets:
            # The flag is the description's: what systemd passes on blocks.
            s.setblocking(not blocking)
            s.setblocking(blocking)
        reader, writer = os.pipe()
        self.log = Stderr(reader)
        try:
            self.proc = subprocess.Popen(
                words, stdin=stdin, stdout=stdout, stderr=writer, env=env,
                pass_fds=high, start_new_session=True, umask=umask)
        finally:
            os.close(writer)
            for fd in high:
                os.close(fd)
        self.pid = self.proc.pid

    # its log

    def lines(self):
        text = self.log.text
        if SANITIZER.search(text):
            raise WireError(text)
        return text.splitlines()

    def events(self, name=None, **keys):
        found = [Event(line) for line in self.lines()
                 if re.match('(session|event)=', line)]
        return [e for e in found if (name is None or e.name == name) and
                all(e.get(k) == v for k, v in keys.items())]

    def await_event(self, name, count=1, seconds=DEADLINE, **keys):
        """The last of `count` such events."""
        return until(
            lambda: self.events(name, **keys)[count - 1:count],
            f'event {name} {keys}; log: {self.log.text}', seconds)[0]

    # its end

    def signal(self, number):
        os.kill(self.pid, number)

    def wait(self, seconds=LINGER):
        try:
            self.exit_status = self.proc.wait(seconds)
        except subprocess.TimeoutExpired:
            raise WireError(f'the program has not ended within {seconds} s; '
                            f'it is {where(self.pid)}; log: {self.log.text}'
                            ) from None
        self.log.ended.wait(1)  # what it said last is still on its way
        return self.exit_status

    def stop(self, seconds=LINGER, status=0):
        """SIGTERM, and the end that it should have."""
        self.signal(signal.SIGTERM)
        got = self.wait(seconds)
        if got != status:
            raise WireError(
                f'exit status {got}, not {status}; log: {self.log.text}')


class Listener(Service):
    def __init__(self, directives, **kw):
        super().__init__({'server_name': NAME, 'log': 'stderr', **directives},
                         **kw)

    def address(self, i=0):
        return self.sockets[i].getsockname()

    def connect(self, i=0, source=None, host=None, port=None, family=None):
        """A new client at socket `i`, or at a port of 127.0.0.1."""
        if family is None:
            family = socket.AF_INET if port or host and ':' not in host \
                else self.sockets[i].family
        s = socket.socket(family)
        s.settimeout(DEADLINE)
        if source:
            s.bind((source, 0))
        if family == socket.AF_UNIX:
            s.connect(self.address(i))
        else:
            where_to = '127.0.0.1' if family == socket.AF_INET else '::1'
            s.connect((host or where_to, port or self.address(i)[1]))
        c = Client(sock=s)
        self.clients.append(c)
        return c

    def session(self, **kw):
        """A client that has read the greeting."""
        c = self.connect(**kw)
        c.greeting()
        return c

    def keeper(self):
        """The pid of its keeper: the child that has threads."""
        return until(self.keepers, 'a keeper')[-1]

    def keepers(self):
        found = []
        for pid in children(self.pid):
            try:
                if status_of(pid, 'Threads') > 1:
                    found.append(pid)
            except (OSError, AttributeError):
                pass
        return sorted(found)

    def sessions(self):
        return [p for p in children(self.pid) if p not in self.keepers()]

    def await_sessions(self, n, seconds=DEADLINE):
        """Their pids, when there are as many."""
        self.keeper()  # has threads by now: it is not taken for one of them
        return until(lambda: len(self.sessions()) == n and (
            self.sessions() or [0]), f'{n} sessions of {self.pid}', seconds)


class Keeper(Service):
    def __init__(self, directives, **kw):
        kw.setdefault('args', ['--keeper'])
        super().__init__({'log': 'stderr', **directives}, **kw)


def clean_up(services):
    """Ends what a test has left running; returns complaints."""
    complaints = []
    family = set()
    for s in services:
        for c in getattr(s, 'clients', ()):
            c.close()
        family |= descendants(s.pid)
        if s.proc.poll() is None:
            s.signal(signal.SIGCONT)
            s.signal(signal.SIGTERM)
    end = time.monotonic() + LINGER
    for s in services:
        try:
            s.proc.wait(max(0.01, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            complaints.append(f'SIGTERM does not end it: {where(s.pid)}; '
                              f'log: {s.log.text}')
        family |= descendants(s.pid)
    family |= set(children(os.getpid())) - beside
    family -= {s.pid for s in services}
    while any(map(is_alive, family)) and time.monotonic() < end:
        time.sleep(0.005)
    for pid in family:
        if is_alive(pid):
            complaints.append(f'left over: {where(pid)}')
            kill(pid)
    for s in services:
        if s.proc.poll() is None:
            kill(s.pid)
            s.proc.wait(LINGER)
        s.log.ended.wait(1)
        if SANITIZER.search(s.log.text):
            complaints.append(s.log.text)
        for sock in s.sockets:
            sock.close()
    for pid in family:
        reap(pid)
    return complaints


# --- NOTIFY_SOCKET ---------------------------------------------------------

class NotifySocket:
    """systemd's end of sd_notify(3)."""

    def __init__(self, path):
        self.path = path
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.sock.bind(path)
        self.sock.settimeout(0.1)
        self.messages = []  # the lines of each
        self.ended = False
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while not self.ended:
            try:
                data = self.sock.recv(4096)
            except socket.timeout:
                continue
            except OSError:
                return
            self.messages.append(data.decode().splitlines())

    def lines(self):
        return [line for message in list(self.messages) for line in message]

    def await_line(self, pattern, count=1, seconds=DEADLINE):
        return until(lambda: [x for x in self.lines()
                              if re.fullmatch(pattern, x)][count - 1:count],
                     f'{pattern} {count} times; got {self.lines()}',
                     seconds)[0]

    def close(self):
        self.ended = True
        self.thread.join(DEADLINE)
        self.sock.close()


# --- the keeper's language -------------------------------------------------

def numbers():
    """({ASK_NAME: number}, {M_NAME: number}), from the header itself: the
    lists grow."""
    with open(os.path.join(TOP, 'lib', 'message.h')) as f:
        text = f.read()
    types = re.search(r'enum message_type \{(.*?)\n\}', text, re.S).group(1)
    rows = re.search(r'#define MESSAGE_FIELDS\(X\)(.*?)\n\n', text,
                     re.S).group(1)
    return ({name: i for i, name in enumerate(
                 re.findall(r'\b((?:ASK|ANSWER)_\w+)(?= = 1,|,)', types), 1)},
            {f'M_{name}': i for i, name in enumerate(
                 re.findall(r'X\((\w+)\)', rows))})


TYPES, FIELDS = numbers()
ASK_MECHANISMS, ASK_VERDICT, ASK_EXCHANGE, ASK_STEP, ASK_CERTIFICATES = (
    TYPES[x] for x in ('ASK_MECHANISMS', 'ASK_VERDICT', 'ASK_EXCHANGE',
                       'ASK_STEP', 'ASK_CERTIFICATES'))
ANSWER_MECHANISMS, ANSWER_VERDICT, ANSWER_CHALLENGE, ANSWER_FAILURE = (
    TYPES[x] for x in ('ANSWER_MECHANISMS', 'ANSWER_VERDICT',
                       'ANSWER_CHALLENGE', 'ANSWER_FAILURE'))


def packet(kind, **fields):
    """A message of lib/message.h; fields as M_NAME='value'."""
    data = bytes([kind])
    for name, value in fields.items():
        value = value.encode() if isinstance(value, str) else value
        data += bytes([FIELDS[name]]) + len(value).to_bytes(2, 'big') + \
            value + b'\0'
    return data


def unpack(data):
    """(type, {M_NAME: bytes}) of a message."""
    names, found, at = list(FIELDS), {}, 1
    while at < len(data):
        size = int.from_bytes(data[at + 1:at + 3], 'big')
        found[names[data[at]]] = data[at + 3:at + 3 + size]
        at += size + 4
    return data[0], found


def channel(address):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    s.settimeout(DEADLINE)
    s.connect(address)
    return s
