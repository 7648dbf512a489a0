"""The provider oauth2: an introspection endpoint (RFC 7662) judges tokens."""

import base64
import json
import time
import urllib.parse

import pytest

import fakes
from test_tokens import WAYS, accepted, oauthbearer, xoauth2

ACTIVE = {'active': True, 'username': 'alice', 'scope': 'openid mail'}


class Endpoint(fakes.Server):
    """`answer`: an object, bytes for a whole response, or SILENCE."""

    def __init__(self, answer):
        self.answer = answer
        self.requests = []
        super().__init__()
        self.url = f'oauth2:http://{self.address}/introspect'

    def serve(self, sock):
        with sock.makefile('rb') as f:
            while True:
                first = f.readline().decode()
                if not first:
                    return
                headers = {}
                for line in iter(f.readline, b'\r\n'):
                    name, value = line.decode().split(':', 1)
                    headers[name.lower()] = value.strip()
                body = f.read(int(headers.get('content-length', 0))).decode()
                self.requests.append((first.strip(), headers, body))
                answer = self.answer
                if answer is fakes.SILENCE:
                    self.stopped.wait()
                    return
                if not isinstance(answer, bytes):
                    answer = fakes.http_response(
                        {'Content-Type': 'application/json'},
                        body=json.dumps(answer).encode())
                sock.sendall(answer)


@pytest.fixture
def asks(at, servers):
    """(session, endpoint)"""
    def start(answer, **kw):
        e = Endpoint(answer)
        servers.append(e)
        kw.setdefault('smtp_auth', 'xoauth2 oauthbearer')
        return at(auth_provider=e.url, **kw), e
    return start


@pytest.fixture
def client_file(tmp_path):
    path = tmp_path / 'client'
    path.write_text('front end:s3cr:t/\n')
    path.chmod(0o600)
    return path


@pytest.mark.parametrize('mechanism', WAYS)
def test_success(asks, client_file, mechanism):
    s, e = asks(ACTIVE, oauth2_client_file=client_file)
    assert 'AUTH XOAUTH2 OAUTHBEARER' in s.client.hello()
    s.client.line(f'AUTH {mechanism} ' + WAYS[mechanism]('alice', 'a+b/c=='))
    accepted(s)
    [(first, headers, body)] = e.requests
    assert first == 'POST /introspect HTTP/1.1'
    assert headers['content-type'] == 'application/x-www-form-urlencoded'
    assert headers['accept'] == 'application/json'
    assert base64.b64decode(headers['authorization'].split()[1]) == \
        b'front%20end:s3cr%3At%2F'
    assert urllib.parse.parse_qs(body) == {
        'token': ['a+b/c=='], 'token_type_hint': ['access_token']}
    assert s.event('auth')['user'] == 'alice'


def test_the_claim_says_whose_it_is(asks):
    s, e = asks({'active': True, 'email': 'alice@example.com'},
                oauth2_user_claim='email')
    s.client.line('AUTH OAUTHBEARER ' + oauthbearer('', 'token'))
    accepted(s)
    assert 'authorization' not in e.requests[0][1]
    assert s.event('auth')['user'] == 'alice@example.com'


@pytest.mark.parametrize('answer,kw,reason', [
    ({'active': False}, {}, 'the token is not active'),
    ({**ACTIVE, 'exp': 1000}, {}, 'the token has expired'),
    ({**ACTIVE, 'username': 'bob'}, {}, "the token is another user's"),
    (ACTIVE, {'oauth2_user_claim': 'sub'}, 'the token names no user'),
    (ACTIVE, {'oauth2_scope': 'mail send'}, 'the token has not the scope')])
def test_refused(asks, answer, kw, reason):
    s, e = asks(answer, **kw)
    [line] = s.client.ask('AUTH OAUTHBEARER ' + oauthbearer('alice', 'token'),
                          '334 ')
    told = json.loads(base64.b64decode(line[4:]))
    assert told['status'] == 'invalid_token'
    assert told.get('scope') == kw.get('oauth2_scope')
    s.client.ask('AQ==', '535 5.7.8 ')
    s.quit()
    assert s.event('auth')['reason'] == reason


@pytest.mark.parametrize('answer', [
    b'HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n',
    b'HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n',
    b'HTTP/1.1 302 Go\r\nLocation: /ok\r\nContent-Length: 0\r\n\r\n',
    b'HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>',
    b'HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{"active":true,',
    fakes.http_response({}, body=b'{"active":true,"x":"' + b'x' * 70000),
    fakes.SILENCE])
def test_no_answer_is_no_success(asks, answer):
    s, e = asks(answer, auth_timeout='500ms')
    s.client.ask('AUTH XOAUTH2 ' + xoauth2('alice', 'token'), '454 4.7.0 ')
    s.quit(75)
    assert s.event('auth')['result'] == 'unavailable'


def test_nobody_listens(at):
    s = at(auth_provider=f'oauth2:http://{fakes.dead_address()}/',
           smtp_auth='xoauth2')
    s.client.ask('AUTH XOAUTH2 ' + xoauth2('alice', 'token'), '454 4.7.0 ')
    s.quit(75)


@pytest.mark.parametrize('text', [None, '', 'id', ':secret'])
def test_a_client_file_that_is_none(asks, tmp_path, text):
    path = tmp_path / 'client'
    if text is not None:
        path.write_text(text)
    s, e = asks(ACTIVE, oauth2_client_file=path)
    s.client.ask('AUTH XOAUTH2 ' + xoauth2('alice', 'token'), '454 4.7.0 ')
    s.quit(75)
    assert 'oauth2_client_file' in s.event('auth')['reason']
    assert e.requests == []


def test_good_ones_are_kept_for_their_life(asks, backend):
    """Within one keeper; who fails for another name is not asked for, too."""
    s, e = asks({**ACTIVE, 'exp': int(time.time()) + 1000})
    for _ in range(2):
        s.client.ask('AUTH XOAUTH2 ' + xoauth2('bob', 'token'), '334 ')
        s.client.ask('', '535 ')
    s.client.ask('AUTH XOAUTH2 ' + xoauth2('bob', 'token2'), '334 ')
    s.client.ask('', '535 ')
    s.client.line('AUTH XOAUTH2 ' + xoauth2('alice', 'token'))
    accepted(s)
    assert len(e.requests) == 2


def test_bad_ones_are_asked_for_each_time(asks):
    s, e = asks({'active': False})
    for _ in range(2):
        s.client.ask('AUTH XOAUTH2 ' + xoauth2('alice', 'token'), '334 ')
        s.client.ask('', '535 ')
    s.quit()
    assert len(e.requests) == 2


def test_it_judges_no_passwords(asks):
    s, e = asks(ACTIVE, smtp_auth='plain xoauth2 scram-sha-256')
    assert 'AUTH XOAUTH2' in s.client.hello()
    s.client.ask('AUTH PLAIN ' + fakes.plain('alice', 'token'), '504 5.5.4 ')
    s.quit()


def test_no_secret_in_any_log_line(asks, client_file):
    s, e = asks({'active': False}, oauth2_client_file=client_file)
    s.client.ask('AUTH XOAUTH2 ' + xoauth2('alice', 'tell-nobody'), '334 ')
    s.client.ask('', '535 ')
    s.quit()
    for secret in ('tell-nobody', 's3cr', xoauth2('alice', 'tell-nobody')):
        assert secret not in s.log.text
