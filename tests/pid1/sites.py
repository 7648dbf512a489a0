"""What a test is about: the units at work on the machine."""

import socket

import fakes
import harness
import inside


class Site:
    """A template at work, with a backend behind it, its clients, and what is
    logged."""

    def __init__(self, machine, name):
        self.machine, self.name = machine, name
        self.port = inside.PORTS[name]
        self.socket = f'smtp-frontd-{name}.socket'
        self.template = f'smtp-frontd-{name}@'
        self.directives = name  # the file that they are in
        self.set_up()

    def set_up(self):
        self.opened, self.fakes = [], []
        self.mark = self.machine.journal.mark()
        self.backend = self.fake(fakes.Backend())
        self.configure()
        self.start()

    def start(self):
        self.machine.systemctl('start', self.socket)

    def stop(self):
        self.machine.systemctl('stop', self.socket)

    def fake(self, fake):
        self.fakes.append(fake)
        return fake

    def configure(self, **directives):
        """The shipped directives, with our backend and those of the test."""
        directives.setdefault('backend', self.backend.address)
        if self.name == 'mx':
            directives.setdefault('smtp_greeting_delay', '100ms')
        self.machine.configure(self.directives, **directives)

    def close(self):
        for client in self.opened:
            client.close()
        for fake in self.fakes:
            fake.stop()
        self.stop()
        errors = [e for f in self.fakes for e in f.errors]
        assert not errors, errors

    # its clients

    def connect(self, source='127.0.0.1', **tls):
        """A connection, in TLS (start_tls's arguments) where that begins at
        once."""
        host = '::1' if ':' in source else '127.0.0.1'
        client = harness.Client(socket.create_connection(
            (host, self.port), harness.DEADLINE, (source, 0)))
        self.opened.append(client)
        if self.name == 'submissions':
            client.start_tls(**tls)
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


class Listener(Site):
    """The service that has all connections, to begin with those to port 587.
    Its sockets are there; it is started by the first connection."""

    service = 'smtp-frontd.service'
    sockets = ['smtp-frontd.socket', 'smtp-frontd-smtps.socket']

    def __init__(self, machine):
        self.machine, self.name = machine, 'submission'
        self.port = inside.PORTS[self.name]
        self.socket = self.sockets[0]
        self.directives = 'smtp-frontd'
        self.set_up()

    def start(self):
        self.machine.systemctl('start', *self.sockets)

    def stop(self):
        self.machine.systemctl('stop', *self.sockets, self.service)

    def begin(self):
        """Starts the service at once. Its keeper is there then, too."""
        self.machine.systemctl('start', self.service)
        self.machine.uids.add(int(inside.status(self.main())['Uid'].split()[0]))

    def property(self, name):
        return self.machine.property(self.service, name)

    # its processes, by their ids as seen from outside

    def processes(self):
        return self.machine.processes(self.service)

    def main(self):
        """The listener itself: the one whose parent is PID 1."""
        [pid] = [pid for pid in self.processes()
                 if inside.parent(pid) == self.machine.pid]
        return pid

    def keepers(self):
        """Children that work with threads; a session has one."""
        return [pid for pid in self.children() if is_keeper(pid)]

    def sessions(self):
        return [pid for pid in self.children() if not is_keeper(pid)]

    def children(self):
        main = self.main()
        return [pid for pid in self.processes() if inside.parent(pid) == main]


def is_keeper(pid):
    return inside.status(pid).get('Threads', '1') != '1'
