"""The machine that ./pid1 boots, as the tests see it: what is installed in it,
its units, its processes and its journal.

The tests themselves run outside. They step into its network (Machine.network),
so that their clients, backends and auth servers are there on loopback, and
reach its files by /proc/PID/root.
"""

import contextlib
import ctypes
import json
import os
import re
import select
import subprocess
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(TOP, 'tests', 'wire'))

import harness  # noqa: E402

BUILD = harness.BUILD
PORTS = {'submission': 587, 'submissions': 465, 'mx': 25}
# Addresses of "far" clients, all on the machine's loopback interface.
FAR = ['192.0.2.7', '192.0.2.8', '2001:db8::7', '2001:db8::8',
       '2001:db8:0:1::7']
# Seconds for hundreds of starts on a machine that has other things to do.
PATIENCE = 90.0
CLONE_NEWNET = 0x40000000
# Who is in the password file, with what, stored in which way.
USERS = {'alice': ('wonderland', 'plain'), 'yes': ('crypt', 'yescrypt'),
         'salt': ('pepper', 'scram-sha-256')}


class CannotBoot(Exception):
    pass


class Machine:
    """Boots in its constructor; stop() ends it, and so does our own end."""

    def __init__(self):
        self.helper = subprocess.Popen(
            [os.path.join(HERE, 'pid1')], stdin=subprocess.PIPE, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            start_new_session=True, env={
                'PATH': '/usr/sbin:/usr/bin:/sbin:/bin',
                'SMTP_FRONTD_BUILD': BUILD})
        words = self.helper.stdout.readline().split()
        if words[:1] != ['ready']:
            raise CannotBoot(self.helper.communicate()[1].strip())
        self.pid, self.cgroup = int(words[1]), words[2]
        self.root = f'/proc/{self.pid}/root'
        self.env = {'PATH': '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin'
                    ':/sbin:/bin', 'LANG': 'C', 'HOME': '/root'}
        for address in FAR:
            self.run('ip', 'address', 'add', address, 'dev', 'lo')
        self.journal = Journal(self)

    def stop(self):
        self.helper.communicate()
        self.journal.stop()

    @contextlib.contextmanager
    def network(self):
        """This thread, and those that it begins, are in its network."""
        setns = ctypes.CDLL(None, use_errno=True).setns
        ours = os.open('/proc/thread-self/ns/net', os.O_RDONLY)
        theirs = os.open(f'/proc/{self.pid}/ns/net', os.O_RDONLY)
        try:
            assert setns(theirs, CLONE_NEWNET) == 0, \
                os.strerror(ctypes.get_errno())
            yield
        finally:
            setns(ours, CLONE_NEWNET)
            os.close(ours)
            os.close(theirs)

    # commands and files

    def popen(self, *command, **kw):
        return subprocess.Popen(
            ['nsenter', '-t', str(self.pid), '-a', '--', *command],
            env=self.env, stdin=subprocess.DEVNULL, text=True, **kw)

    def run(self, *command, check=True, seconds=60):
        """What the command says on both of its streams."""
        with self.popen(*command, stdout=subprocess.PIPE,
                        stderr=subprocess.STDOUT) as p:
            try:
                said = p.communicate(timeout=seconds)[0]
            except subprocess.TimeoutExpired:
                p.kill()
                raise
        if check and p.returncode != 0:
            raise AssertionError(
                f'{" ".join(command)}: exit status {p.returncode}\n{said}')
        return said

    def write(self, path, text, mode=0o644, group=0):
        new = self.root + path + '.new'
        os.makedirs(os.path.dirname(new), exist_ok=True)
        with open(new, 'w') as f:
            os.fchmod(f.fileno(), mode)
            os.fchown(f.fileno(), 0, group)
            f.write(text)
        os.rename(new, self.root + path)

    def read(self, path):
        with open(self.root + path) as f:
            return f.read()

    # units

    def systemctl(self, *words, **kw):
        return self.run('systemctl', '--no-pager', *words, **kw)

    def property(self, unit, name):
        return self.systemctl('show', '-P', name, unit).strip()

    def units(self, pattern, *options):
        """The names of the loaded units that match."""
        lines = self.systemctl('list-units', '--no-legend', '--plain',
                               '--full', '--all', *options, pattern)
        return [line.split()[0] for line in lines.splitlines() if line]

    def failed_units(self):
        return self.units('*', '--state=failed')

    def drop_in(self, unit, text):
        """Adds to a unit what is set in `text` (None: nothing any more)."""
        path = f'/etc/systemd/system/{unit}.d/test.conf'
        if text is not None:
            self.write(path, text)
        elif os.path.exists(self.root + path):
            os.unlink(self.root + path)
        self.systemctl('daemon-reload')

    def processes(self, unit='smtp-frontd*'):
        """The ids, as seen from outside, of what lives in the control groups
        of units whose names begin so."""
        found = []
        name = re.compile(re.escape(unit).replace(r'\*', '.*') + '$')
        for folder, _, _ in os.walk(self.cgroup):
            if name.match(os.path.basename(folder)):
                try:
                    with open(folder + '/cgroup.procs') as f:
                        found += [int(pid) for pid in f.read().split()]
                except OSError:  # it has gone meanwhile
                    pass
        return [pid for pid in found if harness.is_alive(pid)]

    def cpu(self):
        """Microseconds that the whole machine has had of the processors."""
        with open(self.cgroup + '/cpu.stat') as f:
            return int(re.search(r'usage_usec (\d+)', f.read()).group(1))

    # the program

    def install(self):
        """As an administrator does: make install, the user, certificate and
        passwords where the directives say."""
        self.run('make', '-s', '-C', TOP, 'install', f'B={BUILD}')
        self.run('systemd-sysusers')
        self.systemctl('daemon-reload')
        self.number_user()
        self.run('openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
                 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '30',
                 '-subj', '/CN=' + harness.NAME, '-keyout',
                 '/etc/smtp-frontd/key.pem', '-out',
                 '/etc/smtp-frontd/cert.pem')
        self.secret('/etc/smtp-frontd/key.pem',
                    self.read('/etc/smtp-frontd/key.pem'))
        self.users = '/etc/smtp-frontd/users'
        for name, (password, scheme) in USERS.items():
            self.run('sh', '-c', f'echo {password} | smtp-frontd-passwd '
                     f'$(test -e {self.users} || echo -c) -s {scheme} '
                     f'{self.users} {name}')
        self.secret(self.users, self.read(self.users))
        self.shipped = {}

    def number_user(self):
        """The user that was made gets a number which no other machine beside
        this one has: by it the kernel's log knows whose process was killed."""
        passwd = self.read('/etc/passwd')
        uid, gid = re.search(
            r'^smtp-frontd:[^:]*:(\d+):(\d+):', passwd, re.M).groups()
        self.uid, self.gid = 40000 + self.pid % 20000, int(gid)
        self.uids = {self.uid}
        self.write('/etc/passwd', re.sub(
            rf'^(smtp-frontd:[^:]*:){uid}:', rf'\g<1>{self.uid}:', passwd,
            flags=re.M))

    def secret(self, path, text):
        """For the sessions' group to read, and nobody to write."""
        self.write(path, text, 0o640, self.gid)

    def hosts(self, text):
        self.write('/etc/hosts', f'127.0.0.1 localhost pid1\n{text}\n')

    def configure(self, name, **directives):
        """The directives as they are shipped, and after them ours."""
        path = f'/etc/smtp-frontd/{name}.conf'
        if name not in self.shipped:
            mode = os.stat(self.root + path).st_mode & 0o777
            self.shipped[name] = self.read(path), mode
        text, mode = self.shipped[name]
        for key, value in {'server_name': harness.NAME, **directives}.items():
            key = key.upper()
            key = key if key.startswith('SMTP_') else 'SMTP_' + key
            text += f"{key}='{value}'\n"
        self.write(path, text, mode)


def status(pid):
    """/proc/PID/status as a dictionary; empty when it has gone."""
    try:
        with open(f'/proc/{pid}/status') as f:
            return dict(re.findall(r'(\w+):[ \t]*(.*)', f.read()))
    except OSError:
        return {}


def parent(pid):
    return int(status(pid).get('PPid', 0))


class Journal:
    """Follows the machine's journal: all entries since its boot, as
    dictionaries."""

    def __init__(self, machine):
        self.entries = []
        self.machine = machine
        self.process = machine.popen(
            'journalctl', '-o', 'json', '--all', '-f', '-n', 'all',
            stdout=subprocess.PIPE)
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        for line in self.process.stdout:
            self.entries.append(json.loads(line))

    def stop(self):
        """After the end of the machine, and with it of journalctl."""
        self.process.wait()
        self.thread.join()
        self.process.stdout.close()

    @staticmethod
    def mark():
        """Now, as the journal writes it."""
        return time.time_ns() // 1000

    def since(self, mark, **fields):
        """Entries with those fields that were sent after the mark; a value
        True: whatever it is."""
        return [e for e in list(self.entries) if when(e) >= mark and all(
            key in e and (value is True or e[key] == str(value))
            for key, value in fields.items())]

    def await_event(self, mark, name, count=1, **fields):
        """The first event of that name, once there are so many of them."""
        def enough():
            found = self.since(mark, SMTP_EVENT=name, **fields)
            return found if len(found) >= count else None
        try:
            return harness.until(enough, f'event {name} {fields}')[0]
        except harness.WireError as e:
            raise harness.WireError(
                f'{e}; there are\n{self.text(mark)}') from None

    def text(self, mark=0):
        return '\n'.join(f'{e.get("SYSLOG_IDENTIFIER")}: {e.get("MESSAGE")}'
                         for e in self.since(mark))


def when(entry):
    return int(entry.get('_SOURCE_REALTIME_TIMESTAMP',
                         entry['__REALTIME_TIMESTAMP']))


class KernelLog:
    """What the kernel says from now on: it names a process that a filter of
    system calls has killed, even one that nobody waits for."""

    def __init__(self):
        self.fd = os.open('/dev/kmsg', os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self.fd, 0, os.SEEK_END)

    def close(self):
        os.close(self.fd)

    def killed(self, uids):
        """Lines of audit about the processes of those users."""
        found = []
        while select.select([self.fd], [], [], 0)[0]:
            try:
                line = os.read(self.fd, 8192).decode(errors='replace')
            except BrokenPipeError:  # the oldest are overwritten
                continue
            if 'type=1326' in line and \
                    any(f' uid={uid} ' in line for uid in uids):
                found.append(line.strip())
        return found
