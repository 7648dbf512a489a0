"""What stands behind the program: mail server, HTTP auth server, name server.

Each fake runs in threads of the test's process, listens on a port (or path)
that the kernel chose, and keeps all that it was sent.
"""

import base64
import os
import re
import select
import socket
import struct
import threading
import time

from harness import DEADLINE, WireError, until


class Act:
    """What a fake may do instead of giving a reply."""

    def __init__(self, name):
        self.name = name

    def __repr__(self):
        return self.name


CLOSE = Act('close')                # at once, without a word
RESET = Act('reset')                # the same with a RST
SILENCE = Act('silence')            # never answers, never closes
ENDLESS_LINE = Act('endless line')  # 250-aaaa... and never its end
ENDLESS_REPLY = Act('endless reply')  # 250-more, 250-more, ...
GARBAGE = Act('garbage')
GARBAGE_BYTES = b'\x00\xff\xfe <html> \x1b[2J\r\n'


class Server:
    """Accepts in a thread and serves each connection in one of its own."""

    def __init__(self, family='inet', path=None):
        self.family = family
        if family == 'unix':
            self.listener = socket.socket(socket.AF_UNIX)
            self.listener.bind(path)
            self.address = 'unix:' + path
            self.port = None
        else:
            self.listener = socket.socket(
                socket.AF_INET6 if family == 'inet6' else socket.AF_INET)
            self.listener.bind(
                ('::1' if family == 'inet6' else '127.0.0.1', 0))
            self.port = self.listener.getsockname()[1]
            self.address = f'[::1]:{self.port}' if family == 'inet6' \
                else f'127.0.0.1:{self.port}'
        self.listener.listen(16)
        self.sockets = []
        self.stopped = threading.Event()
        self.errors = []
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while not self.stopped.is_set():
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            self.sockets.append(sock)
            if self.family != 'unix':
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            threading.Thread(
                target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock):
        try:
            self.serve(sock)
        except OSError:
            pass
        except Exception as e:  # shown at the test's end
            self.errors.append(repr(e))
        finally:
            # A close() alone would not end what another thread waits for.
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
            sock.close()

    def serve(self, sock):
        raise NotImplementedError

    def stop(self):
        self.stopped.set()
        try:
            self.listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.listener.close()
        for sock in self.sockets:
            try:
                sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def dead_address():
    """A port at which nobody listens."""
    s = socket.socket()
    s.bind(('127.0.0.1', 0))
    port = s.getsockname()[1]
    s.close()
    return f'127.0.0.1:{port}'


# --- a mail server ---------------------------------------------------------

class Command:
    """A line that the backend was sent; `at` is the number of the recv() that
    brought its end, so equal numbers were pipelined."""

    def __init__(self, text, at):
        self.text = text
        self.at = at
        self.verb = text.split(' ')[0].split(':')[0].upper()

    def __repr__(self):
        return f'<{self.text}>'


class Conversation:
    """One connection to the backend, and all that was said on it."""

    def __init__(self, backend, sock):
        self.backend = backend
        self.sock = sock
        self.received = bytearray()  # every octet
        self.buffer = bytearray()    # what is not used yet
        self.commands = []
        self.recvs = 0
        self.messages = []      # each without its final dot
        self.greeted = self.started = time.monotonic()
        self.ended = threading.Event()
        self.eof = False        # the program ended it (not a reset)
        self.counts = {}
        self.secure = False     # TLS has begun
        self.clear = bytearray()  # what was received before
        self.refusal = None     # why its handshake failed, as Python has it

    def start_tls(self, context):
        """Whether the handshake was done."""
        self.clear = self.received[:]
        try:
            self.sock.settimeout(DEADLINE)
            self.sock = context.wrap_socket(self.sock, server_side=True)
        except OSError as e:
            self.refusal = e
            return False
        self.sock.settimeout(None)
        self.backend.sockets.append(self.sock)
        self.secure = True
        return True

    def recv(self):
        try:
            data = self.sock.recv(65536)
        except OSError:
            data = b''
            self.ended.set()
            raise
        if not data:
            self.eof = True
        self.recvs += 1
        self.received += data
        self.buffer += data
        return data

    def verbs(self):
        return [c.verb for c in self.commands]

    def texts(self, verb=None):
        return [c.text for c in self.commands
                if verb is None or c.verb == verb]

    def send(self, data):
        if isinstance(data, str):
            data = data.replace('\n', '\r\n').encode('latin-1')
        if self.backend.eol != b'\r\n':
            data = data.replace(b'\r\n', self.backend.eol)
        if self.backend.octets:
            for i in range(0, len(data), self.backend.octets):
                self.sock.sendall(data[i:i + self.backend.octets])
        else:
            self.sock.sendall(data)


class Backend(Server):
    """A mail server that accepts everything, but for what `replies` says.

    xclient  the attributes it offers; None: no XCLIENT
    caps     further lines of its EHLO reply
    replies  {step: reply} where the step is CONNECT, a verb, '.' (the end of a
             message), or 'EHLO2' and so on for the second one; the reply is
             text (\\n between lines, without the last), bytes, an Act, a list
             of these for one occurrence each, or a function of (conversation,
             line) that returns one of them
    eol      what ends its lines
    octets   how many octets it sends at a time; None: all
    takeover a function of the conversation that is given the connection when
             the verb `takeover_at` comes (or after the greeting with '')
    tls      an ssl.SSLContext: STARTTLS is offered; with `implicit` TLS begins
             at once
    """

    def __init__(self, family='inet', path=None, xclient='NAME ADDR PORT PROTO '
                 'HELO LOGIN DESTADDR DESTPORT', caps=('PIPELINING', 'AUTH '
                 'PLAIN', '8BITMIME'), replies=None, eol=b'\r\n', octets=None,
                 takeover=None, takeover_at=None, name='backend.example',
                 tls=None, implicit=False):
        self.xclient = xclient
        self.caps = list(caps)
        self.replies = dict(replies or {})
        self.eol = eol
        self.octets = octets
        self.takeover, self.takeover_at = takeover, takeover_at
        self.name = name
        self.tls, self.implicit = tls, implicit
        self.conversations = []
        self.begun = threading.Semaphore(0)
        super().__init__(family, path)

    def conversation(self, i=0):
        """The i-th connection, waiting for it."""
        return until(lambda: self.conversations[i:i + 1],
                     f'connection {i} to the backend')[0]

    def await_end(self, i=0):
        c = self.conversation(i)
        if not c.ended.wait(DEADLINE):
            raise WireError(f'the backend is still held: {c.commands}')
        return c

    def await_command(self, pattern, i=0):
        """The first command that matches, waiting for it."""
        c = self.conversation(i)
        return until(
            lambda: [x for x in c.commands if re.match(pattern, x.text)],
            f'{pattern} at the backend; it has {c.commands}')[0]

    def serve(self, sock):
        c = Conversation(self, sock)
        self.conversations.append(c)
        try:
            if not self.implicit or c.start_tls(self.tls):
                self.converse(c)
        finally:
            c.ended.set()
            c.sock.close()

    def converse(self, c):
        if not self.answer(c, 'CONNECT', f'220 {self.name} ESMTP fake'):
            return
        if self.takeover_at == '':
            self.takeover(c)
            return
        while True:
            line = self.read_line(c)
            if line is None:
                return
            command = Command(line, c.recvs)
            c.commands.append(command)
            if command.verb == self.takeover_at:
                self.takeover(c)
                return
            if not self.handle(c, command):
                return

    @staticmethod
    def read_line(c):
        while b'\n' not in c.buffer:
            if not c.recv():
                return None
        line, c.buffer = c.buffer.split(b'\n', 1)
        if not line.endswith(b'\r'):
            raise WireError(f'the backend was sent a bare LF: {line!r}')
        return line[:-1].decode('latin-1')

    def handle(self, c, command):
        verb, text = command.verb, command.text
        if verb == 'EHLO':
            lines = [self.name] + self.caps
            if self.tls is not None and not c.secure:
                lines.append('STARTTLS')
            if self.xclient is not None:
                lines.append('XCLIENT ' + self.xclient)
            usual = '\n'.join('250-' + x for x in lines[:-1])
            usual += ('\n' if usual else '') + '250 ' + lines[-1]
        elif verb == 'DATA':
            return self.data(c)
        else:
            usual = {
                'HELO': f'250 {self.name}',
                'XCLIENT': f'220 {self.name} ESMTP again',
                'STARTTLS': '220 2.0.0 go ahead',
                'AUTH': '235 2.7.0 fine',
                'MAIL': '250 2.1.0 sender fine',
                'RCPT': '250 2.1.5 recipient fine',
                'RSET': '250 2.0.0 reset',
                'NOOP': '250 2.0.0 backend here',
                'QUIT': '221 2.0.0 backend leaves',
            }.get(verb, f'502 5.5.2 backend does not know {verb}')
        if not self.answer(c, verb, usual, text):
            return False
        if verb == 'STARTTLS' and c.last.startswith(b'220'):
            return self.tls is not None and c.start_tls(self.tls)
        return verb != 'QUIT'

    def data(self, c):
        if not self.answer(c, 'DATA', '354 go on', 'DATA'):
            return False
        if c.last.startswith(b'354'):
            at = 0
            while not c.buffer.startswith(b'.\r\n'):
                end = c.buffer.find(b'\r\n.\r\n', at)
                if end >= 0:
                    break
                at = max(0, len(c.buffer) - 4)
                if not c.recv():
                    return False
            if c.buffer.startswith(b'.\r\n'):
                message, c.buffer = b'', c.buffer[3:]
            else:
                message = bytes(c.buffer[:end + 2])
                c.buffer = c.buffer[end + 5:]
            c.messages.append(message)
            return self.answer(c, '.', '250 2.0.0 queued as 1', '.')
        return True

    def answer(self, c, step, usual, text=''):
        """Gives the reply to a step; False when the connection is over."""
        c.counts[step] = c.counts.get(step, 0) + 1
        reply = self.replies.get(f'{step}{c.counts[step]}',
                                 self.replies.get(step, usual))
        if isinstance(reply, list):
            at = c.counts[step] - 1
            reply = reply[at] if at < len(reply) else usual
        if callable(reply):
            reply = reply(c, text)
        if isinstance(reply, Act):
            return self.act(c, reply)
        c.last = reply if isinstance(reply, bytes) else reply.encode('latin-1')
        c.send(reply if isinstance(reply, bytes) else reply + '\n')
        return not c.last.startswith(b'421')

    def act(self, c, act):
        if act is CLOSE:
            return False
        if act is RESET:
            c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                              struct.pack('ii', 1, 0))
            c.sock.close()
            return False
        if act is SILENCE:
            while c.recv():
                pass
            return False
        if act is GARBAGE:
            c.last = GARBAGE_BYTES
            c.send(GARBAGE_BYTES)
            return True
        if act is ENDLESS_LINE:
            c.sock.sendall(b'250-')
            piece = b'a' * 1000
        else:
            piece = b'250-more\r\n' * 100
        while not self.stopped.is_set():
            c.sock.sendall(piece)
        return False


def swallow(c):
    """A takeover: replies nothing, keeps all that comes until the end."""
    while c.recv():
        pass


def decode_xtext(text):
    return re.sub(r'\+([0-9A-F]{2})', lambda m: chr(int(m.group(1), 16)), text)


def xclient_attributes(conversation):
    """The attributes of all XCLIENT commands, decoded; each at most once."""
    found = {}
    for text in conversation.texts('XCLIENT'):
        for pair in text.split(' ')[1:]:
            key, value = pair.split('=', 1)
            assert key not in found, text
            found[key] = decode_xtext(value)
    return found


# --- an auth server that speaks nginx's protocol over HTTP -----------------

class Request:
    def __init__(self, head):
        lines = head.decode('latin-1').split('\r\n')
        self.line = lines[0]
        self.method, self.uri, self.version = lines[0].split(' ')
        self.headers = [tuple(x.split(': ', 1)) if ': ' in x
                        else (x.rstrip(':'), '') for x in lines[1:] if x]

    def get(self, name):
        """A header's value; None when it is not there; twice is an error."""
        found = [v for k, v in self.headers if k.lower() == name.lower()]
        assert len(found) < 2, f'{name} twice: {self.headers}'
        return found[0] if found else None

    def auth(self):
        """The headers of nginx's protocol, as a dictionary."""
        return {k: self.get(k) for k, _ in self.headers
                if re.match(r'(Auth|Client|Proxy-Protocol)-', k)}


class AuthServer(Server):
    """`answers`: what to say to the first request, the second, ...; the last
    one stands for all that follow. Each is a dictionary of headers (status
    200), bytes for a whole response, an Act, or a function of the request that
    returns one of these."""

    def __init__(self, answers, family='inet', path=None):
        self.answers = list(answers)
        self.requests = []
        super().__init__(family, path)
        self.url = f'http://{self.address}/auth' if family != 'unix' \
            else None

    def serve(self, sock):
        buffer = b''
        while True:
            while b'\r\n\r\n' not in buffer:
                data = sock.recv(65536)
                if not data:
                    return
                buffer += data
            head, buffer = buffer.split(b'\r\n\r\n', 1)
            request = Request(head)
            n = len(self.requests)
            self.requests.append(request)
            answer = self.answers[min(n, len(self.answers) - 1)]
            if callable(answer):
                answer = answer(request)
            if not self.respond(sock, answer):
                return

    def respond(self, sock, answer):
        if isinstance(answer, dict):
            answer = http_response(answer)
        if isinstance(answer, bytes):
            sock.sendall(answer)
            return b'\r\n\r\n' in answer
        if answer is RESET:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER,
                            struct.pack('ii', 1, 0))
            return False
        if answer is SILENCE:
            while sock.recv(4096):
                pass
        if answer is GARBAGE:
            sock.sendall(GARBAGE_BYTES)
        if answer is ENDLESS_LINE:
            sock.sendall(b'HTTP/1.1 200 OK\r\nX: ')
            while not self.stopped.is_set():
                sock.sendall(b'a' * 1000)
        if answer is ENDLESS_REPLY:
            sock.sendall(b'HTTP/1.1 200 OK\r\n')
            while not self.stopped.is_set():
                sock.sendall(b'X-More: more\r\n' * 100)
        return False


def http_response(headers, status='200 OK', body=b''):
    lines = [f'HTTP/1.1 {status}', f'Content-Length: {len(body)}']
    items = headers.items() if isinstance(headers, dict) else headers
    lines += [f'{k}: {v}' for k, v in items]
    return '\r\n'.join(lines).encode('latin-1') + b'\r\n\r\n' + body


def ok(backend, **more):
    """The headers of a success that leads to `backend`."""
    headers = {'Auth-Status': 'OK', 'Auth-Server': '127.0.0.1',
               'Auth-Port': str(backend.port)}
    headers.update({k.replace('_', '-'): v for k, v in more.items()})
    return headers


# --- a name server ---------------------------------------------------------

A, PTR, AAAA, TLSA = 1, 12, 28, 52


class NameServer:
    """Over UDP. `records`: {(name, type): [values]}; a value is a name for
    PTR, bytes for TLSA, an address else. A name that is not there does not
    exist; `silent` never answers, `failing` answers SERVFAIL (either may be a
    type: then only to that); `authentic`: it says to who asks for it that it
    has validated its answers."""

    def __init__(self, records=None, silent=False, failing=False,
                 authentic=False):
        self.records = records or {}
        self.authentic = authentic
        self.silent, self.failing = silent, failing
        self.questions = []
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.bind(('127.0.0.1', 0))
        self.address = '127.0.0.1:%d' % self.sock.getsockname()[1]
        self.errors = []
        self.wake, self.waker = os.pipe()
        self.thread = threading.Thread(target=self.run, daemon=True)
        self.thread.start()

    def run(self):
        while True:
            ready = select.select([self.sock, self.wake], [], [])[0]
            if self.wake in ready:
                return
            packet, peer = self.sock.recvfrom(4096)
            try:
                reply = self.reply(packet)
            except Exception as e:
                self.errors.append(repr(e))
                continue
            if reply is not None:
                self.sock.sendto(reply, peer)

    def reply(self, packet):
        ident, asked, _ = struct.unpack_from('!HHH', packet)
        labels, at = [], 12
        while packet[at]:
            labels.append(packet[at + 1:at + 1 + packet[at]])
            at += 1 + packet[at]
        kind, = struct.unpack_from('!H', packet, at + 1)
        question = packet[12:at + 5]
        name = b'.'.join(labels).decode('latin-1').lower()
        self.questions.append((name, kind))
        if self.silent is True or self.silent == kind:
            return None
        values = self.records.get((name, kind))
        failing = self.failing is True or self.failing == kind
        code = 2 if failing else 0
        if values is None and not failing and \
                not any(n == name for n, _ in self.records):
            code = 3
        answers = b''
        for value in values or []:
            data = self.data(kind, value)
            answers += b'\xc0\x0c' + struct.pack(
                '!HHIH', kind, 1, 60, len(data)) + data
        if self.authentic and asked & 0x20:
            code |= 0x20
        return struct.pack('!HHHHHH', ident, 0x8180 | code, 1,
                           len(values or []), 0, 0) + question + answers

    @staticmethod
    def data(kind, value):
        if kind == A:
            return socket.inet_pton(socket.AF_INET, value)
        if kind == TLSA:
            return value
        if kind == AAAA:
            return socket.inet_pton(socket.AF_INET6, value)
        labels = value if isinstance(value, list) \
            else [x.encode('latin-1') for x in value.split('.')]
        return b''.join(bytes([len(x)]) + x for x in labels) + b'\0'

    def stop(self):
        os.write(self.waker, b'x')
        self.thread.join(DEADLINE)
        for fd in (self.wake, self.waker):
            os.close(fd)
        self.sock.close()


def ptr_name(address):
    if ':' in address:
        packed = socket.inet_pton(socket.AF_INET6, address).hex()
        return '.'.join(reversed(packed)) + '.ip6.arpa'
    return '.'.join(reversed(address.split('.'))) + '.in-addr.arpa'


def b64(data):
    if isinstance(data, str):
        data = data.encode('latin-1')
    return base64.b64encode(data).decode()


def plain(user, password, authzid=''):
    return b64(f'{authzid}\0{user}\0{password}')
