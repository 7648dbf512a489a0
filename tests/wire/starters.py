"""The programs that start a front end for each connection: systemd's, tcpserver
and xinetd, on a port that was free, with what they start ended with them."""

import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import time

import harness
from harness import DEADLINE, PROGRAM, TOP, children, is_alive, until

XINETD_ENTRY = os.path.join(TOP, 'units', 'smtp-frontd.xinetd')


def free_ports(n, host='127.0.0.1'):
    """Ports at which nobody listened just now."""
    sockets = [socket.socket(socket.AF_INET6 if ':' in host else
                             socket.AF_INET) for _ in range(n)]
    try:
        for s in sockets:
            s.bind((host, 0))
        return [s.getsockname()[1] for s in sockets]
    finally:
        for s in sockets:
            s.close()


def free_port(host='127.0.0.1'):
    return free_ports(1, host)[0]


def is_served(port):
    """Whether somebody listens; a connection would start a session."""
    for table in ('/proc/net/tcp', '/proc/net/tcp6'):
        with open(table) as f:
            for line in f.readlines()[1:]:
                words = line.split()
                if words[3] == '0A' and words[1].endswith(f':{port:04X}'):
                    return True
    return False


def systemd(program, host, port, folder):
    """The connection is descriptor 3."""
    address = f'[{host}]:{port}' if ':' in host else f'{host}:{port}'
    return ['systemd-socket-activate', '--accept', '-l', address, *program]


def systemd_inetd(program, host, port, folder):
    """The connection is descriptor 0 (and 1)."""
    words = systemd(program, host, port, folder)
    return words[:1] + ['--inetd'] + words[1:]


def tcpserver(program, host, port, folder):
    return ['tcpserver', '-HRl0', host, str(port), *program]


def xinetd(program, host, port, folder):
    """With the entry that is installed, but for what a test cannot have.
    Descriptor 2 is the client here."""
    with open(XINETD_ENTRY) as f:
        entry = f.read()
    # Blanks part arguments, whatever the quotes.
    assert not any(' ' in word for word in program)
    own = {'disable': 'no', 'port': port, 'bind': host,
           'user': pwd.getpwuid(os.getuid()).pw_name, 'server': program[0],
           'server_args': ' '.join(program[1:])}
    for name, value in own.items():
        entry, n = re.subn(rf'(?m)^(\t{name} +=).*$', rf'\1 {value}', entry)
        if n == 0:
            entry = entry.replace('{\n', '{\n\t%s = %s\n' % (name, value))
    if ':' not in host:
        entry = re.sub(r'(?m)^\tflags .*\n', '', entry)
    path = os.path.join(folder, 'xinetd.conf')
    with open(path, 'w') as f:
        f.write(entry)
    return ['xinetd', '-dontfork', '-stayalive', '-f', path, '-pidfile',
            os.path.join(folder, 'xinetd.pid'), '-filelog',
            os.path.join(folder, 'xinetd.log')]


class Starter:
    """A front end that is started for each connection to .port.

    how         one of the functions above
    directives  as for harness.Session, by a --config file
    relay       the program after "--"
    """

    def __init__(self, how, folder, directives, relay=None,
                 host='127.0.0.1', env=None):
        self.host = host
        self.log = os.path.join(folder, 'front.log')
        config = os.path.join(folder, 'front.conf')
        write_config(config, {'server_name': harness.NAME, **directives})
        program = [PROGRAM, '--config', config]
        if how is not xinetd:
            program += ['--log', 'stderr']
        if relay is not None:
            program += ['--', *relay]
        for _ in range(5):
            self.port = free_port(host)
            self.start(how(program, host, self.port, folder), env)
            if self.proc.poll() is None:
                return
        with open(self.log) as f:
            raise harness.WireError(f'{how.__name__}: {f.read()}')

    def start(self, words, env):
        with open(self.log, 'a') as log:
            self.proc = subprocess.Popen(
                words, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                env=harness.environment(env), start_new_session=True)
        until(lambda: is_served(self.port) or self.proc.poll() is not None,
              f'{words[0]} listens')

    def connect(self, source=None):
        sock = socket.create_connection(
            (self.host, self.port), timeout=DEADLINE,
            source_address=(source, 0) if source else None)
        sock.setblocking(True)
        return harness.Client(sock=sock)

    def events(self, name=None):
        with open(self.log) as f:
            found = [harness.Event(line.rstrip('\n')) for line in f
                     if line.startswith('session=')]
        return [e for e in found if name is None or e.name == name]

    def await_event(self, name):
        return until(lambda: self.events(name), f'event {name}')[0]

    def await_quiet(self):
        """Until every session has ended."""
        until(lambda: not children(self.proc.pid), 'the sessions\' end')

    def stop(self):
        """Ends the starter, and the sessions that it has started."""
        try:
            os.killpg(self.proc.pid, signal.SIGTERM)
        except ProcessLookupError:
            pass
        self.proc.wait(DEADLINE)
        end = time.monotonic() + DEADLINE
        left = [p for p in map(int, filter(str.isdigit, os.listdir('/proc')))
                if is_in_group(p, self.proc.pid)]
        while any(map(is_alive, left)) and time.monotonic() < end:
            time.sleep(0.005)
        for pid in left:
            harness.kill(pid)
            harness.reap(pid)
        with open(self.log) as f:
            text = f.read()
        if harness.SANITIZER.search(text):
            raise harness.WireError(text)


def is_in_group(pid, group):
    try:
        return os.getpgid(pid) == group
    except ProcessLookupError:
        return False


def write_config(path, directives):
    """As a file has them: an item with a blank in quotes of its own."""
    with open(path, 'w') as f:
        for name, value in directives.items():
            if value is None:
                continue
            items = value if isinstance(value, (list, tuple)) else [value]
            if len(items) > 1 or name == 'smtp_capabilities':
                items = [f'"{x}"' if ' ' in x else x for x in items]
            name = name if name.startswith('smtp_') else 'smtp_' + name
            f.write(f"{name.upper()}='{' '.join(map(str, items))}'\n")


def has(*programs):
    return all(map(shutil.which, programs))
