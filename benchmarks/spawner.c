/* The physical floor: spawn N programs, end them, reap them. Nothing else.
 *
 *     spawner N PROGRAM [ARGUMENT...]
 *
 * Prints two numbers, in seconds: from the first spawn until all N have executed their program, and from the first
 * signal until the last of them is reaped. posix_spawn (vfork underneath) returns when the program was executed.
 */
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec + t.tv_nsec / 1e9;
}

int main(int argc, char **argv) {
    int n = argc > 2 ? atoi(argv[1]) : 0, status = n > 0 ? 0 : 2, born = 0;
    pid_t *pids = calloc(n > 0 ? n : 1, sizeof *pids);
    char *empty[] = {NULL};
    double began = now(), up, down;
    if (pids == NULL)
        return 1;
    while (status == 0 && born < n)
        if (posix_spawn(&pids[born], argv[2], NULL, NULL, argv + 2, empty) == 0)
            born++;
        else
            status = 1;
    up = now();
    for (int i = 0; i < born; i++)
        kill(pids[i], SIGTERM);
    for (int i = 0; i < born; i++)
        waitpid(pids[i], NULL, 0);
    down = now();
    if (status == 0)
        printf("%.6f %.6f\n", up - began, down - up);
    return status;
}
