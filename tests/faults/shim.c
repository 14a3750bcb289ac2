/* Faults at system calls, from outside: preloaded into a node's processes by the tests.
 *
 * A token file says where the next fault is: "id role call kind when action". The role is
 * the word behind launch.py on the command line; the kind says what the call is about: a
 * file of the state folder, or a socket. At the when-th such call since the token was first
 * seen, the action is taken and the token deleted (kept, if the action starts with '+'):
 *
 *   kill-before, kill-after   SIGKILL, before or after the call
 *   short                     half of what was to be written is
 *   a number                  the call fails with that errno
 *
 * With MIADMARK_FAULT_LOG every call is logged, so that the tests find their points.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

enum { NONE, KILL_BEFORE, KILL_AFTER, SHORT, FAIL };

typedef struct { int what, error; } fault;

static char state[512], token[512], logged[512], role[64];
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static char last_id[64];
static long count;

__attribute__((constructor)) static void begin(void)
{
    const char *s = getenv("MIADMARK_FAULT_STATE"), *t = getenv("MIADMARK_FAULT_TOKEN");
    const char *l = getenv("MIADMARK_FAULT_LOG");
    if (!s || !t) return;
    char line[4096];
    int fd = syscall(SYS_openat, AT_FDCWD, "/proc/self/cmdline", O_RDONLY);
    ssize_t size = fd < 0 ? 0 : syscall(SYS_read, fd, line, sizeof line - 1);
    if (fd >= 0) syscall(SYS_close, fd);
    if (size < 0) size = 0;
    line[size] = 0;
    for (char *arg = line; arg < line + size; arg += strlen(arg) + 1) {
        size_t length = strlen(arg);
        if (length >= 9 && !strcmp(arg + length - 9, "launch.py")
            && arg + length + 1 < line + size)
            snprintf(role, sizeof role, "%.63s", arg + length + 1);
    }
    if (!role[0]) return;
    snprintf(state, sizeof state, "%s", s);
    snprintf(token, sizeof token, "%s", t);
    if (l) snprintf(logged, sizeof logged, "%s", l);
}

/* What is forked goes on under another name, and counts anew. */
void miadmark_fault_role(const char *name)
{
    snprintf(role, sizeof role, "%.63s", name);
    last_id[0] = 0;
    count = 0;
}

static int kind_of(const char *path, char *kind, size_t size)
{
    if (!strncmp(path, "socket:", 7)) {
        snprintf(kind, size, "socket");
        return 1;
    }
    size_t length = strlen(state);
    if (strncmp(path, state, length) || path[length] != '/') return 0;
    const char *rest = path + length + 1, *name = strrchr(path, '/') + 1;
    if (!strcmp(rest, "spool")) snprintf(kind, size, "spool");
    else if (!strncmp(rest, "spool/incoming/", 15)) snprintf(kind, size, "incoming");
    else if (!strncmp(rest, "spool/", 6))
        snprintf(kind, size, strstr(name, ".out.") ? "outgoing" : "instance");
    else if (strchr(rest, '/')) snprintf(kind, size, "%.*s", (int)(strchr(rest, '/') - rest), rest);
    else snprintf(kind, size, "%s", rest);
    return 1;
}

static fault decide(const char *call, const char *path)
{
    fault none = {NONE, 0}, found = none;
    char kind[128], line[256] = {0}, id[64], r[64], c[32], k[128], a[32];
    long when;
    if (!state[0] || !kind_of(path, kind, sizeof kind)) return none;
    if (logged[0]) {
        int fd = syscall(SYS_openat, AT_FDCWD, logged, O_WRONLY | O_CREAT | O_APPEND, 0600);
        int n = snprintf(line, sizeof line, "%s %s %s\n", role, call, kind);
        if (fd >= 0) { syscall(SYS_write, fd, line, n); syscall(SYS_close, fd); }
    }
    int fd = syscall(SYS_openat, AT_FDCWD, token, O_RDONLY);
    if (fd < 0) return none;
    ssize_t size = syscall(SYS_read, fd, line, sizeof line - 1);
    syscall(SYS_close, fd);
    line[size > 0 ? size : 0] = 0;
    if (sscanf(line, "%63s %63s %31s %127s %ld %31s", id, r, c, k, &when, a) != 6) return none;
    pthread_mutex_lock(&lock);
    if (strcmp(id, last_id)) { snprintf(last_id, sizeof last_id, "%s", id); count = 0; }
    int keeps = a[0] == '+';
    const char *action = a + keeps;
    if (!strcmp(r, role) && (!strcmp(c, call) || !strcmp(c, "any"))
        && (!strcmp(k, kind) || !strcmp(k, "any")) && ++count >= when
        && (keeps || (count == when && !syscall(SYS_unlinkat, AT_FDCWD, token, 0)))) {
        if (!strcmp(action, "kill-before")) found.what = KILL_BEFORE;
        else if (!strcmp(action, "kill-after")) found.what = KILL_AFTER;
        else if (!strcmp(action, "short")) found.what = SHORT;
        else { found.what = FAIL; found.error = atoi(action); }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static fault decide_fd(const char *call, int fd)
{
    char name[64], path[1024];
    fault none = {NONE, 0};
    if (!state[0]) return none;
    int before = errno;
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    long size = syscall(SYS_readlinkat, AT_FDCWD, name, path, sizeof path - 1);
    if (size > 0) { path[size] = 0; none = decide(call, path); }
    errno = before;
    return none;
}

static fault decide_path(const char *call, const char *path)
{
    int before = errno;
    fault found = decide(call, path);
    errno = before;
    return found;
}

static void die(void)
{
    for (;;) syscall(SYS_kill, syscall(SYS_getpid), SIGKILL);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define AROUND(type, found, call)                                     \
    do {                                                              \
        fault f_ = (found);                                           \
        if (f_.what == KILL_BEFORE) die();                            \
        if (f_.what == FAIL) { errno = f_.error; return (type)-1; }   \
        type result_ = (call);                                        \
        if (f_.what == KILL_AFTER) die();                             \
        return result_;                                               \
    } while (0)
#define LESS(f, size) ((f).what == SHORT && (size) > 1 ? (size) / 2 : (size))

ssize_t write(int fd, const void *data, size_t size)
{
    fault f = decide_fd("write", fd);
    AROUND(ssize_t, f, REAL(write)(fd, data, LESS(f, size)));
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t at)
{
    fault f = decide_fd("write", fd);
    AROUND(ssize_t, f, REAL(pwrite)(fd, data, LESS(f, size), at));
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t at)
{
    fault f = decide_fd("write", fd);
    AROUND(ssize_t, f, REAL(pwrite64)(fd, data, LESS(f, size), at));
}

ssize_t send(int fd, const void *data, size_t size, int flags)
{
    AROUND(ssize_t, decide_fd("send", fd), REAL(send)(fd, data, size, flags));
}

ssize_t sendmsg(int fd, const struct msghdr *message, int flags)
{
    AROUND(ssize_t, decide_fd("send", fd), REAL(sendmsg)(fd, message, flags));
}

int fsync(int fd) { AROUND(int, decide_fd("fsync", fd), REAL(fsync)(fd)); }

int fdatasync(int fd) { AROUND(int, decide_fd("fsync", fd), REAL(fdatasync)(fd)); }

int ftruncate64(int fd, off64_t size)
{
    AROUND(int, decide_fd("truncate", fd), REAL(ftruncate64)(fd, size));
}

int ftruncate(int fd, off_t size)
{
    AROUND(int, decide_fd("truncate", fd), REAL(ftruncate)(fd, size));
}

int rename(const char *from, const char *to)
{
    AROUND(int, decide_path("rename", to), REAL(rename)(from, to));
}

int unlink(const char *path) { AROUND(int, decide_path("unlink", path), REAL(unlink)(path)); }

#define OPENS(name, call_args, path)                                              \
    {                                                                             \
        mode_t mode = 0;                                                          \
        if (flags & (O_CREAT | O_TMPFILE)) {                                      \
            va_list rest;                                                         \
            va_start(rest, flags);                                                \
            mode = va_arg(rest, mode_t);                                          \
            va_end(rest);                                                         \
        }                                                                         \
        fault none = {NONE, 0};                                                   \
        fault f = flags & O_CREAT ? decide_path("create", path) : none;           \
        AROUND(int, f, REAL(name) call_args);                                     \
    }

int open(const char *path, int flags, ...) OPENS(open, (path, flags, mode), path)
int open64(const char *path, int flags, ...) OPENS(open64, (path, flags, mode), path)
int openat(int at, const char *path, int flags, ...)
    OPENS(openat, (at, path, flags, mode), path)
int openat64(int at, const char *path, int flags, ...)
    OPENS(openat64, (at, path, flags, mode), path)
