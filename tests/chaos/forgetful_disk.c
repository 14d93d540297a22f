/* A disk that forgets what was not synced, for programs that are started with this library in LD_PRELOAD.
 *
 * All goes to the files below FORGETFUL_LIVE as ever.  Below FORGETFUL_DISK is what would be left after a power cut:
 * the contents of a file as of its last fsync or fdatasync, and the names in a folder as of that folder's.  With
 * FORGETFUL_LIES the disk says that it has stored what fdatasync asked for, and stores it with the next fsync of
 * anything: so commits are lost, and Postgres can still recover what is left.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define PIECE 65536

static char live_piece[PIECE], disk_piece[PIECE];

/* Find the place on the disk of an open file; 0 if it is none of ours. */
static int place_of(int fd, char *live, char *disk) {
    const char *root = getenv("FORGETFUL_LIVE"), *copy = getenv("FORGETFUL_DISK");
    char link[64];
    ssize_t length;

    if (root == NULL || copy == NULL) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    length = readlink(link, live, PATH_MAX - 1);
    if (length <= 0) return 0;
    live[length] = 0;
    if (strncmp(live, root, strlen(root)) != 0 || (live[strlen(root)] != '/' && live[strlen(root)] != 0)) return 0;
    return snprintf(disk, PATH_MAX, "%s%s", copy, live + strlen(root)) < PATH_MAX;
}

/* Make the folders above a place. */
static void make_parents(const char *place) {
    char path[PATH_MAX];

    snprintf(path, sizeof path, "%s", place);
    for (char *slash = path + 1; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = 0;
        mkdir(path, 0700);
        *slash = '/';
    }
}

/* Store the contents of a file: the pieces that differ. */
static void store_file(const char *live, const char *disk, mode_t mode) {
    int from = open(live, O_RDONLY | O_CLOEXEC), to;
    ssize_t here;
    off_t at = 0;

    if (from < 0) return; /* it was unlinked */
    make_parents(disk);
    to = open(disk, O_RDWR | O_CREAT | O_CLOEXEC, mode & 0777);
    if (to >= 0) {
        flock(to, LOCK_EX);
        while ((here = pread(from, live_piece, PIECE, at)) > 0) {
            if (pread(to, disk_piece, here, at) != here || memcmp(live_piece, disk_piece, here) != 0)
                if (pwrite(to, live_piece, here, at) != here) abort();
            at += here;
        }
        if (ftruncate(to, at) != 0) abort();
        close(to);
    }
    close(from);
}

/* Store the names in a folder: what is gone goes, what is new is there, and is empty until it is stored itself. */
static void store_names(const char *live, const char *disk) {
    char path[PATH_MAX * 2];
    struct dirent *entry;
    struct stat found;
    DIR *folder;

    mkdir(disk, 0700);
    if ((folder = opendir(disk)) != NULL) {
        while ((entry = readdir(folder)) != NULL) {
            snprintf(path, sizeof path, "%s/%s", live, entry->d_name);
            if (lstat(path, &found) == 0) continue;
            snprintf(path, sizeof path, "%s/%s", disk, entry->d_name);
            if (unlink(path) != 0) rmdir(path);
        }
        closedir(folder);
    }

    if ((folder = opendir(live)) != NULL) {
        while ((entry = readdir(folder)) != NULL) {
            snprintf(path, sizeof path, "%s/%s", live, entry->d_name);
            if (lstat(path, &found) != 0) continue;
            snprintf(path, sizeof path, "%s/%s", disk, entry->d_name);
            if (S_ISDIR(found.st_mode)) {
                mkdir(path, 0700);
            } else if (S_ISREG(found.st_mode)) {
                int made = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, found.st_mode & 0777);
                if (made >= 0) close(made);
            }
        }
        closedir(folder);
    }
}

static void store(int fd) {
    char live[PATH_MAX], disk[PATH_MAX];
    struct stat found;

    if (!place_of(fd, live, disk) || fstat(fd, &found) != 0) return;
    if (S_ISREG(found.st_mode)) store_file(live, disk, found.st_mode);
    if (S_ISDIR(found.st_mode)) store_names(live, disk);
}

/* Store the log, which alone is synced by fdatasync. */
static void store_log(void) {
    char live[PATH_MAX], from[PATH_MAX * 2], to[PATH_MAX * 2];
    const char *root = getenv("FORGETFUL_LIVE"), *copy = getenv("FORGETFUL_DISK");
    struct dirent *entry;
    struct stat found;
    DIR *folder;

    snprintf(live, sizeof live, "%s/pg_wal", root);
    if ((folder = opendir(live)) == NULL) return;
    while ((entry = readdir(folder)) != NULL) {
        snprintf(from, sizeof from, "%s/%s", live, entry->d_name);
        snprintf(to, sizeof to, "%s/pg_wal/%s", copy, entry->d_name);
        if (lstat(from, &found) == 0 && S_ISREG(found.st_mode)) store_file(from, to, found.st_mode);
    }
    closedir(folder);
}

int fsync(int fd) {
    int (*really)(int) = dlsym(RTLD_NEXT, "fsync");
    int done = really(fd);

    if (getenv("FORGETFUL_LIES") != NULL) store_log();
    if (done == 0) store(fd);
    return done;
}

int fdatasync(int fd) {
    int (*really)(int) = dlsym(RTLD_NEXT, "fdatasync");
    int done = really(fd);

    if (done == 0 && getenv("FORGETFUL_LIES") == NULL) store(fd);
    return done;
}
