"""AUTH: the mechanisms as they look on the wire."""

import base64
import ctypes
import hashlib
import hmac
import re

import pytest

import scram
from fakes import b64, ok, plain
from harness import client_context

GOOD = plain('alice', 'wonderland')
USERNAME, PASSWORD = '334 VXNlcm5hbWU6', '334 UGFzc3dvcmQ6'


def accepted(s):
    s.client.expect('235 2.7.0 ')
    s.client.ask('NOOP', '250 2.0.0 backend here')
    s.quit()


def still_talks(s):
    """It is our dialogue, in step."""
    s.client.ask('NOOP', '250 2.0.0 OK')


def cram(challenge, user, secret):
    digest = hmac.new(secret.encode(), base64.b64decode(challenge),
                      hashlib.md5).hexdigest()
    return b64(f'{user} {digest}')


def challenge(s):
    [line] = s.client.ask('AUTH CRAM-MD5', '334 ')
    return line[4:]


# --- successes -------------------------------------------------------------

def test_plain_with_initial_response(at):
    s = at()
    s.client.line('AUTH PLAIN ' + GOOD)
    accepted(s)


def test_plain_with_challenge(at):
    s = at()
    assert s.client.ask('AUTH PLAIN', '334') == ['334 ']
    s.client.line(GOOD)
    accepted(s)


@pytest.mark.parametrize('verb', ['auth plain', 'AUTH plain', 'Auth Plain'])
def test_names_in_any_case(at, verb):
    s = at()
    s.client.line(f'{verb} {GOOD}')
    accepted(s)


def test_plain_with_its_own_name_as_authorization(at):
    s = at()
    s.client.line('AUTH PLAIN ' + plain('alice', 'wonderland', 'alice'))
    accepted(s)


def test_login_prompts_letter_by_letter(at):
    s = at()
    assert s.client.ask('AUTH LOGIN', '334') == [USERNAME]
    assert s.client.ask(b64('alice'), '334') == [PASSWORD]
    s.client.line(b64('wonderland'))
    accepted(s)


def test_login_with_initial_response(at):
    s = at()
    assert s.client.ask('AUTH LOGIN ' + b64('alice'), '334') == [PASSWORD]
    s.client.line(b64('wonderland'))
    accepted(s)


def test_login_pipelined(at):
    s = at()
    s.client.send(f'AUTH LOGIN\r\n{b64("alice")}\r\n{b64("wonderland")}\r\n')
    assert s.client.reply() == [USERNAME]
    assert s.client.reply() == [PASSWORD]
    accepted(s)


def test_cram_md5(at):
    s = at(smtp_auth='cram-md5')
    first = challenge(s)
    assert re.fullmatch(rb'<[^<>@\s]+@front\.example>',
                        base64.b64decode(first))
    s.client.line(cram(first, 'alice', 'wonderland'))
    accepted(s)


def test_upper_case_digest_is_no_secret(at):
    """RFC 2195 writes it in lower case: what else is sent is not equal."""
    s = at(smtp_auth='cram-md5')
    one = base64.b64decode(cram(challenge(s), 'alice', 'wonderland')).decode()
    user, digest = one.split(' ')
    s.client.ask(b64(f'{user} {digest[:31]}'), '5(35 5.7.8|01 5.5.2) ')
    still_talks(s)
    s.quit()


# --- failures --------------------------------------------------------------

@pytest.mark.parametrize('user,password', [
    ('alice', 'wonder'), ('alice', 'wonderlandx'), ('alice', ''),
    ('alice', 'Wonderland'), ('Alice', 'wonderland'), ('nobody', 'wonderland'),
    ('', 'wonderland'), ('alice:', 'wonderland'),
    ('alice', '{PLAIN}wonderland'), ('bob', 'wonderland')])
@pytest.mark.parametrize('how', ['plain', 'login', 'cram'])
def test_wrong_credentials(at, user, password, how):
    s = at(smtp_auth='plain login cram-md5')
    if how == 'plain':
        s.client.line('AUTH PLAIN ' + plain(user, password))
    elif how == 'login':
        s.client.ask('AUTH LOGIN', '334 ')
        s.client.ask(b64(user), '334 ')
        s.client.line(b64(password))
    else:
        s.client.line(cram(challenge(s), user, password))
    s.client.expect('(535 5.7.8|501 5.5.2) ' if user == '' else '535 5.7.8 ')
    still_talks(s)
    s.quit()
    assert s.events('auth')[0]['result'] != 'accepted'


def test_wrong_and_then_right(at):
    s = at()
    s.client.ask('AUTH PLAIN ' + plain('alice', 'x'), '535 5.7.8 ')
    s.client.line('AUTH PLAIN ' + GOOD)
    accepted(s)
    assert [e['result'] for e in s.events('auth')] == ['denied', 'accepted']


@pytest.mark.parametrize('authzid', ['bob', 'root', 'ALICE', 'alice ', '*'])
def test_authorization_name_of_another(at, authzid):
    s = at()
    s.client.ask('AUTH PLAIN ' + plain('alice', 'wonderland', authzid),
                 '535 5.7.8 ')
    still_talks(s)
    s.quit()


@pytest.mark.parametrize('response', [
    'alice', 'alice\0wonderland', '\0alice', '', '\0\0wonderland',
    '\0alice\0wonderland\0', '\0alice\0wonder\0land', '\0alice\0\0wonderland',
    '\0\0alice\0wonderland', '\0alice\0'])
def test_plain_not_as_it_should_be(at, response):
    """A NUL inside a password must not cut it short."""
    s = at()
    s.client.ask('AUTH PLAIN ' + (b64(response) or '='),
                 '(501 5.5.2|535 5.7.8) ')
    still_talks(s)
    s.quit()


@pytest.mark.parametrize('user,password', [
    ('alice\0', 'wonderland'), ('alice', 'wonderland\0'),
    ('alice', 'wonderland\0x'), ('alice\0x', 'wonderland')])
def test_login_with_nul(at, user, password):
    s = at()
    s.client.ask('AUTH LOGIN', '334 ')
    s.client.line(b64(user))
    [line] = s.client.expect('(334|501 5.5.2|535 5.7.8) ')
    if line.startswith('334'):
        s.client.ask(b64(password), '(501 5.5.2|535 5.7.8) ')
    still_talks(s)
    s.quit()


@pytest.mark.parametrize('response', [
    'alice', 'alice ', '', ' ' + 'a' * 32, 'alice ' + 'z' * 32,
    'alice ' + '0' * 31, 'alice ' + '0' * 33, 'alice  ' + '0' * 32,
    'alice\0 ' + '0' * 32])
def test_cram_not_as_it_should_be(at, response):
    s = at(smtp_auth='cram-md5')
    challenge(s)
    s.client.ask(b64(response), '(501 5.5.2|535 5.7.8) ')
    still_talks(s)
    s.quit()


def test_cram_takes_no_initial_response(at):
    s = at(smtp_auth='cram-md5')
    for response in ('=', b64('alice ' + '0' * 32)):
        s.client.ask('AUTH CRAM-MD5 ' + response, '501 5.')
        still_talks(s)
    s.quit()


def test_cram_challenges_are_never_the_same(at):
    seen = set()
    for _ in range(2):
        s = at(smtp_auth='cram-md5')
        for _ in range(10):
            seen.add(challenge(s))
            s.client.ask('*', '501 5.7.0 ')
        s.quit()
    assert len(seen) == 20


def test_cram_response_is_good_once(at):
    """What was overheard does not open the next exchange."""
    s = at(smtp_auth='cram-md5')
    old = cram(challenge(s), 'alice', 'wonderland')
    s.client.ask('*', '501 5.7.0 ')
    challenge(s)
    s.client.ask(old, '535 5.7.8 ')
    still_talks(s)
    s.quit()


# --- the password file -----------------------------------------------------

def crypted(method):
    """A crypt(3) hash of "wonderland", by the system's own library."""
    lib = ctypes.CDLL('libcrypt.so.1')
    lib.crypt.restype = ctypes.c_char_p
    return lib.crypt(b'wonderland', {
        'yescrypt': b'$y$j9T$wJwckfSfIDs8NZPVHGavX0$',
        'bcrypt': b'$2b$05$abcdefghijklmnopqrstuu',
        'sha512': b'$6$saltsalt$'}[method]).decode()


STORED = {
    'yescrypt': lambda: '{CRYPT}' + crypted('yescrypt'),
    'bcrypt': lambda: '{CRYPT}' + crypted('bcrypt'),
    'sha512': lambda: '{CRYPT}' + crypted('sha512'),
    'bare hash': lambda: crypted('sha512'),
    'scram': lambda: '{SCRAM-SHA-256}' + scram.stored('wonderland'),
    'scram, sha-1':
        lambda: '{SCRAM-SHA-1}' + scram.stored('wonderland', 'sha1'),
    'plain': lambda: '{PLAIN}wonderland',
}


@pytest.mark.parametrize('how', STORED)
def test_every_way_to_store_a_password(at, file_with, how):
    s = at(auth_provider=file_with('# users', 'bob:{PLAIN}builder', '',
                                   'alice:' + STORED[how]()))
    for wrong in ('wonderlanx', '', 'builder'):
        s.client.ask('AUTH PLAIN ' + plain('alice', wrong), '535 5.7.8 ')
    s.client.line('AUTH PLAIN ' + GOOD)
    accepted(s)


@pytest.mark.parametrize('how', STORED)
def test_cram_needs_the_secret_itself(at, file_with, how):
    s = at(smtp_auth='cram-md5', auth_provider=file_with(
        'alice:' + STORED[how]()))
    if how == 'plain':
        s.client.line(cram(challenge(s), 'alice', 'wonderland'))
        accepted(s)
        return
    for secret in ('wonderland', STORED[how](), ''):
        s.client.line(cram(challenge(s), 'alice', secret))
        s.client.expect('535 5.7.8 ')
    s.quit()


def test_backend_of_one_user(at, file_with, backend):
    one, two = backend(), backend()
    s = at(backend=one.address, auth_provider=file_with(
        'bob:{PLAIN}builder', 'alice:{PLAIN}wonderland:' + two.address))
    s.client.line('AUTH PLAIN ' + GOOD)
    accepted(s)
    assert (len(one.conversations), len(two.conversations)) == (0, 1)


@pytest.mark.parametrize('line', [
    'alice', 'alice:', 'alice:wonderland', 'alice:{NONSENSE}wonderland',
    'alice:{PLAIN}', 'alice:{CRYPT}', 'alice:{CRYPT}*', 'alice:!', 'alice:*',
    'alice:{SCRAM-SHA-256}nonsense', ':{PLAIN}wonderland'])
def test_lines_that_let_nobody_in(at, file_with, line):
    s = at(auth_provider=file_with(line))
    for password in ('wonderland', '', '*', '!'):
        s.client.ask('AUTH PLAIN ' + plain('alice', password),
                     '(535 5.7.8|454 4.7.0|4[25]1 4.3.0|501 5.5.2) ')
        if s.client.eof:
            break
    s.client.close()
    s.wait()


# --- cancelled, malformed, too long ----------------------------------------

EXCHANGES = {
    'PLAIN': ['AUTH PLAIN'],
    'LOGIN, user': ['AUTH LOGIN'],
    'LOGIN, password': ['AUTH LOGIN', b64('alice')],
    'CRAM-MD5': ['AUTH CRAM-MD5'],
}


def begin(s, exchange):
    for line in EXCHANGES[exchange]:
        s.client.ask(line, '334')


@pytest.fixture(params=EXCHANGES)
def begun(request, at):
    """(session, exchange) in which a response is awaited."""
    s = at(smtp_auth='plain login cram-md5')
    begin(s, request.param)
    return s, request.param


def test_cancelled(begun):
    s, _ = begun
    s.client.ask('*', '501 5.7.0 ')
    still_talks(s)
    s.quit()
    assert s.events('auth')[-1]['result'] == 'cancelled'


def test_the_star_alone_cancels(begun):
    s, exchange = begun
    for line in ('**', '* ', ' *'):
        s.client.ask(line, '501 5.5.2 ')
        begin(s, exchange)
    s.client.ask('*', '501 5.7.0 ')
    s.quit()


BAD_BASE64 = ['a', 'ab', 'abc', 'AGFsaWNl!', 'AGFs\taWNl', 'AGFsaWNlAA',
              '====', 'a===', 'YQ=', 'YQ===', 'YWJj=', 'YQ==YQ==', 'YQ==x',
              'YR==', 'YWK=', '-_-_', 'AGFs aWNl', '\xe4\xe4\xe4\xe4', ' YWJj',
              'YWJj ', '=']


@pytest.mark.parametrize('text', BAD_BASE64)
def test_bad_base64_is_refused(at, text):
    s = at(smtp_auth='plain login cram-md5')
    for exchange in EXCHANGES:
        begin(s, exchange)
        s.client.ask(text, '501 5.5.2 ')
        still_talks(s)
    if text != '=' and not text.startswith(' ') and not text.endswith(' '):
        for mechanism in ('PLAIN', 'LOGIN'):
            s.client.ask(f'AUTH {mechanism} {text}', '501 5.5.[24] ')
            still_talks(s)
    s.quit()


def test_empty_line_is_an_empty_response(at):
    s = at()
    s.client.ask('AUTH LOGIN', '334 ')
    s.client.ask('', '(334 UGFzc3dvcmQ6$|501 5.5.2|535 5.7.8)')
    s.client.line('')
    s.client.expect('(501 5.5.2|535 5.7.8|500 5.5.2)')
    still_talks(s)
    s.quit()


def test_equal_sign_is_an_empty_initial_response(at):
    s = at()
    s.client.ask('AUTH LOGIN =', '334 UGFzc3dvcmQ6$')
    s.client.ask(b64('x'), '(535 5.7.8|501 5.5.2) ')
    s.client.ask('AUTH PLAIN =', '(501 5.5.2|535 5.7.8) ')
    still_talks(s)
    s.quit()


def test_more_words_than_auth_has(at):
    s = at()
    s.client.ask(f'AUTH PLAIN {GOOD} more', '501 5.5.[24] ')
    still_talks(s)
    s.quit()


@pytest.mark.parametrize('odd', [b'AGFs\naWNl', b'AGFs\raWNl', b'AGFs\0aWNl',
                                 b'*\0', b'\n*'])
def test_odd_octets_in_a_response(begun, odd):
    s, _ = begun
    s.client.send(odd + b'\r\n')
    s.client.expect('50[01] 5.5.2 ')
    still_talks(s)
    s.quit()


def test_commands_inside_an_exchange_are_responses(begun):
    s, _ = begun
    [line] = s.client.ask('QUIT', '(501|535|334) ')  # valid base64
    if line.startswith('334'):
        s.client.ask('*', '501 5.7.0 ')
    still_talks(s)
    s.quit()


@pytest.mark.parametrize('setting', ['128', '4k', '32k'])
def test_longest_response_that_must_be_read(at, setting):
    """12288 octets whatever the buffer is said to be (RFC 4954 section 4)."""
    s = at(smtp_client_buffer=setting)
    s.client.ask('AUTH PLAIN', '334')
    s.client.ask('A' * 12288, '(501 5.5.2|535 5.7.8) ')
    still_talks(s)
    for length in (12289, 12292, 20000, 200000):
        s.client.ask('AUTH PLAIN', '334')
        s.client.send('A' * length + '\r\nHELP\r\n')
        s.client.expect('500 5.5.6 ')
        s.client.expect('214 ')
    s.quit()


def test_longest_response_to_every_prompt(begun):
    s, _ = begun
    s.client.line('A' * 12288)
    [line] = s.client.expect('(501 5.5.2|535 5.7.8|334) ')
    if line.startswith('334'):
        s.client.ask('*', '501 5.7.0 ')
    still_talks(s)
    s.quit()


def test_long_initial_response(at):
    """The whole line may have 12288 octets, and one over is refused."""
    s = at(smtp_client_buffer='128')
    space = 12288 - len('AUTH PLAIN ') - 2
    s.client.ask('AUTH PLAIN ' + 'A' * (space // 4 * 4),
                 '(501 5.5.2|535 5.7.8) ')
    s.client.send('AUTH PLAIN ' + 'A' * 12288 + '\r\nHELP\r\n')
    s.client.expect('500 5.5.6 ')
    s.client.expect('214 ')
    s.quit()


# --- what is offered, what is taken ----------------------------------------

@pytest.mark.parametrize('setting,line', [
    ('plain login', 'AUTH PLAIN LOGIN'), ('plain', 'AUTH PLAIN'),
    ('login', 'AUTH LOGIN'), ('cram-md5', 'AUTH CRAM-MD5'),
    ('cram-md5 login plain', 'AUTH PLAIN LOGIN CRAM-MD5'),
    ('scram-sha-256', 'AUTH SCRAM-SHA-256'),
    ('scram-sha-256 plain scram-sha-1',
     'AUTH PLAIN SCRAM-SHA-1 SCRAM-SHA-256'),
    ('none', None), ('plain none', 'AUTH PLAIN'),
    ('plain external', 'AUTH PLAIN')])
def test_what_is_listed(at, setting, line):
    s = at(smtp_auth=setting)
    lines = [x for x in s.client.hello() if x.startswith('AUTH')]
    assert lines == ([line] if line else [])
    s.quit()


@pytest.mark.parametrize('mechanism', ['PLAIN', 'LOGIN'])
def test_unlisted_is_accepted(at, mechanism):
    s = at(smtp_auth='cram-md5')
    if mechanism == 'PLAIN':
        s.client.line('AUTH PLAIN ' + GOOD)
    else:
        s.client.ask('AUTH LOGIN ' + b64('alice'), '334 ')
        s.client.line(b64('wonderland'))
    accepted(s)


@pytest.mark.parametrize('mechanism', ['PLAIN', 'LOGIN', 'PLAIN ' + GOOD,
                                       'LOGIN ' + b64('alice')])
def test_unlisted_off_refuses_it(at, mechanism):
    s = at(smtp_auth='cram-md5', smtp_auth_unlisted='off')
    s.client.ask('AUTH ' + mechanism, '504 5.5.4 ')
    still_talks(s)
    s.quit()


def test_unlisted_off_keeps_what_is_listed(at):
    s = at(smtp_auth='plain', smtp_auth_unlisted='off')
    s.client.ask('AUTH LOGIN', '504 5.5.4 ')
    s.client.line('AUTH PLAIN ' + GOOD)
    accepted(s)


@pytest.mark.parametrize('what', ['CRAM-MD5', 'EXTERNAL', 'EXTERNAL =',
                                  'EXTERNAL ' + b64('alice'), 'GSSAPI', 'PLAI',
                                  'PLAINX', 'NONE', 'ANONYMOUS ='])
def test_what_is_not_enabled_is_refused(at, what):
    s = at(smtp_auth='plain login none')
    s.client.ask('AUTH ' + what, '504 5.5.4 ')
    still_talks(s)
    s.quit()


@pytest.mark.parametrize('what', ['EXTERNAL', 'EXTERNAL =',
                                  'EXTERNAL ' + b64('alice')])
def test_external_cannot_succeed_with_a_file(at, what):
    s = at(smtp_auth='plain external')
    s.client.ask('AUTH ' + what, '504 5.5.4 ')
    s.quit()


def test_no_provider_no_auth(front, backend):
    s = front(smtp_auth='none', auth_provider=None, backend=backend().address)
    s.client.greeting()
    assert not [x for x in s.client.hello() if x.startswith('AUTH')]
    s.client.ask('AUTH PLAIN ' + GOOD, '50[34] 5.5.')
    s.quit()


def test_external_with_the_http_provider(front, backend, auth_server):
    b = backend()
    a = auth_server(ok(b))
    s = front(smtp_auth='external', auth_provider=a.url)
    s.client.greeting()
    assert 'AUTH EXTERNAL' in s.client.hello()
    assert s.client.ask('AUTH EXTERNAL', '334') == ['334 ']
    s.client.ask(b64('carol'), '235 2.7.0 ')
    s.quit()
    [request] = a.requests
    assert request.get('Auth-Method') == 'external'
    assert request.get('Auth-User') == 'carol'
    assert request.get('Auth-Pass') == ''


@pytest.mark.parametrize('response,user', [('=', ''), (b64('carol'), 'carol')])
def test_external_with_initial_response(front, backend, auth_server, response,
                                        user):
    b = backend()
    a = auth_server(ok(b))
    s = front(smtp_auth='external', auth_provider=a.url)
    s.client.greeting()
    s.client.ask('AUTH EXTERNAL ' + response, '235 2.7.0 ')
    s.quit()
    assert a.requests[0].get('Auth-User') == user


def test_external_cancelled(front, auth_server):
    a = auth_server({'Auth-Status': 'no'})
    s = front(smtp_auth='external', auth_provider=a.url)
    s.client.greeting()
    s.client.ask('AUTH EXTERNAL', '334 ')
    s.client.ask('*', '501 5.7.0 ')
    s.client.ask('NOOP', '250 ')
    s.quit()
    assert a.requests == []


# --- in its place ----------------------------------------------------------

def test_auth_after_mail(at):
    s = at(smtp_auth='plain none')
    s.client.ask('MAIL FROM:<a@a.example>', '250 ')
    s.client.ask('AUTH PLAIN ' + GOOD, '503 5.5.1 ')
    s.client.ask('RCPT TO:<b@b.example>', '250 2.1.5 recipient fine')
    s.quit()


def test_second_auth_is_not_ours_to_judge(at, backend):
    """After the success the backend is spoken to, and it says 503."""
    b = backend(replies={'AUTH': '503 5.5.1 you have'})
    s = at(backend=b.address)
    s.client.send(f'AUTH PLAIN {GOOD}\r\nAUTH PLAIN {GOOD}\r\n')
    s.client.expect('235 2.7.0 ')
    s.client.expect('503 5.5.1 ')
    s.quit()
    assert len(s.events('auth')) == 1


def test_max_auth_attempts(at):
    s = at(max_auth_attempts=2)
    for _ in range(2):
        s.client.ask('AUTH PLAIN ' + plain('alice', 'x'), '535 5.7.8 ')
        still_talks(s)
    s.client.ask('AUTH PLAIN ' + GOOD, '421 4.7.0 ')
    s.client.expect_end()
    assert s.finish()['cause'] == 'attempts'
    assert not s.events('auth', result='accepted')


def test_attempts_that_are_cancelled_count(at):
    s = at(max_auth_attempts=2, smtp_auth='plain cram-md5')
    for _ in range(2):
        challenge(s)
        s.client.ask('*', '501 ')
    s.client.ask('AUTH CRAM-MD5', '421 4.7.0 ')
    s.client.expect_end()
    assert s.finish()['cause'] == 'attempts'


def test_starttls_does_not_give_attempts_back(at, certificates):
    s = at(max_auth_attempts=1, starttls='on', **certificates.directives())
    s.client.ask('AUTH PLAIN ' + plain('alice', 'x'), '535 5.7.8 ')
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls(client_context())
    s.client.ask('AUTH PLAIN ' + GOOD, '421 4.7.0 ')
    s.client.expect_end()
    s.finish()


# --- secrets ---------------------------------------------------------------

def test_no_password_in_any_log_line(at):
    s = at(smtp_auth='plain login cram-md5 none', smtp_client_buffer='128')
    secret = 'correct-horse'
    both = plain('alice', secret)
    for line in ('AUTH PLAIN ' + both, 'AUTH NONSENSE ' + both,
                 f'AUTH PLAIN {both} {both}', 'AUTH PLAIN !' + both,
                 'AUTHPLAIN ' + both, 'AUTH PLAIN ' + both + 'A' * 13000,
                 'X' * 150 + both, both, 'NOOP ' + both):
        s.client.ask(line, '[25]')
    s.client.ask('AUTH LOGIN', '334 ')
    s.client.ask(b64('alice'), '334 ')
    s.client.ask(b64(secret), '535 ')
    s.client.ask('AUTH PLAIN', '334')
    s.client.ask(both + '!', '501 ')
    s.client.ask('MAIL FROM:<a@a.example>', '250 ')
    s.client.ask('AUTH PLAIN ' + both, '503 ')
    s.quit()
    for form in (secret, b64(secret), both, b64(secret)[:10], both[:16]):
        assert form not in s.log.text


def test_password_is_in_no_argument_or_environment(at):
    s = at()
    s.client.line('AUTH PLAIN ' + GOOD)
    s.client.expect('235 ')
    for name in ('cmdline', 'environ'):
        with open(f'/proc/{s.pid}/{name}', 'rb') as f:
            assert b'wonderland' not in f.read()
    s.quit()
