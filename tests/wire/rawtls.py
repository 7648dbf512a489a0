"""OpenSSL's library as a client whose handshake messages a test may send when it
likes: KeyUpdate (TLS 1.3) and renegotiation (TLS 1.2)."""

import ctypes

ssl = ctypes.CDLL('libssl.so.3')
crypto = ctypes.CDLL('libcrypto.so.3')
for function in (ssl.TLS_client_method, ssl.SSL_CTX_new, ssl.SSL_new,
                 ssl.SSL_get_rbio, ssl.SSL_get_wbio, crypto.BIO_new,
                 crypto.BIO_s_mem):
    function.restype = ctypes.c_void_p

TLS12, TLS13 = 0x0303, 0x0304
SET_MIN_PROTO_VERSION, SET_MAX_PROTO_VERSION = 123, 124
WANT_READ = 2


class RawTls:
    """Over a harness.Client, which is left in the clear."""

    def __init__(self, client, version):
        self.client = client
        self.ctx = ctypes.c_void_p(
            ssl.SSL_CTX_new(ctypes.c_void_p(ssl.TLS_client_method())))
        for what in (SET_MIN_PROTO_VERSION, SET_MAX_PROTO_VERSION):
            assert ssl.SSL_CTX_ctrl(self.ctx, what, version, None) == 1
        self.ssl = ctypes.c_void_p(ssl.SSL_new(self.ctx))
        memory = ctypes.c_void_p(crypto.BIO_s_mem())
        self.input = ctypes.c_void_p(crypto.BIO_new(memory))
        self.output = ctypes.c_void_p(crypto.BIO_new(memory))
        ssl.SSL_set_bio(self.ssl, self.input, self.output)
        ssl.SSL_set_connect_state(self.ssl)

    def close(self):
        ssl.SSL_free(self.ssl)
        ssl.SSL_CTX_free(self.ctx)

    def take(self):
        """What is to be sent."""
        data = b''
        buf = ctypes.create_string_buffer(1 << 16)
        while (n := crypto.BIO_read(self.output, buf, len(buf))) > 0:
            data += buf.raw[:n]
        return data

    def put(self, data):
        assert crypto.BIO_write(self.input, data, len(data)) == len(data)

    def handshake(self):
        while (r := ssl.SSL_do_handshake(self.ssl)) != 1:
            assert ssl.SSL_get_error(self.ssl, r) == WANT_READ
            self.client.raw_send(self.take())
            data = self.client.raw_recv_some()
            assert data, 'the program ended the handshake'
            self.put(data)
        self.client.raw_send(self.take())

    def write(self, data):
        """Its octets as they go over the wire."""
        assert ssl.SSL_write(self.ssl, data, len(data)) == len(data)
        return self.take()

    def read(self):
        """Some of what the program says; b'' at the end."""
        buf = ctypes.create_string_buffer(1 << 14)
        while (n := ssl.SSL_read(self.ssl, buf, len(buf))) <= 0:
            if ssl.SSL_get_error(self.ssl, n) != WANT_READ:
                return b''
            self.client.raw_send(self.take())  # answers of its own
            data = self.client.raw_recv_some()
            if not data:
                return b''
            self.put(data)
        return buf.raw[:n]

    def read_until(self, word):
        data = b''
        while word not in data:
            got = self.read()
            if not got:
                raise ConnectionError(f'the end behind {data!r}')
            data += got
        return data

    def key_updates(self, count, asked=False):
        """So many of them, as they go over the wire."""
        for _ in range(count):
            assert ssl.SSL_key_update(self.ssl, 1 if asked else 0) == 1
            assert ssl.SSL_do_handshake(self.ssl) == 1
        return self.take()

    def renegotiation(self):
        """A hello within the session."""
        assert ssl.SSL_renegotiate(self.ssl) == 1
        ssl.SSL_do_handshake(self.ssl)
        return self.take()
