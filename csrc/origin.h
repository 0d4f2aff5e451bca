/* Who answers when a file is read. */
#ifndef ESNODE_ORIGIN_H
#define ESNODE_ORIGIN_H

#include <fcntl.h>
#include <linux/magic.h>
#include <sys/vfs.h>

#ifndef XFS_SUPER_MAGIC
#define XFS_SUPER_MAGIC 0x58465342
#endif

/* OF_KERNEL: /proc and /sys, whose files are never replaced under an open descriptor. OF_DISK: a
 * local disk or memory; a copy of such files, which neither hangs nor reads short before its end.
 * OF_OTHERS: a network or a daemon may be asked. */
enum origin { OF_KERNEL, OF_DISK, OF_OTHERS };

static inline enum origin origin_by(const struct statfs *fs) {
    switch (fs->f_type) {
    case PROC_SUPER_MAGIC:
    case SYSFS_MAGIC:
        return OF_KERNEL;
    case EXT4_SUPER_MAGIC:
    case TMPFS_MAGIC:
    case XFS_SUPER_MAGIC:
    case BTRFS_SUPER_MAGIC:
    case OVERLAYFS_SUPER_MAGIC:
        return OF_DISK;
    }
    return OF_OTHERS;
}

/* Reading a copy shall not write to its disk; refused where the file is not ours. */
static inline void origin_spare_atime(int fd) {
    fcntl(fd, F_SETFL, O_NONBLOCK | O_NOATIME);
}

static inline enum origin origin_of_open(int fd) {
    struct statfs fs;
    return fstatfs(fd, &fs) < 0 ? OF_OTHERS : origin_by(&fs);
}

static inline enum origin origin_of(const char *path) {
    struct statfs fs;
    return statfs(path, &fs) < 0 ? OF_OTHERS : origin_by(&fs);
}

#endif
