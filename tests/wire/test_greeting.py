"""The greeting: the ways in, the delay, early talkers, names."""

import ssl
import time

import pytest

import harness
from fakes import A, AAAA, PTR, NameServer, ptr_name
from harness import children, client_context

EARLY = b'503 5.5.0 Improper use of SMTP command pipelining\r\n'

WAYS = [('fd0', 'inet'), ('fd0', 'inet6'), ('fd0', 'mapped'),
        ('fd0', 'unix'), ('fd3', 'inet'), ('fd3', 'inet6'), ('fd3', 'unix'),
        ('pipes', None), ('pty', None)]


# --- the ways in -----------------------------------------------------------

@pytest.mark.parametrize('way,family', WAYS)
def test_every_way_in_is_greeted_and_ends_well(front, way, family):
    s = front(way=way, **({'family': family} if family else {}))
    c = s.client
    if way == 'pty':  # a terminal turns LF into CRLF, and echoes
        assert b'220 front.example ' in c.read_bytes(20)
        c.send('QUIT\n')
        assert b'221 ' in c.rest()
        assert s.finish()['cause'] == 'quit'
        return
    c.greeting()
    assert s.quit()['cause'] == 'quit'


@pytest.mark.parametrize('way,family,address', [
    ('fd0', 'inet', '127.0.0.1'), ('fd3', 'inet', '127.0.0.1'),
    ('fd0', 'inet6', '::1'), ('fd0', 'mapped', '127.0.0.1'),
    ('fd0', 'unix', 'unix:'), ('pipes', 'inet', 'unix:')])
def test_log_says_who_is_there(front, way, family, address):
    s = front(way=way, family=family)
    s.client.greeting()
    s.quit()
    assert s.event('connect')['client'] == address
    if s.port is not None:
        assert s.event('connect')['port'] == str(s.port)


@pytest.mark.parametrize('env,address', [
    ({'TCPREMOTEIP': '192.0.2.7', 'TCPREMOTEPORT': '77'}, '192.0.2.7'),
    ({'TCP6REMOTEIP': '2001:db8::7', 'TCP6REMOTEPORT': '77'}, '2001:db8::7'),
    ({'REMOTE_ADDR': '192.0.2.8'}, '192.0.2.8'),
    ({'TCPREMOTEIP': 'no address'}, 'unix:')])
def test_environment_names_the_peer_of_a_pipe(front, env, address):
    s = front(way='pipes', env=env)
    s.client.greeting()
    s.quit()
    assert s.event('connect')['client'] == address


def test_environment_is_not_believed_over_the_kernel(front):
    s = front(env={'TCPREMOTEIP': '192.0.2.7', 'REMOTE_ADDR': '192.0.2.7'})
    s.client.greeting()
    s.quit()
    assert s.event('connect')['client'] == '127.0.0.1'


# --- the delay -------------------------------------------------------------

def test_delay_is_waited(front):
    s = front(smtp_greeting_delay='600ms')
    s.client.greeting()
    waited = time.monotonic() - s.started
    assert 0.6 <= waited < 2.5
    s.quit()


def test_without_delay_the_greeting_comes_at_once(front):
    s = front()
    s.client.greeting()
    assert time.monotonic() - s.started < 1.0
    s.quit()


@pytest.mark.parametrize('way,family', WAYS[:-1])
def test_early_talker_is_refused(front, way, family):
    s = front(way=way, early=b'EHLO early\r\n', smtp_greeting_delay='8s',
              **({'family': family} if family else {}))
    assert s.client.rest() == EARLY
    assert time.monotonic() - s.started < 4  # long before the delay's end
    assert s.finish()['cause'] == 'early'
    e = s.event('early')
    assert e['result'] == 'refused'
    assert e['client'] == s.event('close')['client']


@pytest.mark.parametrize('early', [b'E', b'\r\n', b'\0', b'\x16\x03\x01',
                                   b'QUIT\r\n' * 5000])
def test_any_early_octet_counts(front, early):
    s = front(early=early, smtp_greeting_delay='8s')
    assert s.client.rest() == EARLY
    assert s.finish()['cause'] == 'early'
    assert 'QUIT' not in s.log.text  # what it said is not logged


def test_early_in_the_middle_of_the_delay(front):
    s = front(smtp_greeting_delay='8s')
    s.client.expect_nothing(0.3)
    s.client.send('E')
    assert s.client.rest() == EARLY
    assert s.finish()['cause'] == 'early'
    s.event('early')


def test_early_and_half_closed(front):
    s = front(smtp_greeting_delay='8s', early=b'EHLO early\r\n')
    s.client.half_close()
    assert s.client.rest() == EARLY
    s.finish()


def test_early_bytes_without_delay_are_commands(front):
    s = front(early=b'EHLO early\r\nNOOP\r\nQUIT\r\n')
    s.client.greeting()
    s.client.expect('250[ -]front.example')
    s.client.expect('250 ')
    s.client.expect('221 ')
    s.client.expect_end()
    assert s.finish()['cause'] == 'quit'
    assert s.events('early') == []


def test_early_talker_costs_no_keeper(front, users, certificates):
    s = front(smtp_greeting_delay='8s', auth_provider=users,
              **certificates.directives())
    s.client.expect_nothing(0.4)
    assert children(s.pid) == []
    s.client.send('x')
    assert s.client.rest() == EARLY
    s.finish()


# --- leaving during the delay ----------------------------------------------

def watch_children(s, seconds):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        assert children(s.pid) == []
        time.sleep(0.01)


@pytest.mark.parametrize('how', ['close', 'reset', 'half_close'])
def test_leaving_in_the_delay_costs_nothing_more(front, users, how,
                                                 certificates):
    s = front(smtp_greeting_delay='8s', auth_provider=users,
              starttls='on', **certificates.directives())
    watch_children(s, 0.4)
    getattr(s.client, how)()
    if how == 'half_close':
        assert s.client.rest() == b''
    assert s.finish()['cause'] == 'left'
    assert s.events('early') == []


def test_the_keeper_is_there_when_it_is_needed(front, users):
    """What makes the two tests above mean something."""
    s = front(auth_provider=users)
    s.client.greeting()
    s.client.hello()
    assert len(children(s.pid)) == 1
    s.quit()


def test_leaving_before_the_program_runs(front):
    client, server = harness.connection('inet')
    client.close()
    s = front(server_sock=server, smtp_greeting_delay='8s')
    assert s.finish()['cause'] == 'left'


# --- in implicit TLS -------------------------------------------------------

def test_early_in_the_same_write_as_the_handshakes_end(front, certificates):
    s = front(socket='ssl', smtp_greeting_delay='8s',
              **certificates.directives())
    s.client.start_tls(extra=b'EHLO early\r\n')
    assert s.client.rest() == EARLY
    assert s.client.clean_end
    assert s.finish()['cause'] == 'early'
    assert s.event('early')['result'] == 'refused'


@pytest.mark.parametrize('version', ['TLSv1_2', 'TLSv1_3'])
def test_early_after_the_handshake(front, certificates, version):
    s = front(socket='ssl', smtp_greeting_delay='8s',
              **certificates.directives())
    context = client_context()
    context.minimum_version = context.maximum_version = \
        getattr(ssl.TLSVersion, version)
    s.client.start_tls(context)
    s.client.send('E')
    assert s.client.rest() == EARLY
    assert s.finish()['cause'] == 'early'
    s.event('early')


def test_delay_in_tls_is_no_talk(front, certificates):
    """Session tickets and the like, which the client does not ask for, are
    not taken for its talk."""
    s = front(socket='ssl', smtp_greeting_delay='500ms',
              **certificates.directives())
    begun = time.monotonic()
    s.client.start_tls()
    s.client.greeting()
    assert time.monotonic() - begun >= 0.5
    s.quit()


@pytest.mark.parametrize('how', ['close', 'half_close', 'reset'])
def test_leaving_in_the_delay_in_tls(front, certificates, how):
    s = front(socket='ssl', smtp_greeting_delay='8s',
              **certificates.directives())
    s.client.start_tls()
    getattr(s.client, how)()
    if how == 'half_close':
        assert s.client.rest() == b''
    assert s.finish()['cause'] == 'left'
    assert s.events('early') == []


# --- names -----------------------------------------------------------------

def test_early_during_the_name_look_up(front, name_server):
    silent = name_server(silent=True)
    s = front(resolver=silent.address, resolver_timeout='8s',
              smtp_greeting_delay='200ms', source='127.0.0.9')
    harness.until(lambda: silent.questions, 'a question')
    s.client.send('E')
    assert s.client.rest() == EARLY
    assert time.monotonic() - s.started < 4
    assert s.finish()['cause'] == 'early'


def test_leaving_during_the_name_look_up(front, name_server):
    silent = name_server(silent=True)
    s = front(resolver=silent.address, resolver_timeout='8s',
              smtp_greeting_delay='100ms', source='127.0.0.9')
    harness.until(lambda: silent.questions, 'a question')
    s.client.close()
    assert s.finish()['cause'] == 'left'


def test_look_up_and_delay_run_at_the_same_time(front, name_server):
    silent = name_server(silent=True)
    s = front(resolver=silent.address, resolver_timeout='1s',
              smtp_greeting_delay='1s', source='127.0.0.9')
    s.client.greeting()
    assert 1.0 <= time.monotonic() - s.started < 1.9
    s.quit()


def test_silent_resolver_ends_at_its_deadline(front, name_server):
    silent = name_server(silent=True)
    s = front(resolver=silent.address, resolver_timeout='700ms',
              source='127.0.0.9')
    s.client.greeting()
    assert 0.7 <= time.monotonic() - s.started < 2.5
    s.quit()
    assert s.event('connect').get('host') == '[TEMPUNAVAIL]'


def host_in_log(front, name_server, family='inet', **kw):
    names = kw.pop('names', None) or name_server(**kw)
    s = front(resolver=names.address, resolver_timeout='3s', family=family,
              source='127.0.0.9' if family == 'inet' else None)
    s.client.greeting()
    s.quit()
    assert names.questions or family == 'inet6'
    return s.event('connect').get('host')


def test_confirmed_name(front, name_server):
    assert host_in_log(front, name_server, records={
        (ptr_name('127.0.0.9'), PTR): ['mx.client.example'],
        ('mx.client.example', A): ['192.0.2.1', '127.0.0.9'],
    }) == 'mx.client.example'


def test_second_name_confirmed(front, name_server):
    assert host_in_log(front, name_server, records={
        (ptr_name('127.0.0.9'), PTR): ['a.example', 'b.example'],
        ('a.example', A): ['192.0.2.1'],
        ('b.example', A): ['127.0.0.9'],
    }) == 'b.example'


@pytest.mark.parametrize('records', [
    {},                                                   # no PTR
    {(ptr_name('127.0.0.9'), PTR): ['liar.example'],      # not its own
     ('liar.example', A): ['192.0.2.1']},
    {(ptr_name('127.0.0.9'), PTR): ['nobody.example']},   # no such name
])
def test_unconfirmed_name_is_not_used(front, name_server, records):
    assert host_in_log(front, name_server, records=records) == '[UNAVAILABLE]'


@pytest.mark.parametrize('label', [b'evil\r\nRCPT', b'a b', b'a=b', b'\xc3\xa4',
                                   b'a\0b', b'a_b', b'a/b'])
def test_name_with_odd_octets_is_never_used(front, name_server, label):
    names = name_server(records={
        (ptr_name('127.0.0.9'), PTR): [[label, b'example']],
        (label.decode('latin-1').lower() + '.example', A): ['127.0.0.9'],
    })
    assert host_in_log(front, name_server, names=names) == '[TEMPUNAVAIL]'


def test_failing_resolver(front, name_server):
    assert host_in_log(front, name_server, failing=True) == '[TEMPUNAVAIL]'


def test_resolver_that_nobody_is(front, name_server):
    gone = NameServer()
    gone.stop()
    gone.questions.append('none')
    assert host_in_log(front, name_server, names=gone) == '[TEMPUNAVAIL]'


def test_ipv6_name(front, name_server):
    """/etc/hosts may know ::1 by another name, which is fine as well."""
    host = host_in_log(front, name_server, family='inet6', records={
        (ptr_name('::1'), PTR): ['six.example'],
        ('six.example', AAAA): ['::1'],
    })
    assert host == 'six.example'


def test_unix_peer_has_no_name(front, name_server):
    names = name_server()
    s = front(family='unix', resolver=names.address)
    s.client.greeting()
    s.quit()
    assert s.event('connect').get('host') == '[TEMPUNAVAIL]'
    assert names.questions == []


def test_resolver_system(front):
    """What the system's name servers say is not ours; that they are asked is."""
    s = front(resolver='system', resolver_timeout='500ms', source='127.0.0.9')
    s.client.greeting()
    s.quit()
    assert s.event('connect').get('host')


def test_resolver_off(front):
    s = front(resolver='off', source='127.0.0.9')
    s.client.greeting()
    s.quit()
    assert s.event('connect').get('host') is None
