"""The dovecot provider through the whole program: with Dovecot itself, and
with a server that is none."""

import base64
import hashlib
import hmac
import json
import os
import re
import socket
import ssl
import subprocess
import time

import pytest

import dovecot
from fakes import (ENDLESS_LINE, SILENCE, b64, dead_address, plain,
                   xclient_attributes)
from harness import run, until
from listener import (
    ANSWER_CHALLENGE, ANSWER_VERDICT, ASK_EXCHANGE, ASK_MECHANISMS, ASK_STEP,
    Keeper, Listener, channel, clean_up, listening_socket, packet, unpack)

USERS = '''alice:{PLAIN}wonderland
Upper@Example.org:{PLAIN}case
off:{PLAIN}off::::::nologin=y reason=Unpaid
'''
GOOD, BAD = plain('alice', 'wonderland'), plain('alice', 'wrong')

pytestmark = pytest.mark.skipif(
    os.getuid() != 0, reason='Dovecot wants to be started by root')


@pytest.fixture(scope='module')
def shared():
    d = dovecot.Dovecot(USERS)
    yield d
    d.stop()


@pytest.fixture
def own(servers):
    """own(...) is a Dovecot that this test may harm."""
    def start(users=USERS, **kw):
        d = dovecot.Dovecot(users, **kw)
        servers.append(d)
        return d
    return start


@pytest.fixture
def fake(servers):
    def start(*args, **kw):
        f = dovecot.FakeDovecot(*args, **kw)
        servers.append(f)
        return f
    return start


@pytest.fixture
def listening(servers):
    """listening(Listener or Keeper, directive=value, ...) starts it."""
    running = []

    def start(kind=Listener, sockets=None, **kw):
        s = kind(kw, sockets=sockets or [listening_socket()])
        running.append(s)
        return s
    yield start
    complaints = clean_up(running)
    if complaints:
        pytest.fail('\n'.join(complaints))


@pytest.fixture
def asks(front, backend):
    """asks(provider, ...) -> (session past EHLO, backend)"""
    def start(provider, **kw):
        b = backend()
        kw.setdefault('backend', b.address)
        s = front(auth_provider=provider, **kw)
        s.client.greeting()
        s.client.hello()
        return s, b
    return start


def cram(s, user, password, pattern):
    [line] = s.client.ask('AUTH CRAM-MD5', '334 ')
    salt = base64.b64decode(line[4:])
    digest = hmac.new(password.encode(), salt, hashlib.md5).hexdigest()
    return s.client.ask(b64(f'{user} {digest}'), pattern)


# --- Dovecot itself --------------------------------------------------------

def test_plain_and_login(shared, asks):
    s, b = asks(shared.provider)
    s.client.ask('AUTH PLAIN ' + GOOD, '235 2.7.0 ')
    s.quit()
    assert xclient_attributes(b.conversation())['LOGIN'] == 'alice'
    s, b = asks(shared.provider)
    s.client.ask('AUTH LOGIN', '334 ')
    s.client.ask(b64('alice'), '334 ')
    s.client.ask(b64('wonderland'), '235 2.7.0 ')
    s.quit()
    assert s.event('auth')['mech'] == 'LOGIN'


def test_refused_and_tried_again(shared, asks):
    s, b = asks(shared.provider)
    s.client.ask('AUTH PLAIN ' + BAD, '535 5.7.8 ')
    s.client.ask('AUTH PLAIN ' + plain('nobody', 'x'), '535 5.7.8 ')
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    s.quit()
    assert [(e['user'], e['result']) for e in s.events('auth')] == [
        ('alice', 'denied'), ('nobody', 'denied'), ('alice', 'accepted')]


def test_the_name_is_dovecots(shared, asks):
    """Whatever the client wrote, by which it stays known in the log."""
    s, b = asks(shared.provider)
    s.client.ask('AUTH PLAIN ' + plain('ALICE', 'wonderland'), '235 ')
    s.quit()
    assert xclient_attributes(b.conversation())['LOGIN'] == 'alice'
    assert s.event('auth')['user'] == 'ALICE'


def test_no_login(shared, asks):
    """The password is right, and there is no login all the same."""
    s, b = asks(shared.provider)
    s.client.ask('AUTH PLAIN ' + plain('off', 'off'), '525 5.7.13 Unpaid')
    s.client.ask('AUTH PLAIN ' + plain('off', 'wrong'), '535 5.7.8 ')
    s.quit()
    assert not b.conversations


def test_over_tcp(shared, asks):
    s, b = asks(f'dovecot:127.0.0.1:{shared.port}')
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    s.quit()


def test_what_it_is_told(shared, asks, certificates):
    s, b = asks(shared.provider, starttls='only', **certificates.directives())
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls(server_hostname='sni.example')
    s.client.hello()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    s.quit()
    sid = s.event('auth')['session']
    [question] = [q for q in shared.said('client in: ') if sid in q]
    fields = question.split('\t')
    assert fields[2:4] == ['PLAIN', 'service=smtp']
    for field in ('secured=tls', 'rip=127.0.0.1', 'lip=127.0.0.1',
                  f'rport={s.port}', 'local_name=sni.example',
                  f'session={sid}', 'tls_protocol=TLSv1.3'):
        assert field in fields, (field, question)


@pytest.mark.parametrize('user,password', [
    ('a\tresp=x', 'b'), ('a\nAUTH\t2\tPLAIN', 'b'), ('\x01t', '\x01'),
    ('a' * 500, 'b' * 1000), ('\xff\xfe', '\x80')])
def test_no_field_of_the_clients_own(shared, asks, user, password):
    s, b = asks(shared.provider)
    s.client.ask('AUTH PLAIN ' + plain(user, password), '535 ')
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    s.quit()


def test_offers_what_dovecot_has(shared, own, asks):
    s, b = asks(shared.provider, smtp_auth='plain login cram-md5 external')
    lines = s.client.hello()
    assert 'AUTH PLAIN LOGIN CRAM-MD5' in lines
    s.quit()
    s, b = asks(own(mechanisms='cram-md5').provider,
                smtp_auth='plain login cram-md5')
    assert 'AUTH CRAM-MD5' in s.client.hello()
    s.client.ask('AUTH PLAIN ' + GOOD, '504 5.5.4 ')
    s.quit()


def test_exchange(shared, asks):
    s, b = asks(shared.provider, smtp_auth='cram-md5')
    cram(s, 'alice', 'wrong', '535 5.7.8 ')
    cram(s, 'alice', 'wonderland', '235 ')
    s.quit()
    assert [(e['user'], e['mech'], e['result']) for e in s.events('auth')] == [
        ('alice', 'CRAM-MD5', 'denied'), ('alice', 'CRAM-MD5', 'accepted')]
    assert xclient_attributes(b.conversation())['LOGIN'] == 'alice'


@pytest.mark.parametrize('mechanism', [
    'plain', 'login', 'cram-md5', 'scram-sha-1', 'scram-sha-256'])
def test_with_msmtp(shared, listening, backend, mechanism):
    """Somebody else's client, and somebody else's server of the mechanism; the
    front end between them knows neither the password nor its proof."""
    b = backend()
    s = listening(auth_provider=shared.provider, backend=b.address,
                  smtp_auth=mechanism)
    for password, status in (('wonderland', 0), ('wrong', 77)):
        done = subprocess.run(
            ['msmtp', '-C', '/dev/null', '--host=127.0.0.1',
             f'--port={s.address()[1]}', '--domain=client.example',
             '--auth=' + mechanism, '--user=alice',
             '--passwordeval=echo ' + password, '--from=a@a.example',
             'b@b.example'], input='Subject: hello\n\nhello\n', text=True,
            capture_output=True, timeout=30)
        assert done.returncode == status, done.stderr
    assert len(b.conversation().messages) == 1
    assert xclient_attributes(b.conversation())['LOGIN'] == 'alice'
    s.await_event('auth', result='accepted', mech=mechanism.upper())


def test_a_token_that_is_not_good(shared, asks):
    """Dovecot's words, the client's empty ones, and the refusal."""
    s, b = asks(shared.provider, smtp_auth='oauthbearer')
    [line] = s.client.ask('AUTH OAUTHBEARER ' + b64(
        'n,a=alice,\x01auth=Bearer nonsense\x01\x01'), '334 ')
    assert json.loads(base64.b64decode(line[4:]))['status'] == 'invalid_token'
    s.client.ask(b64('\x01'), '535 5.7.8 ')
    s.quit()


def test_exchange_given_up(shared, asks):
    s, b = asks(shared.provider, smtp_auth='cram-md5')
    s.client.ask('AUTH CRAM-MD5', '334 ')
    s.client.ask('*', '501 5.7.0 ')
    cram(s, 'alice', 'wonderland', '235 ')
    s.quit()


def test_penalties_are_waited_for(own, asks):
    """2 s for the first failure; before the next one is looked at, as many."""
    s, b = asks(own(penalty=True).provider)
    began = time.monotonic()
    s.client.ask('AUTH PLAIN ' + BAD, '535 5.7.8 ')
    s.client.ask('AUTH PLAIN ' + plain('alice', 'another'), '535 ', 30)
    s.quit()
    assert time.monotonic() - began > 4


def test_many_at_once(own, backend, listening):
    """Each login has the answer to its own question, while others wait for
    theirs: 2 s for whoever is wrong."""
    d = own(penalty=True)
    s = listening(auth_provider=d.provider, backend=backend().address,
                  keeper_workers=8)
    wrong = [s.session(source=f'127.0.1.{i}') for i in range(1, 5)]
    right = [s.session(source=f'127.0.2.{i}') for i in range(1, 5)]
    for c in wrong + right:
        c.hello()
    for i, c in enumerate(wrong):
        c.line('AUTH PLAIN ' + plain(f'wrong{i}', 'x'))
    began = time.monotonic()
    for c in right:
        c.ask('AUTH PLAIN ' + GOOD, '235 ')
    assert time.monotonic() - began < 1.5
    for c in wrong:
        c.expect('535 ')
    assert time.monotonic() - began > 1.4
    s.await_event('auth', 4, result='denied')
    assert sorted(e['user'] for e in s.events('auth', result='denied')) == [
        f'wrong{i}' for i in range(4)]

# --- exchanges, as the keeper is asked for them ----------------------------

@pytest.fixture
def keeper(shared, listening, tmp_path):
    """A channel to a keeper whose provider is Dovecot."""
    path = str(tmp_path / 'keeper')
    sock = listening_socket('unix', path, kind=socket.SOCK_SEQPACKET)
    listening(Keeper, sockets=[sock], auth_provider=shared.provider,
              keeper_workers=2)
    asker = channel(path)
    yield asker
    asker.close()


def keeper_says(keeper, kind, **fields):
    keeper.send(packet(kind, **fields))
    return unpack(keeper.recv(65536))


def scram(keeper, user, password, algorithm='sha256'):
    """A whole exchange; (type, fields) of the keeper's last answer."""
    name = {'sha1': 'SHA-1', 'sha256': 'SHA-256'}[algorithm]
    first = f'n={user},r=clientnonce'
    kind, got = keeper_says(keeper, ASK_EXCHANGE, M_RESPONSE='n,,' + first,
                            M_MECHANISM='SCRAM-' + name)
    if kind != ANSWER_CHALLENGE:
        return kind, got
    server_first = got['M_CHALLENGE'].decode()
    values = dict(x.split('=', 1) for x in server_first.split(','))
    assert values['r'].startswith('clientnonce')
    salted = hashlib.pbkdf2_hmac(algorithm, password.encode(),
                                 base64.b64decode(values['s']),
                                 int(values['i']))
    key = hmac.digest(salted, b'Client Key', algorithm)
    final = f'c=biws,r={values["r"]}'
    message = f'{first},{server_first},{final}'.encode()
    signature = hmac.digest(
        hashlib.new(algorithm, key).digest(), message, algorithm)
    proof = bytes(a ^ b for a, b in zip(key, signature))
    kind, got = keeper_says(keeper, ASK_STEP,
                            M_RESPONSE=f'{final},p={b64bytes(proof)}')
    if kind != ANSWER_CHALLENGE:
        return kind, got
    verifier = hmac.digest(hmac.digest(salted, b'Server Key', algorithm),
                           message, algorithm)
    assert got['M_CHALLENGE'] == b'v=' + base64.b64encode(verifier)
    return keeper_says(keeper, ASK_STEP, M_RESPONSE='')


def b64bytes(data):
    return base64.b64encode(data).decode()


@pytest.mark.parametrize('algorithm', ['sha1', 'sha256'])
def test_scram(keeper, algorithm):
    kind, got = scram(keeper, 'alice', 'wonderland', algorithm)
    assert kind == ANSWER_VERDICT
    assert (got['M_RESULT'], got['M_USER']) == (b'accepted', b'alice')
    for user, password in (('alice', 'wrong'), ('nobody', 'x')):
        kind, got = scram(keeper, user, password, algorithm)
        assert (kind, got['M_RESULT']) == (ANSWER_VERDICT, b'denied')


def test_oauthbearer(keeper):
    """A token that is not valid: Dovecot's own words, then the refusal."""
    token = b'n,a=alice,\1auth=Bearer nonsense\1\1'
    kind, got = keeper_says(keeper, ASK_EXCHANGE, M_MECHANISM='OAUTHBEARER',
                            M_RESPONSE=token, M_TLS_PROTOCOL='TLSv1.3')
    assert kind == ANSWER_CHALLENGE
    assert json.loads(got['M_CHALLENGE'])['status'] == 'invalid_token'
    kind, got = keeper_says(keeper, ASK_STEP, M_RESPONSE=b'\1')
    assert (kind, got['M_RESULT']) == (ANSWER_VERDICT, b'denied')
    # Not where it can be read along.
    kind, got = keeper_says(keeper, ASK_EXCHANGE, M_MECHANISM='OAUTHBEARER',
                            M_RESPONSE=token, M_CLIENT_ADDR='192.0.2.1',
                            M_LOCAL_ADDR='192.0.2.2')
    assert (kind, got['M_CODE']) == (ANSWER_VERDICT, b'523 5.7.10')


def test_anonymous(keeper, shared):
    kind, got = keeper_says(keeper, ASK_EXCHANGE, M_MECHANISM='ANONYMOUS',
                            M_RESPONSE='me')
    assert (kind, got['M_RESULT'], got['M_CODE']) == (
        ANSWER_VERDICT, b'denied', b'525 5.7.13')
    kind, got = keeper_says(keeper, ASK_MECHANISMS)
    assert got['M_MECHANISMS'] == (
        b'PLAIN CRAM-MD5 SCRAM-SHA-1 SCRAM-SHA-256 XOAUTH2 OAUTHBEARER LOGIN')
    assert set(got['M_CAN'].split()) == {b'verify', b'exchange'}


# --- the proxy's fields ----------------------------------------------------

@pytest.fixture
def proxied(own, asks, backend):
    """proxied(extra fields, ...) -> (session, the backend that Dovecot names,
    the one of the directives); `checked` False: Dovecot takes any password."""
    def start(more='', checked=True, replies=None, tls=None, implicit=False,
              **kw):
        b = backend(replies=replies, tls=tls, implicit=implicit)
        word = '{PLAIN}pw' if checked else ''
        free = '' if checked else 'nopassword=y '
        d = own(f'user:{word}::::::{free}proxy=y host=127.0.0.1 '
                f'port={b.port} {more}\n')
        s, other = asks(d.provider, **kw)
        return s, b, other
    return start


def credentials(conversation):
    [text] = conversation.texts('AUTH')
    return base64.b64decode(text.split(' ')[2]).decode().split('\0')


def test_dovecot_names_the_backend(proxied):
    """And it is given the password, though proxy_smtp_auth is off."""
    s, b, other = proxied('destuser=theirs')
    s.client.ask('AUTH PLAIN ' + plain('user', 'pw'), '235 ')
    s.quit()
    assert credentials(b.conversation()) == ['', 'theirs', 'pw']
    assert 'LOGIN' not in xclient_attributes(b.conversation())
    assert not other.conversations


def test_a_password_for_the_backend(proxied):
    s, b, other = proxied('pass=hidden')
    s.client.ask('AUTH PLAIN ' + plain('user', 'pw'), '235 ')
    s.quit()
    assert credentials(b.conversation()) == ['', 'user', 'hidden']


def test_a_proxy_that_takes_any_password(proxied):
    """Dovecot lets the backend judge: so do we, or all would be let in."""
    s, b, other = proxied(checked=False, proxy_pass_error_message='on',
                          replies={'AUTH': lambda c, text: '235 2.7.0 fine'
                                   if text.endswith(plain('user', 'right'))
                                   else '535 5.7.8 wrong'})
    s.client.ask('AUTH PLAIN ' + plain('user', 'guess'), '535 5.7.8 wrong')
    s.client.ask('AUTH PLAIN ' + plain('user', 'right'), '235 ')
    s.quit()
    assert credentials(b.conversation(1)) == ['', 'user', 'right']


BOTH_WAYS = pytest.mark.parametrize(
    'field,implicit', [('ssl', True), ('starttls', False)])


@pytest.fixture
def tls(certificates):
    """Of a backend that nobody vouches for."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*certificates.ec)
    return context


@BOTH_WAYS
def test_tls_to_the_backend(proxied, tls, field, implicit):
    s, b, other = proxied(f'{field}=any-cert', tls=tls, implicit=implicit)
    s.client.ask('AUTH PLAIN ' + plain('user', 'pw'), '235 ')
    s.quit()
    assert b.conversation().secure
    assert credentials(b.conversation()) == ['', 'user', 'pw']


@BOTH_WAYS
def test_a_backend_that_cannot_prove_itself(proxied, tls, field, implicit):
    """Verified because Dovecot says so, though it is on this host."""
    s, b, other = proxied(f'{field}=yes', tls=tls, implicit=implicit,
                          proxy_ssl_verify='off')
    s.client.ask('AUTH PLAIN ' + plain('user', 'pw'), '421 4.3.0 ')
    s.client.rest()
    s.finish(75)
    assert not b.conversation().texts('AUTH')
    assert not other.conversations


def test_nothing_in_the_clear_to_a_backend_without_tls(proxied):
    s, b, other = proxied('starttls=any-cert')
    s.client.ask('AUTH PLAIN ' + plain('user', 'pw'), '421 4.3.0 ')
    s.client.rest()
    s.finish(75)
    assert not b.conversation().texts('AUTH')
    assert not other.conversations


# --- away, hanging, talking nonsense ---------------------------------------

def test_away(asks):
    s, b = asks('dovecot:' + dead_address())
    s.client.ask('AUTH PLAIN ' + GOOD, '454 4.7.0 ')
    s.quit(75)
    assert 'refused' in s.event('auth')['reason']


def test_killed_within_an_exchange(own, asks):
    d = own()
    s, b = asks(d.provider, smtp_auth='cram-md5')
    s.client.ask('AUTH CRAM-MD5', '334 ')
    d.halt()
    s.client.ask(b64('alice ' + '0' * 32), '454 4.7.0 ')
    d.start()
    cram(s, 'alice', 'wonderland', '235 ')
    s.quit()


def test_restarted_between_two_logins(own, asks):
    d = own()
    s, b = asks(d.provider)
    s.client.ask('AUTH PLAIN ' + BAD, '535 ')
    d.halt()
    d.start()
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    s.quit()


def test_killed_while_it_is_waited_for(own, asks):
    """In a penalty."""
    d = own(penalty=True)
    s, b = asks(d.provider)
    s.client.line('AUTH PLAIN ' + BAD)
    until(lambda: 'alice' in d.log(), 'the question')
    d.halt()
    s.client.expect('454 4.7.0 ')
    s.quit(75)


def test_hanging(own, asks):
    d = own()
    s, b = asks(d.provider, auth_timeout='1s')
    d.hang()
    began = time.monotonic()
    s.client.ask('AUTH PLAIN ' + GOOD, '454 4.7.0 ')
    assert 0.9 < time.monotonic() - began < 5
    s.quit(75)
    assert 'in time' in s.event('auth')['reason']


def test_the_wrong_socket(own, asks):
    d = own()
    s, b = asks('dovecot:' + os.path.join(d.folder, 'run', 'auth-master'),
                auth_timeout='1s')
    s.client.ask('AUTH PLAIN ' + GOOD, '454 4.7.0 ')
    s.quit(75)
    assert 'is it for clients?' in s.event('auth')['reason']


@pytest.mark.parametrize('said', [
    'OK\n', 'OK\t1\n', 'OK\t2\tuser=alice\n', 'FAIL\n', '\0\n', '\n\n',
    'CONT\t{n}\t!\n', 'CONT\t{n}\tAAAA\n', 'OK\t{n}\tuser=\x01\n',
    'OK\t{n}\tuser=a\x01nb\n', 'OK\t{n}', 'OK\t{n}' + '\tx' * 200 + '\n',
    'NEW\tthing\n' * 100, dovecot.HANG_UP, SILENCE, ENDLESS_LINE])
def test_nonsense(fake, asks, said):
    """Nothing of it is a yes."""
    f = fake(lambda n, line: said.format(n=n) if isinstance(said, str)
             else said)
    s, b = asks(f.provider, auth_timeout='500ms')
    s.client.ask('AUTH PLAIN ' + GOOD, '454 4.7.0 ')
    s.quit(75)
    assert not b.conversations


@pytest.mark.parametrize('said', [
    '', 'VERSION\t2\t0\n' + dovecot.MECHS + 'DONE\n', 'VERSION\t1\t2\nDONE\n',
    '220 mail ESMTP\r\n', '\0' * 100 + '\n', 'MECH\tPLAIN\nDONE\n',
    dovecot.HANG_UP, SILENCE, ENDLESS_LINE])
def test_nonsense_for_a_greeting(fake, asks, said):
    f = fake('OK\t1\tuser=alice\nOK\t2\tuser=alice\n', said)
    s, b = asks(f.provider, auth_timeout='500ms')
    s.client.ask('AUTH PLAIN ' + GOOD, '454 4.7.0 ')
    s.quit(75)
    assert not b.conversations


@pytest.mark.parametrize('fields,reply', [
    ('', '535 5.7.8 Authentication failed'),
    ('\tcode=temp_fail', '454 4.7.0 '),
    ('\tcode=authz_fail', '535 5.7.8 '),
    ('\tcode=user_disabled', '525 5.7.13 '),
    ('\tcode=pass_expired', '535 5.7.8 '),
    ('\tcode=invalid_base64', '501 5.5.2 '),
    ('\tcode=auth_mech_invalid', '504 5.5.4 '),
    ('\tcode=auth_mech_ssl_required', '523 5.7.10 '),
    ('\treason=Not\x01ryou\x01n250 ok', '535 5.7.8 Notyou250 ok$')])
def test_replies_of_dovecots_submission(fake, asks, fields, reply):
    f = fake(lambda n, line: f'FAIL\t{n}\tuser=alice{fields}\n')
    s, b = asks(f.provider)
    s.client.ask('AUTH PLAIN ' + GOOD, reply)
    s.quit((0, 75))


def test_one_connection_a_session(fake, asks):
    f = fake(lambda n, line: f'FAIL\t{n}\n' if line.endswith(BAD)
             else f'OK\t{n}\tuser=alice\n')
    s, b = asks(f.provider)
    s.client.ask('AUTH PLAIN ' + BAD, '535 ')
    s.client.ask('AUTH PLAIN ' + BAD, '535 ')
    s.client.ask('AUTH PLAIN ' + GOOD, '235 ')
    s.quit()
    assert len(f.connections) == 1
    assert f.connections[0][0] == 'VERSION\t1\t4'
    numbers = [line.split('\t')[1] for line in f.connections[0][2:]]
    assert numbers == ['1', '2', '3']


# --- --check ---------------------------------------------------------------

def warnings(provider, *args):
    done = run('--check', '--auth-provider', provider, '--backend',
               '127.0.0.1:25', '--starttls', 'only', '--ssl-certificate',
               '/nonexistent', '--ssl-certificate-key', '/nonexistent', *args)
    assert done.returncode == 0, done.err
    return re.findall('^# warning: (auth_provider: .*)$', done.out, re.M)


def test_check_tries_a_wrong_password(own, shared, fake):
    """A user that there is not: nobody is locked out."""
    assert warnings(shared.provider) == []
    user = re.findall(r'user=(smtp-frontd-check-[0-9a-f]{16})\b',
                      '\n'.join(shared.said('client passdb out: ')))
    assert len(user) == 1
    yes = fake(lambda n, line: f'OK\t{n}\tuser=alice\n')
    assert warnings(yes.provider) == [
        'auth_provider: accepts a wrong password']


def test_check_of_a_dovecot_that_is_a_proxy(own):
    d = own(more='passdb {\n driver = static\n args = nopassword=y proxy=y '
                 'host=192.0.2.1\n}')
    assert warnings(d.provider) == [
        'auth_provider: accepts a wrong password']


def test_check_finds_nobody(own):
    [warning] = warnings('dovecot:' + dead_address())
    assert 'unavailable: ' in warning and 'refused' in warning
    d = own()
    d.hang()
    began = time.monotonic()
    [warning] = warnings(d.provider)
    assert 'unavailable: ' in warning and 'in time' in warning
    assert time.monotonic() - began < 8
