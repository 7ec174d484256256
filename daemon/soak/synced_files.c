/* Keeps what a power cut leaves of a process's database: preloaded into it, this library copies
 * each of the named files whenever the process has synchronised it to the disk. What the process
 * wrote afterwards is not in the copy.
 *
 * $SOAK_SYNCED_TO names the folder of the copies, $SOAK_SYNCED the database; its
 * write-ahead log has the same name with -wal.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void copy(int from, int to) {
    static __thread char block[1 << 16];
    off_t place = 0;
    ssize_t length;
    while ((length = pread(from, block, sizeof block, place)) > 0) {
        if (write(to, block, length) != length)
            return;
        place += length;
    }
}

static void keep(int file) {
    const char *folder = getenv("SOAK_SYNCED_TO"), *database = getenv("SOAK_SYNCED");
    char link[64], path[PATH_MAX], unfinished[PATH_MAX + 16], kept[PATH_MAX + 16];
    if (folder == NULL || database == NULL)
        return;
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length <= 0)
        return;
    path[length] = 0;
    size_t common = strlen(database);
    if (strncmp(path, database, common) != 0 ||
        (strcmp(path + common, "") != 0 && strcmp(path + common, "-wal") != 0))
        return;
    const char *name = strrchr(path, '/') + 1;
    snprintf(kept, sizeof kept, "%s/%s", folder, name);
    snprintf(unfinished, sizeof unfinished, "%s/.%s", folder, name);
    int to = open(unfinished, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    if (to < 0)
        return;
    copy(file, to);
    close(to);
    rename(unfinished, kept);
}

static int synchronise(const char *name, int file) {
    int (*real)(int) = dlsym(RTLD_NEXT, name);
    int result = real(file), error = errno;
    if (result == 0)
        keep(file);
    errno = error;
    return result;
}

int fsync(int file) { return synchronise("fsync", file); }

int fdatasync(int file) { return synchronise("fdatasync", file); }
