# cython: language_level=3, binding=True
"""The node's power from its BMC: DCMI's Get Power Reading, through the kernel's IPMI device.

A BMC takes milliseconds to seconds to answer. Nothing here waits for it: a request is sent, and a
later call takes what has come. See <linux/ipmi.h> and DCMI 1.5, 6.6.1.
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, EMSGSIZE, errno
from libc.math cimport NAN, isnan
from posix.fcntl cimport O_CLOEXEC, O_NOCTTY, O_NONBLOCK, O_RDWR, open as c_open
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close as c_close

import os

cdef extern from "<linux/ipmi.h>" nogil:
    struct ipmi_addr:
        pass
    struct ipmi_system_interface_addr:
        int addr_type
        short channel
        unsigned char lun
    struct ipmi_msg:
        unsigned char netfn, cmd
        unsigned short data_len
        unsigned char *data
    struct ipmi_req:
        unsigned char *addr
        unsigned int addr_len
        long msgid
        ipmi_msg msg
    struct ipmi_recv:
        int recv_type
        unsigned char *addr
        unsigned int addr_len
        long msgid
        ipmi_msg msg
    enum:
        IPMI_SYSTEM_INTERFACE_ADDR_TYPE
        IPMI_BMC_CHANNEL
        IPMI_RESPONSE_RECV_TYPE
        IPMI_MAX_MSG_LENGTH
    const unsigned long IPMICTL_SEND_COMMAND
    const unsigned long IPMICTL_RECEIVE_MSG_TRUNC

cdef extern from "<sys/ioctl.h>" nogil:
    int ioctl(int fd, unsigned long request, ...)

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events, revents
    int poll(pollfd *fds, unsigned long n, int timeout)
    enum: POLLIN

#: Where the device is, below /dev: by today's name, and by those of older systems.
DEVICES = ("ipmi0", "ipmi/0", "ipmidev/0")

cdef enum:
    GROUP_EXTENSION = 0x2c      # the network function
    GET_POWER_READING = 0x02
    DCMI = 0xdc                 # the group, first in the request and after the completion code
    STATISTICS = 0x01           # the mode: of the system's power
    # The answer: completion code, group, watts now, least, most and on average, of 2 bytes each
    # with the low one first, time stamp, period, state.
    NOW = 2
    STATE = 18
    ANSWER = 19                 # its length
    ACTIVE = 0x40               # in the state: power is being measured
    QUEUE = 100                 # messages taken in one call, so that no flood holds it up


cdef double clock() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <double>t.tv_sec + <double>t.tv_nsec / 1e9


cdef double watts_of(const unsigned char *answer, unsigned size) noexcept nogil:
    cdef int watts
    if size < ANSWER or answer[0] != 0 or answer[1] != DCMI or not answer[STATE] & ACTIVE:
        return NAN
    watts = answer[NOW] | answer[NOW + 1] << 8
    # No node that asks draws nothing: a BMC that says so has no meter, or has not read it yet.
    return <double>watts if watts else NAN


@cython.final
cdef class Power:
    """The IPMI device at a path, asked for the node's power; raises OSError when it fails, and is
    then of no more use.

    A request without an answer is given up after `timeout` seconds. An answer counts for `max_age`
    seconds from when it was asked for, so that should be more than twice the time between requests.
    """

    cdef readonly str path
    cdef int fd
    cdef double timeout, max_age
    cdef long msgid             # of the last request
    cdef double asked           # when it was sent
    cdef bint outstanding
    cdef double watts           # by the last answer; NAN without a reading
    cdef double since           # when that was asked for

    def __cinit__(self, str path not None, double timeout=5, double max_age=15):
        cdef bytes encoded = os.fsencode(path)
        cdef const char *name = encoded
        self.fd = -1
        self.path = path
        self.timeout = timeout
        self.max_age = max_age
        self.watts = NAN
        with nogil:
            self.fd = c_open(name, O_RDWR | O_NONBLOCK | O_CLOEXEC | O_NOCTTY)
        if self.fd < 0:
            raise OSError(errno, os.strerror(errno), path)

    def __dealloc__(self):
        if self.fd >= 0:
            c_close(self.fd)

    def ask(self):
        """Sends a request, unless there is one that may still be answered."""
        cdef int error
        with nogil:
            error = self._take()
            if error == 0 and not (self.outstanding and clock() - self.asked < self.timeout):
                error = self._send()
        self._check(error)

    def answer(self):
        """The watts of the newest answer; None when it is too old or has no reading."""
        cdef int error
        with nogil:
            error = self._take()
        self._check(error)
        if isnan(self.watts) or clock() - self.since > self.max_age:
            return None
        return self.watts

    cdef int _check(self, int error) except -1:
        if error:
            raise OSError(error, os.strerror(error), self.path)
        return 0

    cdef int _send(self) noexcept nogil:
        """0, or an errno."""
        cdef unsigned char[4] data = [DCMI, STATISTICS, 0, 0]
        cdef ipmi_system_interface_addr bmc
        cdef ipmi_req request
        bmc.addr_type = IPMI_SYSTEM_INTERFACE_ADDR_TYPE
        bmc.channel = IPMI_BMC_CHANNEL
        bmc.lun = 0
        request.addr = <unsigned char *>&bmc
        request.addr_len = sizeof(bmc)
        request.msgid = self.msgid + 1
        request.msg.netfn = GROUP_EXTENSION
        request.msg.cmd = GET_POWER_READING
        request.msg.data_len = sizeof(data)
        request.msg.data = data
        if ioctl(self.fd, IPMICTL_SEND_COMMAND, &request) < 0:
            return errno
        self.msgid = request.msgid
        self.asked = clock()
        self.outstanding = True
        return 0

    cdef int _take(self) noexcept nogil:
        """Takes every message that has come; 0, or an errno."""
        cdef unsigned char[IPMI_MAX_MSG_LENGTH] data
        cdef ipmi_addr sender
        cdef ipmi_recv message
        cdef pollfd watch
        cdef int i, ready
        watch.fd = self.fd
        watch.events = POLLIN
        for i in range(QUEUE):
            ready = poll(&watch, 1, 0)
            if ready == 0:
                return 0
            message.addr = <unsigned char *>&sender
            message.addr_len = sizeof(sender)
            message.msg.data = data
            message.msg.data_len = sizeof(data)
            # A message that is too long is taken nevertheless, cut to size, with EMSGSIZE.
            if ready < 0 or (
                ioctl(self.fd, IPMICTL_RECEIVE_MSG_TRUNC, &message) < 0 and errno != EMSGSIZE
            ):
                return 0 if errno == EAGAIN or errno == EINTR else errno
            if (
                self.outstanding
                and message.recv_type == IPMI_RESPONSE_RECV_TYPE
                and message.msgid == self.msgid
            ):
                self.outstanding = False
                self.watts = watts_of(data, message.msg.data_len)
                self.since = self.asked
        return 0
