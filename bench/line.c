/*
 * The yardstick: a program with nothing but libc, started as the front end is,
 * that writes one line. With an argument it then waits until its client has
 * left, so that its CPU can be read at the moment of the line.
 */
#include <unistd.h>

int
main(int argc, char **argv)
{
	static const char line[] = "220 bench.example ESMTP ready\r\n";
	char byte;

	(void)argv;
	if (write(STDOUT_FILENO, line, sizeof(line) - 1) == -1)
		return 1;
	while (argc > 1 && read(STDIN_FILENO, &byte, 1) > 0)
		;
	return 0;
}
