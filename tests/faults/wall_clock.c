/* A wall clock that a test sets: preloaded into a process, it shifts what the process takes for
 * the time of day and whether the kernel calls it synchronised. The steady clock stays as it is.
 *
 * $SCENT_TEST_CLOCK names a file of two native 64-bit integers: seconds to add, and synchronised.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/time.h>
#include <sys/timex.h>
#include <time.h>

static const volatile int64_t *setting;

__attribute__((constructor)) static void open_setting(void) {
    int file = open(getenv("SCENT_TEST_CLOCK"), O_RDONLY);
    setting = mmap(NULL, 2 * sizeof(int64_t), PROT_READ, MAP_SHARED, file, 0);
}

int clock_gettime(clockid_t clock, struct timespec *moment) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = dlsym(RTLD_NEXT, "clock_gettime");
    int failed = real(clock, moment);
    if (!failed && clock == CLOCK_REALTIME && setting) moment->tv_sec += setting[0];
    return failed;
}

int gettimeofday(struct timeval *restrict moment, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    moment->tv_sec = now.tv_sec;
    moment->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *moment) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (moment) *moment = now.tv_sec;
    return now.tv_sec;
}

int adjtimex(struct timex *state) {
    (void)state;
    return setting && setting[1] ? TIME_OK : TIME_ERROR;
}
