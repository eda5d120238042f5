// SPDX-License-Identifier: Apache-2.0
// The launcher's own client of the recorder service, which spares a login the interpreter.
//
// It does what Login._by_service in cli/rec_session.py does, with recorder/reach.py and client.py.
// Those stay for whatever is unusual: then attempt() returns TO_PYTHON, before anything was
// asked of the service, or with a note of what came of it. Once the service has heard us it is
// not asked again: it may hold this session to be a recorded one, and would let a second one
// through.
//
// Everything that the service says is checked, though it is trusted: a wrong packet is no
// reason to run something else.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/un.h>

#include "waiting.h"
#include "leader.h"

#ifndef SERVICE_SOCKET
#define SERVICE_SOCKET "/run/ttyscribe/recorder.sock"
#endif
#define OURSELVES "ttyscribe: "
#define SSH_TTY "SSH_TTY="
#define BUILT_IN_SHELL "/bin/bash"
#define SHELL_VARIABLE "TLOG_REC_SESSION_SHELL="

enum { REFUSED = 1, NOT_EXECUTABLE = 126, NOT_FOUND = 127 };
enum { TO_PYTHON = -1 };
enum { DIRECT_NEEDS = 8, VARIABLES_LIMIT = 512 };
// client.py
enum { CONNECT_SECONDS = 5, ANSWER_SECONDS = 30 };
enum { TURN = 50 * 1000 * 1000, TURNS = 14, TURNS_OF_START = 200 };

// wire.py
#define VERSION "3"
enum { PACKET_MAX = 65536, ARGUMENTS_MAX = 49152, VALUE_MAX = 4096, VARIABLES_MAX = 8192 };
enum { ARGV0_MAX = 1024 };
enum { RECORD = 'R', BARE = 'B', DIRECT = 'I', FAILED = 'E', FULL = 'L' };
enum { ACCEPTED = 'A', FAILED_START = 'F', OTHER_VERSION = 'V' };
enum { PASSED = 'p', OWN = 'o', CLOSED = '-' };
static const char *const SENT[] = {
    "TERM=", "LANG=", "LC_ALL=", "LOGNAME=", "SSH_CONNECTION=", "SSH_CLIENT=", "REMOTEHOST=",
    "PATH=", SHELL_VARIABLE,
};
enum { SENT_COUNT = sizeof SENT / sizeof *SENT };

// session/skip.py: what a program in the shell's place gets of the environment, and besides.
static const char *const KEPT[] = {
    "HOME=", "USER=", "LOGNAME=", "SHELL=", "MAIL=", "TERM=", "TMPDIR=", "GIT_PROTOCOL=",
    "SSH_CLIENT=", "SSH_CONNECTION=", "SSH_ORIGINAL_COMMAND=", "XDG_RUNTIME_DIR=",
};
static const char *const ADDED[] = {
    "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
    "PYTHONNOUSERSITE=1",
    "GIT_CONFIG_GLOBAL=/dev/null",
    "GIT_NO_LAZY_FETCH=1",
    "GIT_ALLOW_PROTOCOL=/",
};
enum { KEPT_COUNT = sizeof KEPT / sizeof *KEPT, ADDED_COUNT = sizeof ADDED / sizeof *ADDED };

// One more byte, to end the last field.
static char packet[PACKET_MAX + 1];
static size_t used;

struct login {
    size_t argc;
    char **argv;
    char **environment;
};

struct answer {
    size_t count;
    char **fields; // ends with NULL
    int fds[3];
    size_t fds_count;
};

// What is to be executed in the end.
struct program {
    const char *path;
    char **argv;
    char **environment;
};

// Zeroed memory for the rest of this program's short life, or NULL.
static void *memory(size_t size)
{
    long block = system_call(__NR_mmap, 0, (long)size, PROT_READ | PROT_WRITE,
                             MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return block < 0 && block > -4096 ? NULL : (void *)block;
}

static size_t count(char **vector)
{
    size_t n = 0;
    while (vector[n])
        n++;
    return n;
}

// Whether text begins with start; the same up to its end if whole.
static bool begins(const char *text, const char *start, bool whole)
{
    while (*start && *text == *start)
        text++, start++;
    return !*start && (!whole || !*text);
}

static bool contains(const char *text, const char *part)
{
    for (; *text; text++)
        if (begins(text, part, false))
            return true;
    return false;
}

// ---- Whether this is a login for us

// Whether a word is an option of the shell, so that another may follow it.
static bool is_option(const char *word)
{
    return (*word == '-' || *word == '+') && !begins(word, "-", true) && !begins(word, "--", true);
}

// Whether it is no login, but a question to us.
static bool is_ours_alone(const struct login *login)
{
    static const char *const alone[] = {"-h", "--help", "-v", "--version", "--configuration"};
    if (login->argc == 2)
        for (size_t i = 0; i < sizeof alone / sizeof *alone; i++)
            if (begins(login->argv[1], alone[i], true))
                return true;
    return false;
}

static bool is_for_python(const struct login *login)
{
    static const char *const renamed[] = {"--login", "--interactive", "--command"};
    if (login->argc < 1 || is_ours_alone(login))
        return true;
    // What git serves is to be looked at first: session/git.py.
    if (login->argc == 3 && begins(login->argv[1], "-c", true) && contains(login->argv[2], "git-"))
        return true;
    for (size_t n = 1; n < login->argc && is_option(login->argv[n]); n++)
        for (size_t i = 0; i < sizeof renamed / sizeof *renamed; i++)
            if (begins(login->argv[n], renamed[i], true))
                return true;
    // A closed one would have to be kept from becoming ours.
    for (int fd = 0; fd < 3; fd++)
        if (system_call(__NR_fcntl, fd, F_GETFD, 0, 0, 0, 0) < 0)
            return true;
    return false;
}

static size_t name_length(const char *entry)
{
    size_t length = 0;
    while (entry[length] && entry[length] != '=')
        length++;
    return entry[length] ? length : 0;
}

// Whether every entry is NAME=VALUE, and no name has two values: as Python makes it before
// anyone judges by it. (sudo -i gives SHELL twice.)
static bool is_plain(char **environment)
{
    size_t entries = count(environment);
    if (entries > VARIABLES_LIMIT)
        return false;
    for (size_t i = 0; i < entries; i++) {
        size_t length = name_length(environment[i]);
        if (!length)
            return false;
        for (size_t j = 0; j < i; j++) {
            size_t same = 0;
            while (same <= length && environment[i][same] == environment[j][same])
                same++;
            if (same > length && !begins(environment[i], environment[j], true))
                return false;
        }
    }
    return true;
}

// Whether what is still to be opened finds room: to have too little is Python's to tell.
static bool has_room(void)
{
    long fds[DIRECT_NEEDS];
    int got = 0;
    bool enough = true;
    while (enough && got < DIRECT_NEEDS) {
        fds[got] = system_call(__NR_fcntl, 0, F_DUPFD_CLOEXEC, 3, 0, 0, 0);
        enough = fds[got] >= 0;
        got += enough;
    }
    while (got)
        system_call(__NR_close, fds[--got], 0, 0, 0, 0, 0);
    return enough;
}

// ---- HELLO

static bool put(const char *bytes, size_t size)
{
    if (size > PACKET_MAX - used)
        return false;
    memcpy(packet + used, bytes, size);
    used += size;
    return true;
}

static bool put_field(const char *text)
{
    return put("", 1) && put(text, strlen(text));
}

static bool put_names(char **environment)
{
    size_t total = 0;
    if (!put("", 1))
        return false;
    for (; *environment; environment++) {
        size_t length = name_length(*environment);
        if ((total && !put("=", 1)) || !put(*environment, length))
            return false;
        total += length + 1;
    }
    return total <= VARIABLES_MAX;
}

static bool put_variables(char **environment)
{
    const char *found[SENT_COUNT];
    size_t n = 0;
    for (size_t i = 0; i < SENT_COUNT; i++)
        for (char **entry = environment; *entry; entry++)
            if (begins(*entry, SENT[i], false)) {
                if (strlen(*entry) - strlen(SENT[i]) > VALUE_MAX)
                    return false;
                found[n++] = *entry;
                break;
            }
    char number[2] = {(char)('0' + n), 0};
    _Static_assert(SENT_COUNT < 10, "one digit is enough");
    bool fits = put_field(number);
    for (size_t i = 0; i < n; i++)
        fits = fits && put_field(found[i]);
    return fits;
}

// The packet; whether all of it has room. What has to be cut, Python cuts.
static bool put_hello(const struct login *login)
{
    size_t left = ARGUMENTS_MAX;
    used = 0;
    if (strlen(login->argv[0]) > ARGV0_MAX || !put("H" VERSION, 2) || !put_field(login->argv[0])
        || !put_field("012") || !put_field("0") || !put_names(login->environment)
        || !put_variables(login->environment))
        return false;
    for (size_t i = 1; i < login->argc; i++) {
        size_t size = strlen(login->argv[i]) + 1;
        if (size > left || !put_field(login->argv[i]))
            return false;
        left -= size;
    }
    return true;
}

// ---- Talking to the service

static bool set_timeout(int what, long seconds)
{
    struct timeval time = {.tv_sec = seconds};
    return system_call(__NR_setsockopt, recorder, SOL_SOCKET, what, (long)&time, sizeof time, 0)
           == 0;
}

static bool reach_service(void)
{
    static const struct sockaddr_un address = {AF_UNIX, SERVICE_SOCKET};
    long fd = system_call(__NR_socket, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, 0, 0, 0);
    if (fd < 0)
        return false;
    recorder = (int)fd;
    if (set_timeout(SO_SNDTIMEO, CONNECT_SECONDS) && set_timeout(SO_RCVTIMEO, ANSWER_SECONDS)
        && system_call(__NR_connect, fd, (long)&address, sizeof address, 0, 0, 0) == 0)
        return true;
    system_call(__NR_close, fd, 0, 0, 0, 0, 0);
    return false;
}

static void say_hello(void)
{
    static const int fds[3] = {0, 1, 2};
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof fds)] = {0};
    struct iovec part = {packet, used};
    struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                             .msg_controllen = sizeof control};
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    header->cmsg_level = SOL_SOCKET;
    header->cmsg_type = SCM_RIGHTS;
    header->cmsg_len = CMSG_LEN(sizeof fds);
    memcpy(CMSG_DATA(header), fds, sizeof fds);
    // A full service turns clients away without hearing them: it shows when it is read.
    while (system_call(__NR_sendmsg, recorder, (long)&message, MSG_NOSIGNAL, 0, 0, 0) == -EINTR)
        ;
}

// Whether nobody serves the socket yet, or no more: who listens is systemd, or is gone.
static bool is_starting(void)
{
    struct ucred peer = {0};
    socklen_t size = sizeof peer;
    // The service listens anew, even at systemd's socket, once it is there.
    system_call(__NR_getsockopt, recorder, SOL_SOCKET, SO_PEERCRED, (long)&peer, (long)&size, 0);
    return peer.pid <= 1 || system_call(__NR_kill, peer.pid, 0, 0, 0, 0, 0) == -ESRCH;
}

// Whether the service says something while it has its turns, which are counted, and not the
// time: where it has to wait for its own, so do we. An answer is left to be read.
static bool shows_life(bool *accepted)
{
    char kind = 0;
    struct pollfd ready = {.fd = recorder, .events = POLLIN};
    for (int left = is_starting() ? TURNS_OF_START : TURNS; left; left--) {
        struct timespec turn = {.tv_nsec = TURN};
        if (system_call(__NR_ppoll, (long)&ready, 1, (long)&turn, 0, 0, 0) > 0) {
            system_call(__NR_recvfrom, recorder, (long)&kind, 1, MSG_PEEK, 0, 0);
            *accepted = kind == ACCEPTED;
            if (*accepted)
                system_call(__NR_recvfrom, recorder, (long)&kind, 1, 0, 0, 0);
            return true;
        }
    }
    return false;
}

// The packet's fields, where the letter is not one of them.
static bool split(size_t size, struct answer *answer)
{
    size_t fields = 1;
    packet[size] = 0;
    for (size_t i = 1; i < size; i++)
        fields += !packet[i];
    answer->fields = memory((fields + 1) * sizeof(char *));
    if (!answer->fields)
        return false;
    char *at = packet + 1;
    for (answer->count = 0; answer->count < fields; at += strlen(at) + 1)
        answer->fields[answer->count++] = at;
    return true;
}

// The answer's letter, or 0 for none that could be understood.
static char hear(struct answer *answer)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof answer->fds)];
    struct iovec part = {packet, PACKET_MAX};
    struct msghdr message;
    long size;
    bool reset = false;
    for (;;) {
        message = (struct msghdr){.msg_iov = &part, .msg_iovlen = 1, .msg_control = control,
                                  .msg_controllen = sizeof control};
        size = system_call(__NR_recvmsg, recorder, (long)&message, MSG_CMSG_CLOEXEC, 0, 0, 0);
        // That it closed on our HELLO is told before what it said.
        if (size == -EINTR || (size == -ECONNRESET && !reset)) {
            reset = reset || size == -ECONNRESET;
            continue;
        }
        break;
    }
    if (size < 1 || message.msg_flags & (MSG_TRUNC | MSG_CTRUNC))
        return 0;
    struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    answer->fds_count = 0;
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS) {
        answer->fds_count = (header->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        if (answer->fds_count > 3)
            return 0;
        memcpy(answer->fds, CMSG_DATA(header), answer->fds_count * sizeof(int));
    }
    return split((size_t)size, answer) ? packet[0] : 0;
}

// ---- Telling the user

// One line of parts up to NULL.
static void tell(const char *const *parts)
{
    struct iovec words[8];
    size_t n = 0;
    for (; parts[n]; n++)
        words[n] = (struct iovec){(void *)parts[n], strlen(parts[n])};
    words[n++] = (struct iovec){"\n", 1};
    system_call(__NR_writev, 2, (long)words, (long)n, 0, 0, 0);
}

static const char *meaning(int number)
{
    switch (number) {
    case EACCES: return "Permission denied";
    case EPERM: return "Operation not permitted";
    case ENOMEM: return "Cannot allocate memory";
    case EAGAIN: return "Resource temporarily unavailable";
    case E2BIG: return "Argument list too long";
    case ENOEXEC: return "Exec format error";
    case ELIBBAD: return "Accessing a corrupted shared library";
    case ELOOP: return "Too many levels of symbolic links";
    case ENAMETOOLONG: return "File name too long";
    case ETXTBSY: return "Text file busy";
    case EMFILE: return "Too many open files";
    case ENFILE: return "Too many open files in system";
    case EIO: return "Input/output error";
    case EINVAL: return "Invalid argument";
    default: return "the system refuses it";
    }
}

// What of path may go to a terminal; all but plain ASCII is escaped, and its end left out.
static const char *printable(const char *path)
{
    static char text[1024];
    static const char digits[] = "0123456789abcdef";
    size_t n = 0;
    for (; *path && n + 5 < sizeof text; path++) {
        unsigned char c = (unsigned char)*path;
        if (c >= 0x20 && c < 0x7f) {
            text[n++] = (char)c;
        } else {
            text[n++] = '\\';
            text[n++] = 'x';
            text[n++] = digits[c >> 4];
            text[n++] = digits[c & 15];
        }
    }
    text[n] = 0;
    return text;
}

// Why path did not start, as SpawnError; the exit status.
static int tell_not_started(const char *path, int number)
{
    const char *name = printable(path);
    if (number == ENOENT || number == ENOTDIR) {
        tell((const char *const[]){OURSELVES, name, ": not found", NULL});
        return NOT_FOUND;
    }
    tell((const char *const[]){OURSELVES, name, ": can't run: ", meaning(number), NULL});
    return NOT_EXECUTABLE;
}

// ---- The shell

// Whether a program in the shell's place gets this entry: session/skip.py, _is_kept.
static bool is_kept(const char *entry)
{
    size_t length = name_length(entry);
    const char *value = entry + length + 1;
    if (begins(entry, "TZ=", false))
        return *value != '/' && *value != ':' && !contains(value, "..");
    if (begins(entry, "LANG=", false) || begins(entry, "LC_", false))
        return !contains(value, "/");
    for (size_t i = 0; i < KEPT_COUNT; i++)
        if (begins(entry, KEPT[i], false))
            return true;
    return false;
}

// The environment with SHELL for path, or NULL; of a program that is no shell, the little it gets.
static char **environment_for(const char *path, bool program, char **environment)
{
    size_t entries = count(environment);
    size_t size = (entries + ADDED_COUNT + 2) * sizeof(char *);
    char **made = memory(size + strlen("SHELL=") + strlen(path) + 1);
    if (!made)
        return NULL;
    char *text = (char *)made + size;
    memcpy(text, "SHELL=", strlen("SHELL="));
    memcpy(text + strlen("SHELL="), path, strlen(path) + 1);
    size_t n = 0;
    bool given = false;
    for (size_t i = 0; i < entries; i++) {
        if (begins(environment[i], SHELL_VARIABLE, false) || (program && !is_kept(environment[i])))
            continue;
        bool is_shell = begins(environment[i], "SHELL=", false);
        given = given || is_shell;
        made[n++] = is_shell ? text : environment[i];
    }
    if (!given)
        made[n++] = text;
    for (size_t i = 0; program && i < ADDED_COUNT; i++)
        made[n++] = (char *)ADDED[i];
    return made;
}

// The real shell at path as it would have been started in our place; whether there is memory.
static bool shell_at(const char *path, const struct login *login, struct program *made)
{
    const char *base = path;
    // As sshd and su name it; cron and others name its path, and get that.
    bool by_path = false;
    for (const char *at = login->argv[0]; *at; at++)
        by_path = by_path || *at == '/';
    for (const char *at = path; !by_path && *at; at++)
        if (*at == '/')
            base = at + 1;
    size_t size = (login->argc + 1) * sizeof(char *);
    char **words = memory(size + strlen(base) + 2);
    if (!words)
        return false;
    char *name = (char *)words + size;
    words[0] = name;
    if (login->argv[0][0] == '-')
        *name++ = '-';
    memcpy(name, base, strlen(base) + 1);
    memcpy(words + 1, login->argv + 1, (login->argc - 1) * sizeof(char *));
    *made = (struct program){path, words, environment_for(path, false, login->environment)};
    return made->environment;
}

// The signals that keys send, which are not meant for what comes before the shell: blocked by
// us from our start on, until it is there.
static uint64_t held_keys;

// Where no terminal is ours, no key is, and the shell has such signals from elsewhere.
static void hold_keys(void)
{
    uint64_t set = 0, before;
    if (!is_terminal(0) && !is_terminal(1) && !is_terminal(2))
        return;
    if (!is_ignored(SIGINT))
        set |= bit(SIGINT);
    if (!is_ignored(SIGQUIT))
        set |= bit(SIGQUIT);
    system_call(__NR_rt_sigprocmask, SIG_BLOCK, (long)&set, (long)&before, sizeof set, 0, 0);
    held_keys = set & ~before;
}

// Forget those that were pressed before there was a shell.
static void forget_keys(void)
{
    struct timespec none = {0};
    while (system_call(__NR_rt_sigtimedwait, (long)&held_keys, 0, (long)&none, sizeof held_keys,
                       0, 0) > 0)
        ;
}

// Whether it is to be a shell that does nothing for keys that send signals, once it is there.
static bool is_interactive(const struct login *login)
{
    return login->argc == 1 && is_terminal(0);
}

// Become it; returns errno.
static int execute(const struct program *program)
{
    const char *path = program->path;
    mask(SIG_UNBLOCK, held_keys);
    long result = system_call(__NR_execve, (long)path, (long)program->argv,
                              (long)program->environment, 0, 0, 0);
    if (result != -ENOEXEC)
        return (int)-result;
    // A script without a first line that names its interpreter, as every shell runs it.
    size_t words = count(program->argv);
    char **by_shell = memory((words + 2) * sizeof(char *));
    if (!by_shell)
        return ENOMEM;
    by_shell[0] = "/bin/sh";
    by_shell[1] = (char *)path;
    for (size_t i = 1; i < words; i++)
        by_shell[i + 1] = program->argv[i];
    return (int)-system_call(__NR_execve, (long)by_shell[0], (long)by_shell,
                             (long)program->environment, 0, 0, 0);
}

// The shell's pty, as it goes with how the terminal is taken: leave_output and use_lines in
// terminal/raw.py.
static void prepare(int pty)
{
    struct termios mode;
    if (took_output || pty < 0 || system_call(__NR_ioctl, pty, TCGETS, (long)&mode, 0, 0, 0) != 0)
        return;
    mode.c_oflag &= ~(tcflag_t)OPOST;
    if (!taken) {
        mode.c_iflag |= ICRNL;
        mode.c_lflag |= ECHO | ICANON | ISIG | IEXTEN;
    }
    system_call(__NR_ioctl, pty, TCSETS, (long)&mode, 0, 0, 0);
}

// In the child: as _become in terminal/spawn.py; returns errno.
static int become(const struct program *program, const struct answer *answer, const char *layout,
                  int slave, bool leads, bool stoppable)
{
    long result = 0;
    if (leads)
        result = system_call(__NR_setsid, 0, 0, 0, 0, 0, 0);
    else if (slave >= 0)
        result = system_call(__NR_setpgid, 0, 0, 0, 0, 0, 0);
    if (result >= 0 && slave >= 0 && controlled) {
        result = system_call(__NR_ioctl, slave, TIOCSCTTY, 0, 0, 0, 0);
        // A command leaves the terminal to whoever started it, and an interactive shell may not.
        if (result >= 0 && stoppable)
            become_job(slave);
        else if (result >= 0)
            say(JOB, program->argv[1] ? system_call(__NR_getpid, 0, 0, 0, 0, 0, 0) : 0);
    }
    size_t next = 0;
    for (int target = 0; result >= 0 && target < 3; target++) {
        // All of ours were open, so none that was passed is in the place of another.
        if (layout[target] == PASSED)
            result = system_call(__NR_dup3, answer->fds[next++], target, 0, 0, 0, 0);
        else if (layout[target] == CLOSED)
            system_call(__NR_close, target, 0, 0, 0, 0, 0);
    }
    return result < 0 ? (int)-result : execute(program);
}

// A process that is to become the shell, and waits for a byte: then it does, or reports why
// it can't.
struct held {
    long pid;
    int go[2];
    int report[2];
};

// Make it; 0, or -errno of why that can't be.
static long hold(const struct program *program, const struct answer *answer, const char *layout,
                 int slave, uint64_t before, struct held *held)
{
    int *report = held->report, *go = held->go;
    long result = system_call(__NR_pipe2, (long)report, O_CLOEXEC, 0, 0, 0, 0);
    if (result < 0)
        return result;
    result = system_call(__NR_pipe2, (long)go, O_CLOEXEC, 0, 0, 0, 0);
    if (result < 0)
        return result;
    // A terminal that it does not leave, it could open by name and be seen on.
    bool leads = slave >= 0 ? controlled : has_terminal()
                 || system_call(__NR_getsid, 0, 0, 0, 0, 0, 0)
                        == system_call(__NR_getpid, 0, 0, 0, 0, 0, 0);
    bool stoppable = slave >= 0 && controlled && is_stoppable();
    held->pid = new_process();
    if (held->pid == 0) {
        char byte;
        system_call(__NR_close, go[1], 0, 0, 0, 0, 0);
        // Without a byte its starter has given up, or is gone.
        if (system_call(__NR_read, go[0], (long)&byte, 1, 0, 0, 0) != 1)
            system_call(__NR_exit_group, NOT_FOUND, 0, 0, 0, 0, 0);
        system_call(__NR_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, sizeof before, 0, 0);
        int why = become(program, answer, layout, slave, leads, stoppable);
        system_call(__NR_write, report[1], (long)&why, sizeof why, 0, 0, 0);
        for (;;)
            system_call(__NR_exit_group, NOT_FOUND, 0, 0, 0, 0, 0);
    }
    system_call(__NR_close, report[1], 0, 0, 0, 0, 0);
    system_call(__NR_close, go[0], 0, 0, 0, 0, 0);
    return held->pid < 0 ? held->pid : 0;
}

static void end_held(const struct held *held)
{
    while (system_call(__NR_wait4, held->pid, 0, 0, 0, 0, 0) == -EINTR)
        ;
}

// Let it become the shell: its pid, or 0 and why it can't run in *number.
static long let_go(const struct held *held, int *number)
{
    long result;
    system_call(__NR_write, held->go[1], (long)"", 1, 0, 0, 0);
    system_call(__NR_close, held->go[1], 0, 0, 0, 0, 0);
    do
        result = system_call(__NR_read, held->report[0], (long)number, sizeof *number, 0, 0, 0);
    while (result == -EINTR);
    system_call(__NR_close, held->report[0], 0, 0, 0, 0, 0);
    if (result != sizeof *number)
        return held->pid;
    end_held(held);
    return 0;
}

// The name of a terminal, or "" for none of at most this length.
static const char *name_of(int fd, char *name, size_t size)
{
    // A descriptor of ours has few digits.
    char path[] = "/proc/self/fd/\0\0\0\0\0\0\0\0\0\0";
    char digits[10];
    size_t n = 0, end = strlen(path);
    do
        digits[n++] = (char)('0' + fd % 10);
    while (fd /= 10);
    while (n)
        path[end++] = digits[--n];
    long n_read = system_call(__NR_readlinkat, AT_FDCWD, (long)path, (long)name, (long)size - 1,
                              0, 0);
    name[n_read > 0 ? n_read : 0] = 0;
    return name;
}

// Where sshd named the terminal to the shell, name the one that it gets: as name_terminal in
// terminal/spawn.py.
static void name_terminal(char **environment, int inner)
{
    static char named[64] = SSH_TTY;
    char outer[64];
    for (; inner >= 0 && *environment; environment++)
        if (begins(*environment, SSH_TTY, false)
            && *name_of(terminal, outer, sizeof outer)
            && begins(*environment + strlen(SSH_TTY), outer, true)
            && *name_of(inner, named + strlen(SSH_TTY), sizeof named - strlen(SSH_TTY)))
            *environment = named;
}

// ---- What the service may want

// Which of what was passed is the pty's slave, -1 for none; -2 for a layout that is none.
static int find_slave(const struct answer *answer, const char *layout)
{
    size_t passed = 0;
    int slave = -1;
    if (strlen(layout) != 3)
        return -2;
    for (int i = 0; i < 3; i++) {
        if (layout[i] == PASSED) {
            if (passed == answer->fds_count)
                return -2;
            int fd = answer->fds[passed++];
            if (slave < 0 && terminal >= 0 && is_terminal(fd))
                slave = fd;
        } else if (layout[i] != OWN && layout[i] != CLOSED) {
            return -2;
        }
    }
    return passed == answer->fds_count ? slave : -2;
}

static int run_recorded(const struct login *login, const struct answer *answer, const char **note)
{
    struct program program;
    char **fields = answer->fields;
    *note = "the recorder service gives an answer that is none; restart it";
    if (answer->count < 3 || answer->count == 4 || fields[0][0] != '/')
        return TO_PYTHON;
    terminal = -1;
    for (int fd = 2; fd >= 0; fd--)
        if (is_terminal(fd))
            terminal = fd;
    int slave = find_slave(answer, fields[2]);
    if (slave < -1)
        return TO_PYTHON;
    *note = "no memory is left";
    if (!shell_at(fields[0], login, &program))
        return TO_PYTHON;
    if (answer->count > 3) {
        program = (struct program){fields[3], fields + 4,
                                   environment_for(fields[0], true, login->environment)};
        if (!program.environment)
            return TO_PYTHON;
    }
    name_terminal(program.environment, slave);
    set_timeout(SO_SNDTIMEO, 0);
    set_timeout(SO_RCVTIMEO, 0);
    look_around();
    uint64_t before, set = watch(&before);
    int why = 0;
    struct held held;
    *note = "no process or memory is left to start the shell; end a process, or raise the limits"
            " (ulimit -u, -v)";
    long pid = hold(&program, answer, fields[2], slave, before, &held);
    if (pid == 0) {
        // What can't be recorded has no notice. The terminal's own mode turns the line ends
        // into its own.
        if (*fields[1] && is_terminal(0) && is_terminal(1))
            system_call(__NR_write, 1, (long)fields[1], (long)strlen(fields[1]), 0, 0, 0);
        if (terminal < 0 || take()) {
            if (is_interactive(login))
                forget_keys();
            prepare(terminal < 0 ? -1 : slave);
            pid = let_go(&held, &why);
        } else {
            *note = "the user's terminal is gone";
            pid = -EIO;
            system_call(__NR_close, held.go[1], 0, 0, 0, 0, 0);
            end_held(&held);
        }
    }
    for (size_t i = 0; i < answer->fds_count; i++)
        system_call(__NR_close, answer->fds[i], 0, 0, 0, 0, 0);
    if (pid > 0) {
        shell = pid;
        if (*fields[2] == OWN && !is_terminal(0))
            // Who writes there is to see that the shell has closed it.
            leave("0", 1);
        // What ps shows, as of the waiter that the Python client becomes.
        system_call(__NR_prctl, PR_SET_NAME, (long)"ttyscribe-wait", 0, 0, 0, 0);
        return wait_for_shell(set);
    }
    if (pid == 0) {
        say(FAILED_START, why == ENOENT || why == ENOTDIR ? NOT_FOUND : NOT_EXECUTABLE);
        // There is nothing to end if the recorder is gone.
        status = 0;
        while (!is_over())
            ;
    }
    restore();
    system_call(__NR_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, sizeof before, 0, 0);
    return pid == 0 ? tell_not_started(program.path, why) : TO_PYTHON;
}

static int run_bare(const struct login *login, const char *path, const char **note)
{
    struct program program;
    if (!shell_at(path, login, &program)) {
        *note = "no memory is left";
        return TO_PYTHON;
    }
    if (is_interactive(login))
        forget_keys();
    return tell_not_started(path, execute(&program));
}

static const char *outcome_text(bool allowed)
{
    return allowed ? "this session is not recorded: "
                   : "login refused, because the session can't be recorded: ";
}

static int refused(const struct login *login, char **fields, const char **note)
{
    bool allowed = begins(fields[0], "allow", true);
    tell((const char *const[]){OURSELVES, outcome_text(allowed), fields[2], NULL});
    return allowed ? run_bare(login, fields[1], note) : 1;
}

static const char *of_version(const char *theirs)
{
    static char text[128] = "the recorder service speaks version ";
    static const char rest[] = ", we " VERSION "; restart it";
    char *end = text + strlen(text);
    // A number; of anything longer the beginning.
    while (*theirs && end < text + sizeof text - sizeof rest)
        *end++ = *theirs++;
    memcpy(end, rest, sizeof rest);
    return text;
}

// Let the service record this login. The exit status; or TO_PYTHON with a note for it: NULL
// if the service was not asked, "" if it wants us to record, or why it does not.
static int attempt(const struct login *login, const char **note)
{
    struct answer answer;
    *note = NULL;
    if (is_for_python(login) || !is_plain(login->environment) || !put_hello(login) || !has_room()
        || !reach_service())
        return TO_PYTHON;
    int result = TO_PYTHON;
    *note = "the recorder service gives no answer; restart it";
    bool accepted;
    if (!shows_life(&accepted))
        return TO_PYTHON;
    if (accepted)
        say_hello();
    switch (hear(&answer)) {
    case RECORD:
        result = run_recorded(login, &answer, note);
        break;
    case BARE:
        if (answer.fields[0][0] == '/')
            result = run_bare(login, answer.fields[0], note);
        break;
    case FAILED:
        if (answer.count == 3)
            result = refused(login, answer.fields, note);
        break;
    case FULL:
        // Python decides as the admin wants, and tells.
        *note = answer.fields[0];
        break;
    case DIRECT:
        *note = "";
        break;
    case OTHER_VERSION:
        *note = of_version(answer.fields[0]);
        break;
    }
    // It is closed by the exec, before which nobody needs it.
    return result;
}
