"""XOAUTH2 and OAUTHBEARER, judged by an auth server; with the clients of
others, too."""

import base64
import json
import smtplib
import subprocess

import pytest

import starters
from fakes import b64, ok
from harness import DEADLINE, NAME, environment
from test_peers import FROM, MESSAGE, TO

BOTH = 'xoauth2 oauthbearer'
TOKEN = 'ya29.vF9dft4qmTc2Nvb3RlckBhdHRhdmlzdGEuY29tCg=='
NO = {'Auth-Status': 'no such token'}


def xoauth2(user, token):
    return b64(f'user={user}\1auth=Bearer {token}\1\1')


def oauthbearer(user, token):
    return b64(f'n,{user and "a=" + user},\1host={NAME}\1port=587\1'
               f'auth=Bearer {token}\1\1')


WAYS = {'XOAUTH2': xoauth2, 'OAUTHBEARER': oauthbearer}
STATUS = {'XOAUTH2': '401', 'OAUTHBEARER': 'invalid_token'}


@pytest.fixture
def asks(at, backend, auth_server):
    """(session, auth server), in front of a backend."""
    def start(*answers, **kw):
        b = backend()
        a = auth_server(*[x(b) if x is ok else x for x in answers])
        kw.setdefault('smtp_auth', BOTH)
        return at(auth_provider=a.url, backend=b.address, **kw), a
    return start


def accepted(s):
    s.client.expect('235 2.7.0 ')
    s.client.ask('NOOP', '250 2.0.0 backend here')
    s.quit()


# --- successes -------------------------------------------------------------

@pytest.mark.parametrize('initial', [True, False])
@pytest.mark.parametrize('mechanism', WAYS)
def test_success(asks, mechanism, initial):
    s, a = asks(ok)
    assert 'AUTH XOAUTH2 OAUTHBEARER' in s.client.hello()
    response = WAYS[mechanism]('alice@example.com', TOKEN)
    if initial:
        s.client.line(f'AUTH {mechanism} {response}')
    else:
        assert s.client.ask('AUTH ' + mechanism, '334') == ['334 ']
        s.client.line(response)
    accepted(s)
    [r] = a.requests
    assert r.get('Auth-Method') == mechanism.lower()
    assert r.get('Auth-User') == 'alice@example.com'
    assert r.get('Auth-Pass') == TOKEN
    assert s.event('auth')['user'] == 'alice@example.com'


def test_the_longest_token(asks):
    """A line of 12288 octets, which the buffer is too small for."""
    s, a = asks(ok, smtp_client_buffer='128')
    space = (12288 - 2 - len('AUTH XOAUTH2 ')) // 4 * 3
    token = 'x' * (space - len('user=u\1auth=Bearer \1\1'))
    s.client.line('AUTH XOAUTH2 ' + xoauth2('u', token))
    accepted(s)
    assert a.requests[0].get('Auth-Pass') == token


def test_the_provider_says_whose_it_is(asks, backend):
    b = backend()
    s, a = asks(ok(b, Auth_User='alice'))
    s.client.line('AUTH OAUTHBEARER ' + oauthbearer('', TOKEN))
    accepted(s)
    assert a.requests[0].get('Auth-User') == ''
    assert s.event('auth')['user'] == 'alice'


def test_nobody_says_whose_it_is(asks):
    s, a = asks(ok)
    s.client.ask('AUTH OAUTHBEARER ' + oauthbearer('', TOKEN), '454 4.7.0 ')
    s.quit(75)
    assert s.event('auth')['reason'] == 'the provider names no user'


# --- refusals --------------------------------------------------------------

@pytest.mark.parametrize('dummy', ['', b64('\1'), 'AQ==', b64('whatever')])
@pytest.mark.parametrize('mechanism', WAYS)
def test_refused(asks, mechanism, dummy):
    """The client is told in JSON, answers that, and then it is refused."""
    s, a = asks(NO, ok)
    [line] = s.client.ask(
        f'AUTH {mechanism} ' + WAYS[mechanism]('alice', 'bad'), '334 ')
    assert json.loads(base64.b64decode(line[4:])) == {
        'status': STATUS[mechanism], 'schemes': 'bearer'}
    s.client.ask(dummy, '535 5.7.8 no such token')
    s.client.line(f'AUTH {mechanism} ' + WAYS[mechanism]('alice', TOKEN))
    accepted(s)
    assert [e['result'] for e in s.events('auth')] == ['denied', 'accepted']


def test_refused_and_cancelled(asks):
    """RFC 4954: a "*" is answered with 501, but denied it was."""
    s, a = asks(NO)
    s.client.ask('AUTH XOAUTH2 ' + xoauth2('alice', 'bad'), '334 ')
    s.client.ask('*', '501 5.7.0 ')
    s.quit()
    assert s.event('auth')['result'] == 'denied'


def test_refused_and_gone(asks):
    """Whoever leaves with the JSON is logged all the same."""
    s, a = asks(NO)
    s.client.ask('AUTH XOAUTH2 ' + xoauth2('alice', 'bad'), '334 ')
    s.client.close()
    s.finish()
    event = s.event('auth')
    assert event['result'] == 'denied' and event['user'] == 'alice'


def test_the_delay_comes_before_the_json(asks):
    s, a = asks({**NO, 'Auth-Wait': '1'})
    s.client.line('AUTH XOAUTH2 ' + xoauth2('alice', 'bad'))
    s.client.expect_nothing(0.8)
    s.client.expect('334 ')
    s.client.ask('', '535 ')
    s.quit()


@pytest.mark.parametrize('mechanism,response', [
    ('OAUTHBEARER', 'n,a=alice,\1host=x\1\1'),
    ('OAUTHBEARER', 'n,a=alice,\1auth=\1\1'),
    ('XOAUTH2', 'user=alice\1auth=\1\1')])
def test_no_token_asks_what_it_is_refused_with(asks, mechanism, response):
    s, a = asks(ok)
    s.client.ask(f'AUTH {mechanism} ' + b64(response), '334 ')
    s.client.ask(b64('\1'), '535 5.7.8 ')
    s.quit()
    assert a.requests == []


def test_away(asks):
    s, a = asks(b'HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n')
    s.client.ask('AUTH XOAUTH2 ' + xoauth2('alice', TOKEN), '454 4.7.0 ')
    s.quit(75)


@pytest.mark.parametrize('mechanism', WAYS)
@pytest.mark.parametrize('response', [
    '', 'x', 'user=alice\1auth=Bearer t\1', 'n,,\1auth=Basic eA==\1\1',
    'user=alice\1auth=Bearer t\r\nX-Evil: 1\1\1',
    'n,a=alice,\1auth=Bearer t\r\nX-Evil: 1\1\1'])
def test_malformed(asks, mechanism, response):
    s, a = asks(ok)
    s.client.ask(f'AUTH {mechanism} ' + (b64(response) or '='), '501 5.5.2 ')
    s.client.ask('NOOP', '250 ')
    s.quit()
    assert a.requests == []


def test_a_password_file_knows_no_tokens(at):
    s = at(smtp_auth='plain ' + BOTH)
    assert 'AUTH PLAIN' in s.client.hello()
    s.client.ask('AUTH XOAUTH2 ' + xoauth2('alice', TOKEN), '504 5.5.4 ')
    s.quit()


def test_no_token_in_any_log_line(asks):
    s, a = asks(NO)
    secret = 'not-to-be-seen'
    for line in ('AUTH XOAUTH2 ' + xoauth2('alice', secret),
                 'AUTH OAUTHBEARER ' + oauthbearer('alice', secret)):
        s.client.ask(line, '334 ')
        s.client.ask('', '535 ')
    s.client.ask('AUTH XOAUTH2 ' + b64(f'user=alice\1auth={secret}\1\1'),
                 '501 ')
    s.quit()
    for form in (secret, b64(secret)[:12], xoauth2('alice', secret)):
        assert form not in s.log.text


# --- the clients of others -------------------------------------------------

@pytest.fixture
def door(tmp_path, auth_server, backend, certificates):
    """door(mechanism): a front end at a port that offers that one, with TLS on
    request; .mail is its backend."""
    running = []
    mail = backend()

    def judge(request):
        return ok(mail) if request.get('Auth-Pass') == TOKEN else NO

    def start(mechanism):
        s = starters.Starter(
            starters.systemd, str(tmp_path),
            {'auth_provider': auth_server(judge).url,
             'smtp_auth': mechanism.lower(), 'starttls': 'only',
             **certificates.directives()}, None)
        running.append(s)
        s.mail, s.certificate = mail, certificates.ec[0]
        return s

    yield start
    for s in running:
        s.stop()


def run(words):
    return subprocess.run(words, input=MESSAGE, text=True, timeout=30,
                          env=environment({'HOME': '/nonexistent'}),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def curl(door, mechanism, token):
    done = run(['curl', '-sS', '--ssl-reqd', '--cacert', door.certificate,
                '--resolve', f'{NAME}:{door.port}:127.0.0.1', '--crlf',
                '-u', 'alice', '--oauth2-bearer', token, '--login-options',
                'AUTH=' + mechanism, '--mail-from', FROM, '--mail-rcpt', TO,
                '-T', '-', f'smtp://{NAME}:{door.port}/client.example'])
    return done.returncode == 0, done.stdout


def msmtp(door, mechanism, token):
    done = run(['msmtp', '-C', '/dev/null', '--host=127.0.0.1',
                f'--port={door.port}', '--domain=client.example', '--tls=on',
                '--tls-trust-file=' + door.certificate,
                '--tls-host-override=' + NAME,
                '--auth=' + mechanism.lower(), '--user=alice',
                '--passwordeval=echo ' + token, '--from=' + FROM, TO])
    return done.returncode == 0, done.stdout


def python(door, mechanism, token):
    """As Google's example has it: the error is answered with nothing."""
    response = base64.b64decode(WAYS[mechanism]('alice', token)).decode()

    def step(challenge=None):
        return '' if challenge else response
    with smtplib.SMTP('127.0.0.1', door.port, 'client.example', DEADLINE) as c:
        c.starttls()
        c.ehlo()
        try:
            c.auth(mechanism, step)
        except smtplib.SMTPAuthenticationError as e:
            return False, str(e)
        c.sendmail(FROM, [TO], MESSAGE)
    return True, ''


CLIENTS = {'curl': curl, 'msmtp': msmtp, 'python': python}


@pytest.mark.parametrize('token', [TOKEN, 'stale'])
@pytest.mark.parametrize('mechanism', WAYS)
@pytest.mark.parametrize('name', CLIENTS)
def test_client(door, name, mechanism, token):
    door = door(mechanism)
    success, said = CLIENTS[name](door, mechanism, token)
    assert success == (token == TOKEN), said
    event = door.await_event('auth')
    assert event['mech'] == mechanism and event['user'] == 'alice'
    assert event['result'] == ('accepted' if success else 'denied')
    if success:
        assert len(door.mail.await_end().messages) == 1
