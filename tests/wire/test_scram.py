"""SCRAM and its -PLUS forms on the wire: with a client of our own, and with
gsasl's, curl's and msmtp's."""

import base64
import hashlib
import secrets
import ssl
import subprocess
import time

import pytest

import starters
from fakes import b64, plain
from harness import client_context, environment
from scram import Scram, stored
from test_sasl import accepted, still_talks

BOTH = 'scram-sha-1 scram-sha-256'
HASHES = {'SCRAM-SHA-1': 'sha1', 'SCRAM-SHA-256': 'sha256'}


def run(s, mechanism, scram, initial=True):
    """To the server's last word, or the line that comes instead."""
    if initial:
        s.client.line(f'AUTH {mechanism} {scram.first()}')
    else:
        assert s.client.ask('AUTH ' + mechanism, '334') == ['334 ']
        s.client.line(scram.first())
    [line] = s.client.reply()
    if not line.startswith('334 '):
        return line
    s.client.line(scram.final(line[4:]))
    [line] = s.client.reply()
    return line


def succeed(s, mechanism, scram, **kw):
    line = run(s, mechanism, scram, **kw)
    assert line.startswith('334 '), line
    assert scram.is_server(line[4:])
    s.client.line('')
    accepted(s)


def tls_session(at, certificates, which='ec', version=None, **kw):
    s = at(starttls='on', smtp_auth=BOTH, **certificates.directives(which),
           **kw)
    s.client.ask('STARTTLS', '220 ')
    context = client_context()
    if version:
        context.maximum_version = version
    s.client.start_tls(context)
    return s


def end_point(s):
    der = s.client.tls.getpeercert(True)
    return 'tls-server-end-point', hashlib.sha256(der).digest()


# --- successes -------------------------------------------------------------

@pytest.mark.parametrize('initial', [True, False])
@pytest.mark.parametrize('mechanism', HASHES)
def test_success(at, mechanism, initial):
    s = at(smtp_auth=BOTH)
    assert 'AUTH SCRAM-SHA-1 SCRAM-SHA-256' in s.client.hello()
    succeed(s, mechanism, Scram('alice', 'wonderland', HASHES[mechanism]),
            initial=initial)
    event = s.event('auth')
    assert (event['result'], event['user'], event['mech']) == \
        ('accepted', 'alice', mechanism)


@pytest.mark.parametrize('mechanism', HASHES)
def test_stored_keys(at, file_with, mechanism):
    """Nothing but the keys is there, and PLAIN is judged by them, too."""
    keys = stored('wonderland', HASHES[mechanism], 4321)
    for line in (f'AUTH PLAIN {plain("alice", "wonderland")}', None):
        s = at(smtp_auth=BOTH + ' plain', auth_provider=file_with(
            f'bob:{{PLAIN}}builder', f'alice:{{{mechanism}}}{keys}'))
        if line:
            s.client.line(line)
            accepted(s)
            continue
        scram = Scram('alice', 'wonderland', HASHES[mechanism])
        succeed(s, mechanism, scram)
        assert scram.iterations == 4321
        assert scram.salt == b'sixteen octets!!'


def test_keys_of_the_other_hash_are_no_use(at, file_with):
    s = at(smtp_auth=BOTH, auth_provider=file_with(
        f'alice:{{SCRAM-SHA-256}}{stored("wonderland")}'))
    line = run(s, 'SCRAM-SHA-1', Scram('alice', 'wonderland', 'sha1'))
    assert line.startswith('535 5.7.8 ')
    succeed(s, 'SCRAM-SHA-256', Scram('alice', 'wonderland'))


def test_names_with_commas_and_backends(at, file_with, backend):
    one, two = backend(), backend()
    s = at(smtp_auth=BOTH, backend=one.address, auth_provider=file_with(
        'a,l=ice:{PLAIN}wonderland:' + two.address))
    succeed(s, 'SCRAM-SHA-256', Scram('a=2Cl=3Dice', 'wonderland'))
    assert (len(one.conversations), len(two.conversations)) == (0, 1)


# --- failures --------------------------------------------------------------

@pytest.mark.parametrize('mechanism', HASHES)
@pytest.mark.parametrize('user,password', [
    ('alice', 'Wonderland'), ('alice', ''), ('bob', 'wonderland'),
    ('nobody', 'wonderland'), ('Alice', 'wonderland')])
def test_wrong(at, mechanism, user, password):
    s = at(smtp_auth=BOTH)
    line = run(s, mechanism, Scram(user, password, HASHES[mechanism]))
    assert line.startswith('535 5.7.8 ')
    still_talks(s)
    succeed(s, mechanism, Scram('alice', 'wonderland', HASHES[mechanism]))
    first = s.events('auth')[0]
    assert first['result'] == 'denied' and first['user'] == user


@pytest.mark.parametrize('header,reason', [
    ('n,a=bob,', 'authorization name of another'),
    ('p=tls-exporter,,', 'channel binding without -PLUS'),
    ('x,,', 'malformed response'), ('', 'malformed response')])
def test_refused_at_once(at, header, reason):
    s = at(smtp_auth=BOTH)
    line = run(s, 'SCRAM-SHA-256', Scram('alice', 'wonderland',
                                         header=header))
    assert line.startswith('535 5.7.8 ')
    s.quit()
    assert s.event('auth')['reason'] == reason


def test_an_authorization_name_of_ones_own(at):
    s = at(smtp_auth=BOTH)
    succeed(s, 'SCRAM-SHA-256', Scram('alice', 'wonderland', authzid='alice'))


def test_the_proof_of_another_exchange(at):
    s = at(smtp_auth=BOTH)
    old = Scram('alice', 'wonderland')
    assert run(s, 'SCRAM-SHA-256', old).startswith('334 ')
    s.client.ask('*', '501 5.7.0 ')
    [line] = s.client.ask('AUTH SCRAM-SHA-256 ' + old.first(), '334 ')
    replayed = base64.b64decode(old.final(line[4:])).decode()
    nonce = old.server[1]
    assert nonce in replayed
    s.client.line(b64(replayed.replace(nonce, nonce[:-1] + '!')))
    s.client.expect('535 5.7.8 ')
    s.quit()


@pytest.mark.parametrize('word,code', [
    ('*', '501 5.7.0 '), (b64('x'), '501 5.5.2 '), ('!', '501 5.5.2 '),
    ('A' * 13000, '500 5.5.6 ')])
def test_the_last_word_is_to_be_answered_with_nothing(at, word, code):
    """The client could not make sure of us, or is in another conversation:
    there is no 235."""
    s = at(smtp_auth=BOTH)
    line = run(s, 'SCRAM-SHA-256', Scram('alice', 'wonderland'))
    assert line.startswith('334 ')
    s.client.ask(word, code)
    still_talks(s)
    s.quit()
    assert s.event('auth')['result'] in ('cancelled', 'malformed')


def test_gone_before_the_last_word_is_answered(at, backend):
    b = backend()
    s = at(smtp_auth=BOTH, backend=b.address)
    assert run(s, 'SCRAM-SHA-256',
               Scram('alice', 'wonderland')).startswith('334 ')
    s.client.close()
    assert s.finish()['cause'] == 'eof'
    assert b.conversations == []


@pytest.mark.parametrize('step', [0, 1])
def test_cancelled(at, step):
    s = at(smtp_auth=BOTH)
    s.client.ask('AUTH SCRAM-SHA-256', '334 ')
    if step:
        s.client.ask(Scram('alice', 'wonderland').first(), '334 ')
    s.client.ask('*', '501 5.7.0 ')
    succeed(s, 'SCRAM-SHA-256', Scram('alice', 'wonderland'))


def test_tries_are_counted_however_they_end(at):
    s = at(smtp_auth=BOTH, max_auth_attempts=3)
    for _ in range(3):
        s.client.ask('AUTH SCRAM-SHA-256 ' + Scram('alice', 'x').first(),
                     '334 ')
        s.client.ask('*', '501 ')
    s.client.ask('AUTH SCRAM-SHA-256', '421 4.7.0 ')
    s.client.expect_end()
    s.finish()


# --- the unknown -----------------------------------------------------------

def salt_of(s, user, mechanism='SCRAM-SHA-256'):
    scram = Scram(user, 'x', HASHES[mechanism])
    run(s, mechanism, scram)
    return scram.salt, scram.iterations


def test_the_unknown_have_one_salt_each(at, tmp_path):
    """In every process, and with every restart."""
    secret = tmp_path / 'salt'
    secret.write_bytes(b'0123456789abcdef')
    secret.chmod(0o600)
    seen = []
    for _ in range(2):
        s = at(smtp_auth=BOTH, scram_secret_file=secret)
        seen.append([salt_of(s, user) for user in ('nobody', 'no,body'[:2],
                                                   'alice')])
        s.quit()
    secret.write_bytes(b'0123456789abcdeg')
    s = at(smtp_auth=BOTH, scram_secret_file=secret)
    other = salt_of(s, 'nobody')
    s.quit()
    assert seen[0] == seen[1] and len(set(seen[0])) == 3
    assert {(len(salt), i) for salt, i in seen[0]} == {(16, 4096)}
    assert other[0] != seen[0][0][0]


def test_the_default_salt_is_the_machines(at):
    seen = []
    for _ in range(2):
        s = at(smtp_auth=BOTH)
        seen.append(salt_of(s, 'nobody'))
        s.quit()
    assert seen[0] == seen[1]


def test_the_unknown_look_like_those_with_keys(at, file_with):
    s = at(smtp_auth=BOTH, auth_provider=file_with(
        f'alice:{{SCRAM-SHA-256}}{stored("wonderland", "sha256", 5555)}'))
    salt, iterations = salt_of(s, 'nobody')
    assert iterations == 5555 and len(salt) == 16
    assert salt != b'sixteen octets!!'
    assert salt_of(s, 'alice') == (b'sixteen octets!!', 5555)
    s.quit()


@pytest.mark.parametrize('octets', [None, 15])
def test_a_secret_that_is_none(at, tmp_path, octets):
    """No salts are made with nothing."""
    secret = tmp_path / 'salt'
    if octets:
        secret.write_bytes(b'x' * octets)
    s = at(smtp_auth=BOTH, scram_secret_file=secret)
    s.client.ask('AUTH SCRAM-SHA-256', '454 4.7.0 ')
    s.quit(75)
    assert str(secret) in s.event('auth')['reason']


# --- channel binding -------------------------------------------------------

def test_plus_is_offered_in_tls_alone(at, certificates):
    s = at(starttls='on', smtp_auth='scram-sha-256',
           **certificates.directives())
    assert 'AUTH SCRAM-SHA-256' in s.client.hello()
    s.client.ask('AUTH SCRAM-SHA-256-PLUS', '504 5.5.4 ')
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls(client_context())
    assert 'AUTH SCRAM-SHA-256 SCRAM-SHA-256-PLUS' in s.client.hello()
    s.client.ask('AUTH SCRAM-SHA-1-PLUS', '504 5.5.4 ')
    s.quit()


@pytest.mark.parametrize('version', [ssl.TLSVersion.TLSv1_2, None])
@pytest.mark.parametrize('which', ['ec', 'rsa'])
@pytest.mark.parametrize('mechanism', HASHES)
def test_end_point(at, certificates, mechanism, which, version):
    s = tls_session(at, certificates, which, version)
    succeed(s, mechanism + '-PLUS', Scram(
        'alice', 'wonderland', HASHES[mechanism], end_point(s)))
    assert s.event('auth')['mech'] == mechanism + '-PLUS'


@pytest.mark.parametrize('how,reason', [
    ('other data', 'another channel or nonce'),
    ('no data', 'another channel or nonce'),
    ('other type', 'unsupported channel binding'),
    ('downgrade', 'downgrade: -PLUS was hidden from the client'),
    ('plus without', 'no channel binding with -PLUS'),
    ('binding without plus', 'channel binding without -PLUS')])
def test_the_man_in_the_middle(at, certificates, how, reason):
    s = tls_session(at, certificates)
    binding, mechanism, flag = end_point(s), 'SCRAM-SHA-256-PLUS', None
    if how == 'other data':
        binding = binding[0], bytes(32)
    elif how == 'no data':
        binding = binding[0], b''
    elif how == 'other type':
        binding = 'tls-unique', b'x' * 12
    elif how == 'downgrade':
        binding, mechanism, flag = None, 'SCRAM-SHA-256', 'y'
    elif how == 'plus without':
        binding = None
    else:
        mechanism = 'SCRAM-SHA-256'
    line = run(s, mechanism, Scram('alice', 'wonderland', binding=binding,
                                   flag=flag))
    assert line.startswith('535 5.7.8 ')
    s.quit()
    assert s.event('auth')['reason'] == reason


@pytest.mark.parametrize('flag', ['n', 'y'])
def test_without_tls_there_is_nothing_to_bind(at, flag):
    s = at(smtp_auth=BOTH)
    succeed(s, 'SCRAM-SHA-256', Scram('alice', 'wonderland', flag=flag))


# --- the clients of others -------------------------------------------------

@pytest.fixture
def port(tmp_path, users, backend, certificates):
    """A front end at a port, with TLS on request."""
    s = starters.Starter(
        starters.systemd, str(tmp_path),
        {'auth_provider': users, 'backend': backend().address,
         'smtp_auth': BOTH, 'starttls': 'only',
         **certificates.directives()}, None)
    yield s
    s.stop()


def client(words, stdin=''):
    return subprocess.run(words, input=stdin, text=True, timeout=30,
                          env=environment({'HOME': '/nonexistent'}),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def gsasl(port, mechanism, password='wonderland', *more):
    return client(['gsasl', '--smtp', '--starttls', '--x509-ca-file=',
                   '--connect', f'127.0.0.1:{port}', '-m', mechanism,
                   '-a', 'alice', '-p', password, '--quiet', *more])


@pytest.mark.parametrize('mechanism', [m + p for m in HASHES
                                       for p in ('', '-PLUS')])
def test_gsasl(port, mechanism):
    """With -PLUS and TLS 1.3 it binds with tls-exporter."""
    more = [] if mechanism.endswith('PLUS') else ['--no-cb']
    done = gsasl(port.port, mechanism, 'wonderland', *more)
    assert done.returncode == 0, done.stdout
    event = port.await_event('auth')
    assert (event['result'], event['mech']) == ('accepted', mechanism)


def test_gsasl_with_a_wrong_password(port):
    done = gsasl(port.port, 'SCRAM-SHA-256-PLUS', 'wrong')
    assert done.returncode != 0
    assert port.await_event('auth')['result'] == 'denied'



# --- time ------------------------------------------------------------------

PAIRS = 150


def challenge_time(s, user):
    first = Scram(user, 'x').first()
    begun = time.perf_counter()
    s.client.ask('AUTH SCRAM-SHA-256 ' + first, '334 ')
    took = time.perf_counter() - begun
    s.client.ask('*', '501 ')
    return took


@pytest.mark.parametrize('kind', ['secrets', 'keys'])
def test_the_unknown_take_as_long(at, file_with, kind):
    """A sign test on pairs in random order. Were there no difference, chance
    alone would fail it once in ten million runs, whatever else the machine
    does; the work on a secret, left out for the unknown, shows in each pair."""
    line = 'alice:{PLAIN}wonderland' if kind == 'secrets' else \
        'alice:{SCRAM-SHA-256}' + stored('wonderland')
    s = at(smtp_auth=BOTH, auth_provider=file_with(line), max_errors=10000,
           max_auth_attempts=10000)
    longer = 0
    for _ in range(PAIRS):
        users = ['alice', secrets.token_hex(3)[:5]]
        order = secrets.randbelow(2)
        took = {}
        for user in users[::-1] if order else users:
            took[user] = challenge_time(s, user)
        longer += took[users[0]] > took[users[1]]
    s.client.ask('QUIT', '221 ')
    s.finish()
    z = (longer - PAIRS / 2) / (PAIRS / 4) ** .5
    assert abs(z) < 5.3, (longer, PAIRS)
