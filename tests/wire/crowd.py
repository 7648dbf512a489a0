"""Thousands of peers in one thread.

A peer is played by a generator. It yields (bytes, wait): the bytes are sent,
and when the wait is over the generator goes on with what came of it:

    REPLY, LINE, MESSAGE  the next of these, whole
    READABLE              something came, or the end; it is not read
    END                   all that came until the end of the stream
    TLS                   a handshake, as a client
    a number              so many seconds have passed

An end that was not waited for is an EOFError in the generator. What a
generator does not catch is kept in Crowd.failures.
"""

import heapq
import re
import select
import socket
import ssl
import struct
import time

from harness import client_context

REPLY = re.compile(rb'(?:\d{3}-[^\n]*\r\n)*\d{3} [^\n]*\r\n')
LINE = re.compile(rb'[^\n]*\r\n')
MESSAGE = re.compile(rb'(?s).*?\r\n\.\r\n')
READABLE, END, TLS = 'something', 'the end', 'a handshake'


class Peer:
    def __init__(self, crowd, sock):
        self.crowd = crowd
        self.sock = sock
        self.fd = sock.fileno()
        self.buffer = bytearray()
        self.wait = None
        self.sent = 0  # octets
        self.opened = time.monotonic()
        self.took = None  # seconds, when it is over

    def play(self, script):
        self.script = script
        self.step(None)
        if self.took is None:
            self.crowd.epoll.register(self.fd, select.EPOLLIN)
            self.crowd.peers[self.fd] = self

    def abort(self):
        """The next close is a reset."""
        self.sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))

    # the script

    def step(self, value, error=None):
        """Lets the script go on, until it has to wait."""
        try:
            while True:
                data, self.wait = self.script.throw(error) if error else \
                    self.script.send(value)
                error = None
                if data:
                    self.send(data)
                if isinstance(self.wait, (int, float)):
                    self.crowd.wake(self, self.wait)
                    return
                if self.wait is TLS:
                    self.begin_tls()
                    return
                value = self.take()
                if value is None:
                    return
        except StopIteration:
            pass
        except Exception as e:
            self.crowd.failures.append(
                f'{e!r} at {self.wait}, unread: {bytes(self.buffer[-200:])}')
        self.close()

    def take(self):
        """What is waited for, out of the buffer."""
        m = self.wait.match(self.buffer) \
            if isinstance(self.wait, re.Pattern) else None
        if m is None:
            return None
        value = m.group().decode('latin-1')
        del self.buffer[:m.end()]
        return value

    # the socket

    def send(self, data):
        if self.sock.send(data) != len(data):
            raise BlockingIOError('the program does not read')
        self.sent += len(data)

    def begin_tls(self):
        self.sock = self.crowd.tls.wrap_socket(
            self.sock, do_handshake_on_connect=False)
        self.go_on_with_tls()

    def go_on_with_tls(self):
        try:
            self.sock.do_handshake()
        except ssl.SSLWantReadError:
            return
        except OSError as e:
            self.step(None, e)
            return
        self.step('done')

    def receive(self):
        """Whether it has not ended. A reset is an error in the script."""
        try:
            while True:
                data = self.sock.recv(65536)
                if not data:
                    return False
                self.buffer += data
        except (BlockingIOError, ssl.SSLWantReadError):
            return True

    def ready(self):
        if self.wait is TLS:
            self.go_on_with_tls()
            return
        if self.wait is READABLE:
            self.step('something')
            return
        try:
            alive = self.receive()
        except OSError as e:
            self.step(None, e)
            return
        value = self.take()
        if value is not None:
            self.step(value)
        elif not alive and self.wait is END:
            value = bytes(self.buffer).decode('latin-1')
            self.buffer.clear()
            self.step(value)
        elif not alive:
            self.step(None, EOFError('the program has ended it'))

    def close(self):
        if self.took is None:
            self.took = time.monotonic() - self.opened
            self.crowd.peers.pop(self.fd, None)
            self.sock.close()


class Crowd:
    def __init__(self):
        self.epoll = select.epoll()
        self.peers = {}
        self.servers = {}
        self.timers = []
        self.count = 0
        self.failures = []
        self.tls = client_context()

    def serve(self, server, script):
        """Whoever connects to the listening socket meets script(peer)."""
        server.setblocking(False)
        self.servers[server.fileno()] = server, script
        self.epoll.register(server.fileno(), select.EPOLLIN)

    def connect(self, address, script, source):
        """A client; script(peer) is its generator."""
        sock = socket.socket()
        sock.setsockopt(socket.IPPROTO_IP, 24, 1)  # IP_BIND_ADDRESS_NO_PORT
        sock.bind((source, 0))
        sock.connect(address)
        return self.join(sock, script)

    def join(self, sock, script):
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        peer = Peer(self, sock)
        peer.play(script(peer))
        return peer

    def wake(self, peer, seconds):
        self.count += 1
        heapq.heappush(self.timers,
                       (time.monotonic() + seconds, self.count, peer))

    def turn(self, longest=0.05):
        """All that has happened by now; or waits a moment for something."""
        if self.timers:
            longest = min(longest, self.timers[0][0] - time.monotonic())
        for fd, _ in self.epoll.poll(max(0, longest), 512):
            if fd in self.servers:
                server, script = self.servers[fd]
                self.join(server.accept()[0], script)
            elif fd in self.peers:
                self.peers[fd].ready()
        now = time.monotonic()
        while self.timers and self.timers[0][0] <= now:
            peer = heapq.heappop(self.timers)[2]
            if peer.took is None:
                peer.step(None)

    def close(self):
        for peer in list(self.peers.values()):
            peer.close()
        for server, _ in self.servers.values():
            server.close()
        self.epoll.close()
