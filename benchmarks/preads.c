/* The floor under a tick: reads the files named on the command line to their ends, as often as the
 * first argument says, through descriptors that it keeps open. Prints its CPU time of one round in
 * nanoseconds. */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

enum { FILES = 4096, WARM = 20 };

static double cpu_ns(void) {
    struct timespec now;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &now);
    return 1e9 * (double)now.tv_sec + (double)now.tv_nsec;
}

int main(int argc, char **argv) {
    static char buffer[1 << 16];
    int fds[FILES], files = argc - 2;
    if (files < 1 || files > FILES) {
        fprintf(stderr, "usage: preads ROUNDS FILE…\n");
        return 2;
    }
    for (int i = 0; i < files; i++)
        if ((fds[i] = open(argv[i + 2], O_RDONLY)) < 0) {
            perror(argv[i + 2]);
            return 1;
        }

    int rounds = atoi(argv[1]);
    double start = 0;
    for (int round = -WARM; round < rounds; round++) {
        if (round == 0)
            start = cpu_ns();
        for (int i = 0; i < files; i++) {
            off_t at = 0;
            ssize_t got;
            while ((got = pread(fds[i], buffer, sizeof buffer, at)) > 0)
                at += got;
            if (got < 0) {
                perror(argv[i + 2]);
                return 1;
            }
        }
    }
    printf("%.1f\n", (cpu_ns() - start) / rounds);
    return 0;
}
