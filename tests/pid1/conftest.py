"""Fixtures: the machine, booted and installed once, and for each test a site of
it (sites.py)."""

import os
import sys

import pytest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)

import inside  # noqa: E402
import harness  # noqa: E402
import sites  # noqa: E402

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
    killed = kernel.killed(booted.uids)
    kernel.close()
    failed = booted.failed_units()
    booted.systemctl('reset-failed')
    assert not killed, killed
    assert not failed, failed


@pytest.fixture
def site_of(machine):
    """site_of(template) is a sites.Site."""
    made = []

    def start(name):
        made.append(sites.Site(machine, name))
        return made[-1]
    yield start
    for site in made:
        site.close()


@pytest.fixture
def site(site_of, request):
    """The submission template, or the parameter's."""
    return site_of(getattr(request, 'param', 'submission'))
