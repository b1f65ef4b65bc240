/* A machine at its worst, for the programs it is preloaded into (LD_PRELOAD): a disk that is slow or full, a clock that
   jumps, and the end of the program right before it changes something on the disk. The file KASSA_FAULTS says what is to happen and counts what did; whoever tests writes and reads it while
   the program runs. Only files are refused: pipes and sockets have no disk. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

/* tests/it/chaos/machine.rs has the same order. */
struct faults {
    _Atomic int64_t clock_ms; /* is added to the time of day */
    _Atomic int64_t sync_ms;  /* how long each fsync takes longer */
    _Atomic int64_t full;     /* whether files find no room */
    _Atomic int64_t syncs;    /* were made to wait so far */
    _Atomic int64_t writes;   /* found no room so far */
    _Atomic int64_t dies_at;  /* which change of the disk is not made any more, from 1 */
    _Atomic int64_t changes;  /* of the disk so far */
};

static struct faults none;
static struct faults *faults = &none;

__attribute__((constructor)) static void begin(void) {
    const char *name = getenv("KASSA_FAULTS");
    int file = name ? open(name, O_RDWR | O_CLOEXEC) : -1;
    if (file < 0) return;
    void *mapped = mmap(0, sizeof *faults, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    if (mapped != MAP_FAILED) faults = mapped;
    close(file);
}

/* kill -9 leaves on the disk what was written: between two changes of it every moment is the same. */
static void change(void) {
    int64_t at = atomic_load(&faults->dies_at);
    if (atomic_fetch_add(&faults->changes, 1) + 1 == at) kill(getpid(), SIGKILL);
}

static int is_file(int file) {
    struct stat about;
    return !fstat(file, &about) && S_ISREG(about.st_mode);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

int clock_gettime(clockid_t clock, struct timespec *now) {
    static __typeof__(&clock_gettime) real;
    if (!real) real = REAL(clock_gettime);
    int answer = real(clock, now);
    int64_t by = atomic_load(&faults->clock_ms);
    if (answer == 0 && by && (clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE)) {
        int64_t nanos = now->tv_nsec + by % 1000 * 1000000;
        now->tv_sec += by / 1000 + (nanos < 0 ? -1 : nanos / 1000000000);
        now->tv_nsec = nanos < 0 ? nanos + 1000000000 : nanos % 1000000000;
    }
    return answer;
}

static void wait_for_the_disk(void) {
    int64_t by = atomic_load(&faults->sync_ms);
    if (!by) return;
    atomic_fetch_add(&faults->syncs, 1);
    usleep((useconds_t)by * 1000);
}

int fsync(int file) {
    static __typeof__(&fsync) real;
    if (!real) real = REAL(fsync);
    wait_for_the_disk();
    return real(file);
}

int fdatasync(int file) {
    static __typeof__(&fdatasync) real;
    if (!real) real = REAL(fdatasync);
    wait_for_the_disk();
    return real(file);
}

/* A disk runs full in the middle of a write as well: every other one still has room for half. */
static size_t room(int file, size_t wanted) {
    if (!is_file(file)) return wanted;
    change();
    if (!atomic_load(&faults->full)) return wanted;
    return atomic_fetch_add(&faults->writes, 1) % 2 ? wanted / 2 : 0;
}

static ssize_t no_room(void) {
    errno = ENOSPC;
    return -1;
}

ssize_t write(int file, const void *bytes, size_t wanted) {
    static __typeof__(&write) real;
    if (!real) real = REAL(write);
    size_t some = room(file, wanted);
    return some || !wanted ? real(file, bytes, some) : no_room();
}

ssize_t pwrite64(int file, const void *bytes, size_t wanted, off64_t at) {
    static __typeof__(&pwrite64) real;
    if (!real) real = REAL(pwrite64);
    size_t some = room(file, wanted);
    return some || !wanted ? real(file, bytes, some, at) : no_room();
}

ssize_t writev(int file, const struct iovec *parts, int count) {
    static __typeof__(&writev) real;
    if (!real) real = REAL(writev);
    return room(file, 1) ? real(file, parts, count) : no_room();
}

int fallocate64(int file, int mode, off64_t from, off64_t length) {
    static __typeof__(&fallocate64) real;
    if (!real) real = REAL(fallocate64);
    return room(file, 1) ? real(file, mode, from, length) : (int)no_room();
}

#define CHANGE(call, parameters, arguments)            \
    int call parameters {                              \
        static __typeof__(&call) real;                 \
        if (!real) real = REAL(call);                  \
        change();                                      \
        return real arguments;                         \
    }

CHANGE(rename, (const char *from, const char *to), (from, to))
CHANGE(unlink, (const char *name), (name))
CHANGE(linkat, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))
CHANGE(mkdir, (const char *name, mode_t mode), (name, mode))
CHANGE(ftruncate64, (int file, off64_t length), (file, length))
