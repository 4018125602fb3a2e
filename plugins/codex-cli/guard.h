/*
 * The guard: a process of its own between the plugin and the command-line agent, of which nothing outlives it.
 * See guard.c for how.
 */
#ifndef CODEX_GUARD_H
#define CODEX_GUARD_H

#include <sys/types.h>

struct guard_spec {
    const char *path; /* of the program, absolute */
    char **argv;      /* NULL-terminated */
    char **envp;      /* NULL-terminated: all that the program sees */
    const char *dir;  /* its working directory */
    int in, out, err; /* its standard streams */
    int control;      /* read by the guard: a byte or the end of file ends everything */
    int status;       /* written by the guard: one struct guard_report */
    int grace_ms;     /* between SIGTERM and SIGKILL */
};

struct guard_report {
    int kind;  /* GUARD_EXITED, GUARD_FAILED */
    int value; /* a wait status, an errno */
};
enum { GUARD_EXITED = 1, GUARD_FAILED = 2 };

/* Starts guard and program. Returns the guard's process id, which the caller waits for, or -errno. */
pid_t guard_start(const struct guard_spec *spec);

#endif
