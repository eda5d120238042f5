// SPDX-License-Identifier: Apache-2.0
// ttyscribe-wait: the login shell's process, once its real shell runs under the recorder service.
//
//   ttyscribe-wait SOCKET SHELL TERMINAL COOKED
//     SOCKET    descriptor of the connection to the recorder
//     SHELL     pid of the shell, our child: the exec that started us kept our pid
//     TERMINAL  descriptor of the user's terminal; -1 if there is none
//     COOKED    its own mode in hex, as TCGETS gave it, where it is taken, and in raw mode
//
// The Python client (recorder/client.py) becomes this program to save the memory of an
// interpreter in each session; the launcher's own client (service.h) waits by itself.
// The Python client hands our signals over blocked, so that none is lost in the exec. Installed
// without permission to read it, this program can't be traced by its user from its first
// instruction on: nobody reaches the user's terminal through it.

#define _GNU_SOURCE
#include <linux/prctl.h>

#include "waiting.h"

enum { USAGE = 2 };

// A decimal number of at most nine digits, or -1 for anything else.
static int parse(const char *text)
{
    int number = 0;
    if (!*text || strlen(text) > 9)
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        number = 10 * number + (*text - '0');
    }
    return number;
}

static int digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool unhex(const char *text, unsigned char *bytes)
{
    if (strlen(text) != 2 * TERMIOS_SIZE)
        return false;
    for (size_t i = 0; i < TERMIOS_SIZE; i++) {
        int high = digit(text[2 * i]), low = digit(text[2 * i + 1]);
        if (high < 0 || low < 0)
            return false;
        bytes[i] = (unsigned char)(16 * high + low);
    }
    return true;
}

int main(int argc, char **argv, char **environment)
{
    (void)environment;
    system_call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0, 0);
    if (argc == 5) {
        recorder = parse(argv[1]);
        shell = parse(argv[2]);
        terminal = parse(argv[3]);
        known = taken = terminal >= 0 && *argv[4];
    }
    if (argc != 5 || recorder < 0 || shell < 1 || (taken && !unhex(argv[4], cooked))) {
        static const char line[] = "ttyscribe-wait: is started by ttyscribe-rec-session only";
        complain(line, sizeof line - 1);
        return USAGE;
    }
    look_around();
    if (taken)
        given = raw_mode();
    uint64_t before;
    return wait_for_shell(watch(&before));
}
