/*
 * The yardstick of TLS: a program that makes an SSL_CTX with a certificate and
 * its key by OpenSSL's stock calls, and does nothing more; with a third
 * argument it also does one handshake with the client on fd 0, until that has
 * left. The difference of the two is what a handshake costs.
 */
#include <openssl/ssl.h>
#include <unistd.h>

static int
shake_hands(SSL_CTX *ctx)
{
	SSL *ssl = SSL_new(ctx);
	char byte;

	if (ssl == NULL || SSL_set_fd(ssl, STDIN_FILENO) != 1 ||
	    SSL_accept(ssl) != 1)
		return 1;
	while (SSL_read(ssl, &byte, 1) > 0)
		;
	SSL_free(ssl);
	return 0;
}

int
main(int argc, char **argv)
{
	SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
	int status = 0;

	if (argc < 3 || ctx == NULL ||
	    SSL_CTX_use_certificate_chain_file(ctx, argv[1]) != 1 ||
	    SSL_CTX_use_PrivateKey_file(ctx, argv[2], SSL_FILETYPE_PEM) != 1)
		return 1;
	if (argc > 3)
		status = shake_hands(ctx);
	SSL_CTX_free(ctx);
	return status;
}
