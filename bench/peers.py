"""The programs that the benchmark starts: its own small ones, compiled from
the C files beside this one, and nginx. All on free ports of 127.0.0.1, all in
one temporary folder, all ended by their process ids."""

import os
import shutil
import socket
import subprocess
import time

HERE = os.path.dirname(os.path.abspath(__file__))
NGINX_MODULE = '/usr/lib/nginx/modules/ngx_mail_module.so'
LIBRARIES = {'client': ['-lssl', '-lcrypto'], 'load': ['-lssl', '-lcrypto'],
             'sink': ['-pthread'], 'authd': ['-pthread'], 'spawn': [],
             'fork': []}
STAND_ALONE = {'line': [], 'tls-once': ['-lssl', '-lcrypto']}
PATIENCE = 300


class Failure(Exception):
    """A measurement that could not be made, with the reason."""


def nginx_program():
    """Debian's nginx with its mail module, or None."""
    path = shutil.which('nginx', path=os.environ.get('PATH', '') + ':/usr/sbin')
    return path if path and os.path.exists(NGINX_MODULE) else None


class Bench:
    """What the figures are measured with.

    program  the smtp-frontd that is measured
    folder   a temporary folder, the owner's to remove
    """

    def __init__(self, build, folder):
        self.program = os.path.join(build, 'sbin', 'smtp-frontd')
        self.tools = os.path.join(build, 'bench')
        self.folder = folder
        self.running = []
        self.worker = None
        self.nginx_port = None
        self.log = open(self.path('log'), 'ab')

    def path(self, name):
        return os.path.join(self.folder, name)

    # Set-up

    def compile(self):
        os.makedirs(self.tools, exist_ok=True)
        common = [os.path.join(HERE, 'net.c')]
        for table, extra in ((LIBRARIES, common), (STAND_ALONE, [])):
            for name, libraries in table.items():
                source = os.path.join(HERE, name + '.c')
                subprocess.run(
                    [*os.environ.get('CC', 'cc').split(), '-std=c11',
                     '-D_GNU_SOURCE', '-O2', '-Wall', '-Wextra', '-o',
                     os.path.join(self.tools, name), source, *extra,
                     *libraries], check=True)

    def make_files(self):
        """A certificate (ECDSA P-256) and a user with a plain password."""
        subprocess.run(
            ['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt',
             'ec_paramgen_curve:prime256v1', '-nodes', '-days', '30', '-subj',
             '/CN=bench.example', '-keyout', self.path('key'), '-out',
             self.path('cert')], check=True, stderr=subprocess.DEVNULL)
        with open(self.path('users'), 'w') as f:
            f.write('bench:{PLAIN}secret\n')
        os.chmod(self.path('users'), 0o600)

    def start_servers(self):
        self.sink = self.start(self.tool('sink'))
        self.authd = self.start(self.tool('authd'), str(self.sink))

    # Processes

    def tool(self, name):
        return os.path.join(self.tools, name)

    def popen(self, *words, wait_for_us=False):
        p = subprocess.Popen(
            words, stdout=subprocess.PIPE,
            stdin=subprocess.PIPE if wait_for_us else subprocess.DEVNULL,
            stderr=self.log, text=True, cwd=self.folder,
            env={'PATH': '/usr/sbin:/usr/bin:/sbin:/bin'})
        self.running.append(p)
        return p

    def start(self, *words):
        """The port of a server that tells it in its first line."""
        return int(self.popen(*words).stdout.readline())

    def finish(self, process):
        """The lines of a process that ends by itself."""
        try:
            out, _ = process.communicate(timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            raise Failure(f'{process.args[0]} does not end') from None
        self.running.remove(process)
        if process.returncode != 0:
            raise Failure(f'{" ".join(process.args[:4])} ...: status '
                          f'{process.returncode}: {self.last_words()}')
        return [line.split() for line in out.splitlines()]

    def last_words(self):
        with open(self.path('log'), errors='replace') as f:
            return ' | '.join(f.read().splitlines()[-3:])

    def stop(self):
        for p in self.running:
            p.terminate()
        for p in self.running:
            try:
                p.wait(5)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        self.running = []

    # The front end and its yardsticks

    def frontd(self, log='stderr', **directives):
        """The command line of a submission service."""
        words = {'server_name': 'bench.example', 'log': log,
                 'auth_provider': 'file:' + self.path('users'),
                 'backend': f'127.0.0.1:{self.sink}', 'starttls': 'only',
                 'smtp_capabilities': '8BITMIME',
                 'ssl_certificate': self.path('cert'),
                 'ssl_certificate_key': self.path('key'), **directives}
        return [self.program] + [
            word for name, value in words.items()
            for word in ('--' + name.replace('_', '-'), value)]

    def spawn(self, way, times, command, logs=False):
        """CPU and CPU at the first line, in milliseconds, of each of `times`
        processes (ways greet and early of spawn.c)."""
        lines = self.finish(self.popen(
            self.tool('spawn'), *(['-l'] if logs else []), way, str(times),
            *command))
        return costs(lines)

    def serve(self, command, times, *client):
        """Sessions through a process each: their costs as spawn.c has them,
        and what client.c says of them."""
        server = self.popen(
            self.tool('spawn'), 'serve', str(times), *command)
        port = int(server.stdout.readline())
        said = self.client(port, times, *client)
        return costs(self.finish(server)), said

    def client(self, port, times, *words):
        """(milliseconds, of the longest step, its name, of the message) of
        each session."""
        lines = self.finish(self.popen(
            self.tool('client'), *words, '-w', '5', '-n', str(times),
            str(port)))
        return [(int(w) / 1000, int(s) / 1000, name, int(m) / 1000)
                for w, s, name, m in lines]

    # nginx

    def start_nginx(self):
        program = nginx_program()
        if program is None:
            raise Failure('nginx with its mail module is not installed: '
                          'bench/setup does that')
        self.nginx_port = free_port()
        with open(self.path('nginx.conf'), 'w') as f:
            f.write(f"""
load_module {NGINX_MODULE};
daemon off;
worker_processes 1;
pid {self.path('nginx.pid')};
error_log {self.path('nginx.log')} warn;
events {{ worker_connections 512; }}
mail {{
    server_name bench.example;
    auth_http 127.0.0.1:{self.authd}/auth;
    ssl_certificate {self.path('cert')};
    ssl_certificate_key {self.path('key')};
    server {{
        listen 127.0.0.1:{self.nginx_port};
        protocol smtp;
        smtp_auth plain;
        starttls on;
    }}
}}
""")
        p = self.popen(program, '-c', self.path('nginx.conf'),
                       '-e', self.path('nginx.log'))
        self.worker = await_worker(p, self.nginx_port)

    def nginx_cpu(self):
        """Milliseconds of CPU that nginx's worker has had."""
        # The clock of another process, as clock_getcpuclockid(3) names it.
        return time.clock_gettime(~self.worker << 3 | 2) * 1000


def costs(lines):
    """Of spawn's lines: (CPU, CPU at the line, faults, switches)."""
    bad = [line for line in lines if line[4] != '0']
    if bad:
        raise Failure(f'exit status {bad[0][4]}')
    return [(int(c) / 1000, int(at) / 1000, int(f), int(s))
            for c, at, f, s, _ in lines]


def free_port():
    with socket.create_server(('127.0.0.1', 0)) as s:
        return s.getsockname()[1]


def await_worker(master, port):
    """The process id of nginx's one worker, when it accepts."""
    for _ in range(200):
        time.sleep(0.05)
        try:
            socket.create_connection(('127.0.0.1', port)).close()
            with open(f'/proc/{master.pid}/task/{master.pid}/children') as f:
                return int(f.read().split()[0])
        except (OSError, IndexError):
            if master.poll() is not None:
                break
    raise Failure('nginx does not start')
