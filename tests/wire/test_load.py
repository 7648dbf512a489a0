"""The listener under load: whatever clients do, in their thousands, it has
afterwards what it had before, its numbers add up, and good clients were served
meanwhile.

LOAD_SCALE=1 is the full load: 10,000 connections without a word, 2,000 slow
clients, 100,000 sessions. The default is a part of it. What was measured is
printed (pytest -s).
"""

import os
import re
import time

import pytest

import harness
import listener as workshop
from crowd import END, LINE, MESSAGE, READABLE, REPLY, TLS, Crowd
from fakes import plain
from harness import DEADLINE, children, state, until
from listener import Listener, listening_socket, open_files, status_of

# A sanitizer makes a process cost ten times as much, and keeps for a while
# what was freed.
with open(harness.PROGRAM, 'rb') as program:
    SANITIZED = b'__asan_init' in program.read()

SCALE = float(os.environ.get('LOAD_SCALE', 0.005 if SANITIZED else 0.02))
# Seconds after which a part of a test hangs.
LONGEST = 300 + 8000 * SCALE
# What memory may differ by, in KiB: pages that are touched by chance.
FLAT = 10 ** 6 if SANITIZED else 64

AT_ONCE = 40
SOURCES = [f'127.0.0.{n}' for n in range(2, 22)]
# A good client's session, to its end, on a machine that is busy with others.
IN_TIME = 6 * DEADLINE if SANITIZED else DEADLINE
GOOD = plain('alice', 'wonderland')
BAD = plain('alice', 'hatter')
FILLER = ''.join(f'{i:02d}' + 'x' * 70 + '\r\n' for i in range(13))

only_root = pytest.mark.skipif(
    os.geteuid() != 0, reason='only for root: memory of others')


def message(number):
    return f'Subject: {number}\r\n\r\n{FILLER}end of {number}\r\n.\r\n'


# --- who takes part ---------------------------------------------------------

class Sink:
    """The mail server behind: which messages it has, each looked at."""

    def __init__(self, crowd):
        self.socket = listening_socket()
        self.address = '127.0.0.1:%d' % self.socket.getsockname()[1]
        self.delivered = []
        self.wrong = []
        crowd.serve(self.socket, self.script)

    def script(self, peer):
        say = '220 sink\r\n'
        try:
            while True:
                line = yield say.encode(), LINE
                if line == 'DATA\r\n':
                    self.look_at((yield b'354 go on\r\n', MESSAGE))
                elif line == 'QUIT\r\n':
                    peer.send(b'221 bye\r\n')
                    return
                say = '250 sink\r\n'
        except (EOFError, ConnectionError):
            pass  # its client has left

    def look_at(self, text):
        m = re.match(r'Subject: (\d+)\r\n', text)
        if m and text == message(int(m.group(1))):
            self.delivered.append(int(m.group(1)))
        else:
            self.wrong.append(text)


class Kept:
    """What a process has: to be the same before and after."""

    def __init__(self, pid):
        with open(f'/proc/{pid}/smaps_rollup') as f:
            self.rss = int(re.search(r'^Rss:\s+(\d+)', f.read(), re.M)[1])
        self.files = len(open_files(pid))
        self.threads = status_of(pid, 'Threads')

    def __repr__(self):
        return f'{self.rss} KiB, {self.files} fds, {self.threads} threads'


class Load:
    """A listener, the crowd before it, and what is expected of both."""

    def __init__(self, serve, folder, **directives):
        self.crowd = Crowd()
        self.sink = Sink(self.crowd)
        self.status = str(folder / 'status')
        self.front = serve(
            backend=self.sink.address, status_file=self.status,
            max_connections=3000, max_connections_per_source=3000,
            keeper_workers=4, timeout='1h', **directives)
        self.opened = self.good = self.bad = self.in_clear = 0
        self.number = self.greeted = 0
        self.may_go = False
        self.messages = []
        self.began = time.monotonic()

    # scripts

    @staticmethod
    def ask(data, code, wait=REPLY):
        reply = yield data.encode(), wait
        if not reply.startswith(code):
            raise ValueError(f'{data!r}: {reply!r}')
        return reply

    def deliver(self, peer, name='client.example', tls=False):
        """A whole session: TLS or not, login, a message, QUIT."""
        ask = self.ask
        yield from ask('', f'220 {harness.NAME} ')
        yield from ask(f'EHLO {name}\r\n', '250')
        if tls:
            yield from ask('STARTTLS\r\n', '220 ')
            yield b'', TLS
            yield from ask(f'EHLO {name}\r\n', '250')
        yield from ask(f'AUTH PLAIN {GOOD}\r\n', '235 ')
        self.good += 1
        before = peer.sent
        yield from ask('MAIL FROM:<a@a.example>\r\n', '250 ')
        yield from ask('RCPT TO:<b@b.example>\r\n', '250 ')
        yield from ask('DATA\r\n', '354 ')
        self.number += 1
        number = self.number
        yield from ask(message(number), '250 ')
        self.messages.append(number)
        rest = yield b'QUIT\r\n', END
        if not re.fullmatch(r'221 [^\n]*\r\n', rest):
            raise ValueError(f'after QUIT: {rest!r}')
        self.in_clear += peer.sent - before

    def deliver_with_tls(self, peer):
        return self.deliver(peer, tls=True)

    def be_refused(self, peer):
        yield from self.ask('', '220 ')
        yield from self.ask('EHLO client.example\r\n', '250')
        yield from self.ask(f'AUTH PLAIN {BAD}\r\n', '535 ')
        self.bad += 1
        yield from self.ask('QUIT\r\n', '221 ', END)

    def talk_only(self, peer):
        yield from self.ask('', '220 ')
        yield from self.ask('EHLO client.example\r\n', '250')
        yield from self.ask('QUIT\r\n', '221 ', END)

    def leave_in_the_middle(self, peer):
        yield from self.ask('', '220 ')
        yield from self.ask('EHLO client.example\r\n', '250')
        yield from self.ask(f'AUTH PLAIN {GOOD}\r\n', '235 ')
        self.good += 1
        before = peer.sent
        yield from self.ask('MAIL FROM:<a@a.example>\r\n', '250 ')
        self.in_clear += peer.sent - before

    @staticmethod
    def drop_at_once(peer):
        return
        yield

    @staticmethod
    def reset_at_once(peer):
        peer.abort()
        return
        yield

    @staticmethod
    def drop_unread(peer):
        yield b'', READABLE

    @staticmethod
    def drop_greeted(peer):
        yield b'', REPLY

    def stay(self, peer):
        """Says EHLO, and stays until all may go."""
        yield from self.ask('', '220 ')
        yield from self.ask('EHLO client.example\r\n', '250')
        self.greeted += 1
        while not self.may_go:
            yield b'', 0.2
        yield from self.ask('QUIT\r\n', '221 ', END)

    def slow(self, peer):
        """An octet a second, until all may go."""
        yield b'', REPLY
        self.greeted += 1
        lines = b'EHLO a\r\n'
        while True:
            for octet in lines[:-1]:
                yield bytes([octet]), 1.0
            if lines == b'QUIT\r\n':
                break
            yield from self.ask('\n', '250')
            lines = b'QUIT\r\n' if self.may_go else b'NOOP\r\n'
        yield from self.ask('\n', '221 ', END)

    # the crowd

    def connect(self, script):
        self.opened += 1
        return self.crowd.connect(self.front.address(), script,
                                  SOURCES[self.opened % len(SOURCES)])

    def send_in(self, total, scripts, at_once=AT_ONCE):
        """So many clients, one script after another, `at_once` at a time."""
        inside = []
        end = time.monotonic() + LONGEST
        for i in range(total):
            inside.append(self.connect(scripts[i % len(scripts)]))
            while len(inside) >= at_once:
                self.crowd.turn()
                inside = [p for p in inside if p.took is None]
                assert time.monotonic() < end, 'too slow'
        self.finish(inside)

    def fill_up(self, total, script, meanwhile):
        """So many who stay; returned when all were greeted."""
        self.greeted = 0
        self.may_go = False
        peers = []
        end = time.monotonic() + LONGEST
        while self.greeted < total:
            self.crowd.turn()
            # Who comes in a wave waits in line like everybody.
            if len(peers) - self.greeted >= AT_ONCE:
                meanwhile()
            elif len(peers) < total:
                peers.append(self.connect(script))
            assert time.monotonic() < end, 'too slow'
        return peers

    def let_go(self, peers):
        self.may_go = True
        self.finish(peers)

    def finish(self, peers):
        end = time.monotonic() + LONGEST
        while any(p.took is None for p in peers):
            self.crowd.turn()
            assert time.monotonic() < end, 'some do not end'
        assert self.crowd.failures == []

    # what it came to

    def rest(self):
        """Nobody is left but the keeper, no zombie either; what they have."""
        front = self.front
        end = time.monotonic() + DEADLINE
        while True:
            self.crowd.turn()
            processes = children(front.pid, alive=False)
            if processes == front.keepers() and len(processes) == 1 and \
                    self.closes() == self.opened:
                break
            assert time.monotonic() < end, (
                f'{[(p, state(p)) for p in processes]} are left; '
                f'{self.closes()} of {self.opened} sessions ended')
        self.keeper = processes[0]
        # Channels are closed by the keeper in its own time, but the
        # listener's.
        until(lambda: not [x for x in open_files(self.keeper).values()
                           if x.startswith('socket:')][2:], 'closed channels')
        return Kept(front.pid), Kept(self.keeper)

    def closes(self):
        return self.front.log.data.count(b' event=close ')

    def check(self, before, keeper, good):
        """After the load: as before, and the sums are right."""
        after = self.rest()
        seconds = time.monotonic() - self.began
        assert self.keeper == keeper
        for name, a, b in zip(('listener', 'keeper'), before, after):
            print(f'\n{name}: before {a}; after {b}', end='')
            assert b.files == a.files
            # A worker more has a stack and a provider of its own.
            assert b.rss <= a.rss + FLAT + 100 * (b.threads - a.threads)
        slowest = max(p.took for p in good)
        print(f'\n{self.opened} connections in {seconds:.1f} s; '
              f'{len(good)} good clients meanwhile, the slowest '
              f'{slowest * 1000:.0f} ms')
        assert slowest < IN_TIME
        assert self.sink.wrong == []
        assert sorted(self.sink.delivered) == sorted(self.messages)
        self.check_counters()
        bad = re.search(rb'.*(event=fatal|result=died|event=limit|'
                        rb'event=(?:listen|keeper) result=failed).*',
                        self.front.log.data)
        assert bad is None, bad.group()
        self.front.stop()

    def check_counters(self):
        done = harness.run('--status', '--status-file', self.status)
        assert done.returncode == 0, done.err
        found = dict(re.findall(r'^(.*\S)\s+(\d+)$', done.out, re.M))
        assert {k: int(v) for k, v in found.items() if k != 'bytes_down'} == {
            **{f'sessions in {stage}': 0 for stage in (
                'greeting', 'dialogue', 'upstream', 'proxy')},
            'accepted': self.opened, 'refused_max_connections': 0,
            'refused_max_connections_per_source': 0, 'early': 0,
            'authenticated': self.good, 'denied': self.bad,
            'upstream_failed': 0, 'crashed': 0, 'bytes_up': self.in_clear}

    def close(self):
        self.crowd.close()


@pytest.fixture
def load(users, tmp_path, certificates):
    """load(...) is a Load."""
    running = []

    def serve(**kw):
        running.append(Listener(
            {'auth_provider': users, 'starttls': 'on',
             **certificates.directives(), **kw},
            sockets=[listening_socket(backlog=4096)]))
        return running[-1]

    made = []

    def make(**kw):
        made.append(Load(serve, tmp_path, **kw))
        return made[-1]

    yield make
    for one in made:
        one.close()
    complaints = workshop.clean_up(running)
    if complaints:
        pytest.fail('\n'.join(complaints))


def warm_up(load, at_once=2 * AT_ONCE):
    """All that is made when it is first needed, is: workers, their memory, a
    channel for each of so many at once."""
    load.send_in(int(100 + 2000 * SCALE), [
        load.deliver, load.deliver_with_tls, load.be_refused, load.talk_only,
        load.drop_unread, load.drop_at_once])
    load.let_go(load.fill_up(at_once, load.stay, load.crowd.turn))
    before = load.rest()
    load.began = time.monotonic()
    return before, load.keeper


def mix(load, script, every, total):
    """`script`, with a good client after each `every` of them; the good."""
    good = []

    def one_good(peer):
        good.append(peer)
        return load.deliver(peer)
    return good, [*script * (every // len(script)), one_good], total


@only_root
def test_connections_dropped_without_a_word(load):
    """At once, by a reset, unread, after the greeting."""
    load = load()
    before, keeper = warm_up(load)
    good, scripts, total = mix(load, [
        load.drop_at_once, load.drop_unread, load.reset_at_once,
        load.drop_greeted], 48, int(10000 * SCALE))
    load.send_in(total + total // 48, scripts, 64)
    load.check(before, keeper, good)
    assert len(good) == total // 48


@only_root
def test_slow_clients(load):
    """All at once, an octet a second, and ten seconds of it."""
    load = load()
    total = int(2000 * SCALE)
    before, keeper = warm_up(load, total + AT_ONCE)
    good = []

    def serve_a_good_one():
        good.append(load.connect(load.deliver))
        load.finish(good[-1:])

    slow = load.fill_up(total, load.slow, serve_a_good_one)
    end = time.monotonic() + 10
    while time.monotonic() < end:
        serve_a_good_one()
        assert len(children(load.front.pid)) > total
    load.let_go(slow)
    load.check(before, keeper, good)


@only_root
def test_sessions_in_a_row(load):
    """Of all kinds that there are."""
    load = load()
    before, keeper = warm_up(load)
    good, scripts, total = mix(load, [
        load.deliver, load.talk_only, load.deliver, load.be_refused,
        load.deliver, load.leave_in_the_middle, load.deliver,
        load.drop_greeted, load.deliver, load.drop_at_once,
        load.deliver_with_tls], 99, int(100000 * SCALE))
    load.send_in(total, scripts)
    load.check(before, keeper, good)
    assert len(good) >= total // 100
