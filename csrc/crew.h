/* Threads for calls that may hang: a call that does keeps its thread and nothing else.
 *
 * crew_start() hands tasks to one worker, which runs them in turn, so that the usual reading costs
 * one wake-up; the owner goes on with something else and collects them with crew_wait(). When a
 * task has held its worker for `patience`, another worker takes the rest. A task that is still
 * running is left alone: it is not handed out again until it has come back, and it may be
 * abandoned, whereupon its worker releases it. One thread at a time calls a crew's functions.
 */
#ifndef ESNODE_CREW_H
#define ESNODE_CREW_H

#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <time.h>

enum { CREW_MOST = 256, CREW_STACK = 128 * 1024 }; /* a stack that a system call needs */

typedef struct crew_task {
    void (*run)(struct crew_task *);     /* the blocking call; touches only its own task */
    void (*release)(struct crew_task *); /* frees the task and what it holds */
    int64_t started;                 /* ns, monotonic; 0 unless handed out */
    unsigned turn;                   /* the start it was handed out by */
    int abandoned;
    struct crew_task *next;
} crew_task;

typedef struct {
    pthread_mutex_t lock;
    pthread_cond_t work, progress;
    crew_task *queue;
    unsigned turn;
    int open;       /* tasks of this turn that have not come back */
    int workers, idle;
    int closed;     /* the last to leave frees the crew */
    size_t stack;   /* bytes of each worker's */
} crew;

static inline int64_t crew_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * INT64_C(1000000000) + t.tv_nsec;
}

static inline crew *crew_new(size_t stack) {
    crew *c = calloc(1, sizeof *c);
    pthread_condattr_t monotonic;
    if (!c)
        return NULL;
    c->stack = stack;
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&c->work, NULL);
    pthread_cond_init(&c->progress, &monotonic);
    pthread_condattr_destroy(&monotonic);
    return c;
}

static inline void crew_destroy(crew *c) {
    pthread_mutex_destroy(&c->lock);
    pthread_cond_destroy(&c->work);
    pthread_cond_destroy(&c->progress);
    free(c);
}

static inline void *crew_worker(void *argument) {
    crew *c = argument;
    pthread_mutex_lock(&c->lock);
    for (;;) {
        while (!c->queue && !c->closed && !c->idle) {
            c->idle++;
            pthread_cond_wait(&c->work, &c->lock);
            c->idle--;
        }
        crew_task *task = c->queue;
        if (!task)
            break; /* closed, or a worker that hung came back while another one is idle */
        c->queue = task->next;
        task->started = crew_now();
        pthread_mutex_unlock(&c->lock);
        task->run(task);
        pthread_mutex_lock(&c->lock);
        task->started = 0;
        if (task->turn == c->turn && --c->open == 0)
            pthread_cond_signal(&c->progress);
        if (task->abandoned) { /* letting go may take its time, too */
            pthread_mutex_unlock(&c->lock);
            task->release(task);
            pthread_mutex_lock(&c->lock);
        }
    }
    int last = --c->workers == 0 && c->closed;
    pthread_mutex_unlock(&c->lock);
    if (last)
        crew_destroy(c);
    return NULL;
}

/* Starts a worker, which takes no signals. The lock is held. Returns 0 when there can be no more. */
static inline int crew_hire(crew *c) {
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    if (c->workers >= CREW_MOST)
        return 0;
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, c->stack);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int hired = pthread_create(&thread, &attributes, crew_worker, c) == 0;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    c->workers += hired;
    return hired;
}

/* Hands out the tasks that are not still running from before. What an earlier start handed out
 * must have been waited for. */
static inline void crew_start(crew *c, crew_task **tasks, int n) {
    crew_task **last = &c->queue;
    pthread_mutex_lock(&c->lock);
    c->turn++;
    c->open = 0;
    for (int i = 0; i < n; i++)
        if (!tasks[i]->started) {
            tasks[i]->turn = c->turn;
            tasks[i]->next = NULL;
            *last = tasks[i];
            last = &tasks[i]->next;
            c->open++;
        }
    if (c->queue && c->idle)
        pthread_cond_signal(&c->work);
    else if (c->queue)
        crew_hire(c);
    pthread_mutex_unlock(&c->lock);
}

/* Waits until all tasks of the last start have come back, or until those that have not have each
 * been running for `patience` ns. With a `deadline`, a time of crew_now(), it waits until then, and
 * patience is only how long one task may hold up the next. */
static inline void crew_wait(crew *c, int64_t patience, int64_t deadline) {
    pthread_mutex_lock(&c->lock);
    while (c->open) {
        const crew_task *head = c->queue;
        int open = c->open;
        int64_t until = crew_now() + patience;
        if (deadline && (!head || deadline < until))
            until = deadline;
        struct timespec t = {until / 1000000000, until % 1000000000};
        while (c->open && crew_now() < until)
            pthread_cond_timedwait(&c->progress, &c->lock, &t);
        int still = c->open == open && c->queue == head;
        if (deadline ? crew_now() >= deadline : still && !head)
            break;
        if (still && head && !crew_hire(c) && !deadline)
            break;
    }
    c->queue = NULL; /* what nobody is left to run */
    pthread_mutex_unlock(&c->lock);
}

/* How long a task has been running, in ns; 0 when it is not. */
static inline int64_t crew_running(crew *c, const crew_task *task) {
    pthread_mutex_lock(&c->lock);
    int64_t since = task->started;
    pthread_mutex_unlock(&c->lock);
    return since ? crew_now() - since : 0;
}

/* Releases a task, now or when it comes back. */
static inline void crew_abandon(crew *c, crew_task *task) {
    pthread_mutex_lock(&c->lock);
    int running = task->started != 0;
    task->abandoned = 1;
    for (crew_task **at = &c->queue; *at; at = &(*at)->next)
        if (*at == task) { /* handed out, and nobody has begun it */
            *at = task->next;
            c->open--;
            break;
        }
    pthread_mutex_unlock(&c->lock);
    if (!running)
        task->release(task);
}

/* Lets the workers go. Those that hang leave when they come back. */
static inline void crew_close(crew *c) {
    pthread_mutex_lock(&c->lock);
    c->closed = 1;
    int none = c->workers == 0;
    pthread_cond_broadcast(&c->work);
    pthread_mutex_unlock(&c->lock);
    if (none)
        crew_destroy(c);
}

#endif
