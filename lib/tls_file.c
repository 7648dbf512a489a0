/*
 * A keeper's files: read whole, from the file that was opened and not from its
 * name again; and the PEM blocks in them.
 */
#include <sys/stat.h>

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <openssl/err.h>
#include <openssl/pem.h>
#include <openssl/pemerr.h>

#include "lib/tls_key.h"

#define MAX_FILE (256 * 1024)

int
tls_file_fail(const struct tls_place *at, const char *why)
{
	(void)snprintf(
	    at->err, TLS_ERROR_SIZE, "%s %s: %s", at->directive, at->path, why);
	return -1;
}

void
tls_file_wipe(struct tls_file *file)
{
	if (file->p != NULL)
		explicit_bzero(file->p, file->len);
	free(file->p);
	file->p = NULL;
	file->len = 0;
}

static int
read_whole(int fd, struct tls_file *file)
{
	size_t got = 0;
	ssize_t n;

	while (got < file->len) {
		n = read(fd, file->p + got, file->len - got);
		if (n == 0)
			errno = EIO; /* was cut while we read */
		if (n == 0 || (n == -1 && errno != EINTR))
			return -1;
		if (n > 0)
			got += (size_t)n;
	}
	return 0;
}

/* The file that was opened is asked, not its name: that may be another one. */
int
tls_file_read(const struct tls_place *at, bool secret, struct tls_file *file)
{
	int fd = open(at->path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
	const char *why = NULL;
	struct stat st;

	if (fd == -1)
		return tls_file_fail(at, strerror(errno));
	if (fstat(fd, &st) == -1)
		why = strerror(errno);
	else if (!S_ISREG(st.st_mode))
		why = "not a regular file";
	else if (secret && (st.st_mode & 007) != 0)
		why = "others than owner and group have access (try chmod o=)";
	else if (st.st_size == 0 || st.st_size > MAX_FILE)
		why = "empty or larger than 256k";
	if (why == NULL) {
		file->len = (size_t)st.st_size;
		file->p = malloc(file->len);
		if (file->p == NULL || read_whole(fd, file) == -1)
			why = strerror(errno);
	}
	(void)close(fd);
	if (why == NULL)
		return 0;
	tls_file_wipe(file);
	return tls_file_fail(at, why);
}

void
tls_pem_free(struct tls_pem *pem)
{
	OPENSSL_free(pem->name);
	OPENSSL_free(pem->header);
	if (pem->data != NULL)
		OPENSSL_clear_free(pem->data, (size_t)pem->len);
	memset(pem, 0, sizeof(*pem));
}

int
tls_pem_next(BIO *bio, struct tls_pem *pem)
{
	unsigned long error;

	if (PEM_read_bio(
		bio, &pem->name, &pem->header, &pem->data, &pem->len) == 1)
		return 1;
	error = ERR_peek_last_error();
	ERR_clear_error();
	memset(pem, 0, sizeof(*pem));
	return ERR_GET_REASON(error) == PEM_R_NO_START_LINE ? 0 : -1;
}
