# cython: language_level=3, binding=True
"""The state of the network interfaces, from the kernel's messages about links; see rtnetlink(7).

A socket that listens to changes gets a dump of all links first. From then on a reading takes in
what has changed since the one before, which is usually nothing. A dump waits for the lock under
which the kernel changes its network; a driver that resets its card, or a namespace of many
interfaces that goes, may hold it for seconds. Messages of changes wait for nobody. So a dump is
asked only at the start, and again on a new socket when a message was lost.

The kernel tells of a change of carrier within a second, and not while the interface is down.
"""

cimport cython
from libc.errno cimport (
    EAGAIN, EBADMSG, ECONNRESET, EINTR, EMSGSIZE, ENOBUFS, ENOMEM, ETIMEDOUT, errno)
from libc.math cimport NAN
from libc.stdint cimport int32_t, int64_t, uint32_t
from libc.stdlib cimport free, malloc, realloc
from libc.string cimport memcmp, memcpy, memset
from posix.time cimport CLOCK_MONOTONIC, clock_gettime, timespec
from posix.unistd cimport close as c_close

from esnode._fast.table cimport Table

import os

cdef extern from "<string.h>" nogil:
    size_t strnlen(const char *text, size_t most)

cdef extern from "<sys/socket.h>" nogil:
    struct sockaddr:
        pass
    int socket(int domain, int type, int protocol)
    int c_bind "bind" (int fd, const sockaddr *address, unsigned size)
    Py_ssize_t send(int fd, const void *data, size_t size, int flags)
    Py_ssize_t recv(int fd, void *data, size_t size, int flags)
    enum:
        AF_NETLINK
        AF_UNSPEC
        MSG_DONTWAIT
        MSG_TRUNC
        SOCK_CLOEXEC
        SOCK_RAW

cdef extern from "<poll.h>" nogil:
    struct pollfd:
        int fd
        short events, revents
    int poll(pollfd *fds, unsigned long n, int timeout)
    enum: POLLIN

cdef extern from "<linux/rtnetlink.h>" nogil:
    struct sockaddr_nl:
        unsigned short nl_family
        uint32_t nl_groups
    struct nlmsghdr:
        uint32_t nlmsg_len, nlmsg_seq
        unsigned short nlmsg_type, nlmsg_flags
    struct ifinfomsg:
        unsigned char ifi_family
        int ifi_index
    struct rtattr:
        unsigned short rta_len, rta_type
    size_t NLMSG_ALIGN(size_t size)
    size_t RTA_ALIGN(size_t size)
    enum:
        IFLA_ADDRESS
        IFLA_CARRIER_CHANGES
        IFLA_EXT_MASK
        IFLA_IFNAME
        IFLA_MTU
        IFLA_OPERSTATE
        NETLINK_ROUTE
        NLA_TYPE_MASK
        NLMSG_DONE
        NLMSG_ERROR
        NLM_F_DUMP
        NLM_F_DUMP_INTR
        NLM_F_REQUEST
        RTEXT_FILTER_SKIP_STATS
        RTMGRP_LINK
        RTM_DELLINK
        RTM_GETLINK
        RTM_NEWLINK

#: What sysfs calls the operational states of <linux/if.h>.
OPERSTATES = ("unknown", "notpresent", "down", "lowerlayerdown", "testing", "dormant", "up")

cdef enum:
    UP = 6                      # IF_OPER_UP
    SEQUENCE = 1                # of the only request that a socket sends
    ATTEMPTS = 4
    PATIENCE = 100000000        # ns that an answer is waited for
    BUFFER = 32 * 1024          # what the kernel puts into one datagram at most, but for odd links
    HUGE = 1024 * 1024
    NAME = 16                   # IFNAMSIZ
    ADDRESS = 32                # MAX_ADDR_LEN
    MAX_ERRNO = 4095            # of the kernel's

cdef struct Request:
    nlmsghdr head
    ifinfomsg info
    rtattr attribute
    uint32_t mask

cdef struct Slots:
    int32_t up, mtu, carrier_changes    # below 0: not bound

cdef struct Link:
    int32_t index
    uint32_t turn               # the dump that it was in, or that came before it
    Slots slots
    double mtu, carrier_changes
    unsigned char operstate, address_size
    unsigned char[ADDRESS] address
    char[NAME] name


cdef int64_t now() noexcept nogil:
    cdef timespec t
    clock_gettime(CLOCK_MONOTONIC, &t)
    return <int64_t>t.tv_sec * 1000000000 + t.tv_nsec


cdef bint same(const Link *a, const Link *b) noexcept nogil:
    return (
        a.operstate == b.operstate and a.address_size == b.address_size
        and memcmp(a.address, b.address, ADDRESS) == 0
    )


cdef int read_link(const char *at, size_t left, Link *link) noexcept nogil:
    """Overwrites what a link's attributes say of it; 0, or an errno."""
    cdef const rtattr *attribute
    cdef const char *data
    cdef size_t size
    cdef uint32_t number
    cdef int kind
    while left >= sizeof(rtattr):
        attribute = <const rtattr *>at
        size = attribute.rta_len
        if size < sizeof(rtattr) or size > left:
            return EBADMSG
        kind = attribute.rta_type & NLA_TYPE_MASK
        data = at + sizeof(rtattr)
        at += RTA_ALIGN(size)
        left -= min(RTA_ALIGN(size), left)
        size -= sizeof(rtattr)
        if kind == IFLA_IFNAME:
            memset(link.name, 0, NAME)
            memcpy(link.name, data, strnlen(data, min(size, <size_t>NAME - 1)))
        elif kind == IFLA_ADDRESS:
            link.address_size = <unsigned char>min(size, <size_t>ADDRESS)
            memset(link.address, 0, ADDRESS)
            memcpy(link.address, data, link.address_size)
        elif kind == IFLA_OPERSTATE and size >= 1:
            link.operstate = <unsigned char>data[0]
        elif kind == IFLA_MTU and size >= sizeof(number):
            memcpy(&number, data, sizeof(number))
            link.mtu = number
        elif kind == IFLA_CARRIER_CHANGES and size >= sizeof(number):
            memcpy(&number, data, sizeof(number))
            link.carrier_changes = number
    return 0


@cython.final
cdef class Links:
    """The interfaces of our network namespace, and the slots that some of them fill.

    fd: a socket to begin with, which is taken over, instead of one of our own.
    """

    cdef Table table
    cdef dict bound             # name -> Slots
    cdef Link *links
    cdef Py_ssize_t size, capacity
    cdef bint stale             # the links' slots are not what `bound` says
    cdef bint changed
    cdef uint32_t turn
    cdef int fd                 # valid while opened
    cdef bint opened
    cdef bint asked, complete   # whether a dump was, and whether all of it has come
    cdef char *buffer
    cdef size_t room

    def __cinit__(self, Table table not None, int fd=-1):
        self.table = table
        self.bound = {}
        self.fd = fd
        self.opened = fd >= 0

    def __dealloc__(self):
        self._close()
        free(self.links)
        free(self.buffer)

    def bind(self, bytes name not None, int up, int mtu, int carrier_changes):
        """Fills slots from an interface: 1 when it is up, else 0; its MTU in bytes; how often its
        carrier has changed. They stay absent while there is no such interface."""
        if name in self.bound:
            raise ValueError(f"{name!r} is bound twice")
        self.bound[name] = Slots(
            self.table.check(up), self.table.check(mtu), self.table.check(carrier_changes))
        self.stale = True

    def drop(self, bytes name not None):
        """Lets go of an interface and its slots."""
        del self.bound[name]
        self.stale = True

    def read(self):
        """Fills the slots. Whether an interface has come, gone, or another name, state or address
        since the last time. Raises OSError; the next reading begins anew."""
        cdef Link *link
        cdef Py_ssize_t i
        cdef int error
        with nogil:
            error = self._read()
        if error:
            raise OSError(error, os.strerror(error))
        if self.stale:
            for i in range(self.size):
                link = &self.links[i]
                link.slots = self.bound.get(<bytes>link.name, UNBOUND)
            self.stale = False
        for i in range(self.size):
            link = &self.links[i]
            if link.slots.up >= 0:
                self.table.values[link.slots.up] = link.operstate == UP
                self.table.values[link.slots.mtu] = link.mtu
                self.table.values[link.slots.carrier_changes] = link.carrier_changes
        changed = self.changed
        self.changed = False
        return changed

    def pending(self):
        """Whether a reading could find anything new: the kernel has sent something. Any thread may
        ask."""
        cdef pollfd watch
        watch.fd = self.fd
        watch.events = POLLIN
        return not self.opened or poll(&watch, 1, 0) != 0

    def found(self):
        """{name: (state, address)} of all interfaces at the last reading, in sysfs's spelling; the
        address is None where there is none."""
        cdef Link *link
        cdef Py_ssize_t i
        found = {}
        for i in range(self.size):
            link = &self.links[i]
            state = OPERSTATES[link.operstate if link.operstate <= UP else 0]
            address = (<const char *>link.address)[:link.address_size].hex(":")
            found[<bytes>link.name] = state, address or None
        return found

    cdef void _close(self) noexcept nogil:
        if self.opened:
            c_close(self.fd)
        self.opened = self.asked = self.complete = False

    cdef int _read(self) noexcept nogil:
        """Takes in what the kernel tells; 0, or an errno."""
        cdef int error = 0, attempt
        for attempt in range(ATTEMPTS):
            error = 0 if self.asked else self._ask()
            if error == 0:
                error = self._listen()
            if error == 0:
                return 0
            self._close()
            if error != EAGAIN and error != EMSGSIZE and error != ENOBUFS:
                break
        return error

    cdef int _ask(self) noexcept nogil:
        """Asks for a dump; 0, or an errno. Listens first, so that no change is missed."""
        cdef sockaddr_nl address
        cdef Request request
        if self.buffer == NULL:
            self.buffer = <char *>malloc(BUFFER)
            if self.buffer == NULL:
                return ENOMEM
            self.room = BUFFER
        if not self.opened:
            self.fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE)
            if self.fd < 0:
                return errno
            self.opened = True
            memset(&address, 0, sizeof(address))
            address.nl_family = AF_NETLINK
            address.nl_groups = RTMGRP_LINK
            if c_bind(self.fd, <const sockaddr *>&address, sizeof(address)):
                return errno
        memset(&request, 0, sizeof(request))
        request.head.nlmsg_len = sizeof(request)
        request.head.nlmsg_type = RTM_GETLINK
        request.head.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP
        request.head.nlmsg_seq = SEQUENCE
        request.info.ifi_family = AF_UNSPEC
        request.attribute.rta_len = sizeof(rtattr) + sizeof(uint32_t)
        request.attribute.rta_type = IFLA_EXT_MASK
        request.mask = RTEXT_FILTER_SKIP_STATS
        if send(self.fd, &request, sizeof(request), MSG_DONTWAIT) < 0:
            return errno
        self.turn += 1
        self.asked = True
        return 0

    cdef int _listen(self) noexcept nogil:
        """Takes in all that has come, and waits for the end of a dump; 0, or an errno."""
        cdef pollfd watch
        cdef Py_ssize_t got
        cdef int64_t left, until = now() + PATIENCE
        cdef int error
        while True:
            got = recv(self.fd, self.buffer, self.room, MSG_DONTWAIT | MSG_TRUNC)
            if got == 0:
                return ECONNRESET
            if got > 0:
                error = self._grow(got) if <size_t>got > self.room else self._take(got)
                if error:
                    return error
                if self.complete and now() > until:
                    return 0            # the rest of a flood of changes is for the next reading
            elif errno == EAGAIN:
                if self.complete:
                    return 0
                left = until - now()
                if left <= 0:
                    return ETIMEDOUT
                watch.fd = self.fd
                watch.events = POLLIN
                poll(&watch, 1, <int>(left / 1000000) + 1)
            elif errno != EINTR:
                return errno

    cdef int _grow(self, size_t size) noexcept nogil:
        """Makes room for datagrams of a size; EMSGSIZE, for what did not fit is lost."""
        cdef char *moved
        if size > HUGE:
            return EBADMSG
        moved = <char *>realloc(self.buffer, size)
        if moved == NULL:
            return ENOMEM
        self.buffer = moved
        self.room = size
        return EMSGSIZE

    cdef int _take(self, size_t left) noexcept nogil:
        """Takes in the messages of a datagram; 0, or an errno."""
        cdef const char *at = self.buffer
        cdef const nlmsghdr *head
        cdef size_t size
        cdef int error
        while left >= sizeof(nlmsghdr):
            head = <const nlmsghdr *>at
            size = head.nlmsg_len
            if size < sizeof(nlmsghdr) or size > left:
                return EBADMSG
            error = self._message(head, at + sizeof(nlmsghdr), size - sizeof(nlmsghdr))
            if error:
                return error
            at += NLMSG_ALIGN(size)
            left -= min(NLMSG_ALIGN(size), left)
        return 0

    cdef int _message(self, const nlmsghdr *head, const char *data, size_t size) noexcept nogil:
        cdef const ifinfomsg *info = <const ifinfomsg *>data
        cdef bint answer = head.nlmsg_seq == SEQUENCE
        cdef int error
        if head.nlmsg_type == RTM_NEWLINK or head.nlmsg_type == RTM_DELLINK:
            if size < sizeof(ifinfomsg):
                return EBADMSG
            if answer and head.nlmsg_flags & NLM_F_DUMP_INTR:
                return EAGAIN
            if info.ifi_family != AF_UNSPEC:
                return 0                # a bridge speaks of a port: the link itself stays
            if head.nlmsg_type == RTM_DELLINK:
                self._remove(self._find(info.ifi_index))
                return 0
            return self._put(
                info.ifi_index, data + sizeof(ifinfomsg), size - sizeof(ifinfomsg))
        if answer and (head.nlmsg_type == NLMSG_DONE or head.nlmsg_type == NLMSG_ERROR):
            error = 0
            if size >= sizeof(error):
                memcpy(&error, data, sizeof(error))
            if error:
                return -error if -MAX_ERRNO <= error < 0 else EBADMSG
            if head.nlmsg_flags & NLM_F_DUMP_INTR:
                return EAGAIN
            if head.nlmsg_type == NLMSG_DONE:
                self._finish()
        return 0

    cdef Py_ssize_t _find(self, int32_t index) noexcept nogil:
        """The place of a link; -1 for one that is new."""
        cdef Py_ssize_t i
        for i in range(self.size):
            if self.links[i].index == index:
                return i
        return -1

    cdef int _put(self, int32_t index, const char *attributes, size_t size) noexcept nogil:
        """Takes over what the kernel says of a link; 0, or an errno."""
        cdef Py_ssize_t i = self._find(index), capacity
        cdef Link link
        cdef Link *moved
        cdef int error
        if i >= 0:
            link = self.links[i]
        else:
            memset(&link, 0, sizeof(link))
            link.index = index
            link.slots = UNBOUND
            link.mtu = link.carrier_changes = NAN
        link.turn = self.turn
        error = read_link(attributes, size, &link)
        if error:
            return error
        if i < 0:
            if self.size == self.capacity:
                capacity = 2 * self.capacity or 16
                moved = <Link *>realloc(self.links, capacity * sizeof(Link))
                if moved == NULL:
                    return ENOMEM
                self.links = moved
                self.capacity = capacity
            i = self.size
            self.size += 1
            self.changed = self.stale = True
        elif memcmp(link.name, self.links[i].name, NAME):
            self.changed = self.stale = True
        elif not same(&link, &self.links[i]):
            self.changed = True
        self.links[i] = link
        return 0

    cdef void _remove(self, Py_ssize_t i) noexcept nogil:
        if i >= 0:
            self.size -= 1
            self.links[i] = self.links[self.size]
            self.changed = True

    cdef void _finish(self) noexcept nogil:
        """A dump has come whole: what is not in it has gone."""
        cdef Py_ssize_t i
        for i in range(self.size - 1, -1, -1):
            if self.links[i].turn != self.turn:
                self._remove(i)
        self.complete = True


cdef Slots UNBOUND = Slots(-1, -1, -1)
