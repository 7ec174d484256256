/* A disk that hangs: preloaded into a process, it makes what uses files below a folder wait, as long
 * as another process holds a lock. Reads hang as well as writes, which a frozen file system does not
 * do. The waiting threads use no processor time, and a signal does not end the wait.
 *
 * $SCENT_HANGING_DISK is the folder, $SCENT_HANGING_DISK_LOCK the file that is locked; its first byte
 * is 1 while the disk hangs.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static const volatile char *hangs;
static const char *folder, *lock;

__attribute__((constructor)) static void begin(void) {
    folder = getenv("SCENT_HANGING_DISK");
    lock = getenv("SCENT_HANGING_DISK_LOCK");
    int file = (int)syscall(SYS_openat, AT_FDCWD, lock, O_RDONLY);
    void *seen = mmap(NULL, 1, PROT_READ, MAP_SHARED, file, 0);
    if (seen != MAP_FAILED) hangs = seen;
    syscall(SYS_close, file);
}

static void wait_for_it(void) {
    int kept = errno;
    int file = (int)syscall(SYS_openat, AT_FDCWD, lock, O_RDONLY | O_CLOEXEC);
    while (syscall(SYS_flock, file, LOCK_SH) < 0 && errno == EINTR) continue;
    syscall(SYS_close, file);
    errno = kept;
}

static int is_below(const char *path) {
    size_t length = strlen(folder);
    return strncmp(path, folder, length) == 0 && (path[length] == '/' || path[length] == 0);
}

static void use_descriptor(int file) {
    if (!hangs || !*hangs || file < 0) return;
    char name[64], path[4096];
    snprintf(name, sizeof name, "/proc/self/fd/%d", file);
    long length = syscall(SYS_readlinkat, AT_FDCWD, name, path, sizeof path - 1);
    if (length <= 0) return;
    path[length] = 0;
    if (is_below(path)) wait_for_it();
}

static void use_path(int at, const char *path) {
    if (!hangs || !*hangs || !path) return;
    if (path[0] != '/') use_descriptor(at);
    else if (is_below(path)) wait_for_it();
}

#define REAL(name) \
    static __typeof__(name) *real; \
    if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

#define MODE(flags, last) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { \
        va_list more; \
        va_start(more, last); \
        mode = va_arg(more, mode_t); \
        va_end(more); \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, flags) REAL(open);
    use_path(AT_FDCWD, path);
    return real(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(flags, flags) REAL(open64);
    use_path(AT_FDCWD, path);
    return real(path, flags, mode);
}
int openat(int at, const char *path, int flags, ...) {
    MODE(flags, flags) REAL(openat);
    use_path(at, path);
    return real(at, path, flags, mode);
}
int openat64(int at, const char *path, int flags, ...) {
    MODE(flags, flags) REAL(openat64);
    use_path(at, path);
    return real(at, path, flags, mode);
}

#define BY_PATH(type, name, path, parameters, ...) \
    type name parameters { REAL(name); use_path(AT_FDCWD, path); return real(__VA_ARGS__); }
#define BY_PLACE(type, name, parameters, ...) \
    type name parameters { REAL(name); use_path(at, path); return real(__VA_ARGS__); }
#define BY_DESCRIPTOR(type, name, parameters, ...) \
    type name parameters { REAL(name); use_descriptor(file); return real(__VA_ARGS__); }

BY_PATH(int, stat64, path, (const char *path, struct stat64 *found), path, found)
BY_PATH(int, lstat64, path, (const char *path, struct stat64 *found), path, found)
BY_PATH(int, access, path, (const char *path, int mode), path, mode)
BY_PATH(int, mkdir, path, (const char *path, mode_t mode), path, mode)
BY_PATH(int, unlink, path, (const char *path), path)
BY_PATH(int, rename, to, (const char *from, const char *to), from, to)
BY_PATH(DIR *, opendir, path, (const char *path), path)
BY_PLACE(int, fstatat64, (int at, const char *path, struct stat64 *found, int flags), at, path, found, flags)
BY_PLACE(int, mkdirat, (int at, const char *path, mode_t mode), at, path, mode)
BY_PLACE(int, unlinkat, (int at, const char *path, int flags), at, path, flags)
BY_PLACE(int, renameat, (int from_at, const char *from, int at, const char *path), from_at, from, at, path)
BY_DESCRIPTOR(ssize_t, read, (int file, void *data, size_t size), file, data, size)
BY_DESCRIPTOR(ssize_t, write, (int file, const void *data, size_t size), file, data, size)
BY_DESCRIPTOR(ssize_t, pread64, (int file, void *data, size_t size, off64_t from), file, data, size, from)
BY_DESCRIPTOR(ssize_t, pwrite64, (int file, const void *data, size_t size, off64_t to), file, data, size, to)
BY_DESCRIPTOR(int, fsync, (int file), file)
BY_DESCRIPTOR(int, fdatasync, (int file), file)
BY_DESCRIPTOR(int, ftruncate64, (int file, off64_t size), file, size)
