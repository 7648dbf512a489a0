"""The manual against the program: what it names is there, what is there it
names, and its examples run.

A block of a manual page or the README is run when a line before it marks it
(.\\" MARK in mdoc, <!-- MARK --> in Markdown):

run     shell commands, which must succeed
output  what the block before it prints; "..." stands for anything
server  a command that serves port 2525 until the next one; its greeting is
        looked at
beside  a command that runs until the end, and makes the UNIX socket that it
        names
client  as run, while the server serves
check   a file of directives that --check takes
fail2ban  its filter

The blocks of one document run in their order, in one empty folder. Installed
paths are those of the build, port 2525 is a free one, a fake answers for the
mail server on 127.0.0.1:25 and the auth server on 127.0.0.1:8080.
"""

import os
import re
import shutil
import signal
import socket
import subprocess

import pytest

from fakes import ok
from harness import BUILD, TOP, environment, run, until

MAN = os.path.join(TOP, 'man')
PAGES = sorted(os.listdir(MAN))


def read(*path):
    with open(os.path.join(TOP, *path)) as f:
        return f.read()


def sources():
    for folder in ('.', 'lib', 'auth'):
        for name in sorted(os.listdir(os.path.join(TOP, folder))):
            if name.endswith('.c'):
                yield read(folder, name)


def section(page, title):
    """The text below .Sh `title`."""
    m = re.search(rf'^\.Sh {title}\n(.*?)(?=^\.Sh |\Z)', read('man', page),
                  re.M | re.S)
    assert m, f'{page} has no {title}'
    return m.group(1)


def words(text):
    """A page's text without its macros' first words and escapes."""
    text = re.sub(r'^\.\s*\w+', '', text, flags=re.M)
    return re.sub(r'\\[&-]', '', text)


# --- directives ------------------------------------------------------------

def help_groups():
    """--help's paragraphs: {title: names of the arguments}."""
    groups, title = {}, None
    for line in run('--help').out.splitlines():
        m = re.match(r'  --([a-z0-9-]+)', line)
        if m:
            groups.setdefault(title, []).append(m.group(1))
        elif line and not line.startswith(' '):
            title = line
    return groups


def test_directives_are_those_of_the_manual():
    groups = help_groups()
    groups.pop('What to do')
    directives = [name.replace('-', '_')
                  for names in groups.values() for name in names]
    text = section('smtp-frontd.conf.5', 'DIRECTIVES')
    assert re.findall(r'^\.It Cm (\w+)', text, re.M) == directives
    assert re.findall(r'^\.Ss (.*)$', text, re.M) == list(groups)


def test_every_directive_has_its_default_in_the_manual():
    text = section('smtp-frontd.conf.5', 'DIRECTIVES')
    for name, rest in re.findall(
            r'^\.It Cm (\w+)(.*?)(?=^\.It Cm |\Z)', text, re.M | re.S):
        assert 'Default:' in rest or "nginx's name for" in rest, name


def test_defaults_are_those_of_the_manual():
    text = section('smtp-frontd.conf.5', 'DIRECTIVES')
    for name, default in re.findall(
            r'^  --(\S+) \S.*? +\[(.*)\]$', run('--help').out, re.M):
        rest = re.search(rf'^\.It Cm {name.replace("-", "_")}\b(.*?)'
                         r'(?=^\.It Cm |\Z)', text, re.M | re.S).group(1)
        said = words(rest.split('Default:', 1)[1])
        assert default in ' '.join(said.split()), (name, default, said)


def test_options_stand_in_the_manual():
    text = section('smtp-frontd.8', 'DESCRIPTION')
    for name in help_groups()['What to do']:
        assert re.search(rf'^\.It Fl .*-{name}\b', text, re.M), name


# --- the log ---------------------------------------------------------------

def arguments(text, at):
    """The arguments of a call whose '(' is at `at`, as they stand."""
    found, depth, start, quoted, i = [], 0, at + 1, False, at
    while True:
        c = text[i]
        if quoted:
            if c == '\\':
                i += 1
            elif c == '"':
                quoted = False
        elif c == '"':
            quoted = True
        elif c == '(':
            depth += 1
        elif c == ')' or (c == ',' and depth == 1):
            depth -= c == ')'
            if depth < 1 or c == ',':
                found.append(text[start:i].strip())
                start = i + 1
            if depth == 0:
                return found
        i += 1


def logged():
    """{event: keys} as the log_event() calls have them, and those of functions
    that are given the event."""
    events, calls = {}, []
    for text in sources():
        for m in re.finditer(r'\blog_event\(', text):
            args = arguments(text, m.end() - 1)
            if args[1].startswith('const char'):
                continue  # the definition
            assert args[-1] == 'NULL'
            names = [args[1]]
            if args[1] == 'event':
                of = re.findall(r'^(\w+)\(const char \*event', text[:m.start()],
                                re.M)[-1]
                names = re.findall(rf'\b{of}\(("\w+")', text)
            calls += [(name, args[2:-1:2]) for name in names]
    for name, keys in calls:
        assert name.startswith('"'), name
        events.setdefault(name.strip('"'), set()).update(
            key.strip('"') for key in keys)
    return events


def documented():
    """{event: keys} as DIAGNOSTICS has them."""
    text = section('smtp-frontd.8', 'DIAGNOSTICS')
    return {
        event: {key for line in re.findall(r'^\.It Cm (.*)$', rest, re.M)
                for key in line.split(' , ')}
        for event, rest in re.findall(
            r'^\.It Sy (\w+)\n(.*?)(?=^\.It Sy |^\.Pp\nThe causes)', text,
            re.M | re.S)}


def test_events_and_keys_are_those_of_the_manual():
    assert logged() == documented()


def test_causes_are_those_of_the_manual():
    causes = set()
    for text in sources():
        for call in re.findall(
                r'\b(?:smtp_end|smtp_over)\(([^;]*)\)', text):
            causes |= set(re.findall(r'"(\w+)"', call))
        causes |= set(re.findall(r'->cause = "(\w+)"', text))
        causes |= set(re.findall(r'\[PROXY_\w+\] = "(\w+)"', text))
    text = section('smtp-frontd.8', 'DIAGNOSTICS')
    text = re.search(r'^The causes are:(.*?)^\.El', text, re.M | re.S).group(1)
    assert causes == set(re.findall(r'^\.It Li (\w+)$', text, re.M))


def test_replies_are_those_of_the_manual():
    code = r'"(\d\d\d \d\.\d\.\d+) '
    replies = set(re.findall(code, read('smtp_reply.c')))
    replies |= set(re.findall(code, read('greeting.c')))
    text = section('smtp-frontd.8', 'DIAGNOSTICS')
    text = text[text.index('.Ss Replies'):]
    told = {one for line in re.findall(r'^\.It Li (.*)$', text, re.M)
            for one in line.split(' , ')}
    assert replies == told


def test_counters_are_those_of_the_manual():
    counters = re.findall(r'^\tX\(\w+, "(\w+)"', read('counters.h'), re.M)
    text = section('smtp-frontd.8', 'DIAGNOSTICS')
    text = re.search(r'^\.Ss Status(.*?)^\.El', text, re.M | re.S).group(1)
    assert counters == [one for line in re.findall(r'^\.It Li (.*)$', text,
                                                   re.M)
                        for one in line.split(' , ')]
    stages = re.findall(r'^    \[STAGE_\w+\] = "(\w+)"', read('counters.c'),
                        re.M)
    assert len(stages) == 4
    for stage in stages:
        assert re.search(rf'\b{stage}\b', text), stage


# --- the environment, files ------------------------------------------------

def test_environment_of_a_relay_is_the_manuals():
    relay = read('relay.c')
    text = words(section('smtp-frontd.8', 'ENVIRONMENT'))
    names = set(re.findall(r'put\(e, "(\w+)"', relay))
    table = re.search(r'scrubbed\[\] = \{(.*?)\};', relay, re.S).group(1)
    names |= {name.rstrip('=') for name in re.findall(r'"([^"]+)"', table)}
    # "TCP6REMOTEIP and so on" stands for its kin.
    names = {name.replace('TCP6', 'TCP') for name in names}
    for name in names:
        assert re.search(rf'\b{name}(?![A-Z])', text), name


def test_environment_that_is_believed_is_the_manuals():
    text = words(section('smtp-frontd.8', 'ENVIRONMENT'))
    peer = read('peer.c')
    names = set(re.findall(r'"([A-Z][A-Z0-9_]+)"', peer))
    assert 'TCPREMOTEIP' in names and 'LISTEN_PID' in names
    for name in names:
        assert re.search(rf'\b{name}\b', text), name


def test_files_are_there():
    text = section('smtp-frontd.8', 'FILES')
    makefile = read('Makefile').replace('\\\n', ' ')
    modules = re.search(r'^MODULES\s*=(.*)$', makefile, re.M).group(1).split()
    assert set(re.findall(r'(\S+)\.so\b', words(text))) - \
        {'../lib/smtp-frontd/*'} == set(modules)
    units = set(re.findall(
        r'smtp-frontd(?:-\w+)?@?\.(?:socket|service)\b', text))
    have = {name for name in os.listdir(os.path.join(TOP, 'units'))
            if name.endswith(('.socket', '.service'))}
    assert units == have


# --- the pages -------------------------------------------------------------

@pytest.mark.skipif(not shutil.which('mandoc'), reason='no mandoc')
@pytest.mark.parametrize('page', PAGES)
def test_mandoc_has_nothing_to_say(page):
    """Except about pages of others, which need not be installed here."""
    done = subprocess.run(['mandoc', '-Tlint', os.path.join(MAN, page)],
                          capture_output=True, timeout=30)
    said = []
    for line in (done.stdout + done.stderr).decode().splitlines():
        m = re.search(r'referenced manual not found: Xr (\S+) (\d)', line)
        if (m and f'{m.group(1)}.{m.group(2)}' in PAGES) or \
                'outdated mandoc.db' in line:
            continue
        if not m:
            said.append(line)
    assert said == []


def test_pages_refer_to_pages_that_are_there():
    for page in PAGES:
        for name, number in re.findall(
                r'^\.Xr (smtp-frontd\S*) (\d)', read('man', page), re.M):
            assert f'{name}.{number}' in PAGES, page


# --- examples --------------------------------------------------------------

def mdoc_blocks(text):
    for mark, body in re.findall(
            r'^\.\\" (\w+)\n\.Bd -literal[^\n]*\n(.*?)^\.Ed', text,
            re.M | re.S):
        body = re.sub(r'^\\&', '', body, flags=re.M)
        yield mark, body.replace(r'\e', '\\').replace(r'\(dq', '"')


def markdown_blocks(text):
    return re.findall(r'^<!-- (\w+) -->\n+```\w*\n(.*?)^```', text,
                      re.M | re.S)


def blocks(path):
    text = read(path)
    found = list(markdown_blocks(text) if path.endswith('.md')
                 else mdoc_blocks(text))
    known = {'run', 'output', 'server', 'beside', 'client', 'check',
             'fail2ban'}
    assert {mark for mark, _ in found} <= known
    return found


def looks_like(expected, got):
    pattern = '.*'.join(map(re.escape, expected.strip('\n').split('...')))
    return re.fullmatch(pattern, got.strip('\n'))


def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]


def is_served(port):
    """Whether somebody listens; a connection would start a session."""
    with open('/proc/net/tcp') as f:
        return any(line.split()[1].endswith(f':{port:04X}') and
                   line.split()[3] == '0A' for line in f.readlines()[1:])


class Reader:
    """Somebody who reads a document and does as it says."""

    def __init__(self, folder, backend, auth_server):
        self.folder = folder
        self.port = str(free_port())
        self.backend, self.auth_server = backend, auth_server
        self.serving = None
        self.companions = []
        self.printed = None
        os.symlink(BUILD, folder / 'build')
        os.symlink(os.path.join(TOP, 'examples'), folder / 'examples')
        self.env = environment({
            'PATH': f'{BUILD}/sbin:{BUILD}/bin:/usr/local/sbin:/usr/local/bin:'
            '/usr/sbin:/usr/bin:/sbin:/bin', 'HOME': str(folder)})

    def here(self, text):
        for there, here in (
                (r'/usr/local/(s?bin)/', rf'{BUILD}/\1/'),
                (r'\b2525\b', self.port),
                (r'127\.0\.0\.1:25\b', self.backend.address),
                (r'127\.0\.0\.1:8080\b', self.auth_server.address)):
            text = re.sub(there, here, text)
        return text

    def run(self, text):
        done = subprocess.run(
            ['sh', '-eu'], input=self.here(text), cwd=self.folder, text=True,
            env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            timeout=60)
        self.printed = done.stdout
        assert done.returncode == 0, f'{text}\n{self.printed}'

    def client(self, text):
        self.printed = None
        if self.serving is not None:
            self.run(text)

    def output(self, text):
        if self.printed is None:
            return
        assert looks_like(self.here(text), self.printed), \
            f'{self.printed}\nis not\n{text}'

    def start(self, text):
        """None where the program that is to start ours is not there."""
        program = text.split()[0]
        if '/' not in program and not shutil.which(program):
            return None
        with open(self.folder / 'server.log', 'a') as log:
            return subprocess.Popen(
                ['sh', '-euc', 'exec ' + self.here(text)], cwd=self.folder,
                env=self.env, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                start_new_session=True)

    def beside(self, text):
        started = self.start(text)
        if started is None:
            return
        self.companions.append(started)
        path = re.search(r'\$PWD/([\w.]*socket)\b', text).group(1)
        until(lambda: (self.folder / path).exists(), text)

    def server(self, text):
        self.stop()
        self.printed = None
        self.serving = self.start(text)
        if self.serving is None:
            return  # its clients are passed over, too
        until(lambda: is_served(int(self.port)), text)
        if '--socket ssl' in text or '--smtp-greeting-delay' in text:
            return
        with socket.create_connection(
                ('127.0.0.1', int(self.port)), timeout=10) as s:
            assert s.recv(100).startswith(b'220 '), text

    def check(self, text):
        (self.folder / 'check.conf').write_text(text)
        done = run('--config', str(self.folder / 'check.conf'), '--check')
        assert done.returncode == 0, done.err

    @staticmethod
    def fail2ban(text):
        patterns = re.search(r'failregex = (.*?)^\S', text + '\n.',
                             re.M | re.S).group(1).splitlines()
        ours = 'session=5f2c9d0e1a7b4c33 event='
        for line, ban in (
                ('auth result=denied client=192.0.2.7 user=a', '192.0.2.7'),
                ('auth result=denied client=2001:db8::7', '2001:db8::7'),
                ('early result=refused client=192.0.2.7', '192.0.2.7'),
                ('auth result=accepted client=192.0.2.7 user=a', None),
                (r'auth result=accepted client=192.0.2.7 user="x event\x3dauth'
                 r' result\x3ddenied client\x3d192.0.2.8"', None)):
            found = [re.search(p.strip().replace('%(__prefix_line)s', '')
                               .replace('<ADDR>', r'([0-9a-f.:]+)'),
                               ours + line) for p in patterns]
            assert [m.group(1) for m in found if m] == ([ban] if ban else [])

    def stop(self):
        if self.serving is not None:
            os.killpg(self.serving.pid, signal.SIGTERM)
            self.serving.wait(10)
        self.serving = None

    def close(self):
        self.stop()
        for process in self.companions:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait(10)


@pytest.mark.skipif(not shutil.which('curl'), reason='no curl')
@pytest.mark.parametrize('path', ['README.md'] +
                         [os.path.join('man', page) for page in PAGES])
def test_examples_run(path, tmp_path, backend, auth_server):
    mail = backend()
    reader = Reader(tmp_path, mail, auth_server(ok(mail)))
    try:
        for mark, text in blocks(path):
            getattr(reader, mark)(text)
    finally:
        reader.close()
