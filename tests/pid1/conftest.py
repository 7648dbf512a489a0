"""Fixtures: the machine, booted and installed once, and for each test a site:
one template with a backend behind it, its clients, and what is logged."""

import os
import socket
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import inside  # noqa: E402
import fakes  # noqa: E402
import harness  # noqa: E402

EXCUSE = 'SMTP_FRONTD_NO_PID1'


def pytest_collection_modifyitems(items):
    """Who cannot boot a machine has to say so."""
    if os.environ.get(EXCUSE) == '1':
        skip = pytest.mark.skip(reason=f'{EXCUSE}=1: no machine is booted')
        for item in items:
            if str(item.path).startswith(HERE + os.sep):
                item.add_marker(skip)


@pytest.fixture(scope='session')
def booted():
    if not os.access(harness.PROGRAM, os.X_OK):
        pytest.fail(f'{harness.PROGRAM} is not there: run make first',
                    pytrace=False)
    try:
        machine = inside.Machine()
    except inside.CannotBoot as e:
        pytest.fail(f'{e}\nWhere no systemd can be booted, {EXCUSE}=1 leaves '
                    'these tests out.', pytrace=False)
    try:
        machine.install()
        yield machine
    finally:
        machine.stop()


@pytest.fixture
def machine(booted):
    """The machine, with this thread in its network. Whatever the test did,
    afterwards nothing is left of it, nothing has failed, and no process was
    killed for a system call."""
    booted.kernel = kernel = inside.KernelLog()
    with booted.network():
        yield booted
    harness.until(lambda: not booted.processes('*@*'), 'the end of sessions',
                  inside.PATIENCE)
    for unit in os.listdir(booted.root + '/etc/systemd/system'):
        if unit.endswith('.d'):
            booted.drop_in(unit[:-2], None)
    killed = kernel.killed(booted.uid)
    kernel.close()
    assert not killed, killed
    assert booted.failed_units() == []


class Site:
    """A template at work."""

    def __init__(self, machine, name):
        self.machine, self.name = machine, name
        self.port = inside.PORTS[name]
        self.socket = f'smtp-frontd-{name}.socket'
        self.template = f'smtp-frontd-{name}@'
        self.opened, self.fakes = [], []
        self.mark = machine.journal.mark()
        self.backend = self.fake(fakes.Backend())
        self.configure()
        machine.systemctl('start', self.socket)

    def fake(self, fake):
        self.fakes.append(fake)
        return fake

    def configure(self, **directives):
        """The shipped directives, with our backend and those of the test."""
        directives.setdefault('backend', self.backend.address)
        if self.name == 'mx':
            directives.setdefault('smtp_greeting_delay', '100ms')
        self.machine.configure(self.name, **directives)

    def close(self):
        for client in self.opened:
            client.close()
        for fake in self.fakes:
            fake.stop()
        self.machine.systemctl('stop', self.socket)
        errors = [e for f in self.fakes for e in f.errors]
        assert not errors, errors

    # its clients

    def connect(self, source='127.0.0.1'):
        """A connection, in TLS where that begins at once."""
        host = '::1' if ':' in source else '127.0.0.1'
        client = harness.Client(socket.create_connection(
            (host, self.port), harness.DEADLINE, (source, 0)))
        self.opened.append(client)
        if self.name == 'submissions':
            client.start_tls()
        return client

    def greeted(self, source='127.0.0.1', starttls=True):
        """As far as the template's clients come without a password."""
        client = self.connect(source)
        client.greeting()
        client.hello()
        if self.name == 'submission' and starttls:
            client.ask('STARTTLS', '220 ')
            client.start_tls()
            client.hello()
        return client

    def deliver(self, client, text='Subject: test\r\n\r\nhello\r\n'):
        """A message after the hand-over, or up to it, and the end."""
        client.ask('MAIL FROM:<a@example.com>', '250 ')
        client.ask('RCPT TO:<b@example.com>', '250 ')
        client.ask('DATA', '354 ')
        client.send(text + '.\r\n')
        client.expect('250 ')
        client.ask('QUIT', '221 ')
        client.expect_end()
        client.close()

    def send(self, source='127.0.0.1'):
        """A whole session of the template's kind."""
        client = self.greeted(source)
        if self.name != 'mx':
            client.ask('AUTH PLAIN ' + fakes.plain('alice', 'wonderland'),
                       '235 ')
        self.deliver(client)

    # its units, processes and events

    def instances(self):
        return self.machine.units(self.template + '*.service')

    def processes(self):
        return self.machine.processes(self.template + '*.service')

    def accepts(self):
        return self.machine.property(self.socket, 'SubState') == 'listening'

    def event(self, name, **fields):
        """The event's fields, once it is in the journal."""
        fields = {'SMTP_' + k.upper(): v for k, v in fields.items()}
        return self.machine.journal.await_event(self.mark, name, **fields)

    def await_quiet(self):
        """Until there is no instance any more."""
        harness.until(lambda: self.instances() == [], 'the last instance',
                      inside.PATIENCE)
        assert self.processes() == []


@pytest.fixture
def site_of(machine):
    """site_of(template) is a Site."""
    sites = []

    def start(name):
        sites.append(Site(machine, name))
        return sites[-1]
    yield start
    for site in sites:
        site.close()


@pytest.fixture
def site(site_of, request):
    """The submission template, or the parameter's."""
    return site_of(getattr(request, 'param', 'submission'))
