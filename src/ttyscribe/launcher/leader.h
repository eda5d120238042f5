// SPDX-License-Identifier: Apache-2.0
// The leader of a session in which the shell is a job: what terminal/leader.py is, and says why.

// A process of its own, as fork(2); -errno if that can't be.
static long new_process(void)
{
#ifdef WITH_LIBC
    long pid = fork();
    return pid < 0 ? -errno : pid;
#else
    return system_call(__NR_clone, SIGCHLD, 0, 0, 0, 0, 0);
#endif
}

// Whether the process pid has executed no program yet; false if it can't be told: as
// terminal/job.py.
static bool is_forked(long pid)
{
    enum { FORKED = 0x40 };
    struct job job;
    return find_job(pid, &job) && job.flags & FORKED;
}

// A group of this session for another process; it is there until it is waited for. 0 or less
// if that can't be.
static long new_group(void)
{
    long named = new_process();
    if (named == 0)
        for (;;)
            system_call(__NR_exit_group, 0, 0, 0, 0, 0, 0);
    if (named > 0)
        system_call(__NR_setpgid, named, named, 0, 0, 0, 0);
    return named;
}

static void end_named(long named)
{
    while (named > 0 && system_call(__NR_wait4, named, 0, 0, 0, 0, 0) == -EINTR)
        ;
}

static void send_to_job(int number)
{
    long group = system_call(__NR_getpgid, shell, 0, 0, 0, 0, 0);
    if (group > 0)
        system_call(__NR_kill, -group, number, 0, 0, 0, 0);
}

static void lead(int slave, long group, uint64_t awaited)
{
    int now;
    unsigned int foreground = 0;
    // Its starter waits for the end of what is ours, and whoever reads for the shell's.
    close_all_but(0, slave);
    // What ps shows.
    system_call(__NR_prctl, PR_SET_NAME, (long)"ttyscribe-lead", 0, 0, 0, 0);
    for (;;) {
        long ended = system_call(__NR_wait4, shell, (long)&now, WNOHANG | WUNTRACED, 0, 0, 0);
        if (ended == shell && !WIFSTOPPED(now))
            break;
        // Our starter waits for it to become the shell, and would not see us stopped.
        if (ended == shell && is_forked(shell))
            send_to_job(SIGCONT);
        else if (ended == shell)
            system_call(__NR_kill, system_call(__NR_getpid, 0, 0, 0, 0, 0, 0), SIGSTOP, 0, 0, 0,
                        0);
        long number = system_call(__NR_rt_sigtimedwait, (long)&awaited, 0, 0, sizeof awaited, 0,
                                  0);
        if (number == SIGHUP || number == SIGCONT) {
            send_to_job((int)number);
            send_to_job(SIGCONT);
        } else if (number > 0 && number != SIGCHLD) {
            send_to_shell((int)number);
        }
    }
    // What it leaves in the background goes on, as it does where no session ends with it.
    if (system_call(__NR_ioctl, slave, TIOCGPGRP, (long)&foreground, 0, 0, 0) == 0
        && ((long)foreground == shell || (long)foreground == group)) {
        int own = (int)system_call(__NR_getpid, 0, 0, 0, 0, 0, 0);
        system_call(__NR_ioctl, slave, TIOCSPGRP, (long)&own, 0, 0, 0);
    }
    status = now;
    for (;;)
        system_call(__NR_exit_group, outcome(0), 0, 0, 0, 0, 0);
}

// Go on in a process that is the foreground job of this session, which the terminal slave
// controls. This process leads it from then on. Where no more are allowed, it goes on in this one.
static void become_job(int slave)
{
    uint64_t awaited = bit(SIGCHLD) | for_shell();
    uint64_t blocked = awaited | bit(SIGTTOU), before;
    system_call(__NR_rt_sigprocmask, SIG_BLOCK, (long)&blocked, (long)&before, sizeof before, 0,
                0);
    long group = new_group();
    long pid = group > 0 ? new_process() : -1;
    if (pid > 0) {
        shell = pid;
        // It sees to it itself as well, for neither of the two waits.
        system_call(__NR_setpgid, pid, group, 0, 0, 0, 0);
        // Not waited for: a shell gives the pty back to the group that it came from.
        lead(slave, group, awaited);
    }
    if (pid == 0) {
        int own = (int)group;
        // Without its leader it would go on where nobody can reach it.
        system_call(__NR_prctl, PR_SET_PDEATHSIG, SIGHUP, 0, 0, 0, 0);
        system_call(__NR_setpgid, 0, group, 0, 0, 0, 0);
        system_call(__NR_ioctl, slave, TIOCSPGRP, (long)&own, 0, 0, 0);
    } else {
        end_named(group);
    }
    say(JOB, pid == 0 ? group : 0);
    system_call(__NR_rt_sigprocmask, SIG_SETMASK, (long)&before, 0, sizeof before, 0, 0);
}
