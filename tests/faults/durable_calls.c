/* Stands between a program and the calls that change a folder on the disk: counts them, and at the N-th kills the
 * program, tears the write, or answers with an error. Or records them all, to be replayed with parts left out.
 *
 * FAULT_ROOT   the folder; calls on other paths pass
 * FAULT_MATCH  only paths that contain this are counted (default: every one)
 * FAULT_DO     kill, tear (half of the write, then kill), ENOSPC, EIO, or nothing
 * FAULT_ONLY   `sync`: only fsync and fdatasync are counted; `write`: only what needs room
 * FAULT_AT     N, from 1
 * FAULT_GATE   a file: the error goes on for every later call as long as it exists; without it there is one error
 * FAULT_LOG    a file that gets the number of every counted call, or with FAULT_DO=record every call with its bytes
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

enum kind { NAME, ROOM, SYNC };

static pthread_mutex_t one = PTHREAD_RECURSIVE_MUTEX_INITIALIZER_NP;
static const char *root, *match, *todo, *only, *gate;
static long at, n;
static int log_fd = -1, is_recording;

__attribute__((constructor)) static void begin(void) {
    char resolved[PATH_MAX];
    root = getenv("FAULT_ROOT");
    if (root && realpath(root, resolved)) root = strdup(resolved);
    match = getenv("FAULT_MATCH");
    todo = getenv("FAULT_DO") ? getenv("FAULT_DO") : "nothing";
    only = getenv("FAULT_ONLY") ? getenv("FAULT_ONLY") : "";
    gate = getenv("FAULT_GATE");
    at = getenv("FAULT_AT") ? atol(getenv("FAULT_AT")) : 0;
    is_recording = !strcmp(todo, "record");
    if (getenv("FAULT_LOG"))
        log_fd = syscall(SYS_openat, AT_FDCWD, getenv("FAULT_LOG"), O_WRONLY | O_CREAT | O_APPEND, 0600);
}

static int is_ours(const char *path) {
    size_t length = root ? strlen(root) : 0;
    return length && !strncmp(path, root, length) && (path[length] == '/' || !path[length]);
}

static void absolute(int dir, const char *path, char *out) {
    char base[PATH_MAX], link[64];
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
        return;
    }
    snprintf(link, sizeof link, dir == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", dir);
    ssize_t length = readlink(link, base, sizeof base - 1);
    base[length < 0 ? 0 : length] = 0;
    snprintf(out, PATH_MAX, "%s/%s", base, path);
}

static int of_descriptor(int fd, char *out) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, out, PATH_MAX - 1);
    out[length < 0 ? 0 : length] = 0;
    return is_ours(out);
}

static long inode_of(int fd) {
    struct stat found;
    return fd >= 0 && !fstat(fd, &found) ? (long)found.st_ino : 0;
}

/* One line, then `length` bytes: what, path, other path, offset, inode (0: not known), length. */
static void record(const char *what, const char *path, const char *other, long offset, int fd, const void *bytes,
                   size_t length) {
    char line[2 * PATH_MAX + 96];
    if (log_fd < 0) return;
    int head = snprintf(line, sizeof line, "%s\t%s\t%s\t%ld\t%ld\t%zu\n", what, path, other, offset, inode_of(fd),
                        length);
    pthread_mutex_lock(&one); /* what is said comes from another thread than what is stored */
    syscall(SYS_write, log_fd, line, head);
    if (length) syscall(SYS_write, log_fd, bytes, length);
    pthread_mutex_unlock(&one);
}

/* 0: go on. Otherwise the call must fail with this errno; -1: tear it. */
static int verdict(const char *what, const char *path, enum kind kind) {
    if (is_recording || (match && !strstr(path, match))) return 0;
    if (!strcmp(only, "sync") ? kind != SYNC : !strcmp(only, "write") && kind != ROOM) return 0;
    int is_later = ++n > at;
    if (n < at || !at) {
        if (!at) record(what, path, "", n, -1, NULL, 0);
        return 0;
    }
    if (is_later && (!gate || syscall(SYS_faccessat, AT_FDCWD, gate, F_OK))) return 0;
    record(what, path, todo, n, -1, NULL, 0);
    if (!strcmp(todo, "kill")) kill(getpid(), SIGKILL);
    if (!strcmp(todo, "tear")) {
        if (kind == ROOM) return -1;
        kill(getpid(), SIGKILL);
    }
    return !strcmp(todo, "ENOSPC") ? ENOSPC : !strcmp(todo, "EIO") ? EIO : 0;
}

static int refused(int error) {
    errno = error;
    pthread_mutex_unlock(&one);
    return -1;
}

static ssize_t put(int fd, const void *bytes, size_t length, off_t offset, int is_at) {
    char path[PATH_MAX];
    if (fd == 1 && is_recording) record("said", "", "", 0, -1, bytes, length);
    if (!of_descriptor(fd, path))
        return is_at ? REAL(pwrite64)(fd, bytes, length, offset) : REAL(write)(fd, bytes, length);
    pthread_mutex_lock(&one);
    int error = verdict("write", path, ROOM);
    if (error > 0) return refused(error);
    if (error < 0) length /= 2;
    off_t where = is_at ? offset : lseek(fd, 0, fcntl(fd, F_GETFL) & O_APPEND ? SEEK_END : SEEK_CUR);
    ssize_t done = is_at ? REAL(pwrite64)(fd, bytes, length, offset) : REAL(write)(fd, bytes, length);
    if (error < 0) kill(getpid(), SIGKILL);
    if (done > 0 && is_recording) record("write", path, "", where, fd, bytes, done);
    pthread_mutex_unlock(&one);
    return done;
}

ssize_t write(int fd, const void *bytes, size_t length) { return put(fd, bytes, length, 0, 0); }
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t offset) { return put(fd, bytes, length, offset, 1); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t offset) { return put(fd, bytes, length, offset, 1); }

/* Copies inside the kernel would pass unseen: refuse them, and Python copies by reading and writing. */
ssize_t sendfile(int out, int in, off_t *offset, size_t length) { errno = ENOTSOCK; return -1; }
ssize_t sendfile64(int out, int in, off_t *offset, size_t length) { errno = ENOTSOCK; return -1; }
ssize_t copy_file_range(int in, off_t *a, int out, off_t *b, size_t length, unsigned flags) { errno = ENOSYS; return -1; }

static void lose(const char *path);

#define ON_DESCRIPTOR(result, name, kind, what, size, ...)                                                             \
    char path[PATH_MAX];                                                                                               \
    if (!of_descriptor(fd, path)) return REAL(name)(__VA_ARGS__);                                                      \
    pthread_mutex_lock(&one);                                                                                          \
    int error = verdict(what, path, kind);                                                                             \
    if (error > 0) {                                                                                                   \
        if (kind == SYNC) lose(path);                                                                                  \
        return refused(error);                                                                                         \
    }                                                                                                                  \
    result done = REAL(name)(__VA_ARGS__);                                                                             \
    if (!done && is_recording) record(what, path, "", size, fd, NULL, 0);                                                     \
    pthread_mutex_unlock(&one);                                                                                        \
    return done;

/* What was written since the last sync that succeeded may be gone: of a new file, and of a journal, that is all of it. */
static void lose(const char *path) {
    struct stat found;
    if (strstr(path, ".db") && !strstr(path, "-journal")) return;
    if (!stat(path, &found) && S_ISREG(found.st_mode)) syscall(SYS_truncate, path, 0);
}

int fsync(int fd) { ON_DESCRIPTOR(int, fsync, SYNC, "sync", 0, fd) }
int fdatasync(int fd) { ON_DESCRIPTOR(int, fdatasync, SYNC, "sync", 0, fd) }
int ftruncate(int fd, off_t size) { ON_DESCRIPTOR(int, ftruncate, NAME, "truncate", size, fd, size) }
int ftruncate64(int fd, off_t size) { ON_DESCRIPTOR(int, ftruncate64, NAME, "truncate", size, fd, size) }

static int named(const char *what, int dir, const char *name, int dir2, const char *name2, enum kind kind,
                 long (*call)(int, const char *, int, const char *, long), long more) {
    char path[PATH_MAX], other[PATH_MAX] = "";
    absolute(dir, name, path);
    if (name2) absolute(dir2, name2, other);
    if (!is_ours(path) && !is_ours(other)) return call(dir, name, dir2, name2, more);
    pthread_mutex_lock(&one);
    int error = verdict(what, path, kind);
    if (error > 0) return refused(error);
    if (error < 0) kill(getpid(), SIGKILL);
    long done = call(dir, name, dir2, name2, more);
    int because = errno;
    if (!done && is_recording) record(what, path, other, more, -1, NULL, 0);
    pthread_mutex_unlock(&one);
    errno = because;
    return done;
}

static long do_rename(int a, const char *x, int b, const char *y, long m) { return syscall(SYS_renameat2, a, x, b, y, m); }
static long do_unlink(int a, const char *x, int b, const char *y, long m) { return syscall(SYS_unlinkat, a, x, m); }
static long do_mkdir(int a, const char *x, int b, const char *y, long m) { return syscall(SYS_mkdirat, a, x, m); }
static long do_link(int a, const char *x, int b, const char *y, long m) { return syscall(SYS_linkat, a, x, b, y, m); }

int rename(const char *a, const char *b) { return named("rename", AT_FDCWD, a, AT_FDCWD, b, NAME, do_rename, 0); }
int renameat(int d, const char *a, int e, const char *b) { return named("rename", d, a, e, b, NAME, do_rename, 0); }
int unlink(const char *a) { return named("unlink", AT_FDCWD, a, 0, NULL, NAME, do_unlink, 0); }
int rmdir(const char *a) { return named("unlink", AT_FDCWD, a, 0, NULL, NAME, do_unlink, AT_REMOVEDIR); }
int unlinkat(int d, const char *a, int flags) { return named("unlink", d, a, 0, NULL, NAME, do_unlink, flags); }
int mkdir(const char *a, mode_t mode) { return named("mkdir", AT_FDCWD, a, 0, NULL, ROOM, do_mkdir, mode); }
int mkdirat(int d, const char *a, mode_t mode) { return named("mkdir", d, a, 0, NULL, ROOM, do_mkdir, mode); }
int link(const char *a, const char *b) { return named("link", AT_FDCWD, a, AT_FDCWD, b, ROOM, do_link, 0); }
int linkat(int d, const char *a, int e, const char *b, int flags) {
    return named("link", d, a, e, b, ROOM, do_link, flags);
}

static int opened(int dir, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    absolute(dir, name, path);
    if (!(flags & (O_CREAT | O_TRUNC)) || !is_ours(path)) return syscall(SYS_openat, dir, name, flags, mode);
    pthread_mutex_lock(&one);
    int is_new = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) != 0;
    int error = is_new || flags & O_TRUNC ? verdict("create", path, is_new ? ROOM : NAME) : 0;
    if (error > 0) return refused(error);
    if (error < 0) kill(getpid(), SIGKILL);
    int fd = syscall(SYS_openat, dir, name, flags, mode);
    int because = errno;
    if (fd >= 0 && is_recording) {
        if (is_new) record("create", path, "", 0, fd, NULL, 0);
        else if (flags & O_TRUNC) record("truncate", path, "", 0, fd, NULL, 0);
    }
    pthread_mutex_unlock(&one);
    errno = because;
    return fd;
}

#define OPEN(dir, name)                                                                                                \
    va_list more;                                                                                                      \
    va_start(more, flags);                                                                                             \
    mode_t mode = flags & O_CREAT ? va_arg(more, mode_t) : 0;                                                          \
    va_end(more);                                                                                                      \
    return opened(dir, name, flags, mode);

int open(const char *name, int flags, ...) { OPEN(AT_FDCWD, name) }
int open64(const char *name, int flags, ...) { OPEN(AT_FDCWD, name) }
int openat(int dir, const char *name, int flags, ...) { OPEN(dir, name) }
int openat64(int dir, const char *name, int flags, ...) { OPEN(dir, name) }
