// SPDX-License-Identifier: Apache-2.0
// What the launcher does where the interpreter can't be started, so that no configuration can
// be asked: one line for the user, one for the log, and the built-in outcome, which lets root
// in to repair it and nobody else. Whoever becomes root by sudo or su brings limits and variables
// along: what these may have brought about lets nobody in.

#include <sys/resource.h>
#include <sys/wait.h>

#ifndef LOG_SOCKET
#define LOG_SOCKET "/dev/log"
#endif
#define ALERT "<81>" // authpriv.alert

enum { LOG_ROOM = 1024, PYTHON_NEEDS = 14 << 20 };
// Stands for NOT_EXECUTABLE where the caller's own words are the reason.
enum { TOO_LONG = -2 };

// Send the alert's text; how a stream of them is cut up, its last byte, a NUL, says.
static long send_alert(const char *text, size_t size)
{
    static const struct sockaddr_un address = {AF_UNIX, LOG_SOCKET};
    static const int kinds[] = {SOCK_DGRAM, SOCK_STREAM};
    long result = 0;
    for (size_t i = 0; i < 2; i++) {
        long fd = system_call(__NR_socket, AF_UNIX, kinds[i] | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, 0,
                              0, 0);
        if (fd < 0)
            return fd;
        result = system_call(__NR_connect, fd, (long)&address, sizeof address, 0, 0, 0);
        if (result == 0)
            result = system_call(__NR_sendto, fd, (long)text,
                                 (long)(kinds[i] == SOCK_STREAM ? size + 1 : size), MSG_NOSIGNAL,
                                 0, 0);
        system_call(__NR_close, fd, 0, 0, 0, 0, 0);
        if (result != -EPROTOTYPE)
            break;
    }
    return result;
}

static char *append(char *end, const char *limit, const char *text)
{
    while (*text && end < limit)
        *end++ = *text++;
    return end;
}

static void alert(unsigned long user, const char *what, const char *why)
{
    static char text[LOG_ROOM];
    const char *limit = text + sizeof text - 1;
    char digits[21];
    char *number = digits + sizeof digits - 1;
    *number = 0;
    do
        *--number = (char)('0' + user % 10);
    while (user /= 10);
    char *end = append(text, limit, ALERT "ttyscribe: user ");
    end = append(append(append(append(end, limit, number), limit, ": "), limit, what), limit, why);
    *end = 0;
    if (send_alert(text, (size_t)(end - text)) != -EMFILE)
        return;
    // Another process can do without a standard input.
    long pid = new_process();
    if (pid == 0) {
        system_call(__NR_close, 0, 0, 0, 0, 0, 0);
        send_alert(text, (size_t)(end - text));
        for (;;)
            system_call(__NR_exit_group, 0, 0, 0, 0, 0, 0);
    }
    while (pid > 0 && system_call(__NR_wait4, pid, 0, 0, 0, 0, 0) == -EINTR)
        ;
}

// Whether a limit is lower than a login has it: memory without one, a few descriptors.
static bool is_limited(void)
{
    static const struct {
        int what;
        uint64_t enough;
    } limits[] = {{RLIMIT_AS, UINT64_MAX}, {RLIMIT_DATA, UINT64_MAX},
                  {RLIMIT_STACK, 1 << 20}, {RLIMIT_NOFILE, 64}};
    for (size_t i = 0; i < sizeof limits / sizeof *limits; i++) {
        uint64_t now[2] = {0, 0}; // struct rlimit64
        if (system_call(__NR_prlimit64, 0, limits[i].what, 0, (long)now, 0, 0) < 0
            || now[0] < limits[i].enough)
            return true;
    }
    return false;
}

// Tell why the interpreter can't be started; become root's shell, or return status.
static int without_python(const struct login *login, const char *why, int status)
{
    unsigned long user = (unsigned long)system_call(__NR_getuid, 0, 0, 0, 0, 0, 0);
    bool allowed = user == 0 && status != TOO_LONG && !is_limited();
    const char *what = outcome_text(allowed);
    alert(user, what, why);
    tell((const char *const[]){OURSELVES, what, why, NULL});
    struct program program;
    status = status == TOO_LONG ? NOT_EXECUTABLE : status;
    if (!allowed || is_ours_alone(login) || !shell_at(BUILT_IN_SHELL, login, &program))
        return status;
    return tell_not_started(BUILT_IN_SHELL, execute(&program));
}

// Whether a descriptor is left for what the interpreter's own start has to open.
static bool has_descriptor(void)
{
    long fd = system_call(__NR_openat, AT_FDCWD, (long)"/", O_PATH | O_CLOEXEC, 0, 0, 0);
    if (fd >= 0)
        system_call(__NR_close, fd, 0, 0, 0, 0, 0);
    return fd != -EMFILE;
}

// Whether as much memory is allowed as the interpreter takes at the least, before it could say
// in one line that it has not enough (ulimit -v).
static bool has_memory(void)
{
    long block = system_call(__NR_mmap, 0, PYTHON_NEEDS, PROT_NONE,
                             MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (block < 0 && block > -4096)
        return false;
    system_call(__NR_munmap, block, PYTHON_NEEDS, 0, 0, 0, 0);
    return true;
}
