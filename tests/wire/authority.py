"""A certificate authority of a test's own, by the openssl command."""

import os
import shutil
import subprocess

CONFIG = '''
[ca]
default_ca = own
[own]
dir = {folder}
database = $dir/index
serial = $dir/serial
crlnumber = $dir/crlnumber
new_certs_dir = $dir/new
certificate = $dir/ca.pem
private_key = $dir/ca.key
default_md = sha256
default_days = 365
default_crl_days = 30
policy = any
unique_subject = no
copy_extensions = copy
x509_extensions = leaf
[any]
commonName = supplied
[leaf]
basicConstraints = CA:false
[req]
distinguished_name = name
[name]
'''


class Authority:
    """.certificate is its own, to be trusted; .directory the same by its
    hashed name."""

    def __init__(self, folder, name='Test Authority'):
        self.folder = str(folder)
        os.makedirs(self.path('new'))
        for file, text in (('index', ''), ('serial', '01\n'),
                           ('crlnumber', '01\n'),
                           ('config', CONFIG.format(folder=self.folder))):
            with open(self.path(file), 'w') as f:
                f.write(text)
        self.certificate = self.path('ca.pem')
        self.openssl('req', '-x509', *self.kind('ca'), '-days', '365',
                     '-subj', '/CN=' + name, '-addext',
                     'keyUsage=keyCertSign,cRLSign', '-out', self.certificate)
        self.directory = self.path('hashed')
        os.makedirs(self.directory)
        shutil.copy(self.certificate, self.path('hashed', 'authority.pem'))
        digest = self.openssl('x509', '-in', self.certificate, '-noout',
                              '-hash').strip()
        os.symlink('authority.pem', self.path('hashed', digest + '.0'))

    def path(self, *names):
        return os.path.join(self.folder, *names)

    def openssl(self, *words):
        done = subprocess.run(['openssl', *words], capture_output=True,
                              timeout=60, stdin=subprocess.DEVNULL)
        assert done.returncode == 0, (words, done.stderr)
        return done.stdout.decode()

    def kind(self, name, rsa=False):
        key = ['rsa:2048'] if rsa else [
            'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1']
        return ['-newkey', *key, '-nodes', '-keyout', self.path(name + '.key'),
                '-config', self.path('config')]

    def issue(self, name, host=None, names=(), dates=None, rsa=False):
        """(certificate, key), PEM files called `name`, for the common name
        `host` and the alternative `names` ("DNS:a.example"); `dates` are its
        first and last, as YYYYMMDDHHMMSSZ."""
        request = self.path(name + '.csr')
        more = ['-addext', 'subjectAltName=' + ','.join(names)] if names \
            else []
        self.openssl('req', '-new', *self.kind(name, rsa), '-subj',
                     '/CN=' + (host or name), *more, '-out', request)
        more = ['-startdate', dates[0], '-enddate', dates[1]] if dates else []
        self.openssl('ca', '-batch', '-notext', '-config', self.path('config'),
                     '-in', request, '-out', self.path(name + '.pem'), *more)
        os.chmod(self.path(name + '.key'), 0o600)
        return self.path(name + '.pem'), self.path(name + '.key')

    def revoke(self, *certificates):
        """A list of revoked certificates, all that were ever revoked."""
        for certificate in certificates:
            self.openssl('ca', '-config', self.path('config'), '-revoke',
                         certificate)
        self.openssl('ca', '-config', self.path('config'), '-gencrl',
                     '-out', self.path('crl.pem'))
        return self.path('crl.pem')
