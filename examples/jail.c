/* SPDX-License-Identifier: MIT */
/*
 * jail [IMAGE]: a disk in a process that may open nothing, as hypervisors have them.
 *
 * The program opens the image, which is the last file that it opens, and forks. The child is the
 * jail: it sees an empty directory only, without /proc (chroot, where it may; see the note of
 * seal()), opens the disk by the descriptor, and then gives up every system call but those of the
 * table below. It writes, flushes and reads with several requests in flight, trims, takes the disk
 * down, and ends. Whatever else it called would end it with SIGSYS.
 *
 * What happens by the descriptor alone: the library cannot open the file again, so it takes the
 * descriptor (PLOOP_FILE_TOOK_DESCRIPTOR), and nothing else may sync it, lock it or share it.
 *
 * Threads: one, this one, and at most eight of the library's, named ploop-io/0 and so on. They
 * start when requests wait and end when idle, so that the table has the calls that make threads. A
 * program that cannot allow those has a backend of its own, in its own threads.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/sched.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <ploop/ploop.h>

enum {
    DISK_BYTES = 256 << 20,
    PIECE_BYTES = 64 << 10,
    SPACING = 1 << 20,
    IN_FLIGHT = 16,
    PIECES = 128
};

#if defined(__x86_64__)
#define MACHINE AUDIT_ARCH_X86_64
#elif defined(__aarch64__)
#define MACHINE AUDIT_ARCH_AARCH64
#else
#define MACHINE 0 /* add yours */
#endif

/*
 * What a disk needs once it is open by a descriptor that was taken: 25 calls. Some have other names
 * on other machines or in other C libraries. docs/guide/jail.md says what the rest of the interface
 * takes beyond these.
 */
static const int allowed[] = {
    /* the file */
    SYS_preadv,
    SYS_pwritev,
    SYS_fdatasync,
    SYS_fallocate,
    SYS_ftruncate,
#if defined(SYS_newfstatat) && defined(__GLIBC__) && !__GLIBC_PREREQ(2, 39)
    SYS_newfstatat, /* fstat() */
#else
    SYS_fstat,
#endif
    /* waiting, and waking threads and loops */
    SYS_futex,
    SYS_read,
    SYS_write,
#ifdef SYS_epoll_wait
    SYS_epoll_wait,
    SYS_poll,
#else
    SYS_epoll_pwait,
    SYS_ppoll,
#endif
    /* memory, and threads as they come and go */
    SYS_brk,
    SYS_mmap,
    SYS_munmap,
    SYS_mprotect,
    SYS_madvise,
    SYS_clone3,
    SYS_rt_sigaction,
    SYS_rt_sigprocmask,
    SYS_set_robust_list,
    SYS_rseq,
    SYS_prctl, /* a thread names itself */
    SYS_exit,
    /* the end */
    SYS_close,
    SYS_exit_group,
};

enum { ALLOWED = sizeof(allowed) / sizeof(allowed[0]) };

/* ---- The jail ---- */

/*
 * An empty directory becomes the root. That takes root, or a user namespace; where neither can be
 * had this example goes on without, and says so.
 */
static int seal(const char *directory)
{
    if (chroot(directory) == 0 && chdir("/") == 0) {
        return 0;
    }
    if (syscall(SYS_unshare, CLONE_NEWUSER) == 0 && chroot(directory) == 0 && chdir("/") == 0) {
        return 0;
    }
    fprintf(stderr, "jail: no chroot here, so /proc is there\n");
    return -errno;
}

/* From here on every other call ends the process. All threads that come later inherit it. */
static int give_up_calls(void)
{
    struct sock_filter filter[ALLOWED + 6] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, MACHINE, 1, 0),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
    };
    unsigned short length = 4;
    for (unsigned i = 0; i < ALLOWED; i++) {
        filter[length++] = (struct sock_filter)BPF_JUMP(
            BPF_JMP | BPF_JEQ | BPF_K, (unsigned)allowed[i], (unsigned char)(ALLOWED - i), 0);
    }
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
    filter[length++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
    struct sock_fprog program = {.len = length, .filter = filter};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) ||
        prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &program)) {
        return -errno;
    }
    return 0;
}

/* ---- The disk ---- */

static char buffers[IN_FLIGHT][PIECE_BYTES];
static struct iovec pieces[IN_FLIGHT];

static char content(unsigned piece)
{
    return (char)('A' + piece % 26);
}

static int send_piece(ploop_queue *queue, ploop_pio *pio, unsigned slot, unsigned piece, int writes)
{
    uint64_t offset = (uint64_t)piece * SPACING;
    pieces[slot] = (struct iovec){.iov_base = buffers[slot], .iov_len = PIECE_BYTES};
    if (writes) {
        memset(buffers[slot], content(piece), PIECE_BYTES);
        ploop_pio_prep_writev(pio, offset, &pieces[slot], 1, 0);
    } else {
        ploop_pio_prep_readv(pio, offset, &pieces[slot], 1);
    }
    ploop_pio_set_callback(pio, NULL, buffers[slot]);
    int taken = ploop_queue_submit(queue, &pio, 1);
    return taken < 0 ? taken : 0;
}

/* IN_FLIGHT requests, and when all of them have completed the next ones. */
static int move_batch(ploop_queue *queue, unsigned first, int writes)
{
    struct ploop_completion completions[IN_FLIGHT];
    ploop_pio *pios[IN_FLIGHT];
    int error = 0;
    unsigned sent = 0, done = 0;
    for (; sent < IN_FLIGHT && !error; sent++) {
        pios[sent] = ploop_pio_get(queue);
        error = pios[sent] ? send_piece(queue, pios[sent], sent, first + sent, writes) : -ENOMEM;
    }
    while (done < sent && !error) {
        int count = ploop_queue_reap(queue, completions, IN_FLIGHT);
        for (int i = 0; i < count; i++) {
            error = error ? error : completions[i].result;
        }
        done += count > 0 ? (unsigned)count : 0;
        if (done < sent) {
            (void)ploop_queue_wait(queue, UINT64_MAX);
        }
    }
    for (unsigned i = 0; i < sent && !error; i++) {
        if (!writes && buffers[i][PIECE_BYTES - 1] != content(first + i)) {
            error = -EIO;
        }
        ploop_pio_put(pios[i]);
    }
    return error;
}

static int trim(ploop_dev *dev)
{
    ploop_pio *pio = ploop_pio_get(ploop_dev_queue(dev, 0));
    if (!pio) {
        return -ENOMEM;
    }
    ploop_pio_prep_discard(pio, 0, DISK_BYTES / 4);
    int error = ploop_pio_execute(pio);
    if (!error) {
        ploop_pio_prep_write_zeroes(pio, DISK_BYTES / 4, PIECE_BYTES, PLOOP_PIO_NO_UNMAP);
        error = ploop_pio_execute(pio);
    }
    ploop_pio_put(pio);
    return error;
}

static int use(ploop_dev *dev)
{
    ploop_queue *queue = ploop_dev_queue(dev, 0);
    int error = 0;
    for (unsigned first = 0; first < PIECES && !error; first += IN_FLIGHT) {
        error = move_batch(queue, first, 1);
    }
    error = error ? error : ploop_dev_flush(dev);
    for (unsigned first = 0; first < PIECES && !error; first += IN_FLIGHT) {
        error = move_batch(queue, first, 0);
    }
    return error ? error : trim(dev);
}

static int open_and_use(ploop_file *file)
{
    struct ploop_image_options options = {.size = sizeof(options), .disk_size = DISK_BYTES};
    struct ploop_file_info info = {.size = sizeof(info)};
    ploop_dev *dev;
    int error = ploop_image_create(file, &options);
    if (!error) {
        error = ploop_dev_open(&file, 1, NULL, &dev);
    }
    if (error) {
        return error;
    }
    error = give_up_calls();
    if (!error) {
        error = use(dev);
    }
    (void)ploop_file_info(file, &info);
    int close_error = ploop_dev_close(dev);
    if (!error && !close_error) {
        printf("wrote, flushed and read %d pieces with %d system calls allowed%s\n", PIECES,
               ALLOWED,
               info.capabilities & PLOOP_FILE_TOOK_DESCRIPTOR ? ", by a descriptor alone" : "");
    }
    return error ? error : close_error;
}

static int jailed(int fd, const char *directory)
{
    ploop_file *file;
    (void)seal(directory);
    int error = ploop_file_open_fd(fd, PLOOP_FILE_READ_WRITE, &file);
    if (!error) {
        error = open_and_use(file);
        ploop_file_close(file);
    }
    if (error) {
        (void)fprintf(stderr, "jail: %s\n", strerror(-error));
    }
    return error != 0;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : "jail.hds";
    char directory[] = "/tmp/ploop-jail-XXXXXX";
    int status = 1;
    if (!MACHINE) {
        printf("this machine's calls are not in this example\n");
        return 0;
    }
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0644);
    if (fd < 0 || !mkdtemp(directory)) {
        perror(path);
        return 1;
    }
    pid_t child = fork();
    if (child == 0) {
        return jailed(fd, directory);
    }
    (void)close(fd); /* the jail alone has it */
    if (child > 0) {
        (void)waitpid(child, &status, 0);
    }
    (void)rmdir(directory);
    if (WIFSIGNALED(status)) {
        (void)fprintf(stderr, "jail: ended by signal %d\n", WTERMSIG(status));
    }
    return status != 0;
}
