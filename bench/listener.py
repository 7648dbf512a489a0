"""The part `listener`: the same sessions through each front end in turn. What
is measured is in PLANS and in the four functions below; the goals are ratios of
neighbours in one round, and of those the median counts."""

import os
import statistics
import time

import chart
import fronts
from peers import Failure, free_port

ROUNDS = int(os.environ.get('BENCH_LISTENER_ROUNDS', 3))
MEGABYTES = int(os.environ.get('BENCH_MB', 1000))
BULK_ROUNDS = 3
AT_A_TIME = 20
IDLE = 200  # sessions that memory is measured with
# Idle ones beside the sessions of `growth`.
FEW, MANY = 10, int(os.environ.get('BENCH_IDLE', 5000))
LINE = 80

# What load.c does, and how many sessions a turn each front end has: fewer where
# one takes long.
PLANS = {
    'plain': ([], {'ours': 200, 'nginx': 400, 'dovecot one': 40,
                   'dovecot many': 400, 'haproxy': 400}),
    'STARTTLS': (['-t'], {'ours': 120, 'nginx': 200, 'dovecot one': 40,
                          'dovecot many': 200}),
    'TLS at once': (['-s'], {'ours': 120, 'nginx': 200, 'haproxy': 200}),
    'resumed': (['-t', '-r'], {'ours': 120, 'nginx': 200}),
    'greeting': (['-g'], {'fork': 400, 'ours': 400, 'nginx': 1000,
                          'dovecot one': 40, 'dovecot many': 1000}),
}
ALONE = {'ours': 40, 'nginx': 40, 'dovecot one': 10, 'dovecot many': 40}


class Turn:
    """What one turn has shown.

    cpu                 milliseconds a session, of the front end
    p50, p99            milliseconds of a session
    greet50, greet99    milliseconds from connect to the greeting
    resumed             the share of its handshakes that were resumed
    """

    def __init__(self, front, line, used):
        n, resumed, _, *percentiles = line
        self.cpu = used / int(n)
        self.resumed = int(resumed) / int(n)
        self.p50, self.p99, self.greet50, self.greet99 = (
            int(p) / 1000 for p in percentiles)


def load(front, words, times, at_a_time=AT_A_TIME):
    bench = front.bench
    port = front.ports['tls' if '-s' in words else 'plain']
    before = front.group.cpu_at_rest()
    lines = bench.finish(bench.popen(
        bench.tool('load'), *words, '-k', str(at_a_time), '-n', str(times),
        str(port)))
    return Turn(front, lines[-1], front.group.cpu_at_rest() - before)


def start(bench, report):
    """The front ends that can be had, by their keys."""
    found = {}
    for key, maker in {**fronts.MAKERS, 'fork': fronts.fork}.items():
        try:
            found[key] = maker(bench)
        except Failure as e:
            report.say(f'  {key} is left out: {e}')
    if 'ours' not in found or 'nginx' not in found:
        raise Failure('there is nothing to compare')
    return found


def divide(turns, name, under='nginx', over='ours'):
    return [getattr(a, name) / getattr(b, name)
            for a, b in zip(turns[over], turns[under])]


# Figures

def sessions(found, report, figures):
    """Sessions of each plan, 20 at a time."""
    turns = {plan: {key: [] for key in counts if key in found}
             for plan, (_, counts) in PLANS.items()}
    for round_ in range(ROUNDS + 1):
        for plan, (words, counts) in PLANS.items():
            for key in turns[plan]:
                # The first round warms up, and is short.
                times = counts[key] if round_ else AT_A_TIME
                turn = load(found[key], words, times)
                if round_:
                    turns[plan][key].append(turn)
    for plan, by_key in turns.items():
        tell(report, found, by_key, f'{plan}: CPU of a session', 'cpu')
        if plan == 'greeting':
            tell_greeting(report, found, by_key)
        else:
            tell(report, found, by_key, f'{plan}: wall clock, p50 of '
                 f'{AT_A_TIME} at a time', 'p50')
        figures[f'CPU of a session, ms: {plan}'] = summary(found, by_key, 'cpu')
    judge(report, turns)


def summary(found, by_key, name):
    return [(found[key].name, statistics.median(getattr(t, name)
                                                for t in turns))
            for key, turns in by_key.items()]


def tell(report, found, by_key, title, name):
    report.title(title)
    for key, turns in by_key.items():
        report.row(found[key].name, [getattr(t, name) for t in turns])


def tell_greeting(report, found, by_key):
    tell(report, found, by_key, 'connect to greeting, p50', 'greet50')
    tell(report, found, by_key, 'connect to greeting, p99', 'greet99')


def judge(report, turns):
    """The ratios, and whether each goal is met."""
    report.title('Ratios')
    report.ratio('STARTTLS, full handshake: CPU / nginx',
                 divide(turns['STARTTLS'], 'cpu'), 1.0)
    resumed = turns['resumed']
    for key, name in (('ours', 'smtp-frontd'), ('nginx', 'nginx')):
        share = min(t.resumed for t in resumed[key])
        if share < 0.9:
            report.say(f'  {name}: NOT RESUMED, {share:.0%} of the handshakes')
    if min(t.resumed for key in resumed for t in resumed[key]) < 0.9:
        report.verdict('STARTTLS, resumed: CPU / nginx', False, 'not resumed')
    else:
        report.ratio('STARTTLS, resumed: CPU / nginx',
                     divide(resumed, 'cpu'), 1.0)
    report.ratio('plain: CPU / nginx', divide(turns['plain'], 'cpu'), 1.8)
    if 'dovecot one' in turns['plain']:
        report.ratio('plain: CPU / Dovecot, a process a connection',
                     divide(turns['plain'], 'cpu', 'dovecot one'), 0.05)
    report.ratio('connect to greeting, p50 / nginx',
                 divide(turns['greeting'], 'greet50'), 2.0)
    report.ratio('connect to greeting, p99 / nginx',
                 divide(turns['greeting'], 'greet99'), 1.0)
    report.row('a fork, a line and the end: CPU / nginx\'s plain session',
               [a.cpu / b.cpu for a, b in zip(turns['greeting']['fork'],
                                              turns['plain']['nginx'])], 'x')
    report.row('greeting: CPU / a fork, a line and the end',
               divide(turns['greeting'], 'cpu', 'fork'), 'x')


def alone(found, report, figures):
    """How long one session takes when nothing else goes on."""
    turns = {key: [] for key in ALONE if key in found}
    for _ in range(ROUNDS):
        for key in turns:
            turns[key].append(load(found[key], ['-t'], ALONE[key], 1))
    tell(report, found, turns, 'STARTTLS, one at a time: wall clock, p50',
         'p50')
    report.ratio('STARTTLS: wall clock / nginx', divide(turns, 'p50'), 0.1)
    figures['Wall clock, ms: STARTTLS, one at a time'] = summary(
        found, turns, 'p50')


def message(front, tls):
    """(milliseconds of CPU, MB/s) of one long message."""
    bench = front.bench
    words = ['-a', '-m', str(MEGABYTES * 1000000 // LINE)]
    # HAProxy has no STARTTLS.
    at_once = tls and front.name.startswith('HAProxy')
    before = front.group.cpu_at_rest()
    said = bench.client(front.ports['tls' if at_once else 'plain'], 1, *words,
                        *(['-s' if at_once else '-t'] if tls else []))
    return (front.group.cpu_at_rest() - before,
            MEGABYTES * 1000 / said[0][3])


def bulk(found, report, figures):
    keys = [key for key in ('ours', 'nginx', 'haproxy') if key in found]
    for kind, most, least in (('plain', 0.5, 1.3), ('TLS', 0.85, None)):
        cpu = {key: [] for key in keys}
        rate = {key: [] for key in keys}
        for _ in range(BULK_ROUNDS):
            for key in keys:
                used, fast = message(found[key], kind == 'TLS')
                cpu[key].append(used)
                rate[key].append(fast)
        report.title(f'One message of {MEGABYTES} MB, {kind}')
        for key in keys:
            report.row(f'{found[key].name}: CPU', cpu[key])
            report.row(f'{found[key].name}: rate', rate[key], 'MB/s')
        report.ratio(f'bulk, {kind}: CPU / nginx', [
            a / b for a, b in zip(cpu['ours'], cpu['nginx'])], most)
        rates = [a / b for a, b in zip(rate['ours'], rate['nginx'])]
        if least is not None:
            report.ratio(f'bulk, {kind}: rate / nginx', rates, least=least)
        else:
            report.row(f'bulk, {kind}: rate / nginx (no goal)', rates, 'x')
        figures[f'CPU, ms: a message of {MEGABYTES} MB, {kind}'] = [
            (found[key].name, statistics.median(cpu[key])) for key in keys]


class Idle:
    """Sessions that are authenticated, and then do nothing."""

    def __init__(self, front, times, *words):
        self.process = front.bench.popen(
            front.bench.tool('load'), '-i', *words, '-k', '50', '-n',
            str(times), str(front.ports['plain']), wait_for_us=True)
        if self.process.stdout.readline() != 'ready\n':
            raise Failure(f'{front.name}: {times} idle sessions are too many: '
                          f'{front.bench.last_words()}')
        self.bench = front.bench

    def end(self):
        # Closing its standard input, which is what they wait for.
        self.bench.finish(self.process)


def memory(found, report, figures):
    """Of an idle authenticated STARTTLS session, the kernel's for it too."""
    figures['Memory of an idle session, kB'] = shown = []
    report.title(f'An idle authenticated STARTTLS session, {IDLE} of them')
    for key in ('ours', 'nginx'):
        values = []
        for _ in range(3):
            before, how = found[key].group.memory()
            idle = Idle(found[key], IDLE, '-t')
            values.append((found[key].group.memory()[0] - before) /
                          IDLE / 1000)
            idle.end()
            found[key].group.cpu_at_rest()
        report.row(f'{found[key].name}: memory', values, 'kB')
        shown.append((found[key].name, statistics.median(values)))
        if key == 'ours':
            report.goal('memory of an idle session, kB', values, 300)
    report.say(f'  Counted: {how}; without a cgroup also the client\'s and the '
               'sink\'s share of the kernel\'s.')


def growth(found, report, figures):
    """CPU of a plain session beside few and beside many idle ones."""
    figures['CPU of a session, ms: plain, beside idle ones'] = shown = []
    front = found['ours']
    values = {FEW: [], MANY: []}
    for count in values:
        idle = Idle(front, count)
        for _ in range(ROUNDS):
            values[count].append(load(front, [], 200).cpu)
        idle.end()
        front.group.cpu_at_rest()
    report.title('CPU of a plain session, with idle ones beside it')
    for count, costs in values.items():
        report.row(f'{front.name}, {count} idle', costs)
        shown.append((f'{count} idle', statistics.median(costs)))
    report.ratio(f'growth: CPU with {MANY} idle / with {FEW}',
                 [a / b for a, b in zip(values[MANY], values[FEW])], 1.2)


FIGURES = [sessions, alone, bulk, memory, growth]


def listener(bench, report):
    """The forking listener beside what it is measured against."""
    found, figures = {}, {}
    failed = []
    began = time.monotonic()
    try:
        found = start(bench, report)
        report.say('\nThe same sessions through each front end in turn\n' +
                   fronts.NOTES)
        for measure in FIGURES:
            try:
                measure(found, report, figures)
            except Failure as e:
                report.say(f'\n  {measure.__name__}: NOT MEASURED: {e}')
                failed.append(measure.__name__)
        chart.draw(bench, figures, report.head)
    finally:
        for front in found.values():
            front.stop()
    report.say(f'\n  The part took {time.monotonic() - began:.0f} s.')
    if failed:
        raise Failure(', '.join(failed))
