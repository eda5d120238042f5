// SPDX-License-Identifier: Apache-2.0
// Waiting for a shell that runs under the recorder service: what service.h and wait.c share.
//
// It does what _Session.wait in recorder/client.py does (what passes on the socket:
// recorder/wire.py). Set recorder, terminal, cooked and shell, then call wait_for_shell().

#include <asm/termbits.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/prctl.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>

#include "system.h"

enum { TERMIOS_SIZE = 60, PACKET_SIZE = 4096 };
enum { WINDOW = 'W', SIGNAL = 'S', STOPPED = 'T', HELD = 'P', RESUMED = 'C' }; // wire.py
enum { BEHIND = 'G', JOB = 'J', KEYS = 'Y', TYPED = 'Q', TO_JOB = 'O', SYNC = 'Z' };
enum { ENDED = 'X', END = 'K', DONE = 'D', MODE = 'M', LEAVE = 'N' };
enum { NOT_YET = -1 };
enum { SIGNALS = 64, OF_LIBC = 32 }; // the first two of real time a C library keeps to itself
enum { ROUNDS = 10 }; // terminal/spawn.py

// What getdents64(2) gives.
struct entry {
    uint64_t inode;
    int64_t next;
    unsigned short size;
    unsigned char type;
    char name[];
};

static int recorder; // the connection
static int terminal; // the user's terminal; -1 if there is none
// Whether the shell's pty controls it: where none controls us the shell gets none either, and
// who means the shell sends us signals.
static bool controlled;
static bool taken;   // whether it is in raw mode
static bool shared;  // which it was before we came, and stays
static bool took_output; // whether its output processing is the pty's meanwhile
static bool known;   // whether what follows is
static _Alignas(struct termios) unsigned char cooked[TERMIOS_SIZE]; // its own, as TCGETS gave it
static struct termios given; // the mode that we gave it
// Whether its keys that send signals are for others too, as in terminal/job.py; which they are
// then is told by the recorder: whether NOFLSH is set, INTR, QUIT and SUSP, as terminal/raw.py
// has it.
static bool shares_keys;
enum { KEYS_SIZE = 4 };
static enum { NO_KEYS, ITS_OWN_KEYS, KEYS_TOLD } keys;
static unsigned char keys_told[KEYS_SIZE];
static long shell;   // its pid
static long session; // and session
static int status = NOT_YET; // of wait4(2)
static int signals = -1;     // signalfd(2) of those that we act on
static int told;             // the signal that told us to end
static bool stopping;        // as the shell did, once the keyboard is not read
static bool woken;           // by a CONT
// As terminal/stops.py, in milliseconds of the monotonic clock.
static long stop_awaited, stop_overtaken;
enum { STOP_PATIENCE = 1000 };

static uint64_t bit(int number)
{
    return UINT64_C(1) << (number - 1);
}

static void set_default(int number)
{
    struct action action = {.handler = (uintptr_t)SIG_DFL};
    system_call(__NR_rt_sigaction, number, (long)&action, 0, sizeof action.mask, 0, 0);
}

static void mask(int how, uint64_t signals)
{
    system_call(__NR_rt_sigprocmask, how, (long)&signals, 0, sizeof signals, 0, 0);
}

// Whether the shell leads a group of its own, so that no signal to ours reaches it.
static bool stands_apart(void)
{
    return system_call(__NR_getpgid, shell, 0, 0, 0, 0, 0)
           != system_call(__NR_getpgid, 0, 0, 0, 0, 0, 0);
}

// Whether somebody sees us stop, and takes the terminal, and wakes us: as terminal/spawn.py.
static bool is_watched(void)
{
    return !controlled
           || system_call(__NR_getsid, system_call(__NR_getppid, 0, 0, 0, 0, 0, 0), 0, 0, 0, 0, 0)
                  == system_call(__NR_getsid, 0, 0, 0, 0, 0, 0);
}

static void send_to_shell(int number)
{
    system_call(__NR_kill, shell, number, 0, 0, 0, 0);
}

// As a terminal would.
static void send_to_group(int number)
{
    system_call(__NR_kill, -shell, number, 0, 0, 0, 0);
}

// One packet: a letter, and a number if it is not negative.
static void say(char kind, long number)
{
    char packet[24];
    char *end = packet + sizeof packet, *start = end;
    if (number >= 0) {
        do
            *--start = (char)('0' + number % 10);
        while (number /= 10);
    }
    *--start = kind;
    // That the recorder is gone is seen when its socket is read.
    system_call(__NR_sendto, recorder, (long)start, end - start, MSG_NOSIGNAL, 0, 0);
}

static void complain(const char *line, size_t length)
{
    system_call(__NR_write, 2, (long)line, (long)length, 0, 0, 0);
    system_call(__NR_write, 2, (long)"\r\n", 2, 0, 0, 0);
}

static void set_ended(int now)
{
    status = now;
    say(ENDED, now);
}

static long milliseconds(void)
{
    struct timespec now = {0};
    system_call(__NR_clock_gettime, CLOCK_MONOTONIC, (long)&now, 0, 0, 0, 0);
    return now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

static void reap(void)
{
    int now;
    if (status != NOT_YET)
        return;
    if (system_call(__NR_wait4, shell, (long)&now, WNOHANG | WUNTRACED, 0, 0, 0) != shell)
        return;
    if (!WIFSTOPPED(now))
        set_ended(now);
    else if (milliseconds() < stop_overtaken) {
        stop_awaited = stop_overtaken = 0;
        send_to_shell(SIGCONT);
    } else if (terminal >= 0 && !controlled && WSTOPSIG(now) != SIGSTOP) {
        // Without us it would have led our session, and the kernel would have left it alone.
        send_to_group(SIGCONT);
    }
    // Else it stays so until it is sent a CONT, or we are, as it would alone.
    else if (terminal >= 0 && is_watched()) {
        stopping = true;
        say(STOPPED, -1);
    }
}

// What /proc/PID/stat tells of a process's job: as Job in terminal/job.py.
struct job {
    long parent, group, session, terminal, foreground, flags;
};

// Of the process pid, or of us for 0; whether there is such a process.
static bool find_job(long pid, struct job *job)
{
    static const char folder[] = "/proc/";
    char path[32], digits[20], text[512];
    size_t n = 0, end = sizeof folder - 1;
    long size, fd, *fields = &job->parent;
    memcpy(path, folder, end);
    if (!pid)
        pid = system_call(__NR_getpid, 0, 0, 0, 0, 0, 0);
    do
        digits[n++] = (char)('0' + pid % 10);
    while (pid /= 10);
    while (n)
        path[end++] = digits[--n];
    memcpy(path + end, "/stat", sizeof "/stat");
    fd = system_call(__NR_openat, AT_FDCWD, (long)path, O_RDONLY | O_CLOEXEC, 0, 0, 0);
    if (fd < 0)
        return false;
    size = system_call(__NR_read, fd, (long)text, sizeof text - 1, 0, 0, 0);
    system_call(__NR_close, fd, 0, 0, 0, 0, 0);
    text[size > 0 ? size : 0] = 0;
    // The name in parentheses may hold anything.
    const char *at = NULL;
    for (const char *each = text; *each; each++)
        if (*each == ')')
            at = each;
    // Behind it a state, and then the numbers, each after a space.
    for (int field = -1; at && field < 6; field++) {
        while (*at && *at != ' ')
            at++;
        if (!*at++)
            return false;
        if (field < 0)
            continue;
        bool negative = *at == '-';
        fields[field] = 0;
        for (at += negative; *at >= '0' && *at <= '9'; at++)
            fields[field] = 10 * fields[field] + (*at - '0');
        if (negative)
            fields[field] = -fields[field];
    }
    return at;
}

// Whether a terminal controls us; true if it can't be told.
static bool has_terminal(void)
{
    struct job job;
    return !find_job(0, &job) || job.terminal;
}

// Whether the keys that stop a job at its terminal stop ours: as terminal/job.py.
static bool is_stoppable(void)
{
    struct job own, job;
    long pid = system_call(__NR_getpid, 0, 0, 0, 0, 0, 0);
    if (!find_job(pid, &own) || own.session == pid)
        return false;
    for (job = own; job.session == own.session; )
        if (job.group != own.group)
            return true;
        else if (!find_job(job.parent, &job))
            return false;
    return false;
}

// Whether the shell's pty is to control it: as terminal/job.py.
static bool gives_control(void)
{
    return has_terminal()
           || system_call(__NR_getsid, 0, 0, 0, 0, 0, 0)
                  != system_call(__NR_getpid, 0, 0, 0, 0, 0, 0);
}

// Whether our job has the terminal now; true if it can't be told: as terminal/job.py.
static bool is_in_foreground(void)
{
    struct job job;
    unsigned int device = 0;
    if (system_call(__NR_ioctl, terminal, TIOCGDEV, (long)&device, 0, 0, 0) != 0
        || !find_job(0, &job) || (!job.terminal && !find_job(job.parent, &job)))
        return true;
    return job.terminal != (int)device || job.foreground == job.group || !job.foreground;
}

// Whether the terminal's keys that send signals are for others too: as terminal/job.py.
static bool find_sharing(void)
{
    struct job job;
    unsigned int device = 0;
    long pid = system_call(__NR_getpid, 0, 0, 0, 0, 0, 0);
    if (system_call(__NR_ioctl, terminal, TIOCGDEV, (long)&device, 0, 0, 0) != 0
        || !find_job(0, &job))
        return false;
    return job.terminal == (job.session == pid ? 0 : (int)device);
}

static bool is_terminal(int fd)
{
    struct termios mode;
    return system_call(__NR_ioctl, fd, TCGETS, (long)&mode, 0, 0, 0) == 0;
}

// The rest is as RawMode in terminal/raw.py.
enum {
    INPUT_MODES = IGNBRK | BRKINT | PARMRK | ISTRIP | INLCR | IGNCR | ICRNL | IXON,
    LOCAL_MODES = ECHO | ECHONL | ICANON | IEXTEN,
};

static struct termios raw_mode(void)
{
    struct termios raw;
    memcpy(&raw, cooked, sizeof raw);
    raw.c_iflag &= ~(tcflag_t)INPUT_MODES;
    // Else another program of a pipeline may write to it, which needs that.
    took_output = is_terminal(0) && is_terminal(1) && is_terminal(2);
    if (took_output)
        raw.c_oflag &= ~(tcflag_t)OPOST;
    raw.c_lflag &= ~(tcflag_t)LOCAL_MODES;
    raw.c_cflag = (raw.c_cflag & ~(tcflag_t)(CSIZE | PARENB)) | CS8;
    raw.c_cc[VMIN] = 1;
    raw.c_cc[VTIME] = 0;
    if (keys != ITS_OWN_KEYS)
        raw.c_lflag &= ~(tcflag_t)(ISIG | NOFLSH);
    if (keys == KEYS_TOLD) {
        raw.c_lflag |= keys_told[0] ? ISIG | NOFLSH : ISIG;
        raw.c_cc[VINTR] = keys_told[1];
        raw.c_cc[VQUIT] = keys_told[2];
        raw.c_cc[VSUSP] = keys_told[3];
    }
    return raw;
}

static bool make_raw(void)
{
    given = raw_mode();
    return system_call(__NR_ioctl, terminal, TCSETS, (long)&given, 0, 0, 0) == 0;
}

// Whether it is, but for the keys that send signals.
static bool is_raw(const struct termios *mode)
{
    return !(mode->c_lflag & (ICANON | ECHO | ISIG))
           || !(mode->c_iflag & INPUT_MODES || mode->c_lflag & LOCAL_MODES);
}

// Whether the terminal has our mode.
static bool is_given(const struct termios *mode)
{
    bool same = given.c_iflag == mode->c_iflag && given.c_oflag == mode->c_oflag
                && given.c_cflag == mode->c_cflag && given.c_lflag == mode->c_lflag;
    for (size_t i = 0; i < sizeof given.c_cc; i++)
        same = same && given.c_cc[i] == mode->c_cc[i];
    return same;
}

static void restore(void)
{
    struct termios mode;
    // The change of mode waits for what is still to be shown.
    if (taken && !shared && is_in_foreground()) {
        system_call(__NR_ioctl, terminal, TCSETSW, (long)cooked, 0, 0, 0);
    } else if (taken && !shared
               && system_call(__NR_ioctl, terminal, TCGETS, (long)&mode, 0, 0, 0) == 0
               && is_given(&mode)) {
        // A key ended or stopped the script that we are a part of, before us. Who sets a mode
        // while another job has the terminal is stopped else.
        uint64_t set = bit(SIGTTOU), before;
        system_call(__NR_rt_sigprocmask, SIG_BLOCK, (long)&set, (long)&before, sizeof set, 0, 0);
        system_call(__NR_ioctl, terminal, TCSETS, (long)cooked, 0, 0, 0);
        mask(SIG_SETMASK, before);
    }
    taken = false;
}

// Take the terminal, or leave it alone while it is another job's; whether it is there.
static bool take(void)
{
    struct termios mode;
    bool there = true;
    took_output = false;
    if (!is_in_foreground()) {
        restore();
    } else if (taken) {
        there = shared || make_raw();
    } else {
        there = system_call(__NR_ioctl, terminal, TCGETS, (long)&mode, 0, 0, 0) == 0;
        bool raw = there && is_raw(&mode);
        // A shell may give back to a job that goes on what that had when it stopped: our mode,
        // or a raw one that the job had set itself.
        if (there && (!known || (!is_given(&mode) && !raw))) {
            // Another session's, which gives it back itself.
            shared = raw;
            memcpy(cooked, &mode, sizeof mode);
            known = true;
        }
        there = taken = there && (shared || make_raw());
    }
    say(taken ? RESUMED : BEHIND, taken ? took_output : -1);
    return there;
}

static void go_on(void)
{
    take();
    say(WINDOW, -1);
}

// Have the terminal send signals for the keys that the recorder names.
static void use_keys(const char *named, size_t size)
{
    keys = size == KEYS_SIZE ? KEYS_TOLD : NO_KEYS;
    if (keys == KEYS_TOLD)
        memcpy(keys_told, named, KEYS_SIZE);
    if (taken && !shared && is_in_foreground())
        make_raw();
}

// Have the terminal's own mode changed when it is given back: as terminal/mode.py.
static void keep(const char *change, size_t size)
{
    uint32_t words[8];
    struct termios mode;
    if (!taken || shared || size < sizeof words)
        return;
    memcpy(words, change, sizeof words);
    memcpy(&mode, cooked, sizeof mode);
    tcflag_t *flags[] = {&mode.c_iflag, &mode.c_oflag, &mode.c_cflag, &mode.c_lflag};
    for (size_t i = 0; i < 4; i++)
        *flags[i] = (*flags[i] & ~words[i]) | (words[i] & words[4 + i]);
    for (size_t i = sizeof words; i + 1 < size; i += 2)
        if ((unsigned char)change[i] < sizeof mode.c_cc)
            mode.c_cc[(unsigned char)change[i]] = (unsigned char)change[i + 1];
    memcpy(cooked, &mode, sizeof mode);
}

// Stop by a signal, blocked or not.
static void stop_by(int number)
{
    uint64_t set = bit(number), before;
    // Sent first: where it is blocked, one that waits already does not stop us once more.
    system_call(__NR_kill, system_call(__NR_getpid, 0, 0, 0, 0, 0, 0), number, 0, 0, 0, 0);
    system_call(__NR_rt_sigprocmask, SIG_UNBLOCK, (long)&set, (long)&before, sizeof set, 0, 0);
    mask(SIG_SETMASK, before);
}

// Whether what the process sent us is meant for all of our job: as _sender in
// terminal/signals.py.
static bool signals_jobs(long sender)
{
    return sender == system_call(__NR_getppid, 0, 0, 0, 0, 0, 0)
           || system_call(__NR_getpgid, sender, 0, 0, 0, 0, 0)
                  == system_call(__NR_getpgid, 0, 0, 0, 0, 0, 0);
}

static bool is_of_key(int number)
{
    return number == SIGINT || number == SIGQUIT || number == SIGTSTP;
}

static bool read_signal(void);

// As a TSTP has us do. What wakes us meanwhile came behind it.
static void stop_unless_woken(void)
{
    static bool looking;
    // One that comes while this is looked at is this one's.
    if (looking)
        return;
    looking = true;
    woken = false;
    while (read_signal())
        ;
    looking = false;
    if (!woken)
        stop_by(SIGTSTP);
}

// sender is the process that it came from, 0 for the kernel: from our terminal, which the shell
// may have left.
static void on_signal(int number, long sender)
{
    bool by_kernel = !sender;
    if (number == SIGCHLD) {
        reap();
    } else if (shares_keys && by_kernel && is_of_key(number) && status == NOT_YET) {
        if (number == SIGTSTP)
            stop_awaited = milliseconds() + STOP_PATIENCE;
        say(TYPED, number);
    } else if (shares_keys && (number == SIGINT || number == SIGQUIT) && status == NOT_YET
               && controlled && signals_jobs(sender)) {
        say(TO_JOB, number);
    } else if (is_of_key(number) && is_ignored(number)) {
        ; // it was meant for us alone, or for nobody any more
    } else if (number == SIGTSTP) {
        stop_unless_woken();
    } else if (terminal >= 0 && number == SIGWINCH) {
        say(WINDOW, -1);
    } else if (terminal >= 0 && number == SIGCONT) {
        stopping = false;
        woken = true;
        stop_overtaken = stop_awaited;
        go_on();
        if (status == NOT_YET)
            send_to_shell(SIGCONT);
    } else if (!controlled || (number != SIGHUP && number != SIGTERM && status == NOT_YET)) {
        // Meant for the shell, as terminal/signals.py has it. The keyboard's own (INT, QUIT)
        // reach it without us.
        bool keyboard = number == SIGINT || number == SIGQUIT;
        if (status == NOT_YET && by_kernel && stands_apart())
            send_to_group(number);
        else if (status == NOT_YET && (!keyboard || stands_apart()))
            send_to_shell(number);
    } else {
        told = number;
        say(SIGNAL, number);
    }
}

// Whether there was one.
static bool read_signal(void)
{
    struct signalfd_siginfo info;
    if (system_call(__NR_read, signals, (long)&info, sizeof info, 0, 0, 0) != sizeof info)
        return false;
    on_signal((int)info.ssi_signo,
              info.ssi_code == SI_KERNEL ? 0 : info.ssi_pid ? (long)info.ssi_pid : -1);
    return true;
}

// Stop as the shell did: whoever started us has the terminal until we go on. By TSTP where that
// can stop us: as terminal/spawn.py.
static void stop(void)
{
    if (status == NOT_YET && stopping) {
        restore();
        // Else nobody waits for us to stop as well; we are woken with our job.
        bool awaited = milliseconds() >= stop_awaited || is_in_foreground();
        int number = !is_ignored(SIGTSTP) && is_stoppable() ? SIGTSTP : SIGSTOP;
        // What wakes us meanwhile has woken the shell. At once, for a stop takes back what does.
        while (read_signal())
            ;
        if (stopping && awaited) {
            stop_by(number);
            go_on();
            send_to_shell(SIGCONT);
        }
        stopping = false;
        stop_awaited = stop_overtaken = 0;
    }
}

static void tell_recorder_gone(void)
{
    static const char line[] = "ttyscribe: the recorder is gone; the session ends";
    complain(line, sizeof line - 1);
}

// A process's number by its name in /proc, 0 for a name that is none.
static long number_of(const char *name)
{
    long number = 0;
    for (; *name >= '0' && *name <= '9'; name++)
        number = 10 * number + (*name - '0');
    return *name ? 0 : number;
}

// Kill the processes of the shell's session but its leader; whether there were any.
static bool kill_others(void)
{
    static _Alignas(struct entry) char entries[PACKET_SIZE];
    bool found = false;
    long size, folder = system_call(__NR_openat, AT_FDCWD, (long)"/proc",
                                    O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0, 0, 0);
    if (folder < 0)
        return false;
    while ((size = system_call(__NR_getdents64, folder, (long)entries, sizeof entries, 0, 0, 0)) > 0)
        for (long at = 0; at < size; at += ((struct entry *)(entries + at))->size) {
            long pid = number_of(((struct entry *)(entries + at))->name);
            if (pid && pid != session && system_call(__NR_getsid, pid, 0, 0, 0, 0, 0) == session
                && system_call(__NR_kill, pid, SIGKILL, 0, 0, 0, 0) == 0)
                found = true;
        }
    system_call(__NR_close, folder, 0, 0, 0, 0, 0);
    return found;
}

// The shell's jobs are groups of their own.
static void kill_session(void)
{
    // Its own, or ours where there is nobody else in that.
    if (session == shell || session == system_call(__NR_getpid, 0, 0, 0, 0, 0, 0))
        for (int i = 0; i < ROUNDS && kill_others(); i++)
            ;
}

// Nothing may go on unrecorded: end the shell and its session, if the terminal's hang-up has
// not; what wait4(2) tells of the shell. It is waited for in the end, so that its number is no
// other's meanwhile.
static int end_shell(void)
{
    int now = 0;
    bool apart = stands_apart();
    (apart ? send_to_group : send_to_shell)(SIGHUP);
    (apart ? send_to_group : send_to_shell)(SIGCONT);
    for (int i = 0; i < 100; i++) {
        struct timespec moment = {.tv_nsec = 10 * 1000 * 1000};
        siginfo_t info = {0};
        system_call(__NR_waitid, P_PID, shell, (long)&info, WEXITED | WNOHANG | WNOWAIT, 0, 0);
        if (info.si_pid)
            break;
        system_call(__NR_nanosleep, (long)&moment, 0, 0, 0, 0, 0);
    }
    if (apart)
        kill_session();
    send_to_shell(SIGKILL);
    while (system_call(__NR_wait4, shell, (long)&now, 0, 0, 0, 0) == -EINTR)
        ;
    return now;
}

// Whether the pty went by its recorder's doing, and the shell with it: that is seen first.
static bool is_hung_up(void)
{
    return !told && WIFSIGNALED(status) && WTERMSIG(status) == SIGHUP;
}

// Close all descriptors from first on but one.
static void close_all_but(int first, int kept)
{
    enum { FEW = 1024 };
    if (kept > first)
        system_call(__NR_close_range, first, kept - 1, 0, 0, 0, 0);
    if (system_call(__NR_close_range, kept + 1, UINT32_MAX, 0, 0, 0, 0) == 0)
        return;
    // Before Linux 5.9. More than these nobody opens before a login.
    for (int fd = first; fd < FEW; fd++)
        if (fd != kept)
            system_call(__NR_close, fd, 0, 0, 0, 0, 0);
}

// Have /dev/null in the place of these standard descriptors.
static void leave(const char *numbers, size_t count)
{
    long nothing = system_call(__NR_openat, AT_FDCWD, (long)"/dev/null", O_RDWR | O_CLOEXEC, 0, 0, 0);
    // Else it is held open by us, and its end is seen later.
    if (nothing < 0)
        return;
    for (size_t i = 0; i < count; i++)
        if (numbers[i] >= '0' && numbers[i] <= '2')
            system_call(__NR_dup3, nothing, numbers[i] - '0', 0, 0, 0, 0);
    system_call(__NR_close, nothing, 0, 0, 0, 0, 0);
}

// Read a packet of the recorder's; whether the session is over.
static bool is_over(void)
{
    static char packet[PACKET_SIZE];
    long size = system_call(__NR_recvfrom, recorder, (long)packet, sizeof packet, 0, 0, 0);
    if (size == -EINTR || size == -EAGAIN)
        return false;
    if (size > 0 && packet[0] == DONE) {
        if (size > 1) {
            complain(packet + 1, (size_t)size - 1);
            // The shell saw its output taken, which then was lost.
            if (status == 0)
                status = 1 << 8;
        }
        return true;
    }
    if (size > 0 && packet[0] == MODE)
        keep(packet + 1, (size_t)size - 1);
    if (size > 0 && packet[0] == LEAVE)
        leave(packet + 1, (size_t)size - 1);
    if (size > 0 && packet[0] == HELD)
        stop();
    if (size > 0 && packet[0] == KEYS && status == NOT_YET)
        use_keys(packet + 1, (size_t)size - 1);
    if (size > 0 && packet[0] == SYNC) {
        while (read_signal())
            ;
        say(SYNC, -1);
    }
    if (size > 0 && packet[0] == END) {
        if (status == NOT_YET)
            set_ended(end_shell());
        else if (is_hung_up())
            kill_session();
    }
    if (size > 0)
        return false;
    if (status == NOT_YET) {
        tell_recorder_gone();
        end_shell();
    } else if (is_hung_up()) {
        tell_recorder_gone();
        kill_session();
        status = NOT_YET;
    }
    return true;
}

static void wait_for_end(void)
{
    struct pollfd ready[] = {{.fd = signals, .events = POLLIN}, {.fd = recorder, .events = POLLIN}};
    for (;;) {
        struct timespec moment = {.tv_sec = 1};
        // Nobody tells us of a key that stops or ends whoever started us, and not the shell.
        bool looks = terminal >= 0 && (shares_keys || !taken) && status == NOT_YET;
        if (looks && is_in_foreground() != taken)
            go_on();
        if (system_call(__NR_ppoll, (long)ready, 2, looks ? (long)&moment : 0, 0, 0, 0) <= 0)
            continue;
        if (ready[0].revents)
            read_signal();
        if (ready[1].revents && is_over())
            return;
    }
}

// Whether it concerns the shell that we stand for: all that by default end a process do, but
// for those that tell of a fault of its own. As terminal/signals.py, and PIPE.
static bool is_for_shell(int number)
{
    switch (number) {
    case SIGKILL: case SIGSTOP: case SIGTSTP: case SIGTTIN: case SIGTTOU: case SIGURG:
    case SIGABRT: case SIGBUS: case SIGFPE: case SIGILL: case SIGSEGV: case SIGSYS:
    case SIGTRAP: case SIGXFSZ: case SIGCHLD:
        return false;
    default:
        return number != OF_LIBC && number != OF_LIBC + 1;
    }
}

// Those of them that our starter does not have us ignore.
static uint64_t for_shell(void)
{
    uint64_t set = 0;
    for (int number = 1; number <= SIGNALS; number++)
        if (is_for_shell(number) && !is_ignored(number))
            set |= bit(number);
    return set;
}

// Find out how we stand to the terminal, once it is known.
static void look_around(void)
{
    controlled = terminal >= 0 && gives_control();
    shares_keys = terminal >= 0 && find_sharing();
    keys = shares_keys ? ITS_OWN_KEYS : NO_KEYS;
}

// The signals that we act on, which are blocked from now on, to be read by wait_for_shell().
// For after a fork, *before is what was blocked.
static uint64_t watch(uint64_t *before)
{
    uint64_t set = bit(SIGCHLD) | for_shell();
    // Blocked, they come even where our starter has us ignore them, as our job's programs do
    // that do not handle them.
    if (shares_keys && controlled)
        set |= bit(SIGINT) | bit(SIGQUIT) | bit(SIGTSTP);
    system_call(__NR_rt_sigprocmask, SIG_BLOCK, (long)&set, (long)before, sizeof set, 0, 0);
    set_default(SIGCHLD);
    return set;
}

// End as the shell did, by the same signal, or by the one that told us to.
static int outcome(uint64_t set)
{
    int number = told;
    if (!number && status == NOT_YET)
        return 1;
    if (!number && WIFSIGNALED(status))
        number = WTERMSIG(status);
    if (!number)
        return WEXITSTATUS(status);
    struct rlimit none = {0, 0};
    system_call(__NR_prlimit64, 0, RLIMIT_CORE, (long)&none, 0, 0, 0);
    set_default(number);
    mask(SIG_UNBLOCK, set | bit(number));
    system_call(__NR_kill, system_call(__NR_getpid, 0, 0, 0, 0, 0, 0), number, 0, 0, 0, 0);
    return 128 + number;
}

// Wait for the shell and for its recorder to be done, and end as the shell did: set is
// what watch() gave.
static int wait_for_shell(uint64_t set)
{
    // What was open when we were started is the shell's: who waits for its end waits for that.
    close_all_but(3, recorder);
    session = system_call(__NR_getsid, shell, 0, 0, 0, 0, 0);
    signals = (int)system_call(__NR_signalfd4, -1, (long)&set, sizeof set,
                                   SFD_CLOEXEC | SFD_NONBLOCK, 0, 0);
    if (signals >= 0) {
        // What changed before the signals were blocked told nobody.
        if (terminal >= 0)
            say(WINDOW, -1);
        reap();
        wait_for_end();
    } else {
        tell_recorder_gone();
        end_shell();
    }
    restore();
    return outcome(set);
}
