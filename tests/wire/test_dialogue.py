"""The dialogue before hand-over: every row of its table, lines, limits."""

import select
import time

import pytest

from fakes import plain

# The five states in which the table's rows are tried. MAIL is not allowed in
# any of them: the flow with `none` has its own tests below.
MODES = ['off', 'on', 'only', 'only-tls', 'implicit']
IN_TLS = ('only-tls', 'implicit')


@pytest.fixture
def enter(talk, front, certificates):
    """enter(mode): a session in that state, EHLO said."""
    def start(mode, **kw):
        kw.setdefault('max_errors', 100)
        if mode == 'implicit':
            s = front(socket='ssl', **certificates.directives(), **kw)
            s.client.start_tls()
            s.client.greeting()
        else:
            s = talk(starttls=mode.split('-')[0],
                     **(certificates.directives() if mode != 'off' else {}),
                     **kw)
            if mode == 'only-tls':
                s.client.ask('STARTTLS', '220 2.0.0 ')
                s.client.start_tls()
        s.client.hello()
        return s
    return start


# --- every row -------------------------------------------------------------

# (command, reply, reply in the clear with `starttls only` or None: the same)
NEEDS_TLS = '530 5.7.0 '
ROWS = [
    ('HELO a.example', '250 front.example$', None),
    ('helo a.example', '250 front.example$', None),
    ('HELO', '501 5.5.4 ', None),
    ('HELO a b', '501 5.5.4 ', None),
    ('EHLO', '501 5.5.4 ', None),
    ('EHLO a b', '501 5.5.4 ', None),
    ('EHLO a\tb', '501 5.5.4 ', None),
    ('EHLO a\x01', '501 5.5.4 ', None),
    ('EHLO \x7f', '501 5.5.4 ', None),
    ('EHLO [127.0.0.1]', '250[ -]', None),
    ('NOOP', '250 2.0.0 ', None),
    ('NoOp anything else', '250 2.0.0 ', None),
    ('RSET', '250 2.0.0 ', None),
    ('VRFY postmaster', '252 2', NEEDS_TLS),
    ('EXPN list', '502 5.5.1 ', NEEDS_TLS),
    ('HELP', '214 2', NEEDS_TLS),
    ('MAIL FROM:<a@a.example>', '530 5.7.0 ', NEEDS_TLS),
    ('mail from:<>', '530 5.7.0 ', NEEDS_TLS),
    ('RCPT TO:<a@a.example>', '(530 5.7.0|503 5.5.1) ', NEEDS_TLS),
    ('DATA', '503 5.5.1 ', NEEDS_TLS),
    ('BDAT 0 LAST', '503 5.5.1 ', NEEDS_TLS),
    ('AUTH', '501 5.5.4 ', '(501 5.5.4|538 5.7.11) '),
    ('AUTH NONSENSE', '504 5.5.4 ', '538 5.7.11 '),
    ('AUTH CRAM-MD5', '504 5.5.4 ', '538 5.7.11 '),
    ('AUTH EXTERNAL =', '504 5.5.4 ', '538 5.7.11 '),
    ('AUTH PLAIN !!!!', '501 5.5.2 ', '538 5.7.11 '),
    ('AUTH PLAIN ' + plain('alice', 'wrong'), '535 5.7.8 ', '538 5.7.11 '),
    ('AUTH PLAIN ' + plain('nobody', 'x'), '535 5.7.8 ', '538 5.7.11 '),
    ('', '500 5.5.2 ', '(500 5.5.2|530 5.7.0) '),
    (' NOOP', '500 5.5.2 ', '(500 5.5.2|530 5.7.0) '),
    ('NONSENSE', '500 5.5.2 ', '(500 5.5.2|530 5.7.0) '),
    ('NOO', '500 5.5.2 ', '(500 5.5.2|530 5.7.0) '),
    ('NOOPE', '500 5.5.2 ', '(500 5.5.2|530 5.7.0) '),
    ('NOOP\tx', '500 5.5.2 ', '(500 5.5.2|530 5.7.0) '),
    ('ETRN x', '500 5.5.2 ', '(500 5.5.2|530 5.7.0) '),
    ('XCLIENT ADDR=192.0.2.1', '500 5.5.2 ', '(500 5.5.2|530 5.7.0) '),
    ('SAML FROM:<a@a.example>', '500 5.5.2 ', '(500 5.5.2|530 5.7.0) '),
    ('caf\xe9', '500 5.5.2 ', '(500 5.5.2|530 5.7.0) '),
]


@pytest.mark.parametrize('row', ROWS, ids=lambda row: repr(row[0][:24]))
@pytest.mark.parametrize('mode', MODES)
def test_every_row(enter, mode, row):
    """Each reply must be one reply, so one that is told apart follows."""
    command, reply, in_clear = row
    s = enter(mode)
    if mode == 'only' and in_clear is not None:
        reply = in_clear
    s.client.ask(command, reply)
    s.client.ask('NOOP', '250 2.0.0 ')
    s.quit()


@pytest.mark.parametrize('mode', MODES)
def test_every_row_pipelined(enter, mode):
    s = enter(mode)
    rows = [r for r in ROWS if r[0] != 'HELP']
    s.client.send(''.join(r[0] + '\r\n' for r in rows) + 'HELP\r\nQUIT\r\n')
    for _, reply, in_clear in rows:
        s.client.expect(
            in_clear if mode == 'only' and in_clear is not None else reply)
    s.client.expect('530 ' if mode == 'only' else '214 ')
    s.client.expect('221 ')
    s.client.expect_end()
    s.finish()


@pytest.mark.parametrize('mode', MODES)
def test_ehlo_lines(enter, mode):
    s = enter(mode, smtp_capabilities=['SIZE 1000', '8BITMIME'])
    lines = s.client.hello()
    assert lines[:3] == ['front.example', 'SIZE 1000', '8BITMIME']
    auth = [] if mode == 'only' else ['AUTH PLAIN LOGIN']
    tls = ['STARTTLS'] if mode in ('on', 'only') else []
    assert lines[3:] == auth + tls
    s.quit()


def test_ehlo_without_anything_is_one_line(front):
    s = front(smtp_auth='none', auth_provider=None)
    s.client.greeting()
    assert s.client.ask('EHLO x', '250') == ['250 front.example']
    s.quit()


def test_helo_tells_no_extensions(talk):
    s = talk(smtp_capabilities='8BITMIME')
    assert s.client.ask('HELO x', '250') == ['250 front.example']
    s.quit()


@pytest.mark.parametrize('mode,reply', [
    ('off', '503 5.5.1 '), ('on', '220 2.0.0 '), ('only', '220 2.0.0 '),
    ('only-tls', '503 5.5.1 '), ('implicit', '503 5.5.1 ')])
def test_starttls(enter, mode, reply):
    s = enter(mode)
    s.client.ask('STARTTLS', reply)
    if reply.startswith('220'):
        s.client.start_tls()
        assert 'STARTTLS' not in s.client.hello()
    s.quit()


@pytest.mark.parametrize('mode', ['on', 'only'])
def test_starttls_with_an_argument(enter, mode):
    s = enter(mode)
    s.client.ask('STARTTLS now', '501 5.5.4 ')
    s.client.ask('STARTTLS', '220 2.0.0 ')
    s.client.start_tls()
    s.quit()


@pytest.mark.parametrize('mode', [m for m in MODES if m != 'only'])
def test_auth_succeeds(enter, backend, mode):
    s = enter(mode, backend=backend().address)
    s.client.ask('AUTH PLAIN ' + plain('alice', 'wonderland'), '235 2.7.0 ')
    s.client.ask('NOOP', '250 2.0.0 backend here')
    s.quit()


def test_ehlo_is_not_needed(talk):
    s = talk()
    s.client.ask('NOOP', '250 ')
    s.client.ask('AUTH PLAIN ' + plain('alice', 'wrong'), '535 5.7.8 ')
    s.quit()


@pytest.mark.parametrize('verb', ['QUIT', 'quit', 'QUIT now'])
def test_quit_ends_it_and_what_is_behind(talk, verb):
    s = talk()
    s.client.send(f'NOOP\r\n{verb}\r\nNOOP\r\nNOOP\r\n')
    s.client.expect('250 ')
    s.client.expect('221 2.0.0 ')
    s.client.expect_end()
    assert s.finish()['cause'] == 'quit'


@pytest.mark.parametrize('line', ['GET / HTTP/1.1', 'POST /x HTTP/1.0',
                                  'get /', 'CONNECT a:25 HTTP/1.1',
                                  'PUT /x HTTP/1.1'])
def test_http_gets_one_refusal(talk, line):
    s = talk()
    s.client.send(f'{line}\r\nHost: x\r\n\r\nEHLO x\r\nQUIT\r\n')
    s.client.expect('(421|5..) ')
    s.client.expect_end()
    assert s.finish()['cause'] == 'http'


def test_tls_hello_on_a_plain_port(talk):
    s = talk()
    with pytest.raises(Exception):
        s.client.start_tls()
    s.client.close()
    assert s.finish()['cause'] == 'tls'


def test_tls_hello_gets_one_refusal(talk):
    s = talk()
    s.client.send(bytes.fromhex('1603010200010001fc0303') + b'\r\n' * 200)
    s.client.expect('(421|5..) ')
    s.client.expect_end()
    s.finish()


# --- with `none` -----------------------------------------------------------

@pytest.fixture
def open_talk(front, backend):
    """A session with `none`."""
    def start(**kw):
        kw.setdefault('smtp_auth', 'plain none')
        kw.setdefault('backend', backend().address)
        s = front(**kw)
        s.client.greeting()
        s.client.hello()
        return s
    return start


MAIL = 'MAIL FROM:<a@a.example>'
RCPT = 'RCPT TO:<b@b.example>'


@pytest.mark.parametrize('commands', [
    [(MAIL, '250 2'), (MAIL, '503 5.5.1 ')],
    [('MAIL', '501 5.5.4 ')],
    [('MAIL nonsense', '501 5.5.4 ')],
    [(RCPT, '503 5.5.1 ')],
    [(MAIL, '250 2'), ('RCPT', '501 5.5.4 '), ('RCPT nonsense', '501 5.5.4 ')],
    [(MAIL, '250 2'), ('RSET', '250 '), (RCPT, '503 5.5.1 ')],
    [(MAIL, '250 2'), ('RSET', '250 '), (MAIL, '250 2')],
    [(MAIL, '250 2'), ('EHLO x', '250'), (RCPT, '503 5.5.1 ')],
    [(MAIL, '250 2'), ('HELO x', '250'), (RCPT, '503 5.5.1 ')],
    [(MAIL, '250 2'), ('DATA', '503 5.5.1 ')],
    [('DATA', '503 5.5.1 ')],
    [(MAIL, '250 2'), ('BDAT 0 LAST', '503 5.5.1 ')],
    [(MAIL, '250 2'), ('NOOP', '250 '), ('VRFY x', '252 '), (MAIL, '503 ')],
    [(MAIL, '250 2'), ('AUTH PLAIN ' + plain('alice', 'wonderland'),
                       '503 5.5.1 ')],
    [(MAIL, '250 2'), ('RSET', '250 '),
     ('AUTH PLAIN ' + plain('alice', 'wrong'), '535 5.7.8 ')],
])
def test_none_before_the_hand_over(open_talk, commands):
    s = open_talk()
    for command, reply in commands:
        s.client.ask(command, reply)
    s.quit()


def test_none_in_tls_only(open_talk, certificates):
    s = open_talk(starttls='only', **certificates.directives())
    s.client.ask(MAIL, '530 5.7.0 ')
    s.client.ask(RCPT, '530 5.7.0 ')
    s.client.ask('STARTTLS', '220 ')
    s.client.start_tls()
    s.client.ask(MAIL, '250 2')
    s.client.ask(RCPT, '250 2.1.5 recipient fine')
    s.quit()


# --- pipelining ------------------------------------------------------------

def test_batch_is_answered_in_order_in_few_writes(talk):
    s = talk()
    before = s.client.segments()
    kinds = [('NOOP', '250 2.0.0 '), ('VRFY x', '252 '), ('HELP', '214 ')]
    batch = [kinds[i % 3] for i in range(90)]
    s.client.send(''.join(c + '\r\n' for c, _ in batch))
    for _, reply in batch:
        s.client.expect(reply)
    # About 2.5 kB of replies; one write each would be ninety segments.
    assert s.client.segments() - before <= 4
    s.quit()


def test_batch_far_longer_than_the_buffer(talk):
    s = talk(smtp_client_buffer='128')
    kinds = [('NOOP ' + 'x' * 90, '250 2.0.0 '), ('VRFY x', '252 '),
             ('HELP', '214 '), ('RSET', '250 ')]
    batch = [kinds[i % 4] for i in range(800)]
    s.client.send(''.join(c + '\r\n' for c, _ in batch) + 'QUIT\r\n')
    for _, reply in batch:
        s.client.expect(reply)
    s.client.expect('221 ')
    s.client.expect_end()
    s.finish()


def test_commands_that_come_octet_by_octet(talk):
    s = talk()
    for octet in 'EHLO x\r\nNOOP\r\n':
        s.client.send(octet)
    s.client.expect('250')
    s.client.expect('250 2.0.0 ')
    s.quit()


# --- limits ----------------------------------------------------------------

@pytest.mark.parametrize('command', [
    'NONSENSE', 'EHLO', 'EXPN x', 'STARTTLS', 'MAIL FROM:<a@a>', 'DATA',
    'AUTH NONSENSE', 'AUTH PLAIN !', 'AUTH PLAIN ' + plain('alice', 'no'),
    'NOOP ' + 'x' * 5000, 'a\rb', ''])
def test_every_refusal_counts_to_max_errors(talk, command):
    s = talk(max_errors=3, max_auth_attempts=100, smtp_client_buffer='4k')
    for _ in range(3):
        s.client.ask(command, '5')
    s.client.ask(command, '421 4.7.0 ')
    s.client.expect_end()
    assert s.finish()['cause'] == 'errors'


def test_max_errors_in_a_pipeline(talk):
    s = talk(max_errors=2)
    s.client.send('A\r\nB\r\nNOOP\r\nC\r\nNOOP\r\nQUIT\r\n')
    for reply in ('500 ', '500 ', '250 ', '421 4.7.0 '):
        s.client.expect(reply)
    s.client.expect_end()
    s.finish()


def test_what_is_answered_well_is_no_error(talk):
    s = talk(max_errors=1)
    for command in ['NOOP', 'RSET', 'EHLO x', 'HELO x', 'HELP', 'VRFY x'] * 3:
        s.client.ask(command, '2')
    s.quit()


def test_a_thousand_commands_and_no_more(talk):
    s = talk()
    s.client.send('NOOP\r\n' * 1001)
    for _ in range(1000):
        s.client.expect('250 2.0.0 ')
    s.client.expect('421 4.7.0 ')
    s.client.expect_end()
    assert s.finish()['cause'] == 'commands'


# --- deadlines -------------------------------------------------------------

def test_timeout_after_the_greeting(talk):
    s = talk(timeout='300ms')
    begun = time.monotonic()
    s.client.expect('421 4.4.2 ')
    assert 0.2 <= time.monotonic() - begun < 2
    s.client.expect_end()
    assert s.finish()['cause'] == 'timeout'


def test_timeout_is_per_command(talk):
    s = talk(timeout='500ms')
    begun = time.monotonic()
    while time.monotonic() - begun < 0.8:
        s.client.ask('NOOP', '250 ')
        s.client.expect_nothing(0.1)
    s.client.expect('421 4.4.2 ')
    s.client.expect_end()
    s.finish()


def test_slow_typing_does_not_stretch_it(talk):
    """A line that comes octet by octet has the same time as any other."""
    s = talk(timeout='400ms')
    begun = time.monotonic()
    while not select.select([s.client.rfd], [], [], 0.05)[0]:
        s.client.send('N')
        assert time.monotonic() - begun < 3
    s.client.expect('421 4.4.2 ')
    assert time.monotonic() - begun >= 0.3
    s.client.expect_end()
    assert s.finish()['cause'] == 'timeout'


STATES = {
    'greeted': [],
    'half a line': [b'NOO'],
    'after EHLO': [b'EHLO x\r\n'],
    'after a refusal': [b'NONSENSE\r\n'],
    'in AUTH PLAIN': [b'AUTH PLAIN\r\n'],
    'in AUTH LOGIN': [b'AUTH LOGIN\r\n'],
    'in AUTH LOGIN, password': [b'AUTH LOGIN YWxpY2U=\r\n'],
    'in AUTH CRAM-MD5': [b'AUTH CRAM-MD5\r\n'],
    'in half a response': [b'AUTH PLAIN\r\nAGFsaWNl'],
    'after MAIL': [b'MAIL FROM:<a@a.example>\r\n'],
    'in a BDAT chunk': [b'BDAT 100\r\nabc'],
    'in a line that is too long': [b'NOOP ' + b'x' * 20000],
}
EVERYTHING = {'smtp_auth': 'plain login cram-md5 none'}


@pytest.mark.parametrize('state', STATES)
def test_timeout_in_every_state(talk, state):
    s = talk(timeout='300ms', **EVERYTHING)
    for data in STATES[state]:
        s.client.send(data)
    replies = s.client.rest().split(b'\r\n')
    assert replies[-1] == b''
    assert replies[-2].startswith(b'421 4.4.2 ')
    assert s.finish()['cause'] == 'timeout'


@pytest.mark.parametrize('state', STATES)
@pytest.mark.parametrize('how', ['half_close', 'close', 'reset'])
def test_end_in_every_state(talk, state, how):
    s = talk(**EVERYTHING)
    for data in STATES[state]:
        s.client.send(data)
    getattr(s.client, how)()
    if how == 'half_close':
        replies = s.client.rest()
        assert replies == b'' or replies.endswith(b'\r\n')
        # Replies that were due, and no complaint about the end.
        due = {'greeted': 0, 'half a line': 0, 'in a BDAT chunk': (0, 1),
               'in a line that is too long': (0, 1), 'after EHLO': None}
        wanted = due.get(state, 1)
        if wanted is None:
            assert replies.startswith(b'250')
        else:
            wanted = wanted if isinstance(wanted, tuple) else (wanted,)
            assert replies.count(b'\r\n') in wanted, replies
        assert s.finish()['cause'] == 'eof'
    else:
        s.finish()


@pytest.mark.parametrize('mode', MODES)
def test_half_close_is_answered(enter, mode):
    s = enter(mode)
    s.client.send('NOOP\r\nRSET\r\nNONSENSE\r\nNOOP\r\nNO')
    s.client.half_close()
    s.client.expect('250 ')
    s.client.expect('250 ')
    s.client.expect('(500|530) ')
    s.client.expect('250 ')
    s.client.expect_end()
    assert s.finish()['cause'] == 'eof'


def test_client_that_reads_nothing_ends_at_the_timeout(talk):
    """Its replies fill the buffers; the process must not hang on the write."""
    s = talk(timeout='400ms', smtp_capabilities=[
        f'X{i} {"y" * 200}' for i in range(60)])
    try:
        for _ in range(990):
            s.client.send('EHLO x\r\n', deadline=2)
    except (AssertionError, OSError):
        pass
    s.finish()


# --- lines -----------------------------------------------------------------

@pytest.mark.parametrize('setting,size', [('128', 128), ('512', 512),
                                          ('4k', 4096)])
def test_line_at_the_limit(talk, setting, size):
    """Under, at, over; its end counts."""
    s = talk(smtp_client_buffer=setting)
    for length, reply in [(size - 1, '250 '), (size, '250 '),
                          (size + 1, '500 5.5.6 '), (size + 2, '500 5.5.6 '),
                          (size, '250 ')]:
        s.client.ask('NOOP '.ljust(length - 2, 'x'), reply)
    s.quit()


@pytest.mark.parametrize('length', [12288, 12289, 12290, 12291, 12292, 16384,
                                    16385, 100000, 300000])
@pytest.mark.parametrize('setting', ['128', '4k'])
def test_nothing_is_lost_behind_a_long_line(talk, setting, length):
    s = talk(smtp_client_buffer=setting)
    s.client.send('NOOP '.ljust(length - 2, 'x') + '\r\nHELP\r\nNOOP\r\n')
    s.client.expect('500 5.5.6 ')
    s.client.expect('214 ')
    s.client.expect('250 ')
    s.quit()


def test_long_line_in_two_halves_of_its_end(talk):
    """The CR at the very end of what could be read, the LF later."""
    s = talk(smtp_client_buffer='128', max_errors=100)
    for length in [127, 128, 129, 130] + list(range(12284, 12296)):
        s.client.send('NONSENSE'.ljust(length - 2, 'x') + '\r')
        s.client.send('\nHELP\r\n')
        s.client.expect('500 5.5.2' if length <= 128 else '500 5.5.6 ')
        s.client.expect('214 ')
    s.quit()


ODD = {
    'bare LF': b'NOOP\nNOOP\r\n',
    'bare LF at the front': b'\nNOOP\r\n',
    'bare CR': b'NO\rOP\r\n',
    'bare CR before the end': b'NOOP\r\r\n',
    'CR LF turned round': b'NOOP\n\r\r\n',
    'NUL': b'NO\0OP\r\n',
    'NUL behind the verb': b'NOOP\0\r\n',
    'NUL in an argument': b'EHLO a\0b\r\n',
    'NUL in QUIT': b'QUIT\0\r\n',
    'LF smuggles QUIT': b'NOOP\nQUIT\r\n',
    'CR smuggles QUIT': b'NOOP\rQUIT\r\n',
}


@pytest.mark.parametrize('what', ODD)
@pytest.mark.parametrize('family', ['inet', 'unix'])
def test_odd_octets_are_one_refused_line(talk, what, family):
    s = talk(family=family)
    s.client.send(ODD[what] + b'HELP\r\n')
    s.client.expect('5.. 5')
    s.client.expect('214 ')
    s.quit()


@pytest.mark.parametrize('line', [
    b'NOOP \xff\xfe\x80', b'NOOP a\tb', b'NOOP ' + b'a ' * 12,
    b'NOOP a b c d e f g h i j k l', b'EHLO \xc3\xa4.example',
    b'VRFY ' + b'a ' * 12])
def test_odd_arguments_get_one_reply(talk, line):
    s = talk()
    s.client.send(line + b'\r\nHELP\r\n')
    s.client.expect('(250|252|501) ?')
    s.client.expect('214 ')
    s.quit()


@pytest.mark.parametrize('way', ['pipes', 'pty'])
def test_typed_by_hand_a_bare_lf_ends_a_line(front, way):
    s = front(way=way)
    s.client.send('EHLO me\nNOOP\nQUIT\n')
    said = s.client.rest()
    for reply in (b'220 front.example', b'250 2.0.0 ', b'221 2.0.0 '):
        assert reply in said
    assert s.finish()['cause'] == 'quit'


# --- BDAT ------------------------------------------------------------------

@pytest.mark.parametrize('size', ['10', '10 LAST', '10 last', '0000010'])
def test_bdat_is_swallowed(talk, size):
    s = talk()
    s.client.send(f'BDAT {size}\r\nQUIT\r\nQUITHELP\r\n')
    s.client.expect('503 5.5.1 ')
    s.client.expect('214 ')
    s.quit()


def test_bdat_larger_than_the_buffer(talk):
    s = talk(smtp_client_buffer='128')
    s.client.send(b'BDAT 300000 LAST\r\n' + b'QUIT\r\n' * 50000 + b'HELP\r\n')
    s.client.expect('503 5.5.1 ')
    s.client.expect('214 ')
    s.quit()


def test_bdat_of_nothing(talk):
    s = talk()
    s.client.send('BDAT 0 LAST\r\nHELP\r\n')
    s.client.expect('503 5.5.1 ')
    s.client.expect('214 ')
    s.quit()


@pytest.mark.parametrize('size', ['', 'x', '-1', '1x', '0x10', '1.5',
                                  '99999999999999999999999', 'LAST'])
def test_bdat_with_a_malformed_size(talk, size):
    s = talk()
    s.client.send(f'BDAT {size}\r\nHELP\r\n')
    s.client.expect('50[13] 5.5.')
    s.client.expect('214 ')
    s.quit()


def test_bdat_that_promises_more_than_it_sends(talk):
    s = talk()
    s.client.send('BDAT 1000000\r\nabc')
    s.client.half_close()
    replies = s.client.rest()
    assert replies == b'' or replies.startswith(b'503 ')
    assert s.finish()['cause'] == 'eof'


def test_bdat_in_the_clear_with_starttls_only(enter):
    s = enter('only')
    s.client.send('BDAT 6\r\nQUIT\r\nNOOP\r\n')
    s.client.expect('530 5.7.0 ')
    s.client.expect('250 2.0.0 ')
    s.quit()
