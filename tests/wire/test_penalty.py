"""Failed logins are answered the later, the more of them a source has had. What
is shared between processes is looked up in its file, or asked of a keeper,
where no test has to wait for it."""

import os
import socket
import struct
import time

import pytest

from fakes import plain
from listener import (
    ANSWER_FAILURE, ANSWER_VERDICT, ASK_VERDICT, TYPES, Keeper, channel,
    listening_socket, packet, unpack)
from test_sasl import challenge, cram

GOOD = plain('alice', 'wonderland')
BAD = [plain('alice', password) for password in 'abc']
NOBODY = {'auth_penalty_exempt': '192.0.2.255'}

# The file: a header of 32 octets, then entries.
ENTRY = struct.Struct('=q10H9sB2x')


def failures(directory):
    """{source: count} of the file; {} when there is none."""
    path = os.path.join(directory, 'penalties')
    if not os.path.exists(path):
        return {}
    with open(path, 'rb') as f:
        data = f.read()[32:]
    return {e[11][1:5].hex() if e[11][0] == 4 else e[11][1:].hex(): e[12]
            for e in ENTRY.iter_unpack(data) if e[12]}


LOOPBACK = '7f000001'


@pytest.fixture
def runtime(tmp_path):
    """A directory such as systemd makes for RuntimeDirectory=."""
    path = tmp_path / 'run'
    path.mkdir(mode=0o700)
    return str(path)


def guess(s, response=BAD[0]):
    """A wrong login; how long its answer took (not less)."""
    begin = time.monotonic()
    s.client.ask('AUTH PLAIN ' + response, '535 5.7.8 ', deadline=30)
    return time.monotonic() - begin


# --- a process for each client ---------------------------------------------

def test_delay_grows_from_process_to_process(at, runtime):
    for response, least in zip(BAD, (2, 4)):
        s = at(runtime_directory=runtime, **NOBODY)
        assert guess(s, response) >= least
        s.quit()
    assert failures(runtime) == {LOOPBACK: 2}
    assert os.stat(os.path.join(runtime, 'penalties')).st_mode & 0o777 == 0o600


def test_without_a_directory_it_grows_within_the_session(at):
    s = at(**NOBODY)
    assert guess(s, BAD[0]) >= 2
    assert guess(s, BAD[1]) >= 4
    s.quit()


def test_where_the_file_cannot_be_made(at, runtime):
    os.chmod(runtime, 0o770)  # others may write there
    s = at(runtime_directory=runtime, **NOBODY)
    assert guess(s, BAD[0]) >= 2
    s.quit()
    assert failures(runtime) == {}


def test_it_is_logged_at_once(at, runtime):
    s = at(runtime_directory=runtime, **NOBODY)
    s.client.send('AUTH PLAIN ' + BAD[0] + '\r\n')
    s.await_event('auth', result='denied', user='alice')
    s.client.expect_nothing(1)
    s.client.expect('535 5.7.8 ')
    s.quit()


def test_who_leaves_is_counted(at, runtime):
    """And gets no answer."""
    s = at(runtime_directory=runtime, **NOBODY)
    s.client.send('AUTH PLAIN ' + BAD[0] + '\r\n')
    s.await_event('auth', result='denied')
    s.client.half_close()
    s.client.expect_end()
    assert s.finish()['cause'] == 'left'
    assert failures(runtime) == {LOOPBACK: 1}


def left_after(s, line):
    """Has said `line`, and goes when it is counted."""
    s.client.send(line + '\r\n')
    s.await_event('auth')
    s.client.close()
    s.wait()


def test_the_same_wrong_password_counts_once(at, runtime):
    for response in (BAD[0], BAD[0], BAD[1], BAD[0], BAD[1]):
        left_after(at(runtime_directory=runtime, **NOBODY),
                   'AUTH PLAIN ' + response)
    assert failures(runtime) == {LOOPBACK: 2}


def test_success_clears(at, runtime):
    left_after(at(runtime_directory=runtime, **NOBODY), 'AUTH PLAIN ' + BAD[0])
    assert failures(runtime) == {LOOPBACK: 1}
    s = at(runtime_directory=runtime, **NOBODY)
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    s.quit()
    assert failures(runtime) == {}


def test_failures_of_an_exchange_count(at, runtime):
    for n in (1, 2):
        s = at(smtp_auth='cram-md5', runtime_directory=runtime, **NOBODY)
        left_after(s, cram(challenge(s), 'alice', 'wrong'))
        assert failures(runtime) == {LOOPBACK: n}


@pytest.mark.parametrize('settings', [
    {}, {'auth_penalty_exempt': ['192.0.2.0/24', '127.0.0.1']},
    {'auth_penalty': 'off', **NOBODY}], ids=['default', 'network', 'off'])
def test_exempt(at, runtime, settings):
    s = at(runtime_directory=runtime, **settings)
    begin = time.monotonic()
    for response in BAD * 3:
        s.client.ask('AUTH PLAIN ' + response, '535 5.7.8 ')
    assert time.monotonic() - begin < 9 * 2
    s.quit()
    assert failures(runtime) == {}


def test_the_client_that_the_environment_names(at, runtime):
    s = at(way='pipes', env={'TCPREMOTEIP': '192.0.2.7'},
           runtime_directory=runtime)
    left_after(s, 'AUTH PLAIN ' + BAD[0])
    assert failures(runtime) == {'c0000207': 1}


def test_a_damaged_file_is_made_anew(at, runtime):
    with open(os.path.join(runtime, 'penalties'), 'wb') as f:
        f.write(os.urandom(5000))
    os.chmod(os.path.join(runtime, 'penalties'), 0o600)
    left_after(at(runtime_directory=runtime, **NOBODY), 'AUTH PLAIN ' + BAD[0])
    assert failures(runtime) == {LOOPBACK: 1}


# --- AUTH where it is not offered ------------------------------------------

def test_auth_before_tls(at, runtime, certificates):
    s = at(starttls='only', runtime_directory=runtime, **NOBODY,
           **certificates.directives())
    begin = time.monotonic()
    s.client.ask('AUTH PLAIN ' + GOOD, '538 5.7.11 ')
    assert time.monotonic() - begin >= 2
    assert failures(runtime) == {LOOPBACK: 1}
    s.quit()


def test_mechanism_that_is_not_offered(at, runtime):
    s = at(runtime_directory=runtime, **NOBODY)
    begin = time.monotonic()
    s.client.ask('AUTH NTLM', '504 5.5.4 ')
    s.client.ask('AUTH NTLM', '504 5.5.4 ')
    assert time.monotonic() - begin >= 2 + 4
    assert failures(runtime) == {LOOPBACK: 2}
    s.quit()


def test_slips_of_the_pen_do_not_count(at, runtime):
    s = at(runtime_directory=runtime, **NOBODY)
    s.client.ask('AUTH', '501 ')
    s.client.ask('AUTH PLAIN !', '501 ')
    s.client.ask('AUTH PLAIN', '334 ')
    s.client.ask('*', '501 ')
    s.quit()
    assert failures(runtime) == {}


# --- a keeper that lives on ------------------------------------------------

def test_delay_grows_in_a_listener(serve):
    s = serve(sockets=[listening_socket()], **NOBODY)
    for response, least in zip(BAD, (2, 4)):
        c = s.session()
        c.hello()
        begin = time.monotonic()
        c.ask('AUTH PLAIN ' + response, '535 5.7.8 ')
        assert time.monotonic() - begin >= least
        c.close()


@pytest.fixture
def asking(service, tmp_path):
    """asking(...): ask() of a keeper that lives on, a channel a question."""
    def start(**kw):
        path = str(tmp_path / 'keeper')
        service(Keeper, sockets=[listening_socket(
            'unix', path, kind=socket.SOCK_SEQPACKET)], **kw)

        def ask(*questions, kind=ASK_VERDICT, addr='192.0.2.1', **fields):
            c = channel(path)
            answers = []
            for password in questions:
                c.send(packet(kind, **{
                    'M_METHOD': 'plain', 'M_USER': 'alice',
                    'M_CLIENT_ADDR': addr, 'M_PASSWORD': password, **fields}))
                answers.append(unpack(c.recv(4096)))
            c.close()
            return answers
        ask.path = path
        return ask
    return start


def delays(answers):
    return [int(fields.get('M_DELAY', 0)) for _, fields in answers]


def test_delays(asking):
    ask = asking()
    found = [delays(ask(x))[0] for x in ('a', 'b', 'c', 'd', 'e', 'b')]
    assert found == [2000, 4000, 8000, 15000, 15000, 15000]
    assert delays(ask('a', addr='192.0.2.2')) == [2000]
    assert delays(ask('a', addr='2001:db8:1:2::1')) == [2000]
    assert delays(ask('b', addr='2001:db8:1:2:3::4')) == [4000]
    assert delays(ask('b', addr='2001:db8:1:3::1')) == [2000]


def test_repeats_and_success(asking):
    ask = asking()
    assert delays(ask('a') + ask('a') + ask('b') + ask('a')) == \
        [2000, 2000, 4000, 4000]
    [(kind, fields)] = ask('wonderland')
    assert fields['M_RESULT'] == b'accepted' and 'M_DELAY' not in fields
    assert delays(ask('b')) == [2000]


@pytest.mark.parametrize('addr', ['127.0.0.1', '::1', '::ffff:127.0.0.9',
                                  'unix:', '', 'nonsense'])
def test_who_is_not_delayed(asking, addr):
    ask = asking()
    assert delays(ask('a', addr=addr) + ask('b', addr=addr)) == [0, 0]


def test_a_session_that_does_not_sleep(asking):
    """One that was taken over gets no judgement before it is due."""
    ask = asking()
    first, second = ask('a', 'wonderland')
    assert first[0] == ANSWER_VERDICT and second[0] == ANSWER_FAILURE
    assert second[1]['M_REASON'] == b'too many attempts'


def test_a_session_that_changes_its_clients_address(asking):
    """It is believed once."""
    ask = asking()
    c = channel(ask.path)
    found = []
    for n in range(3):
        c.send(packet(TYPES['ASK_PENALTY'], M_CLIENT_ADDR=f'192.0.2.{n}'))
        found.append(unpack(c.recv(4096)))
    c.close()
    assert delays(found) == [2000, 4000, 8000]


def test_misplaced_auth_is_counted_with_the_rest(asking):
    ask = asking(max_errors=2)
    kinds = {'kind': TYPES['ASK_PENALTY']}
    assert delays(ask('a')) == [2000]
    answers = ask('', '', '', '', **kinds)
    assert [kind for kind, _ in answers] == \
        [TYPES['ANSWER_PENALTY']] * 3 + [ANSWER_FAILURE]
    assert delays(answers) == [4000, 8000, 15000, 0]


@pytest.mark.parametrize('name, expected', [
    ('plain', 2000), ('none', 0), ('external', 0), ('xoauth2', 2000)])
def test_by_method(asking, auth_server, name, expected):
    a = auth_server({'Auth-Status': 'no'})
    ask = asking(auth_http=a.url, smtp_auth='plain external none xoauth2')
    [answer] = ask('x', M_METHOD=name)
    assert answer[1]['M_RESULT'] == b'denied'
    assert delays([answer]) == [expected]


def test_whoever_asks_for_the_scope_has_not_guessed(asking, auth_server):
    ask = asking(auth_http=auth_server({'Auth-Status': 'no'}).url,
                 smtp_auth='oauthbearer')
    [answer] = ask('', M_METHOD='oauthbearer')
    assert answer[1]['M_RESULT'] == b'denied'
    assert delays([answer]) == [0]


@pytest.mark.parametrize('wait, expected', [('1', 2000), ('9', 9000)])
def test_the_longer_of_two_delays(asking, auth_server, wait, expected):
    ask = asking(auth_http=auth_server(
        {'Auth-Status': 'no', 'Auth-Wait': wait}).url)
    assert delays(ask('x')) == [expected]
