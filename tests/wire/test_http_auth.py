"""The http provider through the whole program: nginx's auth_http protocol,
failing closed."""

import base64
import hashlib
import hmac
import time

import pytest

from fakes import (CLOSE, ENDLESS_LINE, ENDLESS_REPLY, GARBAGE, RESET, SILENCE,
                   b64, dead_address, http_response, ok, plain,
                   xclient_attributes)

GOOD = plain('alice', 'wonderland')


@pytest.fixture
def asks(front, backend, auth_server):
    """asks(answer, ...) -> (session past EHLO, backend, auth server). An answer
    may be a function of the backend."""
    def start(*answers, family='inet', **kw):
        b = backend()
        a = auth_server(*[x(b) if callable(x) else x for x in answers])
        kw.setdefault('auth_provider', a.url)
        kw.setdefault('auth_http_timeout', '700ms')
        kw.setdefault('max_errors', 100)
        s = front(family=family, **kw)
        s.client.greeting()
        s.client.hello()
        return s, b, a
    return start


def leave(s):
    s.quit()


# --- the question ----------------------------------------------------------

def test_headers_of_plain(asks):
    s, b, a = asks(ok)
    s.client.ask('AUTH PLAIN ' + GOOD, '235 2.7.0 ')
    leave(s)
    [r] = a.requests
    assert (r.method, r.uri) == ('GET', '/auth')
    assert r.get('Host').split(':')[0] == '127.0.0.1'
    assert r.auth() == {
        'Auth-Method': 'plain', 'Auth-User': 'alice',
        'Auth-Pass': 'wonderland', 'Auth-Protocol': 'smtp',
        'Auth-Login-Attempt': '1', 'Client-IP': '127.0.0.1',
        'Client-Host': '[UNAVAILABLE]'}
    names = [k for k, _ in r.headers if k.startswith(('Auth-', 'Client-'))]
    assert names == ['Auth-Method', 'Auth-User', 'Auth-Pass', 'Auth-Protocol',
                     'Auth-Login-Attempt', 'Client-IP', 'Client-Host']


def test_login_is_plain_to_it(asks):
    s, b, a = asks(ok)
    s.client.ask('AUTH LOGIN', '334 ')
    s.client.ask(b64('alice'), '334 ')
    s.client.ask(b64('wonderland'), '235 ')
    leave(s)
    assert a.requests[0].get('Auth-Method') == 'plain'


@pytest.mark.parametrize('family,address', [('inet6', '::1'),
                                            ('unix', 'unix:')])
def test_client_ip(asks, family, address):
    s, b, a = asks(ok, family=family)
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)
    assert a.requests[0].get('Client-IP') == address


@pytest.mark.parametrize('user,sent', [
    ('a b', 'a%20b'), ('a%b', 'a%25b'), ('a\r\nX-Evil: 1', 'a%0D%0AX-Evil:%201'),
    ('a+b@c', 'a+b@c'), ('\xe4', '\xe4'), ('a\tb', 'a%09b')])
def test_what_is_escaped(asks, user, sent):
    s, b, a = asks(ok)
    s.client.ask('AUTH PLAIN ' + plain(user, user), '235 ')
    leave(s)
    [r] = a.requests
    assert r.get('Auth-User') == sent
    assert r.get('Auth-Pass') == sent
    assert r.get('X-Evil') is None


def test_headers_of_cram_md5(asks):
    s, b, a = asks(ok, smtp_auth='cram-md5')
    [line] = s.client.ask('AUTH CRAM-MD5', '334 ')
    salt = base64.b64decode(line[4:])
    digest = hmac.new(b'wonderland', salt, hashlib.md5).hexdigest()
    s.client.ask(b64('alice ' + digest), '235 ')
    leave(s)
    [r] = a.requests
    assert r.get('Auth-Method') == 'cram-md5'
    assert r.get('Auth-User') == 'alice'
    assert r.get('Auth-Pass') == digest
    assert r.get('Auth-Salt').encode() == salt


def test_headers_of_none(asks):
    s, b, a = asks(ok, smtp_auth='none')
    s.client.ask('MAIL FROM:<a@a.example> SIZE=10', '250 ')
    s.client.ask('RCPT TO:<b@b.example> NOTIFY=NEVER', '250 2.1.5 ')
    leave(s)
    [r] = a.requests
    assert r.get('Auth-Method') == 'none'
    assert r.get('Auth-User') == '' and r.get('Auth-Pass') == ''
    assert r.get('Auth-SMTP-Helo') == 'client.example'
    assert r.get('Auth-SMTP-From') == 'MAIL FROM:<a@a.example> SIZE=10'
    assert r.get('Auth-SMTP-To') == 'RCPT TO:<b@b.example> NOTIFY=NEVER'


def test_none_refused_and_another_recipient(asks):
    s, b, a = asks({'Auth-Status': 'not here', 'Auth-Error-Code': '550 5.1.1'},
                   ok, smtp_auth='none')
    s.client.ask('MAIL FROM:<a@a.example>', '250 ')
    s.client.ask('RCPT TO:<b@b.example>', '550 5.1.1 not here')
    s.client.ask('RCPT TO:<c@c.example>', '250 2.1.5 ')
    leave(s)
    assert [r.get('Auth-SMTP-To') for r in a.requests] == [
        'RCPT TO:<b@b.example>', 'RCPT TO:<c@c.example>']
    assert b.conversation().texts('RCPT') == ['RCPT TO:<c@c.example>']


def test_headers_in_tls(asks, certificates):
    s, b, a = asks(ok, starttls='on', **certificates.directives())
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)
    [r] = a.requests
    assert r.get('Auth-SSL') == 'on'
    assert r.get('Auth-SSL-Protocol') == 'TLSv1.3'
    assert r.get('Auth-SSL-Cipher').startswith('TLS_')


def test_own_headers(asks):
    s, b, a = asks(ok, auth_http_header=['X-Key: sesame', 'X-Two: a b'])
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)
    assert a.requests[0].get('X-Key') == 'sesame'
    assert a.requests[0].get('X-Two') == 'a b'


def test_auth_http_without_a_scheme(front, backend, auth_server):
    b = backend()
    a = auth_server(ok(b))
    s = front(auth_http=f'127.0.0.1:{a.port}/mail?x=1')
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)
    assert a.requests[0].uri == '/mail?x=1'


def test_over_a_unix_socket(asks, auth_server, backend):
    b = backend()
    a = auth_server(ok(b), family='unix')
    s, _, _ = asks(ok, auth_provider='http+unix://' +
                   a.address.removeprefix('unix:') + ':/auth')
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)
    assert a.requests[0].uri == '/auth'


def test_attempts_are_counted(asks):
    s, b, a = asks({'Auth-Status': 'no'}, {'Auth-Status': 'no'}, ok,
                   smtp_auth='plain', max_auth_attempts=5)
    for _ in range(2):
        s.client.ask('AUTH PLAIN ' + plain('alice', 'x'), '535 ')
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)
    assert [r.get('Auth-Login-Attempt') for r in a.requests] == ['1', '2', '3']


def test_attempts_are_bounded(asks):
    s, b, a = asks({'Auth-Status': 'no'}, max_auth_attempts=2)
    for _ in range(2):
        s.client.ask('AUTH PLAIN ' + plain('alice', 'x'), '535 ')
    s.client.ask('AUTH PLAIN ' + GOOD, '421 4.7.0 ')
    s.client.expect_end()
    s.finish()
    assert len(a.requests) == 2


def test_proxies_of_the_environment_see_nothing(asks, auth_server, backend):
    spy = auth_server({'Auth-Status': 'no'})
    s, b, a = asks(ok, env={'http_proxy': f'http://{spy.address}',
                            'all_proxy': f'http://{spy.address}'})
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)
    assert spy.requests == []


# --- the answer ------------------------------------------------------------

def test_user_and_password_are_replaced(asks):
    s, b, a = asks(lambda b: ok(b, Auth_User='other', Auth_Pass='inner'),
                   proxy_smtp_auth='on')
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)
    [text] = b.conversation().texts('AUTH')
    assert text == 'AUTH PLAIN ' + plain('other', 'inner')


def test_user_is_replaced_in_xclient(asks):
    s, b, a = asks(lambda b: ok(b, Auth_User='other'))
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)
    assert xclient_attributes(b.conversation())['LOGIN'] == 'other'


@pytest.mark.parametrize('host', ['127.0.0.1', 'localhost', '[::1]', '::1'])
def test_auth_server_may_be_a_name(front, backend, auth_server, host):
    b = backend('inet6' if '::' in host else 'inet')
    a = auth_server(ok(b, Auth_Server=host))
    s = front(auth_provider=a.url)
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)


def test_name_from_the_resolver(front, backend, auth_server, name_server):
    names = name_server(records={('backend.internal', 1): ['127.0.0.1']})
    b = backend()
    a = auth_server(ok(b, Auth_Server='backend.internal'))
    s = front(auth_provider=a.url, resolver=names.address,
              resolver_timeout='2s')
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)
    assert ('backend.internal', 1) in names.questions


def test_no_server_named_means_the_list(front, backend, auth_server):
    b = backend()
    a = auth_server({'Auth-Status': 'OK'})
    s = front(auth_provider=a.url, backend=b.address)
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)


def test_no_server_at_all(front, auth_server):
    a = auth_server({'Auth-Status': 'OK'})
    s = front(auth_provider=a.url)
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + GOOD, '4[25][14] 4.')
    s.client.close()
    assert s.wait() in (0, 75)


@pytest.mark.parametrize('wrong', [
    {'Auth-Server': 'bad host'}, {'Auth-Port': '0'}, {'Auth-Port': '65536'},
    {'Auth-Port': 'smtp'}, {'Auth-Server': '127.0.0.1:25'},
    {'Auth-Server': 'unix:relative'}, {'Auth-Server': 'a' * 300}])
def test_nonsense_for_a_backend(asks, wrong):
    s, b, a = asks(lambda b: {**ok(b), **wrong})
    s.client.ask('AUTH PLAIN ' + GOOD, '4[25][14] 4.')
    s.client.close()
    s.wait()
    assert b.conversations == []


def test_error_code_and_text(asks):
    s, b, a = asks({'Auth-Status': 'Account is locked',
                    'Auth-Error-Code': '535 5.7.13'})
    s.client.ask('AUTH PLAIN ' + GOOD, '535 5.7.13 Account is locked$')
    s.client.ask('NOOP', '250 2.0.0 OK')
    s.quit()


def test_temporary_error_code(asks):
    s, b, a = asks({'Auth-Status': 'later', 'Auth-Error-Code': '454 4.7.0'})
    s.client.ask('AUTH PLAIN ' + GOOD, '454 4.7.0 later$')
    s.quit()


@pytest.mark.parametrize('code', ['235 2.7.0', '250', '334', '2', 'foo bar',
                                  '535\t5.7.8', '599999', '535 5.7.8 x', '',
                                  '535 2.7.0', '220 2.0.0', '221'])
def test_error_code_that_is_none(asks, code):
    """An auth server cannot make a success of a refusal, nor break a line."""
    s, b, a = asks({'Auth-Status': 'no', 'Auth-Error-Code': code})
    s.client.ask('AUTH PLAIN ' + GOOD, '535 5.7.8 no$')
    s.client.ask('NOOP', '250 2.0.0 OK')
    s.quit()


@pytest.mark.parametrize('text', ['caf\xe9', 'a\x1b[2Jb', 'x' * 5000])
def test_odd_error_text(asks, text):
    s, b, a = asks({'Auth-Status': text})
    [line] = s.client.ask('AUTH PLAIN ' + GOOD, '(535 5.7.8|454 4.7.0) ')
    assert len(line) <= 510 and line.isascii() and '\x1b' not in line
    s.client.ask('NOOP', '250 2.0.0 OK')
    s.quit()


def test_auth_wait_delays_and_the_session_goes_on(asks):
    s, b, a = asks({'Auth-Status': 'no', 'Auth-Wait': '1'}, ok)
    begun = time.monotonic()
    s.client.ask('AUTH PLAIN ' + plain('alice', 'x'), '535 5.7.8 no$')
    assert 1.0 <= time.monotonic() - begun < 4
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)


def test_auth_wait_holds_back_what_is_pipelined(asks):
    s, b, a = asks({'Auth-Status': 'no', 'Auth-Wait': '1'})
    begun = time.monotonic()
    s.client.send(f'AUTH PLAIN {GOOD}\r\nHELP\r\n')
    s.client.expect('535 ')
    s.client.expect('214 ')
    assert time.monotonic() - begun >= 1.0
    s.quit()


def test_leaving_ends_auth_wait(asks):
    s, b, a = asks({'Auth-Status': 'no', 'Auth-Wait': '30'})
    s.client.line('AUTH PLAIN ' + GOOD)
    s.client.expect_nothing(0.3)
    s.client.close()
    s.finish()


def test_status_wait_asks_again(asks):
    s, b, a = asks({'Auth-Status': 'WAIT', 'Auth-Wait': '1'}, ok,
                   auth_http_timeout='3s')
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)
    assert [r.get('Auth-Login-Attempt') for r in a.requests] == ['1', '1']


def test_status_wait_without_end(asks):
    """No busy loop, and its end is the timeout."""
    s, b, a = asks({'Auth-Status': 'WAIT'}, auth_http_timeout='1500ms')
    s.client.ask('AUTH PLAIN ' + GOOD, '454 4.7.0 ')
    s.quit(75)
    assert len(a.requests) <= 3


def test_authorization_name_of_another_is_never_asked_about(asks):
    """The protocol has no header for it: OK would be for the other name."""
    s, b, a = asks(ok)
    s.client.ask('AUTH PLAIN ' + plain('alice', 'wonderland', 'bob'),
                 '535 5.7.8 ')
    s.quit()
    assert a.requests == [] and b.conversations == []


# --- failing closed --------------------------------------------------------

def with_status(status):
    return lambda b: http_response(ok(b), status)


UNAVAILABLE = {
    'status 500': with_status('500 Internal Server Error'),
    'status 404': with_status('404 Not Found'),
    'status 302': with_status('302 Found'),
    'status 401': with_status('401 Unauthorized'),
    'garbage': GARBAGE,
    'silence': SILENCE,
    'close': CLOSE,
    'reset': RESET,
    'an endless header': ENDLESS_LINE,
    'endless headers': ENDLESS_REPLY,
    'half an answer': b'HTTP/1.1 200 OK\r\nAuth-Status: OK\r\n',
    'no status line': b'Auth-Status: OK\r\n\r\n',
    'HTTP/0.9': b'Auth-Status: OK\n\n',
    'a cut body': lambda b: http_response(ok(b)).replace(
        b'Content-Length: 0', b'Content-Length: 99'),
}


@pytest.mark.parametrize('what', UNAVAILABLE)
def test_broken_auth_server_is_unavailable(asks, what):
    answer = UNAVAILABLE[what]
    s, b, a = asks(answer)
    begun = time.monotonic()
    s.client.ask('AUTH PLAIN ' + GOOD, '454 4.7.0 ')
    assert time.monotonic() - begun < 3
    s.client.ask('NOOP', '250 2.0.0 OK')
    s.quit(75)
    assert b.conversations == []
    assert s.event('auth')['result'] == 'unavailable'


def test_dead_auth_server(front):
    s = front(auth_provider=f'http://{dead_address()}/auth')
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + GOOD, '454 4.7.0 ')
    s.quit(75)


DENIED = {
    'no Auth-Status': lambda b: {k: v for k, v in ok(b).items()
                                 if k != 'Auth-Status'},
    'an empty one': lambda b: ok(b, Auth_Status=''),
    'small letters': lambda b: ok(b, Auth_Status='ok'),
    'more behind it': lambda b: ok(b, Auth_Status='OK, really'),
    'error, then OK': lambda b: http_response(
        [('Auth-Status', 'no')] + list(ok(b).items())),
    'OK, then error': lambda b: http_response(
        list(ok(b).items()) + [('Auth-Status', 'no')]),
    'in the body': lambda b: http_response(
        {k: v for k, v in ok(b).items() if k != 'Auth-Status'},
        body=b'Auth-Status: OK\r\n'),
    'another header': lambda b: {**ok(b, Auth_Status='no'),
                                 'X-Auth-Status': 'OK'},
}


@pytest.mark.parametrize('what', DENIED)
def test_what_is_not_ok_is_a_refusal(asks, what):
    s, b, a = asks(DENIED[what])
    s.client.ask('AUTH PLAIN ' + GOOD, '535 5.7.8 ')
    s.client.ask('NOOP', '250 2.0.0 OK')
    s.quit()
    assert b.conversations == []
    assert s.event('auth')['result'] == 'denied'


def test_none_with_a_broken_auth_server(asks):
    s, b, a = asks(CLOSE, smtp_auth='none')
    s.client.ask('MAIL FROM:<a@a.example>', '250 ')
    s.client.ask('RCPT TO:<b@b.example>', '4[25][14] 4.')
    s.quit(75)
    assert b.conversations == []


def test_recovers_within_the_session(asks):
    s, b, a = asks(CLOSE, ok)
    s.client.ask('AUTH PLAIN ' + GOOD, '454 4.7.0 ')
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    leave(s)
