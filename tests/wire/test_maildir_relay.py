"""examples/maildir-relay, by itself and behind the program."""

import os
import re
import subprocess

import pytest

import starters
from fakes import plain
from harness import TOP

RELAY = os.path.join(TOP, 'examples', 'maildir-relay')
BEGIN = b'EHLO me\r\nMAIL FROM:<alice@example.com>\r\n'
RCPT = b'RCPT TO:<bob@example.com>\r\n'


@pytest.fixture
def relay(tmp_path):
    """relay(input, ...) -> (codes of its replies, messages)"""
    def run(data, *words, **env):
        done = subprocess.run(
            [RELAY, *words, str(tmp_path / 'mail')], input=data, timeout=10,
            env={'PATH': '/usr/bin:/bin', **env}, stdout=subprocess.PIPE)
        assert done.returncode == 0
        replies = re.findall(r'(?m)^(\d\d\d) ', done.stdout.decode())
        assert replies.pop(0) == '220'
        return replies, messages(tmp_path)
    return run


def messages(folder):
    new = folder / 'mail' / 'new'
    if not new.exists():
        return []
    assert not os.listdir(folder / 'mail' / 'tmp')
    return [path.read_bytes() for path in sorted(new.iterdir())]


def body(message):
    return message.split(b'\n\n', 1)[1]


def test_message(relay):
    replies, [message] = relay(
        BEGIN + RCPT + b'DATA\r\nSubject: x\r\n\r\n..\r\n...a\r\n.b\r\n.\r\n'
        b'QUIT\r\n', SMTPAUTHUSER='al(ice', TCPREMOTEIP='192.0.2.7',
        SMTP_SESSION='5f2c9d0e1a7b4c33', SSL_PROTOCOL='TLSv1.3')
    assert replies == ['250', '250', '250', '354', '250', '221']
    assert body(message) == b'.\n..a\nb\n'
    header = message.decode().replace('\n\t', ' ')
    assert 'Return-Path: <alice@example.com>\n' in header
    assert 'Delivered-To: bob@example.com\n' in header
    assert re.search(
        r'^Received: from me \(unknown \[192\.0\.2\.7\]\) '
        r'\(Authenticated sender: al\?ice\) by \S+ with ESMTPSA id '
        r'5f2c9d0e1a7b4c33; ', header, re.M)


def test_several_messages(relay):
    message = BEGIN[9:] + RCPT + b'DATA\r\nSubject: x\r\n\r\nx\r\n.\r\n'
    replies, got = relay(b'EHLO me\r\n' + message * 3, SMTPAUTHUSER='alice')
    assert replies == ['250'] + ['250', '250', '354', '250'] * 3
    assert len(got) == 3


def test_the_unauthenticated_are_refused(relay):
    replies, got = relay(BEGIN + RCPT + b'DATA\r\nQUIT\r\n')
    assert replies == ['250', '530', '503', '503', '221'] and not got


def test_open(relay):
    replies, [message] = relay(BEGIN + RCPT + b'DATA\r\n\r\nx\r\n.\r\n',
                               '--open')
    assert replies[-1] == '250'
    assert b' with ESMTP id ' in message and b'Authenticated' not in message


@pytest.mark.parametrize('bad', [
    b'a\nb\r\n', b'a\rb\r\n', b'\n.\n', b'\r\n.\n', b'\n.\r\n', b'\r.\r\n',
    b'x' * 999 + b'\r\n', b'x' * 1000 + b'.\r\n'])
def test_lines_that_are_none(relay, bad):
    """No end but CRLF.CRLF, and nothing that another server might take for
    one."""
    replies, got = relay(
        BEGIN + RCPT + b'DATA\r\n\r\n' + bad + b'MAIL FROM:<x@y>\r\n.\r\n',
        SMTPAUTHUSER='alice')
    assert replies == ['250', '250', '250', '354', '550'] and not got


def test_longest_line(relay):
    line = b'x' * 998 + b'\r\n'
    _, [message] = relay(BEGIN + RCPT + b'DATA\r\n\r\n' + line + b'.\r\n',
                         SMTPAUTHUSER='alice')
    assert body(message) == b'x' * 998 + b'\n'


def test_end_in_a_message(relay):
    replies, got = relay(BEGIN + RCPT + b'DATA\r\n\r\nhalf\r\n.',
                         SMTPAUTHUSER='alice')
    assert replies == ['250', '250', '250', '354'] and not got


def test_big(relay):
    replies, got = relay(
        BEGIN + RCPT + b'DATA\r\n' + (b'x' * 998 + b'\r\n') * 20972 +
        b'.\r\nNOOP\r\n', SMTPAUTHUSER='alice')
    assert replies == ['250', '250', '250', '354', '552', '250'] and not got


@pytest.mark.parametrize('command, code', [
    (b'MAIL FROM:<a@b> SIZE=1 BODY=8BITMIME', '250'),
    (b'MAIL FROM:<>', '250'), (b'mail from:<a@b>', '250'),
    (b'MAIL FROM: <a@b>', '250'), (b'MAIL TO:<a@b>', '501'),
    (b'MAIL', '501'), (b'MAIL FROM:a@b', '501'),
    (b'MAIL FROM:<a b>', '501'), (b'RCPT TO:<a@b>', '503'),
    (b'DATA', '503'), (b'NOOP', '250'), (b'RSET', '250'), (b'VRFY x', '252'),
    (b'', '500'), (b'FOO', '500'), (b'x' * 2000, '500')])
def test_command(relay, command, code):
    assert relay(command + b'\r\n', SMTPAUTHUSER='alice') == ([code], [])


@pytest.mark.skipif(not starters.has('systemd-socket-activate'),
                    reason='no systemd-socket-activate')
@pytest.mark.parametrize('at', ['auth', 'greeting'])
def test_behind_the_program(tmp_path, users, at):
    s = starters.Starter(
        starters.systemd, str(tmp_path),
        {'auth_provider': users, 'relay_at': at} if at == 'auth' else
        {'relay_at': at, 'smtp_greeting_delay': '50ms'},
        [RELAY] + ['--open'] * (at == 'greeting') + [str(tmp_path / 'mail')])
    try:
        c = s.connect(source='127.0.0.7')
        c.expect('220 ')
        c.hello()
        if at == 'auth':
            c.ask('AUTH PLAIN ' + plain('alice', 'wonderland'), '235 ')
        c.ask('MAIL FROM:<alice@example.com>', '250 ')
        c.ask('RCPT TO:<bob@example.com>', '250 ')
        c.ask('DATA', '354 ')
        c.ask('\r\nIt works.\r\n.', '250 ')
        c.ask('QUIT', '221 ')
        c.expect_end()
        c.close()
        s.await_quiet()
    finally:
        s.stop()
    [message] = messages(tmp_path)
    assert b'Received: from client.example (unknown [127.0.0.7])' in message
    assert (b'(Authenticated sender: alice)' in message) == (at == 'auth')
    assert message.endswith(b'\n\nIt works.\n')
