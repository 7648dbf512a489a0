"""With the programs of others: mail clients before it, Postfix behind it as a
mail server and as a program, nginx as the auth server. None of them uses a file
or a port of the machine's own."""

import glob
import json
import os
import pwd
import re
import shutil
import smtplib
import socket
import ssl
import subprocess
import tempfile

import pytest

import fakes
import starters
from harness import DEADLINE, NAME, environment, until

FROM, TO = 'alice@example.com', 'bob@example.com'
MESSAGE = (f'From: {FROM}\nTo: {TO}\nSubject: peers\n\n'
           '.one dot\n..two\n.\nend\n')

pytestmark = pytest.mark.skipif(
    not starters.has('systemd-socket-activate'),
    reason='no systemd-socket-activate')


@pytest.fixture
def started(tmp_path, users):
    """started(...) is a front end at a port; there are users, and the
    directives are as for `front`."""
    running = []

    def start(relay=None, env=None, **directives):
        if 'auth_http' not in directives:
            directives.setdefault('auth_provider', users)
        s = starters.Starter(starters.systemd, str(tmp_path), directives,
                             relay, env=env)
        running.append(s)
        return s

    yield start
    for s in running:
        s.stop()


# --- clients ---------------------------------------------------------------

class Door:
    """What a client has to know: port, certificate, whether TLS comes first,
    the mechanism."""

    def __init__(self, port, certificate, implicit, mechanism, folder):
        self.port, self.certificate = port, certificate
        self.implicit, self.mechanism = implicit, mechanism
        self.folder = folder


def run(words, stdin=''):
    done = subprocess.run(words, input=stdin, text=True, timeout=30,
                          env=environment({'HOME': '/nonexistent'}),
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 0, f'{words}\n{done.stdout}'
    return done.stdout


def curl(door):
    scheme = 'smtps' if door.implicit else 'smtp'
    run(['curl', '-sS', '--ssl-reqd', '--cacert', door.certificate,
         '--resolve', f'{NAME}:{door.port}:127.0.0.1', '--crlf',
         '-u', 'alice:wonderland', '--login-options',
         'AUTH=' + door.mechanism, '--mail-from', FROM, '--mail-rcpt', TO,
         '-T', '-', f'{scheme}://{NAME}:{door.port}/client.example'], MESSAGE)


def swaks(door):
    run(['swaks', '-s', '127.0.0.1', '-p', str(door.port),
         '--tls-on-connect' if door.implicit else '--tls',
         '-a', door.mechanism, '-au', 'alice', '-ap', 'wonderland',
         '-f', FROM, '-t', TO, '--ehlo', 'client.example', '--data', '-'],
        MESSAGE)


def msmtp(door):
    run(['msmtp', '-C', '/dev/null', '--host=127.0.0.1',
         f'--port={door.port}', '--domain=client.example', '--tls=on',
         '--tls-starttls=' + ('off' if door.implicit else 'on'),
         '--tls-trust-file=' + door.certificate, '--tls-host-override=' + NAME,
         '--auth=' + door.mechanism.lower(), '--user=alice',
         '--passwordeval=echo wonderland', '--from=' + FROM, TO], MESSAGE)


def python(door):
    context = ssl.create_default_context(cafile=door.certificate)

    def connect(self, host, port, timeout):
        return socket.create_connection(('127.0.0.1', port), timeout)

    def connect_with_tls(self, host, port, timeout):
        return context.wrap_socket(connect(self, host, port, timeout),
                                   server_hostname=NAME)

    kind = type('Client', (smtplib.SMTP,), {
        '_get_socket': connect_with_tls if door.implicit else connect})
    with kind(NAME, door.port, 'client.example', DEADLINE) as c:
        if not door.implicit:
            c.starttls(context=context)
        c.ehlo()
        c.user, c.password = 'alice', 'wonderland'
        c.auth(door.mechanism, getattr(
            c, 'auth_' + door.mechanism.lower().replace('-', '_')))
        c.sendmail(FROM, [TO], MESSAGE)


def openssl(door):
    """Somebody who types, after each reply."""
    words = ['openssl', 's_client', '-quiet', '-crlf', '-connect',
             f'127.0.0.1:{door.port}', '-servername', NAME, '-CAfile',
             door.certificate, '-verify_hostname', NAME,
             '-verify_return_error']
    if not door.implicit:
        words += ['-starttls', 'smtp', '-name', 'client.example']
    dotted = re.sub(r'(?m)^\.', '..', MESSAGE)
    with subprocess.Popen(words, stdin=subprocess.PIPE, text=True,
                          stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL) as p:
        # s_client swallows the greeting and shows the EHLO reply's last line.
        said = [] if not door.implicit else [('220', None)]
        for code, line in said + [
                ('250', 'EHLO client.example'),
                ('235', 'AUTH PLAIN ' + fakes.plain('alice', 'wonderland')),
                ('250', f'MAIL FROM:<{FROM}>'), ('250', f'RCPT TO:<{TO}>'),
                ('354', 'DATA'), ('250', dotted + '.'), ('221', 'QUIT')]:
            if line is not None:
                p.stdin.write(line + '\n')
                p.stdin.flush()
            reply = '250-'
            while reply.startswith('250-') or (
                    line and line.startswith('EHLO') and
                    'STARTTLS' in reply):
                reply = p.stdout.readline()
            assert reply.startswith(code), (line, reply)
        p.stdin.close()


CLIENTS = {'curl': curl, 'swaks': swaks, 'msmtp': msmtp, 'openssl': openssl,
           'python': python}
ways = [(name, implicit, mechanism) for name in CLIENTS
        for implicit, mechanism in (
            (False, 'PLAIN'), (True, 'PLAIN'), (False, 'LOGIN'),
            (False, 'CRAM-MD5'))
        if name != 'openssl' or mechanism == 'PLAIN']


@pytest.mark.parametrize('name, implicit, mechanism', ways, ids=[
    f'{name}-{"tls" if implicit else "starttls"}-{mechanism}'
    for name, implicit, mechanism in ways])
def test_client(name, implicit, mechanism, started, backend, certificates,
                tmp_path):
    if name != 'python' and not shutil.which(name):
        pytest.skip('no ' + name)
    mail = backend()
    how = {'socket': 'ssl'} if implicit else {'starttls': 'only'}
    s = started(backend=mail.address, smtp_auth='plain login cram-md5', **how,
                **certificates.directives())
    CLIENTS[name](Door(s.port, certificates.ec[0], implicit, mechanism,
                       tmp_path))
    seen = mail.await_end()
    [message] = seen.messages
    # swaks ends it with a line more.
    assert message.rstrip(b'\r\n').endswith(
        b'\r\n\r\n..one dot\r\n...two\r\n..\r\nend')
    told = fakes.xclient_attributes(seen)
    assert told['LOGIN'] == 'alice' and told['ADDR'] == '127.0.0.1'
    assert s.await_event('auth')['mech'] == mechanism
    assert s.await_event('close')['cause'] == 'done'


# --- Postfix ---------------------------------------------------------------

class Postfix:
    """One of our own, in a folder: smtpd on two free ports of 127.0.0.1, of
    which the second does not know us; bob@example.com has mail in it."""

    MAIN = '''
compatibility_level = 3.6
queue_directory = {folder}/queue
data_directory = {folder}/data
maillog_file = {folder}/log
maillog_file_prefixes = {folder}
mail_owner = postfix
setgid_group = postdrop
myhostname = backend.example
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
mynetworks = 192.0.2.0/24
alias_maps =
alias_database =
smtpd_authorized_xclient_hosts = 127.0.0.1
smtpd_sasl_authenticated_header = yes
smtpd_peername_lookup = no
smtpd_relay_restrictions = permit_sasl_authenticated,
    reject_unauth_destination
virtual_mailbox_domains = example.com
virtual_mailbox_base = {folder}
virtual_mailbox_maps = inline:{{ {{{user}=mail/}} }}
virtual_transport = virtual
virtual_minimum_uid = 1
virtual_uid_maps = static:{uid}
virtual_gid_maps = static:{gid}
'''
    MASTER = '''
127.0.0.1:{port} inet n - n - - smtpd
127.0.0.1:{strange} inet n - n - - smtpd
    -o smtpd_authorized_xclient_hosts=192.0.2.1
postlog unix-dgram n - n - 1 postlogd
pickup  unix n - n 60 1 pickup
cleanup unix n - n - 0 cleanup
qmgr    unix n - n 300 1 qmgr
rewrite unix - - n - - trivial-rewrite
bounce  unix - - n - 0 bounce
defer   unix - - n - 0 bounce
error   unix - - n - - error
retry   unix - - n - - error
proxymap unix - - n - - proxymap
virtual unix - n n - - virtual
'''

    def __init__(self):
        # Not below pytest's own folder, which others may not enter.
        self.folder = tempfile.mkdtemp(prefix='smtp-frontd-postfix.')
        os.chmod(self.folder, 0o755)
        nobody = pwd.getpwnam('nobody')
        for name in ('queue', 'data', 'mail'):
            os.mkdir(os.path.join(self.folder, name), 0o755)
        shutil.chown(os.path.join(self.folder, 'data'), 'postfix')
        shutil.chown(os.path.join(self.folder, 'mail'), 'nobody')
        self.config = os.path.join(self.folder, 'config')
        os.mkdir(self.config)
        for _ in range(5):
            self.port, self.strange_port = starters.free_ports(2)
            values = {'folder': self.folder, 'port': self.port,
                      'strange': self.strange_port, 'user': TO,
                      'uid': nobody.pw_uid, 'gid': nobody.pw_gid}
            for name, text in (('main', self.MAIN), ('master', self.MASTER)):
                path = os.path.join(self.config, name + '.cf')
                with open(path, 'w') as f:
                    f.write(text.format(**values))
            self.control('start')
            try:
                until(lambda: starters.is_served(self.port), 'Postfix', 5)
                return
            except AssertionError:
                self.control('stop')
        raise AssertionError(self.log())

    def control(self, *words):
        subprocess.run(['postfix', '-c', self.config, *words], timeout=60,
                       stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                       stderr=subprocess.DEVNULL)

    @property
    def address(self):
        return f'127.0.0.1:{self.port}'

    def log(self):
        try:
            with open(os.path.join(self.folder, 'log')) as f:
                return f.read()
        except OSError:
            return ''

    def delivered(self, subject):
        """The message with that subject, waiting for it; header unfolded."""
        def look():
            for path in glob.glob(os.path.join(self.folder, 'mail/new/*')):
                with open(path) as f:
                    text = f.read()
                if f'\nSubject: {subject}\n' in text:
                    return text.replace('\n\t', ' ')
        try:
            return until(look, subject)
        except AssertionError:
            raise AssertionError(self.log()) from None

    def stop(self):
        self.control('stop')
        shutil.rmtree(self.folder)


@pytest.fixture(scope='module')
def postfix():
    if not starters.has('postfix') or os.getuid() != 0:
        pytest.skip('no Postfix, or not root')
    p = Postfix()
    yield p
    p.stop()


def submit(c, subject, size=0, login=True, to=TO):
    c.greeting()
    c.hello()
    if login:
        c.ask('AUTH PLAIN ' + fakes.plain('alice', 'wonderland'), '235 ')
    c.ask(f'MAIL FROM:<{FROM}>', '250 ')
    c.ask(f'RCPT TO:<{to}>', '250 ')
    c.ask('DATA', '354 ')
    c.send(f'From: {FROM}\r\nSubject: {subject}\r\n\r\n')
    c.send(('x' * 70 + '\r\n') * (size // 72))
    c.ask('end\r\n.', '250 ')
    c.ask('QUIT', '221 ')
    c.expect_end()
    c.close()


def test_postfix_is_told_the_true_client_and_login(started, postfix):
    s = started(backend=postfix.address, xclient='on')
    submit(s.connect(source='127.0.0.7'), 'true client')
    text = postfix.delivered('true client')
    received = re.search(r'^Received: .*$', text, re.M).group(0)
    assert 'from client.example (unknown [127.0.0.7])' in received
    assert '(Authenticated sender: alice)' in received
    assert 'by backend.example (Postfix) with ESMTPA' in received


def test_postfix_gets_a_long_message_whole(started, postfix):
    s = started(backend=postfix.address)
    submit(s.connect(), 'long', size=5000000)
    text = postfix.delivered('long')
    assert text.count('x' * 70 + '\n') == 5000000 // 72
    assert text.endswith('x\nend\n')


def test_postfix_relays_for_the_authenticated_alone(started, postfix):
    s = started(backend=postfix.address, smtp_auth='none')
    c = s.connect(source='127.0.0.7')
    c.greeting()
    c.hello()
    c.ask(f'MAIL FROM:<{FROM}>', '250 ')
    c.ask('RCPT TO:<bob@elsewhere.example>', '554 5.7.1 ')
    c.ask(f'RCPT TO:<{TO}>', '250 ')
    c.ask('QUIT', '221 ')
    c.expect_end()
    c.close()
    s.await_quiet()


def test_postfix_behind_an_mx(started, postfix):
    s = started(backend=postfix.address, xclient='on', smtp_auth='none',
                smtp_greeting_delay='100ms')
    submit(s.connect(source='127.0.0.9'), 'from afar', login=False)
    assert 'from client.example (unknown [127.0.0.9])' in \
        postfix.delivered('from afar')
    c = s.connect()
    c.greeting()
    c.hello()
    c.ask(f'MAIL FROM:<{FROM}>', '250 ')
    c.ask('RCPT TO:<nobody@example.com>', '550 5.1.1 ')
    c.ask('QUIT', '221 ')
    c.close()


def test_postfix_that_does_not_know_us(started, postfix):
    """It offers XCLIENT to authorized addresses only."""
    s = started(backend=f'127.0.0.1:{postfix.strange_port}', xclient='on')
    c = s.connect()
    c.greeting()
    c.hello()
    c.ask('AUTH PLAIN ' + fakes.plain('alice', 'wonderland'), '421 4.3.0 ')
    c.close()
    assert 'XCLIENT' in s.await_event('upstream')['reason']


def test_sendmail_as_a_relay_program(started, postfix, tmp_path):
    s = started(relay=['/usr/sbin/sendmail', '-C', postfix.config, '-bs'])
    submit(s.connect(), 'by sendmail')
    assert 'Received: from client.example (' in \
        postfix.delivered('by sendmail')
    assert s.await_event('relay')['status'] == 'exit:0'


# --- nginx -----------------------------------------------------------------

class Nginx:
    """An auth server that lets alice in with her password and everybody write
    to example.com."""

    CONFIG = '''
daemon off;
master_process off;
pid {folder}/pid;
error_log {folder}/error.log;
events {{ }}
http {{
    log_format seen escape=json '{{"method": "$http_auth_method",'
        '"user": "$http_auth_user", "protocol": "$http_auth_protocol",'
        '"attempt": "$http_auth_login_attempt", "ip": "$http_client_ip",'
        '"from": "$http_auth_smtp_from", "to": "$http_auth_smtp_to"}}';
    access_log {folder}/access.log seen;
    client_body_temp_path {folder}/body;
    fastcgi_temp_path {folder}/fastcgi;
    proxy_temp_path {folder}/proxy;
    scgi_temp_path {folder}/scgi;
    uwsgi_temp_path {folder}/uwsgi;
    map "$http_auth_method $http_auth_user $http_auth_pass" $login {{
        "plain alice wonderland" OK;
        default "Invalid login or password";
    }}
    map "$http_auth_method $http_auth_smtp_to" $verdict {{
        "~*^none RCPT TO:<[^>]*@example[.]com>" OK;
        "~^none" "No such user";
        default $login;
    }}
    server {{
        listen 127.0.0.1:{port};
        listen unix:{folder}/socket;
        location = /auth {{
            add_header Auth-Status $verdict;
            add_header Auth-Server 127.0.0.1;
            add_header Auth-Port {backend};
            return 200;
        }}
    }}
}}
'''

    def __init__(self, folder, backend):
        self.folder = folder
        path = os.path.join(folder, 'nginx.conf')
        for _ in range(5):
            self.port = starters.free_port()
            with open(path, 'w') as f:
                f.write(self.CONFIG.format(folder=folder, port=self.port,
                                           backend=backend.port))
            self.proc = subprocess.Popen(
                ['nginx', '-p', folder, '-c', path,
                 '-e', os.path.join(folder, 'error.log')],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL)
            until(lambda: starters.is_served(self.port) or
                  self.proc.poll() is not None, 'nginx')
            if self.proc.poll() is None:
                return
        with open(os.path.join(folder, 'error.log')) as f:
            raise AssertionError(f.read())

    def seen(self):
        with open(os.path.join(self.folder, 'access.log')) as f:
            return [json.loads(line) for line in f]

    def stop(self):
        self.proc.terminate()
        self.proc.wait(DEADLINE)


@pytest.fixture
def nginx(backend):
    if not starters.has('nginx'):
        pytest.skip('no nginx')
    folder = tempfile.mkdtemp(prefix='smtp-frontd-nginx.')
    mail = backend()
    n = Nginx(folder, mail)
    n.backend = mail
    yield n
    n.stop()
    shutil.rmtree(folder)


@pytest.mark.parametrize('way', ['tcp', 'unix'])
def test_nginx_as_the_auth_server(started, nginx, way):
    s = started(auth_provider=f'http://127.0.0.1:{nginx.port}/auth'
                if way == 'tcp' else
                f'http+unix://{nginx.folder}/socket:/auth')
    c = s.connect(source='127.0.0.7')
    c.greeting()
    c.hello()
    c.ask('AUTH PLAIN ' + fakes.plain('alice', 'looking-glass'), '535 ')
    c.ask('AUTH PLAIN ' + fakes.plain('alice', 'wonderland'), '235 ')
    c.ask('QUIT', '221 ')
    c.expect_end()
    c.close()
    assert fakes.xclient_attributes(nginx.backend.await_end())['LOGIN'] == \
        'alice'
    first, second = nginx.seen()
    assert first == {**second, 'attempt': '1'}
    assert second == {'method': 'plain', 'user': 'alice', 'protocol': 'smtp',
                      'attempt': '2', 'ip': '127.0.0.7', 'from': '', 'to': ''}


def test_nginx_as_the_judge_of_recipients(started, nginx):
    s = started(auth_http=f'127.0.0.1:{nginx.port}/auth', smtp_auth='none',
                auth_provider=None)
    c = s.connect()
    c.greeting()
    c.hello()
    c.ask(f'MAIL FROM:<{FROM}>', '250 ')
    c.ask('RCPT TO:<bob@elsewhere.example>', '5')
    c.ask(f'RCPT TO:<{TO}>', '250 ')
    c.ask('QUIT', '221 ')
    c.expect_end()
    c.close()
    assert [x['to'] for x in nginx.seen()] == [
        'RCPT TO:<bob@elsewhere.example>', f'RCPT TO:<{TO}>']
