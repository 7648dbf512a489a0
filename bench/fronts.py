"""The front ends that one run puts the same sessions through, and what the
kernel counts for each: the program, all that it starts, and nothing else."""

import contextlib
import os
import re
import shutil
import socket
import subprocess
import time

from peers import NGINX_MODULE, Failure, free_port, nginx_program

TICK = os.sysconf('SC_CLK_TCK')
IDLE_MS = 0.5  # a front end that has used less in SETTLE has come to rest
SETTLE = 0.05


def cgroup2():
    """The folder of our own group in cgroup v2, or None."""
    with contextlib.suppress(OSError), open('/proc/self/cgroup') as f:
        mine = re.search(r'^0::(/.*)$', f.read(), re.MULTILINE)
        with open('/proc/self/mounts') as mounts:
            for line in mounts:
                _, where, kind, *_ = line.split()
                if kind == 'cgroup2' and mine:
                    return where + mine[1].rstrip('/')
    return None


def processes():
    """(process, parent, milliseconds of it and of its ended children)."""
    for pid in filter(str.isdigit, os.listdir('/proc')):
        with contextlib.suppress(OSError), open(f'/proc/{pid}/stat') as f:
            fields = f.read().rpartition(')')[2].split()
            yield (int(pid), int(fields[1]),
                   sum(map(int, fields[11:15])) * 1000 / TICK)


def tree(root):
    """The processes below `root`, with it: {process: milliseconds}."""
    everyone = list(processes())
    found = {pid: ms for pid, _, ms in everyone if pid == root}
    grown = True
    while grown:
        more = {pid: ms for pid, parent, ms in everyone
                if parent in found and pid not in found}
        found.update(more)
        grown = bool(more)
    return found


class Group:
    """A process and all that it starts: a control group where one can be made
    (cgroup v2), else what /proc says of the tree."""

    def __init__(self, name):
        self.folder = self.root = None
        own = cgroup2()
        if own is not None:
            folder = f'{own}/smtp-frontd-bench.{os.getpid()}.{name}'
            with contextlib.suppress(OSError):
                os.mkdir(folder)
                self.folder = folder

    def enter(self):
        """In the process that is to be the first of the group."""
        if self.folder is not None:
            with open(self.folder + '/cgroup.procs', 'w') as f:
                f.write('0')

    def read(self, name):
        with open(f'{self.folder}/{name}') as f:
            return f.read()

    def pids(self):
        if self.folder is None:
            return list(tree(self.root))
        return [int(pid) for pid in self.read('cgroup.procs').split()]

    def cpu(self):
        """Milliseconds of all that is and was."""
        if self.folder is None:
            return sum(tree(self.root).values())
        usage = re.search(r'^usage_usec (\d+)', self.read('cpu.stat'),
                          re.MULTILINE)
        return int(usage[1]) / 1000

    def cpu_at_rest(self):
        """The same, when nothing goes on any more."""
        before = self.cpu()
        for _ in range(100):
            time.sleep(SETTLE)
            now = self.cpu()
            if now - before < IDLE_MS:
                return now
            before = now
        raise Failure('a front end does not come to rest')

    def memory(self):
        """(octets, how they were counted), the kernel's for it included."""
        if self.folder is not None and \
                os.path.exists(self.folder + '/memory.current'):
            return int(self.read('memory.current')), 'cgroup memory.current'
        return (sum(map(pss, self.pids())) + kernel_memory(),
                "PSS, and the system's Slab, PageTables and KernelStack")

    def close(self):
        if self.folder is None:
            return
        for _ in range(100):
            with contextlib.suppress(OSError):
                os.rmdir(self.folder)
                return
            time.sleep(0.05)


def pss(pid):
    with contextlib.suppress(OSError), \
            open(f'/proc/{pid}/smaps_rollup') as f:
        return kilobytes(f.read(), 'Pss')
    return 0


def kernel_memory():
    with open('/proc/meminfo') as f:
        text = f.read()
    return sum(kilobytes(text, name)
               for name in ('Slab', 'PageTables', 'KernelStack'))


def kilobytes(text, name):
    return int(re.search(rf'^{name}:\s+(\d+)', text, re.MULTILINE)[1]) * 1024


class Front:
    """A front end that runs.

    name   what it is called in the tables
    ports  by kind: plain (with STARTTLS, if it has that) and tls
    """

    def __init__(self, bench, key, name, plain, tls, words):
        self.name = name
        self.ports = {'plain': plain, 'tls': tls}
        self.group = Group(key)
        self.process = subprocess.Popen(
            words, stdin=subprocess.DEVNULL, stdout=bench.log,
            stderr=bench.log, cwd=bench.folder, preexec_fn=self.group.enter,
            env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin'})
        self.group.root = self.process.pid
        bench.running.append(self.process)
        self.bench = bench
        try:
            self.await_greeting()
        except Failure:
            self.stop()
            raise

    def await_greeting(self):
        until = time.monotonic() + 10
        while time.monotonic() < until and self.process.poll() is None:
            with contextlib.suppress(OSError), socket.create_connection(
                    ('127.0.0.1', self.ports['plain']), 5) as s:
                if s.recv(100).startswith(b'220'):
                    return
            time.sleep(0.05)
        raise Failure(f'{self.name} does not start: '
                      f'{self.bench.last_words()}')

    def stop(self):
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.bench.running.remove(self.process)
        self.group.close()


# Each makes one front end, or fails with what is missing.

def write(bench, name, text):
    with open(bench.path(name), 'w') as f:
        f.write(text)
    return bench.path(name)


def needed(found, package):
    if not found:
        raise Failure(f'{package} is not installed: bench/setup does that')
    return found


def frontd(bench, key='ours'):
    plain, tls = free_port(), free_port()
    words = bench.frontd(
        starttls='on', listen=f'127.0.0.1:{plain}',
        auth_provider=f'http://127.0.0.1:{bench.authd}/auth',
        max_connections='20000', max_connections_per_source='20000',
        status_file=bench.path(key + '.status'))
    return Front(bench, key, 'smtp-frontd', plain, tls,
                 words + ['--listen', f'127.0.0.1:{tls} ssl'])


def nginx(bench):
    program = needed(nginx_program(), 'nginx with its mail module')
    plain, tls = free_port(), free_port()
    conf = write(bench, 'nginx2.conf', f"""
load_module {NGINX_MODULE};
daemon off;
worker_processes 2;
worker_rlimit_nofile 20000;
pid {bench.path('nginx2.pid')};
error_log {bench.path('nginx2.log')} warn;
events {{ worker_connections 10000; }}
mail {{
    server_name bench.example;
    auth_http 127.0.0.1:{bench.authd}/auth;
    ssl_certificate {bench.path('cert')};
    ssl_certificate_key {bench.path('key')};
    server {{
        listen 127.0.0.1:{plain};
        protocol smtp;
        smtp_auth plain;
        starttls on;
    }}
    server {{
        listen 127.0.0.1:{tls} ssl;
        protocol smtp;
        smtp_auth plain;
    }}
}}
""")
    return Front(bench, 'nginx', 'nginx', plain, tls,
                 [program, '-c', conf, '-e', bench.path('nginx2.log')])


def dovecot(bench, key, name, service):
    program = needed(shutil.which('dovecot', path='/usr/sbin'), 'dovecot-core')
    needed(os.path.exists('/usr/lib/dovecot/submission-login'),
           'dovecot-submissiond')
    plain = free_port()
    conf = write(bench, key + '.conf', f"""
base_dir = {bench.path(key)}
state_dir = {bench.path(key)}
log_path = {bench.path(key + '.log')}
instance_name = smtp-frontd-bench-{key}
protocols = submission
listen = 127.0.0.1
hostname = bench.example
ssl = yes
ssl_cert = <{bench.path('cert')}
ssl_key = <{bench.path('key')}
disable_plaintext_auth = no
mail_max_userip_connections = 0
auth_cache_size = 1M
passdb {{
  driver = static
  args = nopassword=y proxy=y host=127.0.0.1 port={bench.sink}
}}
service submission-login {{
  {service}
  process_limit = 1000
  inet_listener submission {{
    address = 127.0.0.1
    port = {plain}
  }}
}}
""")
    return Front(bench, key, name, plain, None, [program, '-F', '-c', conf])


def dovecot_one(bench):
    return dovecot(bench, 'dovecot-one', 'Dovecot, a process a connection',
                   'service_count = 1')


def dovecot_many(bench):
    return dovecot(bench, 'dovecot-many', 'Dovecot, high-performance',
                   'service_count = 0\n  process_min_avail = 2\n'
                   '  client_limit = 10000')


def haproxy(bench):
    program = needed(shutil.which('haproxy', path='/usr/sbin'), 'haproxy')
    plain, tls = free_port(), free_port()
    with open(bench.path('cert')) as cert, open(bench.path('key')) as key:
        both = write(bench, 'both.pem', cert.read() + key.read())
    conf = write(bench, 'haproxy.cfg', f"""
global
    nbthread 2
    maxconn 4000
defaults
    mode tcp
    option splice-auto
    timeout connect 10s
    timeout client 900s
    timeout server 900s
listen plain
    bind 127.0.0.1:{plain}
    server sink 127.0.0.1:{bench.sink}
listen tls
    bind 127.0.0.1:{tls} ssl crt {both}
    server sink 127.0.0.1:{bench.sink}
""")
    return Front(bench, 'haproxy', 'HAProxy, TCP', plain, tls,
                 [program, '-db', '-f', conf])


def fork(bench):
    plain = free_port()
    return Front(bench, 'fork', 'a fork, a line and the end', plain, None,
                 [bench.tool('fork'), str(plain)])


# By the names that the figures know them by.
MAKERS = {'ours': frontd, 'nginx': nginx, 'dovecot one': dovecot_one,
          'dovecot many': dovecot_many, 'haproxy': haproxy}
NOTES = """\
  One sink and one HTTP auth server for all. Dovecot's judge is its own static
  passdb with proxy=y, host= and port=, so it asks no HTTP server. HAProxy asks
  nobody and speaks no SMTP: its client authenticates to the sink, and its TLS
  begins with the first octet."""
