/* SPDX-License-Identifier: MIT */
/*
 * lock_holder r|w IMAGE: opens the image for reading or writing, prints "open" or "errno N", and
 * keeps it open until its standard input ends. Exits 0 if it could be opened, 1 if another
 * program's lock prevented it, 2 for any other error.
 */
#include <errno.h>
#include <stdio.h>

#include <ploop/ploop.h>

int main(int argc, char **argv)
{
    ploop_file *file;
    if (argc != 3) {
        return 2;
    }
    int error = ploop_file_open_posix(
        argv[2], argv[1][0] == 'w' ? PLOOP_FILE_READ_WRITE : PLOOP_FILE_READ_ONLY, &file);
    if (error) {
        printf("errno %d\n", -error);
        return error == -EAGAIN ? 1 : 2;
    }
    printf("open\n");
    fflush(stdout);
    while (getchar() != EOF) {
    }
    ploop_file_close(file);
    return 0;
}
