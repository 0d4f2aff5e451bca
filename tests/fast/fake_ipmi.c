/* A BMC behind the kernel's IPMI device, preloaded: what the path in FAKE_IPMI names is that device.
 *
 * The device's descriptor is one of /dev/null, so that it is counted and closed like any other; the
 * calls on it are answered here. It has one queue, emptied when it is opened.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/ipmi.h>
#include <poll.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum { FDS = 4096, QUEUE = 256, LONGEST = 512 };

/* The script, and what the BMC has seen. bmc.py has the same struct. */
struct {
    int after;              /* polls that find nothing before the answer is there; -1: never */
    int strays;             /* messages that are not the answer, before it */
    int open_error, poll_error, send_error, receive_error;
    int requests;
    int flags;              /* of the last open */
    int size;
    unsigned char answer[LONGEST];  /* to a request, from the completion code on */
} fake_ipmi;

static struct message {
    int type, after, size;
    long id;
    unsigned char data[LONGEST];
} queue[QUEUE];
static int queued;

static char ours[FDS];

static int is_ours(int fd) {
    return fd >= 0 && fd < FDS && ours[fd];
}

static int fail(int error) {
    errno = error;
    return -1;
}

static void put(int type, long id, int delay, int more_watts) {
    struct message *message = &queue[queued];
    if (delay < 0 || queued == QUEUE)
        return;
    queued++;
    message->type = type;
    message->id = id;
    message->after = delay;
    message->size = fake_ipmi.size;
    memcpy(message->data, fake_ipmi.answer, fake_ipmi.size);
    message->data[2] += more_watts;
}

static int send_command(const struct ipmi_req *request) {
    static const unsigned char data[4] = {0xdc, 0x01, 0x00, 0x00};
    const struct ipmi_system_interface_addr *to = (const void *)request->addr;
    int i;
    if (fake_ipmi.send_error)
        return fail(fake_ipmi.send_error);
    if (request->addr_len != sizeof(*to) || to->addr_type != IPMI_SYSTEM_INTERFACE_ADDR_TYPE
        || to->channel != IPMI_BMC_CHANNEL || to->lun != 0 || request->msg.netfn != 0x2c
        || request->msg.cmd != 0x02 || request->msg.data_len != sizeof(data)
        || memcmp(request->msg.data, data, sizeof(data)))
        return fail(EINVAL);
    fake_ipmi.requests++;
    for (i = 0; i < fake_ipmi.strays; i++) {
        if (i % 2)
            put(IPMI_ASYNC_EVENT_RECV_TYPE, request->msgid, 0, 1);
        else
            put(IPMI_RESPONSE_RECV_TYPE, request->msgid + 1000, 0, 2);
    }
    put(IPMI_RESPONSE_RECV_TYPE, request->msgid, fake_ipmi.after, 0);
    return 0;
}

static int receive(struct ipmi_recv *to) {
    const struct message *message = queue;
    struct ipmi_system_interface_addr from = {IPMI_SYSTEM_INTERFACE_ADDR_TYPE, IPMI_BMC_CHANNEL, 0};
    int longer;
    if (fake_ipmi.receive_error)
        return fail(fake_ipmi.receive_error);
    if (queued == 0 || message->after > 0)
        return fail(EAGAIN);
    if (to->addr_len < sizeof(from))
        return fail(EINVAL);
    memcpy(to->addr, &from, sizeof(from));
    to->addr_len = sizeof(from);
    to->recv_type = message->type;
    to->msgid = message->id;
    to->msg.netfn = 0x2d;
    to->msg.cmd = 0x02;
    longer = message->size > to->msg.data_len;
    if (!longer)
        to->msg.data_len = message->size;
    memcpy(to->msg.data, message->data, to->msg.data_len);
    memmove(queue, queue + 1, --queued * sizeof(*queue));
    return longer ? fail(EMSGSIZE) : 0;  /* taken off the queue all the same */
}

/* What a function here stands before. */
#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

static int open_device(int with) {
    int fd;
    if (fake_ipmi.open_error)
        return fail(fake_ipmi.open_error);
    fd = NEXT(open)("/dev/null", with);
    if (fd >= FDS) {
        close(fd);
        return fail(EMFILE);
    }
    if (fd >= 0)
        ours[fd] = 1;
    fake_ipmi.flags = with;
    queued = 0;
    return fd;
}

static int is_device(const char *path) {
    const char *device = getenv("FAKE_IPMI");
    return device && path && strcmp(path, device) == 0;
}

/* The caller's headers decide which of the two it calls. */
#define OPEN(name) \
    int name(const char *path, int with, ...) { \
        va_list more; \
        int mode; \
        if (is_device(path)) \
            return open_device(with); \
        va_start(more, with); \
        mode = va_arg(more, int); \
        va_end(more); \
        return NEXT(name)(path, with, mode); \
    }
OPEN(open)
OPEN(open64)

int close(int fd) {
    if (is_ours(fd))
        ours[fd] = 0;
    return NEXT(close)(fd);
}

int poll(struct pollfd *fds, nfds_t n, int timeout) {
    if (n != 1 || !is_ours(fds->fd))
        return NEXT(poll)(fds, n, timeout);
    if (fake_ipmi.poll_error)
        return fail(fake_ipmi.poll_error);
    fds->revents = 0;
    if (queued && queue->after-- <= 0) {
        queue->after = 0;
        fds->revents = POLLIN;
    } else if (timeout)
        NEXT(poll)(NULL, 0, timeout);  /* who waits is to be seen waiting */
    return fds->revents != 0;
}

int ioctl(int fd, unsigned long request, ...) {
    va_list more;
    void *argument;
    va_start(more, request);
    argument = va_arg(more, void *);
    va_end(more);
    if (!is_ours(fd))
        return NEXT(ioctl)(fd, request, argument);
    switch (request) {
    case IPMICTL_SEND_COMMAND:
        return send_command(argument);
    case IPMICTL_RECEIVE_MSG_TRUNC:
        return receive(argument);
    }
    return fail(ENOTTY);
}
