"""What is installed: the units and all that stands beside them, and whether it
is where it looks for itself."""

import configparser
import os
import re
import shutil
import stat
import subprocess

import pytest

TOP = os.path.dirname(os.path.dirname(os.path.dirname(
    os.path.abspath(__file__))))
BUILD = os.path.abspath(
    os.environ.get('SMTP_FRONTD_BUILD', os.path.join(TOP, 'build')))
NAMES = ['submission', 'submissions', 'mx']
LISTENER = ['.socket', '-smtps.socket', '.service', '-keeper.socket',
            '-keeper.service']
PORTS = {'submission': '587', 'submissions': '465', 'mx': '25'}
EXPOSURE = 3.5
needs_systemd = pytest.mark.skipif(not shutil.which('systemd-analyze'),
                                   reason='no systemd-analyze')

FILES = {
    'usr/local/sbin/smtp-frontd': 0o755,
    'usr/local/bin/smtp-frontd-passwd': 0o755,
    **{f'usr/local/lib/smtp-frontd/{name}.so': 0o644 for name in (
        'systemd', 'tls', 'sasl-secret', 'auth-file', 'auth-http',
        'auth-checkpassword', 'auth-dovecot', 'auth-oauth2', 'auth-pam')},
    'usr/local/lib/smtp-frontd/smtp-frontd-pam': 0o755,
    'usr/local/share/man/man8/smtp-frontd.8': 0o644,
    'usr/local/share/man/man5/smtp-frontd.conf.5': 0o644,
    'usr/local/share/man/man1/smtp-frontd-passwd.1': 0o644,
    **{f'units/smtp-frontd-{name}{kind}': 0o644
       for name in NAMES for kind in ('.socket', '@.service')},
    **{f'units/smtp-frontd{name}': 0o644 for name in LISTENER},
    'sysusers/smtp-frontd.conf': 0o644,
    **{f'etc/smtp-frontd/{name}.conf': 0o640 for name in NAMES},
    # The listener's user is nobody's, so everybody may read it.
    'etc/smtp-frontd/smtp-frontd.conf': 0o644,
    **{f'usr/local/share/doc/smtp-frontd/{name}': 0o644 for name in (
        'README.md', 'NEWS', 'SECURITY.md', 'LICENSE', 'relay.conf',
        'submission.conf', 'submissions.conf', 'mx.conf',
        'smtp-frontd.conf',
        'smtp-frontd.xinetd')},
    'usr/local/share/doc/smtp-frontd/maildir-relay': 0o755,
}


def make(target, folder):
    done = subprocess.run(
        ['make', '-s', target, f'B={BUILD}', f'DESTDIR={folder}',
         'UNITDIR=/units', 'SYSUSERSDIR=/sysusers'], cwd=TOP, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=120)
    assert done.returncode == 0, done.stdout


def tree(folder):
    found = {}
    for path, _, names in os.walk(folder):
        for name in names:
            full = os.path.join(path, name)
            found[os.path.relpath(full, folder)] = \
                stat.S_IMODE(os.stat(full).st_mode)
    return found


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp('installed')
    make('install', folder)
    return folder


def unit(installed, name):
    """A unit's settings; those that are repeated are joined by blanks."""
    class Joined(dict):
        def __setitem__(self, key, value):
            if key in self and isinstance(value, list):
                value = self[key] + value
            super().__setitem__(key, value)

    parser = configparser.RawConfigParser(
        dict_type=Joined, strict=False, comment_prefixes=('#',),
        delimiters=('=',))
    parser.optionxform = str
    parser.read(installed / 'units' / name)
    return {section: {key: ' '.join(value.split())
                      for key, value in parser[section].items()}
            for section in parser.sections()}


# --- make install ----------------------------------------------------------

def test_every_file_is_where_it_belongs(installed):
    assert tree(installed) == FILES


def test_no_placeholder_is_left(installed):
    for path in FILES:
        if not path.endswith(('.so', '/smtp-frontd', '-passwd', '-pam')):
            assert '@SBINDIR@' not in (installed / path).read_text(), path


def test_installed_program_finds_its_modules(installed):
    users = installed / 'users-of-the-test'
    users.write_text('alice:{PLAIN}wonderland\n')
    users.chmod(0o600)
    try:
        done = subprocess.run(
            [installed / 'usr/local/sbin/smtp-frontd', '--auth-provider',
             f'file:{users}', '--backend', '127.0.0.1:25', '--log', 'stderr'],
            input=b'EHLO me\nAUTH PLAIN AGFsaWNlAHg=\nQUIT\n', timeout=10,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    finally:
        users.unlink()
    assert b'\r\n535 5.7.8 ' in done.stdout, done.stderr
    assert done.returncode == 0


def test_configuration_is_not_overwritten(tmp_path):
    make('install', tmp_path)
    conf = tmp_path / 'etc/smtp-frontd/mx.conf'
    conf.write_text('# mine\n')
    conf.chmod(0o600)
    make('install', tmp_path)
    assert conf.read_text() == '# mine\n'
    assert stat.S_IMODE(conf.stat().st_mode) == 0o600
    make('uninstall', tmp_path)
    assert set(tree(tmp_path)) == {
        f'etc/smtp-frontd/{x}.conf' for x in [*NAMES, 'smtp-frontd']}


@pytest.mark.parametrize('name', NAMES)
def test_directives_that_are_installed_are_good(installed, name):
    done = subprocess.run(
        [installed / 'usr/local/sbin/smtp-frontd', '--config',
         installed / f'etc/smtp-frontd/{name}.conf', '--check'],
        text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, timeout=10)
    assert done.returncode == 0, done.stderr
    # Certificates and users are the administrator's to make.
    assert [line for line in done.stdout.splitlines()
            if line.startswith('# warning: ') and
            'No such file or directory' not in line] == []
    expected = {'submission': 'SMTP_STARTTLS=only',
                'submissions': 'SMTP_SOCKET=ssl',
                'mx': 'SMTP_GREETING_DELAY=5s'}[name]
    assert expected in done.stdout.splitlines()


# --- units -----------------------------------------------------------------

@pytest.mark.parametrize('name', NAMES)
def test_socket(installed, name):
    socket = unit(installed, f'smtp-frontd-{name}.socket')
    assert socket['Socket'].pop('MaxConnections').isdigit()
    assert socket['Socket'].pop('MaxConnectionsPerSource').isdigit()
    assert socket['Socket'] == {
        'ListenStream': PORTS[name], 'Accept': 'yes',
        'TriggerLimitIntervalSec': '0'}
    assert socket['Install'] == {'WantedBy': 'sockets.target'}


@pytest.mark.parametrize('name', NAMES)
def test_service(installed, name):
    service = unit(installed, f'smtp-frontd-{name}@.service')
    assert service['Unit']['CollectMode'] == 'inactive-or-failed'
    settings = service['Service']
    assert settings['ExecStart'] == '/usr/local/sbin/smtp-frontd'
    path = settings['EnvironmentFile'].lstrip('/')
    assert path == f'etc/smtp-frontd/{name}.conf' and path in FILES
    for key, value in {'StandardInput': 'socket', 'LimitCORE': '0',
                       'StandardError': 'journal', 'User': 'smtp-frontd',
                       'NoNewPrivileges': 'yes'}.items():
        assert settings[key] == value


@pytest.mark.parametrize('name', NAMES)
def test_template_is_lean(installed, name):
    """What makes a template slow, by a mount or a user for each instance."""
    settings = unit(installed, f'smtp-frontd-{name}@.service')['Service']
    for key in settings:
        assert not re.match(
            r'LoadCredential|SetCredential|DynamicUser|Protect|Private|Mount|'
            r'BindPaths|BindReadOnlyPaths|ReadOnlyPaths|ReadWritePaths|'
            r'InaccessiblePaths|TemporaryFileSystem|Root|'
            # A runtime directory without these is no mount.
            r'(State|Cache|Logs|Configuration)Directory$', key)
    calls = settings['SystemCallFilter'].split()
    assert not any(call.startswith(('@', '~')) for call in calls)
    assert len(calls) == len(set(calls)) <= 74
    assert {'landlock_create_ruleset', 'landlock_add_rule',
            'landlock_restrict_self'} <= set(calls)


@pytest.mark.parametrize('name', [f'{name}@' for name in NAMES] + ['keeper'])
def test_session_tickets_have_a_directory(installed, name):
    """Of all sessions and their keeper, and it outlives each of them. The
    listener's is its own."""
    settings = unit(installed, f'smtp-frontd-{name}.service')['Service']
    assert settings['RuntimeDirectory'] == 'smtp-frontd-tickets'
    assert settings['RuntimeDirectoryMode'] == '0700'
    assert settings['RuntimeDirectoryPreserve'] == 'yes'
    assert {'flock', 'unlinkat', 'renameat', 'renameat2'} <= set(
        settings['SystemCallFilter'].split())
    listener = unit(installed, 'smtp-frontd.service')['Service']
    assert listener['RuntimeDirectory'] != settings['RuntimeDirectory']


def test_templates_differ_in_names_only(installed):
    texts = set()
    for name in NAMES:
        text = (installed / f'units/smtp-frontd-{name}@.service').read_text()
        what = re.search(r'^Description=SMTP front end, (.*)$', text,
                         re.M).group(1)
        texts.add(text.replace(what, 'WHAT').replace(f'/{name}.conf', '/X'))
    assert len(texts) == 1


@needs_systemd
def test_units_verify(installed, tmp_path):
    """It exits with 0 where it only warns."""
    paths = []
    for name in NAMES:
        for kind in ('.socket', '@.service'):
            path = tmp_path / f'smtp-frontd-{name}{kind}'
            text = (installed / 'units' / path.name).read_text()
            path.write_text(text.replace(
                '=/usr/local/', f'={installed}/usr/local/'))
            paths.append(str(path))
    for name in LISTENER:
        path = tmp_path / f'smtp-frontd{name}'
        text = (installed / 'units' / path.name).read_text()
        path.write_text(text.replace(
            '=/usr/local/', f'={installed}/usr/local/'))
        paths.append(str(path))
    done = subprocess.run(
        ['systemd-analyze', 'verify', '--man=no', *paths], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    assert (done.returncode, done.stdout) == (0, '')


@needs_systemd
@pytest.mark.parametrize('name', NAMES)
def test_exposure(installed, name):
    done = subprocess.run(
        ['systemd-analyze', 'security', '--offline=true', '--no-pager',
         str(installed / f'units/smtp-frontd-{name}@.service')], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)
    exposure = re.search(r'Overall exposure level .*: ([0-9.]+) ',
                         done.stdout)
    assert exposure and float(exposure.group(1)) <= EXPOSURE, done.stdout


@pytest.mark.skipif(not shutil.which('systemd-sysusers'),
                    reason='no systemd-sysusers')
def test_user(installed, tmp_path):
    done = subprocess.run(
        ['systemd-sysusers', '--dry-run', f'--root={tmp_path}',
         str(installed / 'sysusers/smtp-frontd.conf')], text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10)
    assert done.returncode == 0, done.stdout
    assert "Would create user 'smtp-frontd'" in done.stdout or \
        "Creating user 'smtp-frontd'" in done.stdout
