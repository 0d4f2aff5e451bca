# cython: language_level=3, binding=True
"""Finds the descriptor of a connection that a library holds and does not name."""

from libc.stdint cimport uint16_t
from libc.stdlib cimport strtol
from libc.string cimport memcmp, strstr
from posix.fcntl cimport O_CLOEXEC, O_RDONLY, open
from posix.unistd cimport close, read

cdef extern from "<sys/socket.h>" nogil:
    ctypedef unsigned int socklen_t
    cdef struct sockaddr:
        pass
    cdef struct sockaddr_storage:
        unsigned short ss_family
    int getpeername(int fd, sockaddr *name, socklen_t *size)
    int getsockname(int fd, sockaddr *name, socklen_t *size)
    int shutdown(int fd, int how)
    enum: AF_INET, AF_INET6, SHUT_RDWR

cdef extern from "<netinet/in.h>" nogil:
    cdef struct in_addr:
        pass
    cdef struct in6_addr:
        pass
    cdef struct sockaddr_in:
        uint16_t sin_port
        in_addr sin_addr
    cdef struct sockaddr_in6:
        uint16_t sin6_port
        in6_addr sin6_addr
    uint16_t ntohs(uint16_t port)

cdef extern from "<fcntl.h>" nogil:
    int fcntl(int fd, int command, ...)
    enum: F_DUPFD_CLOEXEC

cdef enum:
    STATUS = 4096               # FDSize stands in the first lines of /proc/self/status


cdef struct Peer:
    const char *address
    size_t size                 # 4 or 16
    int port, local             # the peer's port and ours


cdef int port_of(const sockaddr_storage *name) noexcept nogil:
    if name.ss_family == AF_INET:
        return ntohs((<const sockaddr_in *>name).sin_port)
    if name.ss_family == AF_INET6:
        return ntohs((<const sockaddr_in6 *>name).sin6_port)
    return -1


cdef bint is_peer(int fd, const Peer *peer) noexcept nogil:
    """Whether a descriptor is a connection to this peer. Other descriptors are no error."""
    cdef sockaddr_storage name
    cdef socklen_t size = sizeof(name)
    cdef const void *address
    if getpeername(fd, <sockaddr *>&name, &size) or port_of(&name) != peer.port:
        return False
    if name.ss_family == AF_INET and peer.size == 4:
        address = &(<sockaddr_in *>&name).sin_addr
    elif name.ss_family == AF_INET6 and peer.size == 16:
        address = &(<sockaddr_in6 *>&name).sin6_addr
    else:
        return False
    if memcmp(address, peer.address, peer.size):
        return False
    size = sizeof(name)
    return getsockname(fd, <sockaddr *>&name, &size) == 0 and port_of(&name) == peer.local


cdef int table_size() noexcept nogil:
    """The size of our table of descriptors, above all of them; see proc_pid_status(5)."""
    cdef char[STATUS] text
    cdef const char *found
    cdef int fd = open("/proc/self/status", O_RDONLY | O_CLOEXEC)
    cdef ssize_t size
    if fd < 0:
        return 0
    size = read(fd, text, STATUS - 1)
    close(fd)
    if size <= 0:
        return 0
    text[size] = 0
    found = strstr(text, "\nFDSize:")
    return <int>strtol(found + 8, NULL, 10) if found else 0


def find(bytes address, int port, int local):
    """The descriptor of our connection from a peer to a port of ours; -1: there is none.

    ``address`` is of 4 bytes or 16, as inet_pton(3) has it.
    """
    cdef Peer peer = Peer(address, len(address), port, local)
    cdef int fd, end
    with nogil:
        end = table_size()
        for fd in range(end):
            if is_peer(fd, &peer):
                break
        else:
            fd = -1
    return fd


def shut(int fd, bytes address, int port, int local):
    """Ends a connection that was found, with what the peer has not taken; whether it was there.

    Its owner may have closed it meanwhile, and its number may be another's: what is looked at and
    what is ended is a copy of our own.
    """
    cdef Peer peer = Peer(address, len(address), port, local)
    cdef bint was
    cdef int copy = fcntl(fd, F_DUPFD_CLOEXEC, 0)
    if copy >= 0:
        was = is_peer(copy, &peer) and shutdown(copy, SHUT_RDWR) == 0
        close(copy)
    else:  # there is no other descriptor to have
        was = is_peer(fd, &peer) and shutdown(fd, SHUT_RDWR) == 0
    return was
