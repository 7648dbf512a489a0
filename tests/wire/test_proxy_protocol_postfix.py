"""The PROXY protocol towards Postfix: its smtpd and postscreen, which want a
header, and an smtpd that does not."""

import os
import re

import pytest

import starters
from test_peers import Postfix, started, submit  # noqa: F401 (a fixture)
from test_proxy_protocol_out import log_in

pytestmark = pytest.mark.skipif(
    not starters.has('systemd-socket-activate'),
    reason='no systemd-socket-activate')


class ProxiedPostfix(Postfix):
    """smtpd and, at the second port, postscreen; both want a header. At a
    third there is an smtpd that wants none."""
    MASTER = '''
127.0.0.1:PLAIN inet n - n - - smtpd
127.0.0.1:{port} inet n - n - - smtpd
    -o smtpd_upstream_proxy_protocol=haproxy
127.0.0.1:{strange} inet n - n - 1 postscreen
    -o postscreen_upstream_proxy_protocol=haproxy
    -o postscreen_greet_wait=1s
smtpd   pass - - n - - smtpd
dnsblog unix - - n - 0 dnsblog
tlsproxy unix - - n - 0 tlsproxy
''' + Postfix.MASTER[Postfix.MASTER.index('postlog'):]


@pytest.fixture(scope='module')
def postfix():
    if not starters.has('postfix') or os.getuid() != 0:
        pytest.skip('no Postfix, or not root')
    plain_port = starters.free_port()
    p = type('Postfix', (ProxiedPostfix,), {
        'MASTER': ProxiedPostfix.MASTER.replace('PLAIN', str(plain_port))})()
    p.plain_port = plain_port
    yield p
    p.stop()


@pytest.mark.parametrize('how', ['on', 'v2'])
@pytest.mark.parametrize('which', ['smtpd', 'postscreen'])
def test_postfix(started, postfix, how, which):  # noqa: F811
    port = postfix.port if which == 'smtpd' else postfix.strange_port
    subject = f'{which} {how}'
    s = started(backend=f'127.0.0.1:{port}', proxy_protocol=how)
    c = s.connect(source='127.0.0.7')
    from_port = c.sock.getsockname()[1]
    submit(c, subject)
    received = re.search(r'^Received: .*$', postfix.delivered(subject),
                         re.M).group(0)
    assert 'from client.example (unknown [127.0.0.7])' in received
    if which == 'postscreen':
        assert f'CONNECT from [127.0.0.7]:{from_port} to [127.0.0.1]' in \
            postfix.log()


@pytest.mark.parametrize('how', ['on', 'v2'])
def test_postfix_that_does_not_expect_it(
        started, postfix, how):  # noqa: F811
    s = started(backend=f'127.0.0.1:{postfix.plain_port}', proxy_protocol=how)
    c = s.connect()
    log_in(c, '421 4.3.0 ')
    c.expect_end()
    c.close()
    assert s.await_event('upstream')['result'] == 'failed'
