/* What a power cut does to files, shown to a process that believes it writes to a disk.
 *
 * Preloaded into a server, it notes in a journal (outside of the watched directory) how to take back everything that
 * was written, created, renamed or removed and not yet synced. `crash/powercut.py` takes it back after kill -9.
 *
 * Rules, as POSIX promises them and no more: fsync or fdatasync of a file makes its content and size durable; fsync of
 * a file also makes its own creation durable (ext4, xfs); fsync of a directory makes the names in it durable.
 *
 * A journal record: kind (1), path length (4), second path length (4), offset (8), data length (8), size before (8),
 * then the paths and the data. Kinds: W overwrote data at offset; C created; R renamed (second path: to; data: the
 * name under which the file it replaced is kept); U removed (data likewise); S synced; D directory synced;
 * T truncated (data: what was cut off).
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static char watched[PATH_MAX];
static size_t watched_length;
static char kept[PATH_MAX];
static int journal = -1;
static unsigned long kept_count;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

#define REAL(name) \
    static __typeof__(&name) real; \
    if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name)

static ssize_t raw_write(int fd, const void *data, size_t size) {
    static ssize_t (*real)(int, const void *, size_t);
    if (!real) real = (ssize_t (*)(int, const void *, size_t))dlsym(RTLD_NEXT, "write");
    return real(fd, data, size);
}

__attribute__((constructor)) static void begin(void) {
    const char *directory = getenv("HOLDFAST_POWERCUT_DIR"), *file = getenv("HOLDFAST_POWERCUT_JOURNAL");
    if (!directory || !file) return;
    snprintf(watched, sizeof watched, "%s/", directory);
    watched_length = strlen(watched);
    snprintf(kept, sizeof kept, "%s.kept", directory);
    mkdir(kept, 0700);
    journal = open(file, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    kept_count = (unsigned long)getpid() << 20;
}

static int is_watched(const char *path) {
    return journal >= 0 && strncmp(path, watched, watched_length) == 0;
}

/* The absolute path behind a descriptor, if it is a watched file or directory. */
static int path_of(int fd, char *path) {
    if (journal < 0 || fd < 0) return 0;
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t size = readlink(link, path, PATH_MAX - 2);
    if (size <= 0) return 0;
    path[size] = 0;
    char with_slash[PATH_MAX];
    snprintf(with_slash, sizeof with_slash, "%s/", path);
    return is_watched(path) || strcmp(with_slash, watched) == 0;
}

static int absolute(const char *path, char *out) {
    if (journal < 0) return 0;
    if (path[0] == '/') snprintf(out, PATH_MAX, "%s", path);
    else {
        char cwd[PATH_MAX];
        if (!getcwd(cwd, sizeof cwd)) return 0;
        snprintf(out, PATH_MAX, "%s/%s", cwd, path);
    }
    return is_watched(out);
}

static void note(char kind, const char *path, const char *second, uint64_t offset, const void *data, uint64_t size,
                 uint64_t before) {
    uint32_t one = strlen(path), two = second ? strlen(second) : 0;
    size_t total = 1 + 4 + 4 + 8 + 8 + 8 + one + two + size;
    char *record = malloc(total), *at = record;
    if (!record) abort();
    *at++ = kind;
    memcpy(at, &one, 4); at += 4;
    memcpy(at, &two, 4); at += 4;
    memcpy(at, &offset, 8); at += 8;
    memcpy(at, &size, 8); at += 8;
    memcpy(at, &before, 8); at += 8;
    memcpy(at, path, one); at += one;
    if (two) memcpy(at, second, two);
    at += two;
    if (size) memcpy(at, data, size);
    if (raw_write(journal, record, total) != (ssize_t)total) abort();
    free(record);
}

/* Note what `size` bytes at `offset` will overwrite. */
static void note_write(int fd, const char *path, uint64_t offset, size_t size) {
    struct stat st;
    if (fstat(fd, &st) || !S_ISREG(st.st_mode)) return;
    uint64_t before = st.st_size, old = 0;
    char *data = NULL;
    if (offset < before) {
        old = before - offset < size ? before - offset : size;
        data = malloc(old);
        if (!data) abort();
        int readable = open(path, O_RDONLY | O_CLOEXEC);
        ssize_t got = readable < 0 ? 0 : pread(readable, data, old, offset);
        if (readable >= 0) close(readable);
        old = got > 0 ? got : 0;
    }
    note('W', path, NULL, offset, data, old, before);
    free(data);
}

static uint64_t position(int fd) {
    int flags = fcntl(fd, F_GETFL);
    struct stat st;
    if (flags >= 0 && (flags & O_APPEND) && !fstat(fd, &st)) return st.st_size;
    off_t at = lseek(fd, 0, SEEK_CUR);
    return at < 0 ? 0 : at;
}

#define WRITING(fd, at, size, call) \
    char path[PATH_MAX]; \
    if (!path_of(fd, path)) return call; \
    pthread_mutex_lock(&lock); \
    note_write(fd, path, at, size); \
    ssize_t done = call; \
    int failed = errno; \
    pthread_mutex_unlock(&lock); \
    errno = failed; \
    return done

ssize_t write(int fd, const void *data, size_t size) {
    REAL(write);
    WRITING(fd, position(fd), size, real(fd, data, size));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at) {
    REAL(pwrite);
    WRITING(fd, at, size, real(fd, data, size, at));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at) {
    REAL(pwrite64);
    WRITING(fd, at, size, real(fd, data, size, at));
}

static size_t total(const struct iovec *parts, int count) {
    size_t size = 0;
    for (int i = 0; i < count; i++) size += parts[i].iov_len;
    return size;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(writev);
    WRITING(fd, position(fd), total(parts, count), real(fd, parts, count));
}

static int note_cut(int fd, off_t size) {
    char path[PATH_MAX];
    struct stat st;
    if (!path_of(fd, path) || fstat(fd, &st)) return 0;
    uint64_t lost = st.st_size > size ? st.st_size - size : 0;
    char *data = lost ? malloc(lost) : NULL;
    int readable = lost ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (readable >= 0) {
        ssize_t got = pread(readable, data, lost, size);
        lost = got > 0 ? got : 0;
        close(readable);
    }
    note('T', path, NULL, size, data, lost, st.st_size);
    free(data);
    return 1;
}

int ftruncate(int fd, off_t size) {
    REAL(ftruncate);
    note_cut(fd, size);
    return real(fd, size);
}

int ftruncate64(int fd, off64_t size) {
    REAL(ftruncate64);
    note_cut(fd, size);
    return real(fd, size);
}

static int synced(int fd, int (*real)(int)) {
    char path[PATH_MAX];
    int ours = path_of(fd, path), done = real(fd);
    struct stat st;
    if (ours && done == 0 && !fstat(fd, &st)) {
        pthread_mutex_lock(&lock);
        note(S_ISDIR(st.st_mode) ? 'D' : 'S', path, NULL, 0, NULL, 0, 0);
        pthread_mutex_unlock(&lock);
    }
    return done;
}

int fsync(int fd) { REAL(fsync); return synced(fd, real); }
int fdatasync(int fd) { REAL(fdatasync); return synced(fd, real); }

static void note_open(const char *name, int flags, char *path, int *fresh) {
    struct stat st;
    *fresh = absolute(name, path) && (flags & O_CREAT) && stat(path, &st) != 0;
    if (!*fresh && (flags & O_TRUNC) && absolute(name, path) && !stat(path, &st) && st.st_size) {
        int fd = open(path, O_RDWR | O_CLOEXEC);
        if (fd >= 0) { note_cut(fd, 0); close(fd); }
    }
}

#define OPENING(call) \
    char path[PATH_MAX]; \
    int fresh, mode = 0; \
    if (flags & (O_CREAT | O_TMPFILE)) { va_list rest; va_start(rest, flags); mode = va_arg(rest, int); va_end(rest); } \
    note_open(name, flags, path, &fresh); \
    int fd = call; \
    if (fresh && fd >= 0) { \
        pthread_mutex_lock(&lock); note('C', path, NULL, 0, NULL, 0, 0); pthread_mutex_unlock(&lock); \
    } \
    return fd

int open(const char *name, int flags, ...) { REAL(open); OPENING(real(name, flags, mode)); }
int open64(const char *name, int flags, ...) { REAL(open64); OPENING(real(name, flags, mode)); }

int openat(int at, const char *name, int flags, ...) {
    REAL(openat);
    OPENING(real(at, name, flags, mode));
}

int openat64(int at, const char *name, int flags, ...) {
    REAL(openat64);
    OPENING(real(at, name, flags, mode));
}

FILE *fopen(const char *name, const char *mode) {
    REAL(fopen);
    char path[PATH_MAX];
    int fresh;
    note_open(name, mode[0] == 'r' ? 0 : O_CREAT | (mode[0] == 'w' ? O_TRUNC : 0), path, &fresh);
    FILE *file = real(name, mode);
    if (fresh && file) note('C', path, NULL, 0, NULL, 0, 0);
    return file;
}

FILE *fopen64(const char *name, const char *mode) { return fopen(name, mode); }

/* Keep a file that is about to lose its last name. */
static const char *keep(const char *path, char *name) {
    struct stat st;
    if (stat(path, &st) || !S_ISREG(st.st_mode)) return NULL;
    snprintf(name, PATH_MAX, "%s/%lu", kept, __sync_add_and_fetch(&kept_count, 1));
    return link(path, name) == 0 ? name : NULL;
}

static int renamed(const char *from, const char *to) {
    char one[PATH_MAX], two[PATH_MAX], name[PATH_MAX];
    static int (*real)(const char *, const char *);
    if (!real) real = (int (*)(const char *, const char *))dlsym(RTLD_NEXT, "rename");
    if (!absolute(from, one) || !absolute(to, two)) return real(from, to);
    pthread_mutex_lock(&lock);
    const char *old = keep(two, name);
    int done = real(from, to);
    if (done == 0) note('R', one, two, 0, old, old ? strlen(old) : 0, 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int rename(const char *from, const char *to) { return renamed(from, to); }

static int removed(const char *name, int (*real)(const char *)) {
    char path[PATH_MAX], copy[PATH_MAX];
    if (!absolute(name, path)) return real(name);
    pthread_mutex_lock(&lock);
    const char *old = keep(path, copy);
    int done = real(name);
    if (done == 0 && old) note('U', path, NULL, 0, old, strlen(old), 0);
    pthread_mutex_unlock(&lock);
    return done;
}

int unlink(const char *name) { REAL(unlink); return removed(name, real); }
int remove(const char *name) { REAL(remove); return removed(name, real); }
