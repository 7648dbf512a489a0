"""What is better than nginx's mail proxy on purpose: one test a promise, named
after it. (Two come with later parts of the program: every recipient shown to
the policy, and TLS to the backend.)"""

import base64
import time

import pytest

from fakes import b64, http_response, ok, plain
from test_upstream import (  # the same tests, under their promise's name
    test_no_step_takes_forty_milliseconds as
    test_nagles_40_ms_in_no_session,
    test_small_pieces_are_not_held_back as
    test_nagles_40_ms_in_no_piece)  # noqa: F401

GOOD = plain('alice', 'wonderland')


def test_external_with_an_initial_response_when_it_is_disabled(
        front, backend, auth_server):
    b = backend()
    a = auth_server(ok(b))
    s = front(smtp_auth='plain', auth_provider=a.url)
    s.client.greeting()
    s.client.ask('AUTH EXTERNAL ' + b64('alice'), '504 5.5.4 ')
    s.quit()
    assert a.requests == [] and b.conversations == []


@pytest.mark.parametrize('answer', [
    lambda b: http_response(ok(b), '500 Internal Server Error'),
    lambda b: {k: v for k, v in ok(b).items() if k != 'Auth-Status'},
    lambda b: ok(b, Auth_Status='')])
def test_failed_answer_of_the_auth_server_is_no_success(
        front, backend, auth_server, answer):
    b = backend()
    a = auth_server(answer(b))
    s = front(auth_provider=a.url)
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + GOOD, '(454 4.7.0|535 5.7.8) ')
    s.quit((0, 75))
    assert len(a.requests) == 1 and b.conversations == []


def test_no_password_is_kept_from_an_earlier_attempt(
        front, backend, auth_server):
    b = backend()
    a = auth_server({'Auth-Status': 'no'}, {'Auth-Status': 'no'}, ok(b))
    s = front(smtp_auth='plain external none', auth_provider=a.url)
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + GOOD, '535 ')
    s.client.ask('AUTH EXTERNAL ' + b64('alice'), '535 ')
    s.client.ask('MAIL FROM:<a@a.example>', '250 ')
    s.client.ask('RCPT TO:<b@b.example>', '250 ')
    s.quit()
    assert [r.get('Auth-Pass') for r in a.requests] == ['wonderland', '', '']
    assert a.requests[2].get('Auth-User') == ''


def test_never_the_same_cram_challenge_twice(front):
    s = front(smtp_auth='cram-md5')
    s.client.greeting()
    seen = []
    for _ in range(3):
        seen += s.client.ask('AUTH CRAM-MD5', '334 ')
        s.client.ask('*', '501 5.7.0 ')
    s.quit()
    assert len(set(seen)) == 3
    local = [base64.b64decode(x[4:]).split(b'@')[0] for x in seen]
    # Not one counter or clock: nothing long is common to all of them.
    assert len({x[:9] for x in local}) == 3


def test_starttls_only_covers_mail(front, certificates):
    s = front(smtp_auth='none', auth_provider=None, starttls='only',
              **certificates.directives())
    s.client.greeting()
    s.client.hello()
    s.client.ask('MAIL FROM:<a@a.example>', '530 5.7.0 ')
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls()
    s.client.ask('MAIL FROM:<a@a.example>', '250 ')
    s.quit()


def test_batch_longer_than_the_buffer_is_answered(front):
    s = front(smtp_client_buffer='128')
    s.client.greeting()
    s.client.send(b'NOOP ' + b'x' * 50 + b'\r\n' + b'NOOP\r\n' * 400 +
                  b'QUIT\r\n')
    for _ in range(401):
        s.client.expect('250 2.0.0 ')
    s.client.expect('221 ')
    s.client.expect_end()
    s.finish()


@pytest.mark.parametrize('delay', [None, '5s'])
def test_early_data_in_the_first_tls_records(front, certificates, delay):
    """Neither missed (with a delay) nor stalled (without)."""
    s = front(socket='ssl', smtp_greeting_delay=delay,
              **certificates.directives())
    begun = time.monotonic()
    s.client.start_tls(extra=b'EHLO me\r\nNOOP\r\nQUIT\r\n')
    if delay:
        s.client.expect('503 5.5.0 ')
    else:
        s.client.greeting()
        s.client.expect('250[ -]')
        s.client.expect('250 ')
        s.client.expect('221 ')
    s.client.expect_end()
    assert time.monotonic() - begun < 3
    s.finish()


def test_rejected_mail_does_not_eat_the_commands_behind_it(front):
    s = front()
    s.client.greeting()
    s.client.send('MAIL FROM:<a@a.example>\r\nRCPT TO:<b@b.example>\r\n'
                  'NOOP\r\nHELP\r\n')
    s.client.expect('530 5.7.0 ')
    s.client.expect('5(30 5.7.0|03 5.5.1) ')
    s.client.expect('250 ')
    s.client.expect('214 ')
    s.quit()


def test_no_secrets_or_raw_newlines_in_the_log(front):
    s = front(smtp_client_buffer='128')
    s.client.greeting()
    s.client.ask('AUTH PLAIN ' + plain('a\nsession=0', 'pass-phrase'), '5')
    s.client.ask('X' * 200 + plain('alice', 'pass-phrase'), '500 5.5.6 ')
    s.client.send('MAIL FROM:<a@a.example>\nAUTH PLAIN ' +
                  plain('alice', 'pass-phrase') + '\r\n')
    s.client.expect('5')
    s.quit()
    assert len(s.events()) == len(s.lines())
    for form in ('pass-phrase', b64('pass-phrase'), b64('pass-phrase')[:8],
                 plain('alice', 'pass-phrase')):
        assert form not in s.log.text


def test_no_replies_lost_at_half_close(front, backend):
    for in_proxy in (False, True):
        s = front(backend=backend().address)
        s.client.greeting()
        if in_proxy:
            s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
        s.client.send('NOOP\r\nNOOP\r\nQUIT\r\n')
        s.client.half_close()
        s.client.expect('250 ')
        s.client.expect('250 ')
        s.client.expect('221 ')
        s.client.expect_end()
        s.finish()


def test_421_instead_of_silence(front):
    s = front(timeout='300ms')
    s.client.greeting()
    s.client.expect('421 4.4.2 ')
    s.client.expect_end()
    s.finish()


def test_no_xclient_to_a_backend_that_has_none(front, backend):
    b = backend(xclient=None)
    s = front(backend=b.address)
    s.client.greeting()
    s.client.hello()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    s.quit()
    assert 'XCLIENT' not in b.conversation().verbs()
