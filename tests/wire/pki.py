"""Authorities and the certificates of clients, made by the openssl command.

Pki     a root, an authority below it, another root, and revocation lists
"""

import os
import subprocess

UPN = '1.3.6.1.4.1.311.20.2.3'

CONFIG = """[ca]
default_ca = one
[one]
database = {name}.index
serial = {name}.serial
crlnumber = {name}.crlnumber
new_certs_dir = .
default_md = sha256
policy = any
unique_subject = no
copy_extensions = copy
x509_extensions = usual
default_crl_days = 30
[any]
commonName = optional
organizationName = optional
[usual]
basicConstraints = critical,CA:FALSE
[authority]
basicConstraints = critical,CA:TRUE
keyUsage = critical,keyCertSign,cRLSign
"""

NEW_KEY = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1',
           '-nodes']


class Pki:
    """root signs `middle`, which signs nothing but what is asked for; `other`
    is nobody's friend."""

    def __init__(self, folder):
        self.folder = str(folder)
        for name in ('root', 'other'):
            self.authority(name)
        self.authority('middle', by='root')

    def path(self, name):
        return os.path.join(self.folder, name)

    def openssl(self, *words):
        done = subprocess.run(
            ['openssl', *words], cwd=self.folder, capture_output=True,
            timeout=60)
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def authority(self, name, by=None):
        with open(self.path(name + '.cnf'), 'w') as f:
            f.write(CONFIG.format(name=name))
        open(self.path(name + '.index'), 'w').close()
        for counter in ('serial', 'crlnumber'):
            with open(self.path(f'{name}.{counter}'), 'w') as f:
                f.write('1000\n')
        if by is not None:
            self.client(name, by=by, ca=True)
            return
        self.openssl('req', '-x509', *NEW_KEY, '-days', '3650', '-subj',
                     f'/CN={name}', '-keyout', name + '.key', '-out',
                     name + '.pem', '-config', name + '.cnf', '-extensions',
                     'authority', '-section', 'one')

    def client(self, name, subject=None, by='root', san=None, ca=False,
               dates=('20200101000000Z', '20990101000000Z'), usage=None):
        """A certificate; (certificate, key), the former with what is between
        it and a root."""
        request = ['req', '-new', *NEW_KEY, '-multivalue-rdn', '-utf8',
                   '-subj', subject or f'/CN={name}', '-keyout',
                   name + '.key', '-out', name + '.csr']
        extensions = []
        if san:
            extensions += ['-addext', 'subjectAltName=' + san]
        if usage:
            extensions += ['-addext', 'extendedKeyUsage=' + usage]
        self.openssl(*request, *extensions)
        self.openssl('ca', '-batch', '-notext', '-utf8', '-preserveDN',
                     '-config', by + '.cnf', '-cert', by + '.pem', '-keyfile',
                     by + '.key',
                     '-startdate', dates[0], '-enddate', dates[1],
                     '-in', name + '.csr', '-out', name + '.pem',
                     *(['-extensions', 'authority'] if ca else []))
        return self.pair(name)

    def self_signed(self, name):
        self.openssl('req', '-x509', *NEW_KEY, '-days', '30', '-subj',
                     f'/CN={name}', '-keyout', name + '.key', '-out',
                     name + '.pem')
        return self.pair(name)

    def pair(self, name):
        return self.path(name + '.pem'), self.path(name + '.key')

    def revoke(self, name, by='root'):
        self.openssl('ca', '-config', by + '.cnf', '-cert', by + '.pem',
                     '-keyfile', by + '.key', '-revoke', name + '.pem')

    def lists(self, name, *authorities, days=30):
        """A file with the revocation lists of these."""
        text = ''
        for a in authorities:
            self.openssl('ca', '-gencrl', '-config', a + '.cnf', '-cert',
                         a + '.pem', '-keyfile', a + '.key', '-out',
                         a + '.crl', *(['-crldays', str(days)] if days > 0
                                       else ['-crlsec', '1']))
            text += self.read(a + '.crl')
        return self.write(name, text)

    def bundle(self, name, *parts):
        return self.write(name, ''.join(self.read(p) for p in parts))

    def read(self, name):
        with open(self.path(name)) as f:
            return f.read()

    def write(self, name, text):
        with open(self.path(name), 'w') as f:
            f.write(text)
        return self.path(name)

    def field(self, name, *words):
        """What `openssl x509` prints of a certificate, after the '='."""
        text = self.openssl('x509', '-noout', '-in', name + '.pem', *words)
        return text.strip().split('=', 1)[1]
