// SPDX-License-Identifier: Apache-2.0
// ttyscribe-rec-session: what stands in passwd as the login shell.
//
// Where the recorder service answers it is the login shell's client (service.h). Else it
// starts the interpreter on the login path and does nothing more, unless that can't be
// (alone.h). A script
// with a shebang could not do its work: the kernel drops argv[0], which says
// whether this is a login shell ("-name") and, by a symlink's name, which shell
// to run; and the interpreter would start in the user's environment, where
// LD_PRELOAD, GCONV_PATH, LOCPATH or a locale could bring the user's code or
// behaviour into it. So every variable gets one '_' in front, which means
// nothing to the loader, the C library or Python; main.py takes it off again
// and hands the original to the shell. Linked static, this program itself
// loads nothing that the user could name; without a C library it also starts
// faster (system.h).
//
// Descriptors, signals, limits, umask and working folder pass through as they are.
//
// Set at compile time (packaging/compile-launcher): PYTHON, the interpreter, and
// MAIN, the script it runs; both absolute.

#define _GNU_SOURCE
#include <linux/stat.h>

#include "service.h"
#include "alone.h"

#if !defined PYTHON || !defined MAIN
#error "PYTHON and MAIN must be given: see packaging/compile-launcher"
#endif

// -I   no PYTHON* variables, no user site, no current folder in the path
// -S   no site module: main.py names the two folders that are needed
// utf8 any bytes in arguments survive, whatever the locale
static char *const INTERPRETER[] = {PYTHON, "-I", "-S", "-X", "utf8", MAIN};
enum { INTERPRETER_WORDS = sizeof INTERPRETER / sizeof *INTERPRETER };

// Keep an input that is a folder out of the interpreter's sight, which does not start with
// one: the note that names where it is, or NULL.
static const char *keep_folder(void)
{
    enum { KEPT_AT = 10, MOST = 99 };
    static char text[] = "STDIN=10";
    struct statx status = {0};
    if (system_call(__NR_statx, 0, (long)"", AT_EMPTY_PATH, STATX_TYPE, (long)&status, 0) != 0
        || !S_ISDIR(status.stx_mode))
        return NULL;
    long kept = system_call(__NR_fcntl, 0, F_DUPFD, KEPT_AT, 0, 0, 0);
    if (kept < KEPT_AT || kept > MOST)
        return NULL;
    text[sizeof text - 3] = (char)('0' + kept / 10);
    text[sizeof text - 2] = (char)('0' + kept % 10);
    system_call(__NR_close, 0, 0, 0, 0, 0, 0);
    return text;
}

// A copy of the environment with '_' before each entry, and notes of ours without one:
// the interpreter ignores SIGPIPE and SIGXFSZ itself, so whether our starter does, as
// systemd does for services, has to be told; which signals we have blocked; what came of
// asking the recorder service; and where standard input is, if not in its place.
static char **set_aside(char **environment, const char *note, const char *input)
{
    static const char service[] = "SERVICE=";
    size_t entries = count(environment);
    enum { NOTES = 6, END = 1 };
    size_t size = (entries + NOTES + END) * sizeof(char *) + sizeof service;
    size += note ? strlen(note) : 0;
    for (size_t i = 0; i < entries; i++)
        size += strlen(environment[i]) + 2;
    char **copy = memory(size);
    if (!copy)
        return NULL;
    char *text = (char *)(copy + entries + NOTES + END);
    for (size_t i = 0; i < entries; i++) {
        size_t length = strlen(environment[i]) + 1;
        copy[i] = text;
        *text++ = '_';
        memcpy(text, environment[i], length);
        text += length;
    }
    if (note) {
        copy[entries++] = text;
        memcpy(text, service, sizeof service);
        memcpy(text + sizeof service - 1, note, strlen(note) + 1);
    }
    if (input)
        copy[entries++] = (char *)input;
    if (is_ignored(SIGPIPE))
        copy[entries++] = "IGNORED_PIPE=";
    if (is_ignored(SIGXFSZ))
        copy[entries++] = "IGNORED_XFSZ=";
    if (held_keys & bit(SIGINT))
        copy[entries++] = "HELD_INT=";
    if (held_keys & bit(SIGQUIT))
        copy[entries++] = "HELD_QUIT=";
    return copy;
}

// The interpreter's words, then argv[0] and the arguments as they came.
static char **command(const struct login *login)
{
    char **words = memory((INTERPRETER_WORDS + login->argc + 1) * sizeof(char *));
    if (!words)
        return NULL;
    memcpy(words, INTERPRETER, sizeof INTERPRETER);
    memcpy(words + INTERPRETER_WORDS, login->argv, login->argc * sizeof(char *));
    return words;
}

int main(int argc, char **argv, char **environment)
{
    // Until the exec no other process of the user may trace or read this one;
    // the exec resets it, and the login path sets it again.
    system_call(__NR_prctl, PR_SET_DUMPABLE, 0, 0, 0, 0, 0);

    hold_keys();
    // A caller may leave out even argv[0].
    static char *nameless[] = {"ttyscribe-rec-session", NULL};
    struct login login = {(size_t)argc, argv, environment};
    if (argc < 1)
        login = (struct login){1, nameless, environment};
    const char *note;
    int ended = attempt(&login, &note);
    if (ended != TO_PYTHON)
        return ended;
    if (!has_descriptor())
        return without_python(
            &login, "no file descriptor is left; raise the limit of open files (ulimit -n)",
            REFUSED);
    char **words = command(&login);
    const char *input = keep_folder();
    char **aside = set_aside(environment, note, input);
    if (!words || !aside || !has_memory())
        return without_python(&login, "no memory is left; free some or raise the limit (ulimit -v)",
                              NOT_EXECUTABLE);
    switch (-system_call(__NR_execve, (long)PYTHON, (long)words, (long)aside, 0, 0, 0)) {
    case ENOENT:
    case ENOTDIR:
        return without_python(
            &login, "the interpreter " PYTHON " is missing; install ttyscribe again", NOT_FOUND);
    case E2BIG:
        return without_python(&login,
                              "the arguments and the environment are too long for " PYTHON
                              "; unset large variables",
                              TOO_LONG);
    case ENOMEM:
    case EAGAIN:
        return without_python(&login,
                              "no memory or process is left to start " PYTHON
                              "; try again later or raise the limit",
                              NOT_EXECUTABLE);
    default:
        return without_python(
            &login, "the interpreter " PYTHON " may not run; install ttyscribe again",
            NOT_EXECUTABLE);
    }
}
