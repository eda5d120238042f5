// SPDX-License-Identifier: Apache-2.0
// ttyscribe-confine: execute a program that is kept from becoming another one.
//
//   ttyscribe-confine [PATH...] -- PROGRAM ARGV0 [ARG...]
//     PATH     a file, or a folder with all that is below it, that may be executed, as may
//              nothing else: by the program, and by whatever it starts; without any, all may
//     PROGRAM  what to execute, with the arguments ARGV0 ARG...; it writes to no file in /proc
//   ttyscribe-confine
//     exit status 0 if the kernel can do it, else 1
//
// The kernel keeps to it (Landlock, Linux 5.19 or later), whatever becomes of the files that
// a program finds its commands in, after anyone has looked at them.

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <linux/prctl.h>

#include "system.h"

enum { USAGE = 2, NOT_EXECUTABLE = 126 };
// The first that lets files be moved between folders; without that it forbids it, and git does.
enum { ABI_NEEDED = 2 };

static int fail(const char *line, int status)
{
    system_call(__NR_write, 2, (long)line, (long)strlen(line), 0, 0, 0);
    return status;
}

static bool can_confine(void)
{
    return system_call(__NR_landlock_create_ruleset, 0, 0, LANDLOCK_CREATE_RULESET_VERSION, 0, 0, 0)
           >= ABI_NEEDED;
}

// Let access be had at path and below it. What is not there needs no leave.
static bool allow(long rules, const char *path, uint64_t access, int flags)
{
    long fd = system_call(__NR_openat, AT_FDCWD, (long)path, O_PATH | O_CLOEXEC | flags, 0, 0, 0);
    if (fd < 0)
        return fd == -ENOENT;
    struct landlock_path_beneath_attr rule = {.allowed_access = access, .parent_fd = (int)fd};
    long result = system_call(__NR_landlock_add_rule, rules, LANDLOCK_RULE_PATH_BENEATH,
                              (long)&rule, 0, 0, 0);
    system_call(__NR_close, fd, 0, 0, 0, 0, 0);
    return result == 0;
}

static bool is(const char *text, const char *other)
{
    while (*text && *text == *other)
        text++, other++;
    return *text == *other;
}

// Let files be written everywhere but in /proc, where a program's memory is one: by writing to
// its own, or to another's, it becomes any program. What is made in "/" itself later, which
// only root does, is left out.
static bool allow_writing(long rules)
{
    enum { LENGTH_AT = 16, TYPE_AT = 18 }; // of struct linux_dirent64, getdents64(2)
    static _Alignas(8) char entries[32768];
    long folder = system_call(__NR_openat, AT_FDCWD, (long)"/", O_RDONLY | O_DIRECTORY | O_CLOEXEC,
                              0, 0, 0);
    long length = folder;
    while (length >= 0) {
        length = system_call(__NR_getdents64, folder, (long)entries, sizeof entries, 0, 0, 0);
        if (length <= 0)
            break;
        for (long at = 0; at < length;) {
            uint16_t size;
            memcpy(&size, entries + at + LENGTH_AT, sizeof size);
            char *path = entries + at + TYPE_AT;
            at += size;
            *path = '/';
            // A link leads to a folder that is there by itself.
            if (!is(path, "/proc") && !is(path, "/.") && !is(path, "/..")
                && !allow(rules, path, LANDLOCK_ACCESS_FS_WRITE_FILE, O_NOFOLLOW))
                return false;
        }
    }
    return length == 0;
}

static bool confine(char **paths, int count)
{
    struct landlock_ruleset_attr handled = {.handled_access_fs = LANDLOCK_ACCESS_FS_REFER};
    // Root makes new folders in "/", and can do without all this.
    bool is_root = system_call(__NR_geteuid, 0, 0, 0, 0, 0, 0) == 0;
    if (!is_root)
        handled.handled_access_fs |= LANDLOCK_ACCESS_FS_WRITE_FILE;
    if (count)
        handled.handled_access_fs |= LANDLOCK_ACCESS_FS_EXECUTE;
    long rules = system_call(__NR_landlock_create_ruleset, (long)&handled, sizeof handled, 0, 0, 0,
                             0);
    if (rules < 0 || !allow(rules, "/", LANDLOCK_ACCESS_FS_REFER, 0)
        || (!is_root && !allow_writing(rules)))
        return false;
    for (int i = 0; i < count; i++)
        if (!allow(rules, paths[i], LANDLOCK_ACCESS_FS_EXECUTE, 0))
            return false;
    // The kernel asks for the first, lest a set-uid program be led astray.
    return system_call(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0) == 0
           && system_call(__NR_landlock_restrict_self, rules, 0, 0, 0, 0, 0) == 0;
}

int main(int argc, char **argv, char **environment)
{
    int end = 1;
    if (argc <= 1)
        return can_confine() ? 0 : 1;
    while (end < argc && !(argv[end][0] == '-' && argv[end][1] == '-' && !argv[end][2]))
        end++;
    if (end + 2 >= argc)
        return fail("ttyscribe-confine: is started by ttyscribe-rec-session only\n", USAGE);
    if (!can_confine() || !confine(argv + 1, end - 1))
        return fail("ttyscribe-confine: the kernel does not confine programs (Landlock)\n",
                    NOT_EXECUTABLE);
    system_call(__NR_execve, (long)argv[end + 1], (long)(argv + end + 2), (long)environment, 0, 0, 0);
    return fail("ttyscribe-confine: the program may not run\n", NOT_EXECUTABLE);
}
