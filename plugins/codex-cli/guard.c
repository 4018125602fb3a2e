/*
 * Theory of operation. An agent starts commands, some in sessions of their own, and the plugin's process may be killed
 * at any moment: neither a process group nor a clean-up in the plugin ends them all. So each run of the agent gets a
 * guard, forked from the plugin without exec. The guard is a subreaper: whoever loses its parent below it becomes its
 * child, so that "kill my children until there are none" ends every descendant, whatever group or session it is in.
 *
 *   - The end of `control` (the plugin closed it, or is gone, however it went) ends the run: SIGTERM, grace, SIGKILL.
 *   - The agent's own end is reported at once; what it left behind is then ended the same way.
 *   - If the guard itself is killed, the kernel kills the agent (PDEATHSIG; the guard has one thread, so Go's threads
 *     that come and go do not matter).
 *
 * The guard is the image of a process with many threads of which only this one is left: nothing here allocates, takes
 * a lock or runs Go. It keeps no descriptor but its own two, or pipes would never end.
 */
#define _GNU_SOURCE
#include "guard.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/signalfd.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum { CONTROL = 3, STATUS = 4, IN = 5, OUT = 6, ERR = 7, FIRST_FREE = 8 };
enum { HIGH_FD = 64, TICK_MS = 50, SIGNALS = 65 };

static void report(int kind, int value)
{
    struct guard_report said = {kind, value};
    ssize_t ignored = write(STATUS, &said, sizeof said); /* fits into any pipe; nobody left to tell otherwise */
    (void)ignored;
}

static void close_from(unsigned first)
{
#ifdef SYS_close_range
    if (syscall(SYS_close_range, first, ~0u, 0) == 0)
        return;
#endif
    for (int fd = (int)first; fd < 65536; fd++)
        close(fd);
}

/* Puts the five descriptors to their places and closes all others. */
static bool arrange(const struct guard_spec *spec)
{
    const int from[] = {spec->control, spec->status, spec->in, spec->out, spec->err};
    int high[5];
    for (int i = 0; i < 5; i++)
        if ((high[i] = fcntl(from[i], F_DUPFD, HIGH_FD)) < 0)
            return false;
    for (int i = 0; i < 5; i++)
        if (dup2(high[i], CONTROL + i) < 0 || fcntl(CONTROL + i, F_SETFD, FD_CLOEXEC) < 0)
            return false;
    close_from(FIRST_FREE);
    int null = open("/dev/null", O_RDWR);
    if (null < 0)
        return false;
    for (int fd = 0; fd < 3; fd++)
        dup2(null, fd);
    if (null > 2)
        close(null);
    return true;
}

static void run_program(const struct guard_spec *spec, pid_t guard)
{
    sigset_t none;
    sigemptyset(&none);
    setsid();
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != guard)
        _exit(127);
    if (dup2(IN, 0) < 0 || dup2(OUT, 1) < 0 || dup2(ERR, 2) < 0 || chdir(spec->dir) != 0) {
        report(GUARD_FAILED, errno);
        _exit(127);
    }
    sigprocmask(SIG_SETMASK, &none, NULL);
    execve(spec->path, spec->argv, spec->envp);
    report(GUARD_FAILED, errno);
    _exit(127);
}

/* The parent of a process as /proc/PID/stat says: the second field behind the last parenthesis. */
static pid_t parent_of(const char *pid)
{
    char path[64] = "/proc/", text[512];
    size_t length = strlen(pid);
    if (length > 20)
        return 0;
    memcpy(path + 6, pid, length);
    memcpy(path + 6 + length, "/stat", 6);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return 0;
    ssize_t got = read(fd, text, sizeof text - 1);
    close(fd);
    if (got <= 0)
        return 0;
    text[got] = 0;
    const char *at = strrchr(text, ')');
    if (at == NULL || strlen(at) < 5)
        return 0;
    pid_t parent = 0;
    for (at += 4; *at >= '0' && *at <= '9'; at++)
        parent = parent * 10 + (*at - '0');
    return parent;
}

struct entry { /* of a directory, as getdents64 gives it */
    unsigned long long inode;
    long long offset;
    unsigned short length;
    unsigned char type;
    char name[];
};

/* Sends a signal to every child of this process. */
static void signal_children(int number)
{
    static char buffer[8192] __attribute__((aligned(8)));
    pid_t self = getpid();
    int fd = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0)
        return;
    for (long got; (got = syscall(SYS_getdents64, fd, buffer, sizeof buffer)) > 0;)
        for (long at = 0; at < got;) {
            struct entry *found = (struct entry *)(buffer + at);
            at += found->length;
            if (found->name[0] < '1' || found->name[0] > '9' || parent_of(found->name) != self)
                continue;
            pid_t pid = 0;
            for (const char *digit = found->name; *digit >= '0' && *digit <= '9'; digit++)
                pid = pid * 10 + (*digit - '0');
            kill(pid, number);
        }
    close(fd);
}

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

/* Waits for the end of everything and returns when this process has no child any more. */
static void watch(pid_t program, int children, int grace_ms)
{
    bool ending = false, running = true;
    long long deadline = 0;
    for (;;) {
        int status;
        pid_t ended;
        while ((ended = waitpid(-1, &status, WNOHANG)) > 0)
            if (ended == program) {
                running = false;
                report(GUARD_EXITED, status);
                if (!ending) { /* what it leaves behind is ended, too */
                    ending = true;
                    deadline = now_ms() + grace_ms;
                }
            }
        if (ended < 0 && errno == ECHILD)
            return;
        if (ending) {
            bool late = now_ms() >= deadline;
            if (running)
                kill(-program, late ? SIGKILL : SIGTERM);
            signal_children(late ? SIGKILL : SIGTERM);
        }
        struct pollfd polled[] = {{.fd = children, .events = POLLIN}, {.fd = CONTROL, .events = POLLIN}};
        if (poll(polled, ending ? 1 : 2, ending ? TICK_MS : -1) < 0)
            continue;
        struct signalfd_siginfo drained;
        if (polled[0].revents)
            while (read(children, &drained, sizeof drained) > 0)
                ;
        if (!ending && polled[1].revents) {
            ending = true;
            deadline = now_ms() + grace_ms;
        }
    }
}

static void guard_main(const struct guard_spec *spec)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    for (int number = 1; number < SIGNALS; number++)
        sigaction(number, &standard, NULL); /* the Go runtime's handlers would find no runtime */
    setsid();
    prctl(PR_SET_CHILD_SUBREAPER, 1);
    prctl(PR_SET_NAME, "codex-guard");
    if (!arrange(spec))
        _exit(126);
    sigset_t child;
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD); /* all signals are blocked since before the fork: only SIGKILL ends a guard */
    int children = signalfd(-1, &child, SFD_NONBLOCK | SFD_CLOEXEC);
    pid_t self = getpid(), program = fork();
    if (program == 0)
        run_program(spec, self);
    close(IN);
    close(OUT);
    close(ERR);
    if (program < 0 || children < 0)
        report(GUARD_FAILED, errno);
    if (program > 0)
        watch(program, children, spec->grace_ms);
    _exit(0);
}

pid_t guard_start(const struct guard_spec *spec)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pid_t guard = fork();
    if (guard == 0)
        guard_main(spec);
    int error = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    return guard < 0 ? -error : guard;
}
