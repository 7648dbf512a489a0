"""SCRAM's client (RFC 5802, RFC 7677), as far as the tests need one."""

import base64
import hashlib
import hmac
import re
import secrets


def b64(data):
    return base64.b64encode(data).decode()


class Scram:
    """One exchange. `binding` is (type, data); `flag` another gs2 flag."""

    def __init__(self, user, password, algorithm='sha256', binding=None,
                 flag=None, authzid='', header=None):
        self.password = password.encode()
        self.algorithm = algorithm
        flag = flag or (f'p={binding[0]}' if binding else 'n')
        self.header = f'{flag},{authzid and "a=" + authzid},' \
            if header is None else header
        self.data = binding[1] if binding else b''
        self.nonce = secrets.token_urlsafe(18)
        self.bare = f'n={user},r={self.nonce}'

    def first(self):
        return b64((self.header + self.bare).encode())

    def final(self, challenge):
        """The response to the server's first message, in base64 both."""
        server = base64.b64decode(challenge).decode()
        self.server = m = re.fullmatch(
            r'r=([!-+\--~]+),s=([A-Za-z0-9+/=]+),i=([1-9]\d*)', server)
        assert m and m[1].startswith(self.nonce) and m[1] != self.nonce, server
        self.salt, self.iterations = base64.b64decode(m[2]), int(m[3])
        salted = hashlib.pbkdf2_hmac(self.algorithm, self.password, self.salt,
                                     self.iterations)
        key, server_key = (hmac.digest(salted, label, self.algorithm)
                           for label in (b'Client Key', b'Server Key'))
        stored = hashlib.new(self.algorithm, key).digest()
        final = f'c={b64(self.header.encode() + self.data)},r={m[1]}'
        message = f'{self.bare},{server},{final}'.encode()
        signature = hmac.digest(stored, message, self.algorithm)
        proof = bytes(a ^ b for a, b in zip(key, signature))
        self.verifier = 'v=' + b64(
            hmac.digest(server_key, message, self.algorithm))
        return b64(f'{final},p={b64(proof)}'.encode())

    def is_server(self, challenge):
        """Whether the server's last message proves that it has the keys."""
        return base64.b64decode(challenge).decode() == self.verifier


def stored(password, algorithm='sha256', iterations=4096,
           salt=b'sixteen octets!!'):
    """What a server keeps: iterations,salt,StoredKey,ServerKey."""
    salted = hashlib.pbkdf2_hmac(algorithm, password.encode(), salt,
                                 iterations)
    client, server = (hmac.digest(salted, label, algorithm)
                      for label in (b'Client Key', b'Server Key'))
    return f'{iterations},' + ','.join(
        b64(x) for x in (salt, hashlib.new(algorithm, client).digest(),
                         server))
