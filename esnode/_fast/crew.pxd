from libc.stdint cimport int64_t

cdef extern from "crew.h" nogil:
    enum: CREW_STACK
    ctypedef struct crew:
        pass
    ctypedef struct crew_task:
        void (*run)(crew_task *) noexcept
        void (*release)(crew_task *) noexcept
        int abandoned
    int64_t crew_now()
    crew *crew_new(size_t stack)
    void crew_start(crew *c, crew_task **tasks, int n)
    void crew_wait(crew *c, int64_t patience, int64_t deadline)
    int64_t crew_running(crew *c, const crew_task *task)
    void crew_abandon(crew *c, crew_task *task)
    void crew_close(crew *c)
