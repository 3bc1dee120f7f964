/* Injects one fault into the file operations below a folder. Loaded with LD_PRELOAD.
 *
 * FAULT_FOLDER  only files below this folder count
 * FAULT_KIND    count | kill | cut | eio | enospc | short | eintr
 * FAULT_AT      the operation, from 1, at which it happens
 * FAULT_COUNT   file outside of the folder that gets the number of operations at exit
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

static atomic_long operations;
static const char *folder, *kind;
static long at;

__attribute__((constructor)) static void start(void) {
    folder = getenv("FAULT_FOLDER");
    kind = getenv("FAULT_KIND");
    const char *text = getenv("FAULT_AT");
    at = text ? atol(text) : 0;
}

__attribute__((destructor)) static void end(void) {
    const char *path = getenv("FAULT_COUNT");
    FILE *file = path ? fopen(path, "w") : NULL;
    if (file) {
        fprintf(file, "%ld", atomic_load(&operations));
        fclose(file);
    }
}

static int is(const char *name) { return kind && strcmp(kind, name) == 0; }

static int below(const char *path) { return folder && path && strncmp(path, folder, strlen(folder)) == 0; }

static int file_below(int fd) {
    char name[64], path[PATH_MAX];
    struct stat about;
    if (!folder || fstat(fd, &about) != 0 || !S_ISREG(about.st_mode)) return 0;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(name, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

/* Whether the fault happens now. Errors of a full disk stay. */
static int now(void) {
    long count = atomic_fetch_add(&operations, 1) + 1;
    int hit = count == at || (is("enospc") && at > 0 && count > at);
    if (hit && is("kill")) raise(SIGKILL);
    return hit && !is("count");
}

/* The error of an operation without data, or 0. */
static int failure(void) {
    if (is("eio")) return EIO;
    if (is("enospc")) return ENOSPC;
    if (is("cut")) raise(SIGKILL);
    return 0;
}

#define NEXT(type, name) static type next; if (!next) next = (type)dlsym(RTLD_NEXT, name)

typedef ssize_t (*write_t)(int, const void *, size_t);
ssize_t write(int fd, const void *data, size_t size) {
    NEXT(write_t, "write");
    if (!file_below(fd) || !now()) return next(fd, data, size);
    if (is("eintr")) { errno = EINTR; return -1; }
    if (is("short") && size > 1) return next(fd, data, size / 2);
    if (is("cut")) next(fd, data, size / 2);
    int error = failure();
    if (error) { errno = error; return -1; }
    return next(fd, data, size);
}

typedef ssize_t (*writev_t)(int, const struct iovec *, int);
ssize_t writev(int fd, const struct iovec *parts, int count) {
    NEXT(writev_t, "writev");
    if (file_below(fd) && now()) {
        int error = failure();
        if (error) { errno = error; return -1; }
    }
    return next(fd, parts, count);
}

typedef ssize_t (*pwrite_t)(int, const void *, size_t, off_t);
static ssize_t pwrite_at(pwrite_t next, int fd, const void *data, size_t size, off_t offset) {
    if (!file_below(fd) || !now()) return next(fd, data, size, offset);
    if (is("eintr")) { errno = EINTR; return -1; }
    if (is("short") && size > 1) return next(fd, data, size / 2, offset);
    if (is("cut")) next(fd, data, size / 2, offset);
    int error = failure();
    if (error) { errno = error; return -1; }
    return next(fd, data, size, offset);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t offset) {
    NEXT(pwrite_t, "pwrite");
    return pwrite_at(next, fd, data, size, offset);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset) {
    NEXT(pwrite_t, "pwrite64");
    return pwrite_at(next, fd, data, size, offset);
}

typedef int (*fd_t)(int);
static int sync_file(fd_t next, int fd) {
    if (file_below(fd) && now()) {
        int error = failure();
        if (error) { errno = error; return -1; }
    }
    return next(fd);
}
int fsync(int fd) { NEXT(fd_t, "fsync"); return sync_file(next, fd); }
int fdatasync(int fd) { NEXT(fd_t, "fdatasync"); return sync_file(next, fd); }

typedef int (*truncate_t)(int, off_t);
int ftruncate64(int fd, off64_t size) {
    NEXT(truncate_t, "ftruncate64");
    if (file_below(fd) && now()) {
        int error = failure();
        if (error) { errno = error; return -1; }
    }
    return next(fd, size);
}

typedef int (*rename_t)(const char *, const char *);
int rename(const char *from, const char *to) {
    NEXT(rename_t, "rename");
    if (below(to) && now()) {
        int error = failure();
        if (error) { errno = error; return -1; }
    }
    return next(from, to);
}

typedef int (*open_t)(const char *, int, ...);
static int open_file(open_t next, const char *path, int flags, mode_t mode) {
    if ((flags & O_CREAT) && below(path) && now()) {
        int error = failure();
        if (error) { errno = error; return -1; }
    }
    return next(path, flags, mode);
}
int open(const char *path, int flags, ...) {
    NEXT(open_t, "open");
    va_list list; va_start(list, flags); mode_t mode = (flags & O_CREAT) ? va_arg(list, mode_t) : 0; va_end(list);
    return open_file(next, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    NEXT(open_t, "open64");
    va_list list; va_start(list, flags); mode_t mode = (flags & O_CREAT) ? va_arg(list, mode_t) : 0; va_end(list);
    return open_file(next, path, flags, mode);
}
