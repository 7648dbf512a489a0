"""Fixtures: `front` starts the program, the others what stands around it."""

import os
import signal
import sys

import pytest

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import fakes  # noqa: E402
import harness  # noqa: E402
import listener  # noqa: E402

USERS = """alice:{PLAIN}wonderland
bob:{PLAIN}builder
"""


def pytest_configure(config):
    # A shell ignores these for what it runs behind its back, and that is
    # inherited by all that is started here.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in signal.SIGQUIT, signal.SIGHUP:
        signal.signal(number, signal.SIG_DFL)
    if not os.access(harness.PROGRAM, os.X_OK):
        raise pytest.UsageError(
            f'{harness.PROGRAM} is not there: run make first, or set '
            'SMTP_FRONTD_BUILD to the build folder')
    harness.adopt_orphans()


@pytest.fixture(scope='session')
def certificates(tmp_path_factory):
    return harness.Certificates(str(tmp_path_factory.mktemp('certs')))


@pytest.fixture(scope='session')
def users(tmp_path_factory):
    """auth_provider's value for a file with alice and bob."""
    path = tmp_path_factory.mktemp('users') / 'passwd'
    path.write_text(USERS)
    path.chmod(0o600)
    return f'file:{path}'


@pytest.fixture
def front(servers, users):
    """front(directive=value, ..., way='fd0', ...) is a harness.Session. It is
    torn down before the servers: whatever they do, the program must go.
    Unless told otherwise (None: not given) there are users and a backend at
    which nobody listens."""
    sessions = []
    settings = ('way', 'family', 'early', 'source', 'server_sock', 'relay',
                'env', 'stderr', 'extra_fds', 'args')

    def start(**kw):
        own = {k: kw.pop(k) for k in settings if k in kw}
        kw.setdefault('auth_provider', None if 'auth_http' in kw else users)
        if 'relay' not in own and \
                not str(kw['auth_provider']).startswith('http'):
            kw.setdefault('backend', fakes.dead_address())
        s = harness.Session(kw, **own)
        sessions.append(s)
        return s

    yield start
    complaints = harness.clean_up(sessions)
    if complaints:
        pytest.fail('\n'.join(complaints))


@pytest.fixture
def servers(tmp_path):
    """A list: what is appended is stopped at the test's end, and the mistakes
    that its threads made fail the test."""
    running = []
    yield running
    for s in running:
        s.stop()
    errors = [e for s in running for e in s.errors]
    if errors:
        pytest.fail(f'in a fake: {errors}')


@pytest.fixture
def backend(servers, tmp_path):
    """backend(...) is a fakes.Backend."""
    def start(family='inet', **kw):
        path = None
        if family == 'unix':
            path = str(tmp_path / f'backend{len(servers)}')
        b = fakes.Backend(family, path, **kw)
        servers.append(b)
        return b
    return start


@pytest.fixture
def auth_server(servers, tmp_path):
    """auth_server(answer, ...) is a fakes.AuthServer."""
    def start(*answers, family='inet'):
        path = None
        if family == 'unix':
            path = str(tmp_path / f'auth{len(servers)}')
        a = fakes.AuthServer(answers, family, path)
        servers.append(a)
        return a
    return start


@pytest.fixture
def name_server(servers):
    def start(*args, **kw):
        n = fakes.NameServer(*args, **kw)
        servers.append(n)
        return n
    return start


@pytest.fixture
def talk(front):
    """talk(...) is `front` with the greeting read."""
    def start(**kw):
        s = front(**kw)
        s.client.greeting()
        return s
    return start


@pytest.fixture
def at(front, backend):
    """A session past EHLO in front of a backend that takes everybody."""
    def start(**kw):
        kw.setdefault('backend', backend().address)
        kw.setdefault('max_errors', 100)
        kw.setdefault('max_auth_attempts', 100)
        s = front(**kw)
        s.client.greeting()
        s.client.hello()
        return s
    return start


@pytest.fixture
def file_with(tmp_path):
    def make(*lines):
        path = tmp_path / 'passwd'
        path.write_text('\n'.join(lines) + '\n')
        path.chmod(0o600)
        return f'file:{path}'
    return make


@pytest.fixture
def service(servers, users):
    """service(Listener or Keeper, directive=value, ...) starts it."""
    running = []
    settings = ('sockets', 'way', 'names', 'uid', 'relay', 'env', 'args',
                'limits', 'blocking', 'umask')

    def start(kind, **kw):
        own = {k: kw.pop(k) for k in settings if k in kw}
        kw.setdefault('auth_provider', None if 'auth_http' in kw else users)
        if kind is listener.Listener and 'relay' not in own:
            kw.setdefault('backend', fakes.dead_address())
        s = kind(kw, **own)
        running.append(s)
        return s

    yield start
    complaints = listener.clean_up(running)
    if complaints:
        pytest.fail('\n'.join(complaints))


@pytest.fixture
def serve(service):
    """serve(...) is a Listener, by default on one inherited socket."""
    def start(**kw):
        if 'listen' not in kw:
            kw.setdefault('sockets', [listener.listening_socket()])
        else:
            kw.setdefault('way', 'none')
        return service(listener.Listener, **kw)
    return start
