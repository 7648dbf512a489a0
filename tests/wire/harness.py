"""The wire suite's workshop: starts the program, plays its client.

Session   one run of the program with a client at its other end
Client    that client: exact bytes in both directions, in the clear or TLS
Program   directives to arguments, ways of starting, the log as events

The fakes that stand behind the program are in fakes.py. Every wait in here has
a deadline; nothing sleeps in the hope that something has happened meanwhile.
"""

import ctypes
import os
import re
import select
import signal
import socket
import ssl
import struct
import subprocess
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
TOP = os.path.dirname(os.path.dirname(HERE))
BUILD = os.path.abspath(
    os.environ.get('SMTP_FRONTD_BUILD', os.path.join(TOP, 'build')))
PROGRAM = os.path.join(BUILD, 'sbin', 'smtp-frontd')
RELAYS = os.path.join(HERE, 'relays')
NAME = 'front.example'

# The longest wait for anything that should happen at once.
DEADLINE = 10.0
# How long the program may live on after its client has left.
LINGER = 5.0

PR_SET_CHILD_SUBREAPER = 36
SANITIZER = re.compile(
    r'ERROR: \w*Sanitizer|runtime error:|WARNING: \w*Sanitizer')


class WireError(AssertionError):
    """What came over the wire is not what had to come."""


# --- processes -------------------------------------------------------------

def adopt_orphans():
    """Descendants of the program whose parent has gone become our children,
    so that none of them can hide (a keeper, a relay)."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


# Children of ours that are no part of the program: the tests' own.
beside = set()


def children(pid, alive=True):
    """The child processes of `pid`: the living ones, or zombies as well."""
    found = []
    try:
        for task in os.listdir(f'/proc/{pid}/task'):
            with open(f'/proc/{pid}/task/{task}/children') as f:
                found += [int(word) for word in f.read().split()]
    except OSError:
        pass
    return [child for child in found if not alive or is_alive(child)]


def state(pid):
    """The state letter of /proc/PID/stat; '' when there is no process."""
    try:
        with open(f'/proc/{pid}/stat', 'rb') as f:
            return f.read().rsplit(b') ', 1)[1][:1].decode()
    except OSError:
        return ''


def is_alive(pid):
    return state(pid) not in ('', 'Z', 'X')


def command_of(pid):
    try:
        with open(f'/proc/{pid}/cmdline', 'rb') as f:
            return f.read().replace(b'\0', b' ').decode(errors='replace')
    except OSError:
        return '?'


def memory(pid):
    """Resident memory in KiB, of the process and its children."""
    total = 0
    for one in [pid] + children(pid):
        try:
            with open(f'/proc/{one}/status') as f:
                total += int(re.search(r'VmRSS:\s+(\d+)', f.read()).group(1))
        except (OSError, AttributeError):
            pass
    return total


def until(condition, what, seconds=DEADLINE):
    """Polls until condition() is true and returns its value."""
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise WireError(f'{what}: not within {seconds} s')
        time.sleep(0.005)


# --- the log ---------------------------------------------------------------

PAIR = re.compile(r'([A-Za-z0-9_-]+)=("(?:[^"\\]|\\.)*"|[^\s"]*)(?: |$)')


class Event(dict):
    """One line of the log: .name is its event=, the rest are its keys."""

    def __init__(self, line):
        super().__init__()
        self.line = line
        self.keys_in_order = []
        at = 0
        while at < len(line):
            m = PAIR.match(line, at)
            if m is None:
                raise WireError(f'not a log line: {line!r}')
            value = m.group(2)
            if value.startswith('"'):
                value = re.sub(
                    r'\\(x[0-9A-Fa-f]{2}|.)', unescape, value[1:-1])
            self.keys_in_order.append(m.group(1))
            self[m.group(1)] = value
            at = m.end()
        self.name = self.get('event')


def unescape(m):
    code = m.group(1)
    return chr(int(code[1:], 16)) if len(code) == 3 else code


class Stderr(threading.Thread):
    """Collects the program's standard error, and that of its children."""

    def __init__(self, fd):
        super().__init__(daemon=True)
        self.fd = fd
        self.data = bytearray()
        self.ended = threading.Event()
        self.start()

    def run(self):
        while True:
            try:
                data = os.read(self.fd, 65536)
            except OSError:
                data = b''
            if not data:
                break
            self.data += data
        os.close(self.fd)
        self.ended.set()

    @property
    def text(self):
        return self.data.decode('latin-1')


# --- the client ------------------------------------------------------------

class Client:
    """One end of the connection. `rfd` and `wfd` are raw descriptors, which
    are this object's to close; `sock` is the socket when there is one."""

    def __init__(self, sock=None, rfd=None, wfd=None):
        self.sock = sock
        self.rfd = sock.fileno() if sock is not None else rfd
        self.wfd = sock.fileno() if sock is not None else wfd
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        os.set_blocking(self.rfd, False)
        os.set_blocking(self.wfd, False)
        self.tls = None
        self.buffer = b''
        self.eof = False
        self.clean_end = False  # TLS only: close_notify came
        self.received = 0       # octets, as the application sees them
        self.closed = False

    # raw bytes

    def raw_send(self, data, deadline=None):
        end = time.monotonic() + (deadline or DEADLINE)
        view = memoryview(data)
        while view:
            left = end - time.monotonic()
            if left <= 0 or not select.select([], [self.wfd], [], left)[1]:
                raise WireError('the program does not read what we send')
            try:
                view = view[os.write(self.wfd, view):]
            except BlockingIOError:
                continue

    def raw_recv(self, end):
        """Some bytes; b'' at the end; ConnectionResetError if it was cut."""
        while True:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.rfd], [], [], left)[0]:
                raise WireError(
                    f'nothing came from the program; unread: {self.buffer!r}')
            try:
                return os.read(self.rfd, 65536)
            except BlockingIOError:
                continue
            except OSError as e:
                if e.errno == 5:  # EIO: the other end of a terminal has gone
                    return b''
                raise

    def raw_recv_some(self, deadline=DEADLINE):
        """The same, with a deadline of its own; a cut is an end, too."""
        try:
            return self.raw_recv(time.monotonic() + deadline)
        except ConnectionError:
            return b''

    # what the application says and hears

    def send(self, data, deadline=None):
        if isinstance(data, str):
            data = data.encode('latin-1')
        if self.tls is None:
            self.raw_send(data, deadline)
            return
        for at in range(0, len(data), 1 << 18):
            self.tls.write(data[at:at + (1 << 18)])
            self.raw_send(self.tls_out.read(), deadline)

    def line(self, text):
        self.send(text + '\r\n')

    def fill(self, end):
        """Reads more into the buffer; False at the end of the stream."""
        if self.eof:
            return False
        if self.tls is None:
            data = self.raw_recv(end)
            if not data:
                self.eof = True
                return False
        else:
            data = self.tls_recv(end)
            if data is None:
                return False
        self.buffer += data
        self.received += len(data)
        return True

    def tls_recv(self, end):
        while True:
            try:
                data = self.tls.read(65536)
                if data:
                    return data
                self.eof = self.clean_end = True
                return None
            except ssl.SSLWantReadError:
                pass
            except ssl.SSLZeroReturnError:
                self.eof = self.clean_end = True
                return None
            raw = self.raw_recv(end)
            if not raw:
                self.eof = True
                return None
            self.tls_in.write(raw)

    def read_line(self, deadline=DEADLINE):
        """One line without its CRLF; the line must have one."""
        end = time.monotonic() + deadline
        while b'\n' not in self.buffer:
            if not self.fill(end):
                raise WireError(
                    f'the connection ended; unread: {self.buffer!r}')
        line, self.buffer = self.buffer.split(b'\n', 1)
        if not line.endswith(b'\r'):
            raise WireError(f'a line ends in a bare LF: {line!r}')
        line = line[:-1]
        if b'\r' in line or b'\0' in line:
            raise WireError(f'a line with a stray octet: {line!r}')
        return line.decode('latin-1')

    def reply(self, deadline=DEADLINE):
        """One reply, as the list of its lines."""
        lines = [self.read_line(deadline)]
        if not re.match(r'[2-5]\d\d[ -]', lines[0]):
            raise WireError(f'not a reply: {lines[0]!r}')
        while lines[-1][3] == '-':
            lines.append(self.read_line(deadline))
            if lines[-1][:3] != lines[0][:3] or lines[-1][3:4] not in '- ':
                raise WireError(f'a reply whose lines part: {lines!r}')
        return lines

    def expect(self, pattern, deadline=DEADLINE):
        """One reply whose text (lines joined by LF) begins as the regular
        expression `pattern` says."""
        lines = self.reply(deadline)
        if not re.match(pattern, '\n'.join(lines)):
            raise WireError(f'expected {pattern!r}, got {lines!r}')
        return lines

    def ask(self, command, pattern, deadline=DEADLINE):
        self.line(command)
        return self.expect(pattern, deadline)

    def greeting(self, deadline=DEADLINE):
        return self.expect(rf'220 {re.escape(NAME)} ', deadline)

    def hello(self, name='client.example'):
        """EHLO; returns the lines of the reply without their code."""
        return [x[4:] for x in self.ask(f'EHLO {name}', '250')]

    def rest(self, deadline=DEADLINE):
        """All that comes until the end of the stream, which must be an end
        and not a reset."""
        end = time.monotonic() + deadline
        while self.fill(end):
            pass
        data, self.buffer = self.buffer, b''
        return data

    def read_bytes(self, n, deadline=DEADLINE):
        end = time.monotonic() + deadline
        while len(self.buffer) < n:
            if not self.fill(end):
                raise WireError(
                    f'the connection ended; unread: {self.buffer!r}')
        data, self.buffer = self.buffer[:n], self.buffer[n:]
        return data

    def expect_end(self, deadline=DEADLINE):
        """Nothing more, and the end of the stream."""
        data = self.rest(deadline)
        if data:
            raise WireError(f'more came before the end: {data!r}')
        if self.tls is not None and not self.clean_end:
            raise WireError('TLS ended without close_notify')

    def expect_nothing(self, seconds):
        """Nothing comes for so long, the end neither."""
        if self.buffer:
            raise WireError(f'unread: {self.buffer!r}')
        if select.select([self.rfd], [], [], seconds)[0]:
            raise WireError(f'this came: {os.read(self.rfd, 4096)!r}')

    # TLS

    def start_tls(self, context=None, server_hostname=None, extra=b'',
                  deadline=DEADLINE, octets=None, expect_failure=False,
                  session=None):
        """The handshake, which may resume an earlier `session`. `extra` is sent
        in the same write as our Finished; `octets` cuts what we send into
        pieces of that size."""
        end = time.monotonic() + deadline
        self.tls_in, self.tls_out = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = (context or client_context()).wrap_bio(
            self.tls_in, self.tls_out, server_hostname=server_hostname,
            session=session)
        while True:
            try:
                self.tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                self.send_pieces(self.tls_out.read(), octets)
            raw = self.raw_recv(end)
            if not raw:
                self.eof = True
                raise ConnectionError('the program ended the handshake')
            self.tls_in.write(raw)
        if extra:
            self.tls.write(extra)
        self.send_pieces(self.tls_out.read(), octets)
        return self

    def send_pieces(self, data, octets):
        for at in range(0, len(data), octets or max(1, len(data))):
            self.raw_send(data[at:at + (octets or len(data))])

    # how it ends

    def half_close(self):
        """We will say no more; we still listen."""
        if self.tls is not None:
            try:
                self.tls.unwrap()
            except (ssl.SSLWantReadError, ssl.SSLError):
                pass
            self.raw_send(self.tls_out.read())
        if self.sock is not None:
            self.sock.shutdown(socket.SHUT_WR)
        elif self.wfd != self.rfd:
            os.close(self.wfd)
            self.wfd = self.rfd

    def close(self):
        if self.closed:
            return
        self.closed = True
        if self.sock is not None:
            self.sock.close()
            return
        for fd in {self.rfd, self.wfd}:
            os.close(fd)

    def reset(self):
        """Leaves as rudely as TCP allows."""
        self.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        self.close()

    def segments(self):
        """Segments with data that the kernel has received (struct tcp_info's
        tcpi_data_segs_in)."""
        info = self.sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 192)
        return struct.unpack_from('I', info, 152)[0]


def client_context(**kw):
    """A TLS client that checks nothing (the tests that do, say so)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    for name, value in kw.items():
        setattr(context, name, value)
    return context


# --- the program -----------------------------------------------------------

def argument(name, value):
    """A directive as arguments: smtp_auth='plain' is --smtp-auth plain; a
    list is the argument repeated."""
    name = '--' + name.replace('_', '-')
    values = value if isinstance(value, (list, tuple)) else [value]
    return [word for one in values for word in (name, str(one))]


def environment(extra=None):
    """What the program finds: nothing of the tester's own SMTP_... or LISTEN_
    variables."""
    env = {'PATH': '/usr/sbin:/usr/bin:/sbin:/bin', 'LANG': 'C'}
    env['ASAN_OPTIONS'] = 'exitcode=99:detect_leaks=0:' + os.environ.get(
        'ASAN_OPTIONS', '')
    env['UBSAN_OPTIONS'] = \
        'halt_on_error=1:exitcode=99:print_stacktrace=1:' + os.environ.get(
            'UBSAN_OPTIONS', '')
    env.update(extra or {})
    return {k: v for k, v in env.items() if v is not None}


def run(*args, env=None, stdin=subprocess.DEVNULL, timeout=DEADLINE):
    """The program with plain arguments and no client (--check, --help)."""
    done = subprocess.run([PROGRAM, *args], env=environment(env), stdin=stdin,
                          capture_output=True, timeout=timeout)
    done.out = done.stdout.decode()
    done.err = done.stderr.decode()
    if SANITIZER.search(done.err):
        raise WireError(done.err)
    return done


def connection(family, source=None):
    """(client's socket, server's socket) of a fresh connection."""
    if family == 'unix':
        return socket.socketpair()
    v6 = family in ('inet6', 'mapped')
    listener = socket.socket(socket.AF_INET6 if v6 else socket.AF_INET)
    try:
        if v6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY,
                                1 if family == 'inet6' else 0)
        listener.bind((
            {'inet': '127.0.0.1', 'inet6': '::1', 'mapped': '::'}[family], 0))
        listener.listen(1)
        listener.settimeout(DEADLINE)
        host = '::1' if family == 'inet6' else '127.0.0.1'
        client = socket.create_connection(
            (host, listener.getsockname()[1]), timeout=DEADLINE,
            source_address=(source, 0) if source else None)
        server, _ = listener.accept()
        client.setblocking(True)
        server.setblocking(True)
        return client, server
    finally:
        listener.close()


class Session:
    """The program at work for one client.

    way     how the connection is given: 'fd0' (0 and 1), 'fd3' (LISTEN_FDS),
            'pipes' or 'pty' (0 and 1)
    family  'inet', 'inet6', 'mapped' (IPv4 on an IPv6 socket) or 'unix'
    early   bytes that are on their way before the program starts
    server_sock  the server's end of a connection made elsewhere
    relay   the program after "--"
    stderr  None: collected as the log; 'client': the client's own socket
    """

    def __init__(self, directives, way='fd0', family='inet', early=b'',
                 source=None, server_sock=None, relay=None, env=None,
                 stderr=None, extra_fds=(), args=()):
        words = [PROGRAM]
        directives = {'server_name': NAME, 'log': 'stderr', **directives}
        for name, value in directives.items():
            if value is not None:
                words += argument(name, value)
        words += list(args)
        if relay is not None:
            words += ['--', *relay]
        self.words = words
        self.env = environment(env)
        self.exit_status = None
        self.client = None
        self.started = time.monotonic()
        self._start(way, family, early, source, server_sock, stderr,
                    extra_fds)

    def _start(self, way, family, early, source, server, stderr, extra_fds):
        ours = []
        if way == 'pipes':
            stdin, up = os.pipe()
            down, stdout = os.pipe()
            self.client = Client(rfd=down, wfd=up)
            ours = [stdin, stdout]
        elif way == 'pty':
            master, slave = os.openpty()
            self.client = Client(rfd=master, wfd=master)
            stdin = stdout = slave
            ours = [slave]
        else:
            if server is None:
                sock, server = connection(family, source)
                self.client = Client(sock=sock)
            stdin = stdout = server
        self.port = None
        if self.client is not None and self.client.sock is not None and \
                self.client.sock.family != socket.AF_UNIX:
            self.port = self.client.sock.getsockname()[1]
        if early:
            self.client.send(early)
        words = self.words
        if way == 'fd3':
            words = ['/bin/sh', '-c', 'LISTEN_PID=$$ exec "$@" 3<&0 '
                     '</dev/null >/dev/null', 'sh', *words]
            self.env['LISTEN_FDS'] = '1'
        reader, writer = os.pipe()
        self.log = Stderr(reader)
        try:
            self.proc = subprocess.Popen(
                words, stdin=stdin, stdout=stdout, env=self.env,
                stderr=stdout if stderr == 'client' else writer,
                pass_fds=extra_fds, start_new_session=True)
        finally:
            os.close(writer)
            for fd in ours:
                os.close(fd)
            if isinstance(stdin, socket.socket):
                stdin.close()
        self.pid = self.proc.pid

    # its end

    def wait(self, deadline=LINGER):
        """The exit status. A client that has seen the end closes, too: the
        program waits for that a while, so that its last words arrive."""
        if self.client is not None and self.client.eof:
            self.client.close()
        try:
            self.exit_status = self.proc.wait(deadline)
        except subprocess.TimeoutExpired:
            raise WireError(
                f'the program has not ended within {deadline} s; it is '
                f'{where(self.pid)}; log: {self.log.text}') from None
        return self.exit_status

    def finish(self, status=0, deadline=LINGER):
        """Waits for the program's end and checks its exit status (a number or
        a tuple of them); returns the log's last line, a close event."""
        got = self.wait(deadline)
        if got not in (status if isinstance(status, tuple) else (status,)):
            raise WireError(
                f'exit status {got}, not {status}; log: {self.log.text}')
        closes = self.events('close')
        if len(closes) != 1:
            raise WireError(f'{len(closes)} close events: {self.log.text}')
        return closes[0]

    def quit(self, status=0):
        """QUIT, as a polite client does it, to the end."""
        self.client.ask('QUIT', '221 ')
        self.client.expect_end()
        return self.finish(status)

    # its log

    def lines(self):
        """The log's lines; after the program's end all of them."""
        if self.exit_status is not None and \
                not self.log.ended.wait(LINGER):
            raise WireError('standard error is still open: somebody lives')
        text = self.log.text
        if SANITIZER.search(text):
            raise WireError(text)
        return text.splitlines()

    def events(self, name=None, **keys):
        found = [Event(line) for line in self.lines()
                 if line.startswith('session=')]
        return [e for e in found if (name is None or e.name == name) and
                all(e.get(k) == v for k, v in keys.items())]

    def event(self, name, **keys):
        """The one event of that name (after the program's end)."""
        found = self.events(name, **keys)
        if len(found) != 1:
            raise WireError(f'{len(found)} events {name} {keys}: '
                            f'{self.log.text}')
        return found[0]

    def await_event(self, name, **keys):
        """The same while the program runs."""
        return until(lambda: self.events(name, **keys),
                     f'event {name} {keys}; log: {self.log.text}')[0]


def clean_up(sessions):
    """The end of a test: its clients leave, and everything has to go. Returns
    the complaints."""
    complaints = []
    family = set()
    for s in sessions:
        if s.client is not None:
            s.client.close()
        family |= descendants(s.pid)
    end = time.monotonic() + LINGER
    for s in sessions:
        try:
            s.exit_status = s.proc.wait(max(0.01, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            complaints.append(f'alive {LINGER} s after its client has left: '
                              f'{where(s.pid)}; log: {s.log.text}')
        family |= descendants(s.pid)
    family |= set(children(os.getpid())) - beside
    family -= {s.pid for s in sessions}
    while any(map(is_alive, family)) and time.monotonic() < end:
        time.sleep(0.005)
    for pid in family:
        if is_alive(pid):
            complaints.append(f'left over: {pid} {command_of(pid)}')
            kill(pid)
    for s in sessions:
        if s.proc.poll() is None:
            kill(s.pid)
            s.proc.wait(LINGER)
        s.log.ended.wait(1)
        if SANITIZER.search(s.log.text):
            complaints.append(s.log.text)
        elif s.proc.returncode < 0 and not complaints:
            complaints.append(
                f'died of signal {-s.proc.returncode}: {s.log.text}')
    # Orphans have become our children, and must not stay zombies.
    for pid in children(os.getpid(), alive=False):
        if pid in family or state(pid) == 'Z':
            reap(pid)
    return complaints


def where(pid):
    """What a process waits for, for the message of a failure."""
    words = [f'pid {pid}', f'state {state(pid)}', command_of(pid)[:60]]
    for name in ('wchan', 'syscall'):
        try:
            with open(f'/proc/{pid}/{name}') as f:
                words.append(f.read().strip())
        except OSError:
            pass
    return ' '.join(words)


def descendants(pid):
    found, todo = set(), [pid]
    while todo:
        for child in children(todo.pop()):
            if child not in found:
                found.add(child)
                todo.append(child)
    return found


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def reap(pid):
    try:
        end = time.monotonic() + 2
        while os.waitpid(pid, os.WNOHANG) == (0, 0) and \
                time.monotonic() < end:
            time.sleep(0.005)
    except ChildProcessError:
        pass


# --- certificates ----------------------------------------------------------

class Certificates:
    """Self-signed ones, made once a test session by the openssl command."""

    def __init__(self, folder):
        self.folder = folder
        self.rsa = self.make('rsa', ['-newkey', 'rsa:2048'])
        self.ec = self.make('ec', ['-newkey', 'ec', '-pkeyopt',
                                   'ec_paramgen_curve:prime256v1'])
        self.locked = self.make(
            'locked', ['-newkey', 'ec', '-pkeyopt',
                       'ec_paramgen_curve:prime256v1'], 'sesame')
        self.passwords = os.path.join(folder, 'passwords')
        with open(self.passwords, 'w') as f:
            f.write('wrong\nsesame\n')

    def make(self, name, kind, phrase=None):
        cert = os.path.join(self.folder, name + '.pem')
        key = os.path.join(self.folder, name + '.key')
        lock = ['-passout', 'pass:' + phrase] if phrase else ['-nodes']
        subprocess.run(
            ['openssl', 'req', '-x509', *kind, *lock, '-days', '3650',
             '-subj', '/CN=' + NAME, '-addext',
             f'subjectAltName=DNS:{NAME}', '-out', cert, '-keyout', key],
            check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            timeout=60)
        os.chmod(key, 0o600)
        return cert, key

    def directives(self, *which):
        """ssl_certificate and ssl_certificate_key for these ('rsa', 'ec')."""
        pairs = [getattr(self, w) for w in which or ('ec',)]
        return {'ssl_certificate': [c for c, _ in pairs],
                'ssl_certificate_key': [k for _, k in pairs]}


