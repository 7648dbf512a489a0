"""The log: events, their fields, escaping, and where it never goes."""

import re

import pytest

from fakes import b64, plain
from harness import Event

GOOD = plain('alice', 'wonderland')


def test_events_of_a_whole_session(front, backend, certificates):
    b = backend()
    s = front(starttls='on', backend=b.address, **certificates.directives())
    s.client.greeting()
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls(server_hostname='front.example')
    s.client.hello()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    s.client.ask('NOOP', '250 ')
    s.quit()
    events = s.events()
    assert len(events) == len(s.lines())
    assert [e.name for e in events] == [
        'connect', 'tls', 'auth', 'upstream', 'close']
    ids = {e['session'] for e in events}
    assert len(ids) == 1 and re.fullmatch('[0-9a-f]{16}', ids.pop())
    for e in events:
        assert e.keys_in_order[:2] == ['session', 'event']
    connect, tls, auth, upstream, close = events
    assert connect['client'] == '127.0.0.1' and \
        connect['port'] == str(s.port)
    assert (tls['result'], tls['protocol'], tls['name']) == (
        'ok', 'TLSv1.3', 'front.example')
    assert (auth['result'], auth['client'], auth['user'], auth['mech']) == (
        'accepted', '127.0.0.1', 'alice', 'PLAIN')
    assert (upstream['result'], upstream['backend']) == ('ok', b.address)
    assert close['client'] == '127.0.0.1'
    assert int(close['commands']) >= 3  # STARTTLS, EHLO, AUTH
    assert int(close['bytes_up']) == len('NOOP\r\nQUIT\r\n')
    assert int(close['bytes_down']) == len(
        '250 2.0.0 backend here\r\n221 2.0.0 backend leaves\r\n')
    assert 0 <= int(close['duration_ms']) < 10000


def test_session_ids_are_not_the_same(front):
    ids = set()
    for _ in range(3):
        s = front()
        s.client.greeting()
        ids.add(s.quit()['session'])
    assert len(ids) == 3


# As a filter of fail2ban has it: it must not be fooled by what a client says.
FAIL2BAN = re.compile(
    r'^(?:\S+: )?session=[0-9a-f]{16} event=auth result=denied '
    r'client=(?P<host>[0-9a-fA-F.:]+) user=(?:"(?:[^"\\]|\\.)*"|\S*) '
    r'mech=[A-Z0-9-]+ reason=.*$')


@pytest.mark.parametrize('mechanism', ['PLAIN', 'LOGIN', 'CRAM-MD5'])
def test_line_for_fail2ban(front, mechanism):
    s = front(smtp_auth='plain login cram-md5')
    s.client.greeting()
    if mechanism == 'PLAIN':
        s.client.line('AUTH PLAIN ' + plain('alice', 'x'))
    elif mechanism == 'LOGIN':
        s.client.ask('AUTH LOGIN', '334 ')
        s.client.ask(b64('alice'), '334 ')
        s.client.line(b64('x'))
    else:
        s.client.ask('AUTH CRAM-MD5', '334 ')
        s.client.line(b64('alice ' + '0' * 32))
    s.client.expect('535 ')
    s.quit()
    [line] = [x for x in s.lines() if 'event=auth' in x]
    m = FAIL2BAN.match(line)
    assert m, line
    assert m.group('host') == '127.0.0.1'
    e = s.event('auth')
    assert (e['user'], e['mech']) == ('alice', mechanism)


@pytest.mark.parametrize('user', [
    'a b', 'a"b', 'a\\b', 'a\nsession=0 event=auth result=accepted user=root',
    'a\r\nb', '\x1b[31mred', 'caf\xe9', 'x client=192.0.2.1', '=', '" x="',
    'x' * 511, 'a\tb', '\x7f', '%s%n', "'"])
def test_what_a_client_says_is_escaped(front, user):
    s = front()
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + plain(user, 'x'), '535 ')
    s.quit()
    [line] = [x for x in s.lines() if 'event=auth' in x]
    assert all(' ' <= ch <= '~' for ch in line), line
    m = FAIL2BAN.match(line)
    assert m and m.group('host') == '127.0.0.1', line
    e = Event(line)
    assert e['user'] == user or \
        (len(user) > 100 and e['user'].startswith(user[:100])), line
    assert e['client'] == '127.0.0.1' and e['result'] == 'denied'
    assert len(s.lines()) == len(s.events())


@pytest.mark.parametrize('line', ['\x1b[31m', 'a b="c"', 'x\x07y', '\xff'])
def test_log_is_clean_whatever_is_said(front, line):
    s = front(max_errors=20)
    s.client.greeting()
    for text in (line, 'EHLO ' + line, 'AUTH ' + line, 'MAIL ' + line,
                 'STARTTLS ' + line):
        s.client.line(text)
        s.client.reply()
    s.quit()
    assert all(' ' <= ch <= '~' or ch == '\n' for ch in s.log.text)
    assert len(s.lines()) == len(s.events())


def test_words_of_the_backend_are_escaped(front, backend):
    b = backend(replies={'XCLIENT': b'550 5.7.0 \x1b[31m "x" y=z\xff\r\n'})
    s = front(backend=b.address)
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + GOOD, '451 ')
    s.quit((0, 75))
    assert all(' ' <= ch <= '~' or ch == '\n' for ch in s.log.text)
    assert len(s.lines()) == len(s.events())
    e = s.events('upstream')[0]
    assert e['result'] == 'refused' and e['backend'] == b.address
    assert '550' in e['reason']


def test_name_in_the_tls_handshake_is_escaped(front, certificates):
    s = front(starttls='on', **certificates.directives())
    s.client.greeting()
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls(server_hostname='a' * 60 + '.example')
    s.quit()
    assert s.event('tls')['name'] == 'a' * 60 + '.example'


@pytest.mark.parametrize('log', ['stderr', 'auto', 'syslog', 'journal', None])
@pytest.mark.parametrize('family', ['inet', 'unix'])
def test_log_is_never_written_to_the_client(front, log, family):
    """Under inetd standard error is the connection."""
    s = front(stderr='client', log=log, family=family)
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + plain('alice', 'x'), '535 ')
    s.client.ask('NONSENSE', '500 ')
    s.client.ask('QUIT', '221 ')
    s.client.expect_end()
    assert s.wait() == 0


def test_complaints_are_never_written_to_the_client(front):
    """Not those about directives either."""
    s = front(stderr='client', timeout='nonsense', log=None)
    said = s.client.rest()
    assert said == b'' or said.startswith(b'421 ')
    assert s.wait() in (64, 78)


def test_nothing_on_stderr_where_it_does_not_belong(front):
    s = front(log='syslog')
    s.client.greeting()
    s.client.ask('QUIT', '221 ')
    s.client.expect_end()
    assert s.wait() == 0
    assert s.lines() == []


def test_early_bytes_are_not_logged(front):
    s = front(early=b'MAIL FROM:<secret@secret.example>\r\n',
              smtp_greeting_delay='5s')
    s.client.rest()
    s.finish()
    assert 'secret' not in s.log.text
    e = s.event('early')
    assert (e['result'], e['client']) == ('refused', '127.0.0.1')
