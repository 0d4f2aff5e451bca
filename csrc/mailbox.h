/* A box of events between the thread that waits for them and the one that reads them.
 *
 * One thread puts, one takes. A full box keeps what it has and counts what it cannot take.
 */
#ifndef ESNODE_MAILBOX_H
#define ESNODE_MAILBOX_H

#include <stdatomic.h>
#include <stdint.h>
#include <time.h>

enum { MAILBOX_SIZE = 4096 /* a power of two */, MAILBOX_DEVICES = 64 };

typedef struct {
    double time; /* Unix time */
    unsigned long long type, data;
    unsigned int gi, ci;
    void *device; /* its handle */
    char uuid[80]; /* of a device that is not known */
} mail;

typedef struct {
    atomic_uint head, tail;
    atomic_ulong lost;
    _Atomic(void *) known[MAILBOX_DEVICES];
    mail events[MAILBOX_SIZE];
} mailbox;

/* Whether who takes events knows a device by its handle: it need not be asked who it is, and one
 * that hangs would not say. */
static inline int mailbox_knows(mailbox *box, void *device) {
    for (unsigned i = 0; i < MAILBOX_DEVICES && box->known[i]; i++)
        if (box->known[i] == device)
            return 1;
    return 0;
}

/* Called by who takes events. */
static inline void mailbox_know(mailbox *box, void *device) {
    for (unsigned i = 0; i < MAILBOX_DEVICES; i++) {
        if (!box->known[i])
            box->known[i] = device;
        if (box->known[i] == device)
            return;
    }
}

/* Room for the next event; NULL when the box is full. It counts once mailbox_put() is called. */
static inline mail *mailbox_room(mailbox *box) {
    unsigned tail = atomic_load_explicit(&box->tail, memory_order_relaxed);
    if (tail - atomic_load_explicit(&box->head, memory_order_acquire) == MAILBOX_SIZE) {
        atomic_fetch_add(&box->lost, 1);
        return NULL;
    }
    struct timespec now;
    mail *event = &box->events[tail % MAILBOX_SIZE];
    clock_gettime(CLOCK_REALTIME, &now);
    event->time = now.tv_sec + now.tv_nsec / 1e9;
    return event;
}

static inline void mailbox_put(mailbox *box) {
    atomic_fetch_add_explicit(&box->tail, 1, memory_order_release);
}

/* The oldest event; NULL when there is none. It is there until mailbox_drop(). */
static inline const mail *mailbox_peek(mailbox *box) {
    unsigned head = atomic_load_explicit(&box->head, memory_order_relaxed);
    if (head == atomic_load_explicit(&box->tail, memory_order_acquire))
        return NULL;
    return &box->events[head % MAILBOX_SIZE];
}

static inline void mailbox_drop(mailbox *box) {
    atomic_fetch_add_explicit(&box->head, 1, memory_order_release);
}

/* Events lost since the last call. */
static inline unsigned long mailbox_lost(mailbox *box) {
    return atomic_exchange(&box->lost, 0);
}

#endif
