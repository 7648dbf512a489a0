"""After hand-over: the copy in both directions and how it ends."""

import hashlib
import random
import re
import socket
import threading
import time

import pytest

from fakes import CLOSE, RESET, plain, swallow
from harness import WireError, memory, until

GOOD = plain('alice', 'wonderland')
SIZE = 20 * 1024 * 1024


@pytest.fixture
def handed(front, backend, certificates):
    """handed(tls=..., ...) -> (session behind 235, backend, conversation)."""
    def start(tls=False, replies=None, takeover=None, takeover_at=None,
              family='inet', **kw):
        b = backend(family, replies=replies, takeover=takeover,
                    takeover_at=takeover_at)
        if tls:
            kw.update(starttls='on', **certificates.directives())
        s = front(backend=b.address, **kw)
        s.client.greeting()
        if tls:
            s.client.ask('STARTTLS', '220 ')
            s.client.start_tls()
        s.client.hello()
        s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
        return s, b, b.conversation()
    return start


def leave(s):
    s.client.ask('QUIT', '221 2.0.0 backend leaves')
    s.client.expect_end()
    return s.finish()


def mail_lines(size, seed=1):
    """Lines of a message, all octets but CR, LF, NUL in them, dots stuffed."""
    r = random.Random(seed)
    table = bytes(x for x in range(1, 256) if x not in (10, 13))
    table = (table * 2)[:256]
    block = b''
    while len(block) < 1 << 18:
        line = r.randbytes(r.randrange(0, 990)).translate(table)
        block += (b'.' if line.startswith(b'.') else b'') + line + b'\r\n'
    return (block * (size // len(block) + 1))[:size - 2] + b'\r\n'


MESSAGE = mail_lines(SIZE)


# --- bytes -----------------------------------------------------------------

def test_leftovers_come_first(front, backend):
    b = backend()
    s = front(backend=b.address)
    s.client.greeting()
    s.client.send('EHLO client.example\r\n'
                  f'AUTH PLAIN {GOOD}\r\n'
                  'MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n'
                  'DATA\r\n')
    s.client.expect('250')
    for reply in ('235 ', '250 2.1.0 ', '250 2.1.5 ', '354 '):
        s.client.expect(reply)
    s.client.send('hello\r\n.\r\n')
    s.client.expect('250 2.0.0 queued')
    leave(s)
    c = b.conversation()
    assert c.received.endswith(
        b'MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n'
        b'hello\r\n.\r\nQUIT\r\n')
    assert c.received.count(b'MAIL') == 1


def test_half_a_command_is_left_over(front, backend):
    b = backend()
    s = front(backend=b.address)
    s.client.greeting()
    s.client.send(f'AUTH PLAIN {GOOD}\r\nMAIL FRO')
    s.client.expect('235 ')
    s.client.send('M:<a@a.example>\r\n')
    s.client.expect('250 2.1.0 ')
    leave(s)
    assert b.conversation().texts('MAIL') == ['MAIL FROM:<a@a.example>']


def test_more_left_over_than_the_buffer(front, backend):
    b = backend()
    s = front(backend=b.address, smtp_client_buffer='128')
    s.client.greeting()
    s.client.send(f'AUTH PLAIN {GOOD}\r\n' + 'NOOP\r\n' * 5000)
    s.client.expect('235 ')
    for _ in range(5000):
        s.client.expect('250 2.0.0 backend here')
    leave(s)
    assert len(b.conversation().texts('NOOP')) == 5000


def test_bytes_are_not_judged_after_hand_over(handed):
    """Long lines, tabs, verbs that nobody knows: the backend's business."""
    s, b, c = handed(smtp_client_buffer='128')
    for line in ('X' * 3000, 'NOOP\tx', 'nonsense', ''):
        s.client.line(line)
        s.client.expect('[25]')
    leave(s)
    assert c.texts()[-5:-1] == ['X' * 3000, 'NOOP\tx', 'nonsense', '']


@pytest.mark.parametrize('tls', [False, True])
@pytest.mark.parametrize('family', ['inet', 'unix'])
def test_twenty_megabytes_up(handed, tls, family):
    s, b, c = handed(tls=tls, family=family)
    s.client.ask('MAIL FROM:<a@a.example>', '250 ')
    s.client.ask('RCPT TO:<b@b.example>', '250 ')
    s.client.ask('DATA', '354 ')
    s.client.send(MESSAGE, 30)
    s.client.send(b'.\r\n')
    s.client.expect('250 2.0.0 queued', 30)
    end = leave(s)
    assert hashlib.sha256(c.messages[0]).digest() == \
        hashlib.sha256(MESSAGE).digest()
    assert int(end['bytes_up']) >= SIZE


@pytest.mark.parametrize('tls', [False, True])
def test_twenty_megabytes_down(handed, tls):
    """No mail server says so much; it must come whole all the same."""
    def pour(c):
        c.sock.sendall(MESSAGE)
        c.sock.shutdown(socket.SHUT_WR)
        swallow(c)
    s, b, c = handed(tls=tls, takeover=pour, takeover_at='NOOP')
    s.client.line('NOOP')
    data = s.client.read_bytes(SIZE, 30)
    assert hashlib.sha256(data).digest() == hashlib.sha256(MESSAGE).digest()
    rest = s.client.rest()  # it ended without a good-bye
    assert re.fullmatch(rb'421 4\.3\.0 [^\r\n]*\r\n', rest)
    s.finish((0, 75))


@pytest.mark.parametrize('tls', [False, True])
def test_both_directions_at_once(handed, tls):
    """An echo of two megabytes, sent without reading meanwhile."""
    def echo(c):
        data = c.buffer  # what came together with NOOP
        while not c.eof:
            c.sock.sendall(data)
            data = c.recv()
        c.sock.shutdown(socket.SHUT_WR)
    s, b, c = handed(tls=tls, takeover=echo, takeover_at='NOOP')
    s.client.line('NOOP')
    data = MESSAGE[:2 << 20]
    got = []
    reader = threading.Thread(
        target=lambda: got.append(s.client.read_bytes(len(data), 20)))
    if tls:  # one SSLObject is not for two threads
        back = b''
        for at in range(0, len(data), 1 << 16):
            s.client.send(data[at:at + (1 << 16)])
            back += s.client.read_bytes(len(data[at:at + (1 << 16)]))
        got.append(back)
    else:
        reader.start()
        s.client.send(data, 20)
        reader.join(20)
    assert got == [data]
    s.client.half_close()
    s.client.expect_end()
    s.finish((0, 75))


# --- ends ------------------------------------------------------------------

@pytest.mark.parametrize('tls', [False, True])
def test_half_close_of_the_client(handed, tls):
    s, b, c = handed(tls=tls)
    s.client.send('NOOP\r\nRSET\r\nQUIT\r\n')
    s.client.half_close()
    s.client.expect('250 2.0.0 backend here')
    s.client.expect('250 2.0.0 reset')
    s.client.expect('221 ')
    s.client.expect_end()
    s.finish()


@pytest.mark.parametrize('tls', [False, True])
def test_half_close_is_told_to_the_backend(handed, tls):
    """And what it says then still arrives."""
    def last_words(c):
        while c.recv():
            pass
        c.sock.sendall(b'250 2.0.0 heard the end\r\n221 2.0.0 bye\r\n')
    s, b, c = handed(tls=tls, takeover=last_words, takeover_at='NOOP')
    s.client.line('NOOP')
    s.client.half_close()
    s.client.expect('250 2.0.0 heard the end')
    s.client.expect('221 ')
    s.client.expect_end()
    s.finish()
    assert c.eof


@pytest.mark.parametrize('tls', [False, True])
def test_half_close_of_the_backend(handed, tls):
    """It has said its last, and still listens."""
    def deaf(c):
        c.sock.sendall(b'221 2.0.0 I say no more\r\n')
        c.sock.shutdown(socket.SHUT_WR)
        swallow(c)
    s, b, c = handed(tls=tls, takeover=deaf, takeover_at='NOOP')
    s.client.line('NOOP')
    s.client.expect('221 2.0.0 I say no more')
    s.client.expect_end()
    s.client.close()
    s.finish()


def test_client_that_leaves_is_told_to_the_backend(handed):
    s, b, c = handed()
    s.client.close()
    s.finish()
    assert b.await_end().eof


def test_client_that_dies_in_a_message(handed):
    """The backend never sees an end that the client did not write."""
    s, b, c = handed()
    s.client.send('MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n')
    for reply in ('250 ', '250 ', '354 '):
        s.client.expect(reply)
    s.client.send('half a mess')
    until(lambda: c.buffer.endswith(b'half a mess'), 'the half message')
    s.client.reset()
    s.finish()
    c = b.await_end()
    assert c.messages == [] and c.received.endswith(b'half a mess')


@pytest.mark.parametrize('tls', [False, True])
@pytest.mark.parametrize('how', [CLOSE, RESET])
def test_backend_that_dies_in_a_message(handed, tls, how):
    """No success is made up, and the silence is broken by a 421."""
    s, b, c = handed(tls=tls, takeover=lambda c: dies_in_data(c, how),
                     takeover_at='DATA')
    s.client.send('MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\nDATA\r\n')
    for reply in ('250 ', '250 ', '354 '):
        s.client.expect(reply)
    try:
        s.client.send(b'some line\r\n' * 20)
        s.client.send(b'.\r\n')
    except (WireError, OSError):
        pass
    try:
        said = s.client.rest()
    except ConnectionResetError:
        pytest.fail('the last words were taken back by a reset')
    assert said.startswith(b'421 4.3.0 ') and said.endswith(b'\r\n')
    assert said.count(b'\n') == 1
    s.finish((0, 75))


def dies_in_data(c, how):
    c.send('354 go on\n')
    while b'some line' not in c.buffer:
        c.recv()
    if how is RESET:
        c.backend.act(c, RESET)


@pytest.mark.parametrize('step', ['NOOP', 'MAIL', 'DATA', '.'])
def test_backend_that_closes_at_a_step(handed, step):
    s, b, c = handed(replies={step: CLOSE})
    for line, name, reply in [
            ('NOOP', 'NOOP', '250'), ('MAIL FROM:<a@a.example>', 'MAIL', '250'),
            ('RCPT TO:<b@b.example>', 'RCPT', '250'), ('DATA', 'DATA', '354'),
            ('x\r\n.', '.', '250')]:
        s.client.line(line)
        if name == step:
            break
        s.client.expect(reply)
    s.client.expect('421 4.3.0 ')
    s.client.expect_end()
    s.finish((0, 75))


@pytest.mark.parametrize('partial', [b'250 2.0', b'2', b'250', b'250-more\r\n25',
                                     b'250 2.0.0 queued\r'])
@pytest.mark.parametrize('how', [CLOSE, RESET])
def test_half_a_reply_is_never_completed(handed, partial, how):
    def half(c, text):
        c.send(partial)
        return how
    s, b, c = handed(replies={'.': half})
    s.client.send('DATA\r\nhello\r\n.\r\n')
    s.client.expect('354 ')
    said = s.client.rest()
    # Not a line of ours glued to it, and no end put to it.
    whole = partial[:partial.rfind(b'\n') + 1]
    assert said in (partial, whole, b'') or \
        (said.startswith(whole) and
         said[len(whole):].startswith(b'421 ')), said
    assert b'250 2.0.0 queued\r\n' not in said
    s.finish((0, 75))


def test_421_of_the_backend_is_the_last_word(handed):
    s, b, c = handed(replies={'NOOP': '421 4.3.2 shutting down'})
    s.client.ask('NOOP', '421 4.3.2 shutting down')
    s.client.expect_end()
    s.client.close()
    s.finish()


@pytest.mark.parametrize('tls', [False, True])
def test_idle_timeout(handed, tls):
    s, b, c = handed(tls=tls, proxy_timeout='500ms')
    begun = time.monotonic()
    said = s.client.rest()
    assert 0.4 <= time.monotonic() - begun < 3
    assert said == b'' or said.startswith(b'421 4.4.2 ')
    assert s.finish()['cause'] == 'timeout'
    b.await_end()


def test_traffic_holds_the_timeout_off(handed):
    s, b, c = handed(proxy_timeout='600ms')
    begun = time.monotonic()
    while time.monotonic() - begun < 1.0:
        s.client.ask('NOOP', '250 ')
        s.client.expect_nothing(0.15)
    leave(s)


# --- backpressure ----------------------------------------------------------

def endless(c):
    c.taken = 0
    piece = b'250-2.0.0 and on and on and on\r\n' * 2000
    while not c.backend.stopped.is_set():
        c.taken += c.sock.send(piece)


def stands_still(value, what):
    """Waits until value() does not grow for a while; its last value."""
    last = [value(), time.monotonic()]

    def still():
        if value() != last[0]:
            last[:] = [value(), time.monotonic()]
        return time.monotonic() - last[1] > 0.4
    until(still, what)
    return last[0]


@pytest.mark.parametrize('tls', [False, True])
def test_client_that_does_not_read(handed, tls):
    """The backend is held up; the process takes no more than its buffers."""
    s, b, c = handed(tls=tls, takeover=endless, takeover_at='NOOP')
    before = memory(s.pid)
    s.client.line('NOOP')
    until(lambda: getattr(c, 'taken', 0) > 100000, 'a start')
    taken = stands_still(lambda: c.taken, 'the backend is held up')
    assert taken < 40 << 20  # the kernel's socket buffers
    assert memory(s.pid) - before < 2048
    # And it goes on when the client does.
    n = s.client.received
    end = time.monotonic() + 10
    while s.client.received - n < taken + (1 << 20):
        s.client.fill(end)
        s.client.buffer = b''
    assert memory(s.pid) - before < 2048
    s.client.close()
    s.finish((0, 75))


@pytest.mark.parametrize('tls', [False, True])
def test_backend_that_does_not_read(handed, tls):
    gate = threading.Event()

    def waits(c):
        c.send('354 go on\n')
        gate.wait(20)
        total = len(c.buffer)
        while True:
            data = c.sock.recv(1 << 20)
            if not data:
                break
            total += len(data)
        c.total = total
    s, b, c = handed(tls=tls, takeover=waits, takeover_at='DATA')
    s.client.ask('DATA', '354 ')
    before = memory(s.pid)
    sent = [0]

    def send():
        for _ in range(200):
            s.client.send(b'x' * 998 + b'\r\n' * 1 + b'y' * 64536, 20)
            sent[0] += 998 + 2 + 64536
    writer = threading.Thread(target=send)
    writer.start()
    try:
        until(lambda: sent[0] > 100000, 'a start')
        stuck = stands_still(lambda: sent[0], 'the client is held up')
        assert memory(s.pid) - before < 2048
        assert stuck <= 13107200
    finally:
        gate.set()
        writer.join(20)
    s.client.half_close()
    s.client.rest()
    s.finish((0, 75))
    b.await_end()
    assert c.total == sent[0]


def test_slow_reader_gets_all(handed):
    """One octet at a time for a while, then the rest."""
    s, b, c = handed()
    s.client.send('NOOP\r\n' * 3000)
    got = b''
    for _ in range(500):
        got += s.client.read_bytes(1)
    for line in (got + b'').split(b'\r\n')[:-1]:
        assert line == b'250 2.0.0 backend here'
    rest = len(b'250 2.0.0 backend here\r\n') * 3000 - 500
    got += s.client.read_bytes(rest)
    assert got == b'250 2.0.0 backend here\r\n' * 3000
    leave(s)


def test_pipes_as_the_client(front, backend):
    b = backend()
    s = front(way='pipes', backend=b.address)
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    s.client.ask('DATA', '354 ')
    s.client.send(MESSAGE[:1 << 20])
    s.client.send(b'\r\n.\r\n')
    s.client.expect('250 2.0.0 queued')
    leave(s)
    assert b.conversation().messages[0].startswith(MESSAGE[:1 << 20])


def test_end_is_told_over_pipes(front, backend):
    """The backend's end reaches a client on pipes, too, without a wait."""
    b = backend()
    s = front(way='pipes', backend=b.address)
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    s.client.ask('QUIT', '221 2.0.0 backend leaves')
    begun = time.monotonic()
    s.client.expect_end()
    assert time.monotonic() - begun < 1
    s.finish()
