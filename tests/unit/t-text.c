/*
 * lib/text: each function with what it takes, what it refuses, and the values
 * on either side of every limit.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "lib/text.h"

#define LENGTH(a) (sizeof(a) / sizeof((a)[0]))

static void
number(void **state)
{
	static const char *const bad[] = {"", " 1", "1 ", "-1", "+1", "0x10",
	    "1a", "a", "1.5", "18446744073709551616",
	    "99999999999999999999999"};
	uint64_t n = 7;
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(bad); i++) {
		assert_int_equal(text_number(bad[i], UINT64_MAX, &n), -1);
		assert_int_equal(n, 7);
	}
	assert_int_equal(text_number("0", 0, &n), 0);
	assert_int_equal(n, 0);
	assert_int_equal(text_number("1", 0, &n), -1);
	assert_int_equal(text_number("007", 7, &n), 0);
	assert_int_equal(n, 7);
	assert_int_equal(text_number("65535", 65535, &n), 0);
	assert_int_equal(n, 65535);
	assert_int_equal(text_number("65536", 65535, &n), -1);
	assert_int_equal(text_number("8", 7, &n), -1);
	assert_int_equal(
	    text_number("18446744073709551615", UINT64_MAX, &n), 0);
	assert_true(n == UINT64_MAX);
}

static void
size(void **state)
{
	static const char *const bad[] = {"", "k", "m", "4kk", "4kb", "4 k",
	    "4k ", "-1k", "4t", "18446744073709551616", "18014398509481984k",
	    "17592186044416m", "17179869184g"};
	static const struct {
		const char *text;
		size_t value;
	} good[] = {{"0", 0}, {"4096", 4096}, {"4k", 4096}, {"4K", 4096},
	    {"1m", 1048576}, {"2M", 2097152}, {"1g", 1073741824},
	    {"3G", 3221225472}, {"18446744073709551615", SIZE_MAX},
	    {"18014398509481983k", SIZE_MAX - 1023}};
	size_t i, n = 7;

	(void)state;
	for (i = 0; i < LENGTH(bad); i++) {
		assert_int_equal(text_size(bad[i], &n), -1);
		assert_int_equal(n, 7);
	}
	for (i = 0; i < LENGTH(good); i++) {
		assert_int_equal(text_size(good[i].text, &n), 0);
		assert_true(n == good[i].value);
	}
}

static void
time_good(void **state)
{
	static const struct {
		const char *text;
		int64_t ms;
	} good[] = {{"0", 0}, {"0s", 0}, {"30", 30000}, {"500ms", 500},
	    {"5s", 5000}, {"1m", 60000}, {"2h", 7200000}, {"1d", 86400000},
	    {"1w", 604800000}, {"1M", 2592000000}, {"1y", 31536000000},
	    {"1h 30m", 5400000}, {"1h30m", 5400000}, {"1h   30m", 5400000},
	    {"1m 1ms", 60001}, {"1h 30", 3630000}, {"1M 1m", 2592060000},
	    {"5s ", 5000}, {"5 ", 5000},
	    {"1y 1M 1w 1d 1h 1m 1s 1ms", 34822861001},
	    {"4611686018427387903ms", INT64_MAX / 2}};
	int64_t ms;
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(good); i++) {
		ms = -1;
		assert_int_equal(text_time(good[i].text, &ms), 0);
		assert_true(ms == good[i].ms);
	}
}

static void
time_bad(void **state)
{
	static const char *const bad[] = {"", " ", " 5s", "s", "h", "-5s", "5x",
	    "5S", "5H", "5sec", "5mss", "5.5s", "1h h", "1m 1m", "30m 1h",
	    "1ms 1s", "1ms 1m", "5s 3", "5 3", "5 s", "1h\t30m", "1h,30m",
	    "4611686018427387904ms", "4611686018427387903s",
	    "99999999999999999999", "146235605y", "4611686018427387s 904ms"};
	int64_t ms = 7;
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(bad); i++) {
		if (text_time(bad[i], &ms) != -1)
			fail_msg("\"%s\" was taken", bad[i]);
		assert_true(ms == 7);
	}
}

static void
words(void **state)
{
	const char *s =
	    " \tone  \"two words\"\t\"\" \"a \\\"b\\\" \\\\\" c\\d ";
	char word[16];

	(void)state;
	assert_int_equal(text_word(&s, word, sizeof(word)), 1);
	assert_string_equal(word, "one");
	assert_int_equal(text_word(&s, word, sizeof(word)), 1);
	assert_string_equal(word, "two words");
	assert_int_equal(text_word(&s, word, sizeof(word)), 1);
	assert_string_equal(word, "");
	assert_int_equal(text_word(&s, word, sizeof(word)), 1);
	assert_string_equal(word, "a \"b\" \\");
	assert_int_equal(text_word(&s, word, sizeof(word)), 1);
	assert_string_equal(word, "c\\d");
	assert_int_equal(text_word(&s, word, sizeof(word)), 0);
	assert_string_equal(s, "");
	assert_int_equal(text_word(&s, word, sizeof(word)), 0);
	s = "\"end\"";
	assert_int_equal(text_word(&s, word, sizeof(word)), 1);
	assert_string_equal(word, "end");
}

static void
words_bad(void **state)
{
	static const char *const bad[] = {"\"", "\"open", "\"open\\\"",
	    "\"a\"b", "a\"b\"", "\"a\\nb\"", "\"a\\", "\"a\\ ", "\"a\"\"b\"",
	    "12345678", "\"12345678\""};
	const char *s;
	char word[8];
	size_t i;

	(void)state;
	for (i = 0; i < LENGTH(bad); i++) {
		s = bad[i];
		if (text_word(&s, word, sizeof(word)) != -1)
			fail_msg("<%s> was taken", bad[i]);
		assert_ptr_equal(s, bad[i]);
	}
	s = "1234567 \"1234567\"";
	assert_int_equal(text_word(&s, word, sizeof(word)), 1);
	assert_string_equal(word, "1234567");
	assert_int_equal(text_word(&s, word, sizeof(word)), 1);
	assert_string_equal(word, "1234567");
	s = "x";
	assert_int_equal(text_word(&s, word, 0), -1);
	assert_int_equal(text_word(&s, word, 1), -1);
}

static void
has_word(void **state)
{
	(void)state;
	assert_true(text_has_word("PLAIN LOGIN CRAM-MD5", "login"));
	assert_true(text_has_word("  plain\t", "PLAIN"));
	assert_true(text_has_word("a b", "b"));
	assert_false(text_has_word("PLAIN LOGIN", "PLAI"));
	assert_false(text_has_word("PLAIN LOGIN", "PLAINN"));
	assert_false(text_has_word("PLAIN LOGIN", "PLAIN LOGIN"));
	assert_false(text_has_word("PLAIN", ""));
	assert_false(text_has_word("", "PLAIN"));
	assert_false(text_has_word("  ", "PLAIN"));
}

/* RFC 4648 section 10 and octets that text does not have. */
static const struct {
	const char *plain;
	size_t len;
	const char *coded;
} base64_pairs[] = {{"", 0, ""}, {"f", 1, "Zg=="}, {"fo", 2, "Zm8="},
    {"foo", 3, "Zm9v"}, {"foob", 4, "Zm9vYg=="}, {"fooba", 5, "Zm9vYmE="},
    {"foobar", 6, "Zm9vYmFy"}, {"\0user\0pass", 10, "AHVzZXIAcGFzcw=="},
    {"\xfb\xff\xfe", 3, "+//+"}, {"\0\0\0", 3, "AAAA"},
    {"\xff\xff\xff", 3, "////"}};

static void
base64(void **state)
{
	unsigned char out[16];
	char coded[TEXT_BASE64_SIZE(10)];
	size_t i, len;

	(void)state;
	assert_int_equal(TEXT_BASE64_SIZE(0), 1);
	assert_int_equal(TEXT_BASE64_SIZE(1), 5);
	assert_int_equal(TEXT_BASE64_SIZE(3), 5);
	assert_int_equal(TEXT_BASE64_SIZE(4), 9);
	for (i = 0; i < LENGTH(base64_pairs); i++) {
		text_base64_encode(
		    base64_pairs[i].plain, base64_pairs[i].len, coded);
		assert_string_equal(coded, base64_pairs[i].coded);
		assert_int_equal(
		    text_base64_decode(coded, strlen(coded), out, &len), 0);
		assert_int_equal(len, base64_pairs[i].len);
		assert_memory_equal(out, base64_pairs[i].plain, len);
	}
}

static void
base64_bad(void **state)
{
	static const char *const bad[] = {"Z", "Zg",
	    "Zg=", "Zh==", "Zm9=", "Zg==Zg==", "Zm8=Zm9v",
	    "====", "Z===", "=Zg=", "Zg=v", "Zm9v=", "Zm9 ", "Zm\n9",
	    "Zm9v\r\n", "Zm-v", "Zm_v", "Zm9v Zm9v", "Zm\x80v",
	    "Zm9v====", "*"};
	unsigned char out[16];
	size_t i, len = 77;

	(void)state;
	for (i = 0; i < LENGTH(bad); i++) {
		if (text_base64_decode(bad[i], strlen(bad[i]), out, &len) != -1)
			fail_msg("\"%s\" was taken", bad[i]);
		assert_int_equal(len, 77);
	}
	assert_int_equal(text_base64_decode("Zm\0v", 4, out, &len), -1);
	/* the length counts, not a NUL */
	assert_int_equal(text_base64_decode("Zm9vYmFy", 4, out, &len), 0);
	assert_int_equal(len, 3);
}

static void
xtext(void **state)
{
	char out[16];

	(void)state;
	assert_int_equal(text_xtext("user@a.b", out, sizeof(out)), 0);
	assert_string_equal(out, "user@a.b");
	assert_int_equal(text_xtext("", out, sizeof(out)), 0);
	assert_string_equal(out, "");
	assert_int_equal(text_xtext("a+b=c d", out, sizeof(out)), 0);
	assert_string_equal(out, "a+2Bb+3Dc+20d");
	assert_int_equal(text_xtext("\r\n\x7f\xc3\xa9", out, sizeof(out)), 0);
	assert_string_equal(out, "+0D+0A+7F+C3+A9");
	assert_int_equal(text_xtext("!~", out, 3), 0);
	assert_string_equal(out, "!~");
	assert_int_equal(text_xtext("!~", out, 2), -1);
	assert_string_equal(out, "");
	assert_int_equal(text_xtext("a+", out, 5), 0);
	assert_string_equal(out, "a+2B");
	assert_int_equal(text_xtext("a+", out, 4), -1);
	assert_string_equal(out, "");
	assert_int_equal(text_xtext("", out, 0), -1);
}

static void
copy(void **state)
{
	char out[4] = "zzz";

	(void)state;
	assert_int_equal(text_copy(out, sizeof(out), "abc"), 0);
	assert_string_equal(out, "abc");
	assert_int_equal(text_copy(out, sizeof(out), "abcd"), -1);
	assert_string_equal(out, "");
	assert_int_equal(text_copy(out, 1, ""), 0);
	out[0] = 'z';
	assert_int_equal(text_copy(out, 0, ""), -1);
	assert_int_equal(out[0], 'z');
}

static void
hostname(void **state)
{
	static const char *const bad[] = {"", "a b", "a_b", "a:b", "[1.2.3.4]",
	    "a\n", "a/b", "\xc3\xa9.example", "a@b", "a`", "a{"};
	size_t i;

	(void)state;
	assert_true(text_is_hostname("mail.Example-1.org"));
	assert_true(text_is_hostname("192.0.2.7"));
	for (i = 0; i < LENGTH(bad); i++)
		assert_false(text_is_hostname(bad[i]));
}

static void
comparisons(void **state)
{
	(void)state;
	assert_true(text_equal("EHLO", "ehlo"));
	assert_true(text_equal("", ""));
	assert_false(text_equal("EHLO", "EHL"));
	assert_false(text_equal("EHL", "EHLO"));
	assert_false(text_equal("@[", "`{"));
	assert_false(text_equal("\xc4", "\xe4"));
	assert_true(text_prefix("FROM:<a@b>", "from:"));
	assert_true(text_prefix("x", ""));
	assert_true(text_prefix("", ""));
	assert_false(text_prefix("FROM", "FROM:"));
	assert_false(text_prefix("", "a"));
	assert_false(text_prefix("TO:<a>", "FROM:"));
}

static void
same_secret(void **state)
{
	(void)state;
	assert_true(text_same_secret("a\0b", "a\0b", 3));
	assert_false(text_same_secret("a\0b", "a\0c", 3));
	assert_false(text_same_secret("xbc", "abc", 3));
	assert_false(text_same_secret("\x80", "\0", 1));
	assert_true(text_same_secret("x", "y", 0));
}

int
main(void)
{
	const struct CMUnitTest tests[] = {
	    cmocka_unit_test(number),
	    cmocka_unit_test(size),
	    cmocka_unit_test(time_good),
	    cmocka_unit_test(time_bad),
	    cmocka_unit_test(words),
	    cmocka_unit_test(words_bad),
	    cmocka_unit_test(has_word),
	    cmocka_unit_test(base64),
	    cmocka_unit_test(base64_bad),
	    cmocka_unit_test(xtext),
	    cmocka_unit_test(copy),
	    cmocka_unit_test(hostname),
	    cmocka_unit_test(comparisons),
	    cmocka_unit_test(same_secret),
	};

	return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
