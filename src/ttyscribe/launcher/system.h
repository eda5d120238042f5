// SPDX-License-Identifier: Apache-2.0
// The entry point and the system calls of the launcher and the waiter, without a C library.
//
// Why: on a virtual machine the start of a static glibc alone takes as long as
// starting a whole small program (measured: 0.8 ms, in CPUID instructions that
// trap), at every login; and in every session that waits it is most of the memory.
// Other processors use the C library: see packaging/compile-launcher.
//
// system_call() returns what the kernel does: a result, or -errno.

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#ifdef WITH_LIBC

#include <errno.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

static long system_call(long number, long a, long b, long c, long d, long e, long f)
{
    long result = syscall(number, a, b, c, d, e, f);
    return result == -1 ? -errno : result;
}

#else

#include <asm/unistd.h>
#include <stddef.h>

#if defined __x86_64__

__asm__(".globl _start\n"
        "_start:\n"
        "    xor %ebp, %ebp\n"
        "    mov %rsp, %rdi\n" // argc, argv..., NULL, environment..., NULL
        "    and $-16, %rsp\n"
        "    call begin\n");

static long system_call(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    return result;
}

#elif defined __aarch64__

__asm__(".globl _start\n"
        "_start:\n"
        "    mov x29, #0\n"
        "    mov x30, #0\n"
        "    mov x0, sp\n"
        "    bl begin\n");

static long system_call(long number, long a, long b, long c, long d, long e, long f)
{
    register long x8 __asm__("x8") = number;
    register long x0 __asm__("x0") = a;
    register long x1 __asm__("x1") = b;
    register long x2 __asm__("x2") = c;
    register long x3 __asm__("x3") = d;
    register long x4 __asm__("x4") = e;
    register long x5 __asm__("x5") = f;
    __asm__ volatile("svc 0"
                     : "+r"(x0)
                     : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4), "r"(x5)
                     : "memory");
    return x0;
}

#else
#error "no entry point for this processor: compile with -DWITH_LIBC"
#endif

// The compiler may call these three by itself.
void *memset(void *block, int byte, size_t size)
{
    char *target = block;
    while (size--)
        *target++ = (char)byte;
    return block;
}

void *memcpy(void *restrict to, const void *restrict from, size_t size)
{
    char *target = to;
    const char *source = from;
    while (size--)
        *target++ = *source++;
    return to;
}

size_t strlen(const char *text)
{
    const char *end = text;
    while (*end)
        end++;
    return (size_t)(end - text);
}

int main(int argc, char **argv, char **environment);

__attribute__((noreturn, used)) void begin(long *stack)
{
    int argc = (int)stack[0];
    char **argv = (char **)(stack + 1);
    int status = main(argc, argv, argv + argc + 1);
    for (;;)
        system_call(__NR_exit_group, status, 0, 0, 0, 0, 0);
}

#endif // WITH_LIBC

// What rt_sigaction(2) takes: a libc's own struct is another one.
struct action {
    uintptr_t handler;
    unsigned long flags;
    uintptr_t restorer;
    uint64_t mask;
};

static inline bool is_ignored(int number)
{
    struct action action = {0};
    system_call(__NR_rt_sigaction, number, 0, (long)&action, sizeof action.mask, 0, 0);
    return action.handler == (uintptr_t)SIG_IGN;
}
