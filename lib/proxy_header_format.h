/*
 * Numbers of the PROXY protocol that its reader and its writer share.
 */
#ifndef LIB_PROXY_HEADER_FORMAT_H
#define LIB_PROXY_HEADER_FORMAT_H

/* Where version 2 begins. */
#define PROXY_SIGNATURE	    "\r\n\r\n\0\r\nQUIT\n"
#define PROXY_SIGNATURE_LEN 12

/* Types of TLVs. */
enum {
	PROXY_TLV_ALPN = 0x01,
	PROXY_TLV_AUTHORITY = 0x02,
	PROXY_TLV_CRC32C = 0x03,
	PROXY_TLV_UNIQUE_ID = 0x05,
	PROXY_TLV_SSL = 0x20,
	/* inside the last one */
	PROXY_TLV_SSL_VERSION = 0x21,
	PROXY_TLV_SSL_CN = 0x22,
	PROXY_TLV_SSL_CIPHER = 0x23
};

/* Bits of the first octet of PROXY_TLV_SSL. */
enum {
	PROXY_CLIENT_SSL = 0x01,
	PROXY_CLIENT_CERT_CONN = 0x02,
	PROXY_CLIENT_CERT_SESS = 0x04
};

#endif
