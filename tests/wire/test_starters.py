"""The program as those start it that are meant to: a whole session by each."""

import pytest

import starters
from fakes import plain, xclient_attributes
from harness import children

NEEDS = {
    starters.systemd: 'systemd-socket-activate',
    starters.systemd_inetd: 'systemd-socket-activate',
    starters.tcpserver: 'tcpserver',
    starters.xinetd: 'xinetd',
}
every_starter = pytest.mark.parametrize('how', [
    pytest.param(how, id=how.__name__, marks=pytest.mark.skipif(
        not starters.has(program), reason='no ' + program))
    for how, program in NEEDS.items()])


@pytest.fixture
def started(tmp_path, users, certificates, backend):
    """started(how, ...) is a Starter with .backend, a fake."""
    running = []

    def start(how, **kw):
        mail = backend()
        settings = {'auth_provider': users, 'backend': mail.address,
                    'starttls': 'only', **certificates.directives(), **kw}
        host = settings.pop('host', '127.0.0.1')
        relay = settings.pop('relay', None)
        s = starters.Starter(how, str(tmp_path), settings, relay, host)
        running.append(s)
        s.backend = mail
        return s

    yield start
    for s in running:
        s.stop()


def submit(c, certificates):
    """From the greeting to the message's end."""
    c.greeting()
    c.hello()
    c.ask('STARTTLS', '220 ')
    c.start_tls()
    c.hello()
    c.ask('AUTH PLAIN ' + plain('alice', 'wonderland'), '235 ')
    c.ask('MAIL FROM:<alice@example.com>', '250 ')
    c.ask('RCPT TO:<bob@example.com>', '250 ')
    c.ask('DATA', '354 ')
    c.ask('Subject: hello\r\n\r\nIt works.\r\n.', '250 ')
    c.ask('QUIT', '221 ')
    c.expect_end()
    c.close()


@every_starter
def test_session(started, how, certificates):
    s = started(how)
    c = s.connect()
    port = c.sock.getsockname()[1]
    submit(c, certificates)
    seen = s.backend.await_end()
    assert seen.messages == [b'Subject: hello\r\n\r\nIt works.\r\n']
    told = xclient_attributes(seen)
    assert told['ADDR'] == '127.0.0.1' and told['PORT'] == str(port)
    assert told['LOGIN'] == 'alice'
    s.await_quiet()
    if how is not starters.xinetd:
        assert s.await_event('connect')['port'] == str(port)
        assert s.await_event('close')['cause'] == 'done'


@every_starter
def test_sessions_beside_each_other(started, how, certificates):
    s = started(how)
    clients = [s.connect() for _ in range(5)]
    for c in clients:
        c.greeting()
    assert len(children(s.proc.pid)) == 5
    for c in reversed(clients):
        c.ask('QUIT', '221 ')
        c.expect_end()
        c.close()
    s.await_quiet()


@every_starter
def test_session_with_a_bad_file(started, how, certificates):
    """Nothing of the trouble reaches the client."""
    s = started(how, max_errors='many')
    c = s.connect()
    assert c.rest() == b''
    c.close()
    s.await_quiet()


@pytest.mark.skipif(not starters.has('systemd-socket-activate'),
                    reason='no systemd-socket-activate')
def test_session_over_ipv6(started, certificates):
    s = started(starters.systemd, host='::1')
    submit(s.connect(), certificates)
    assert xclient_attributes(s.backend.await_end())['ADDR'] == 'IPV6:::1'
