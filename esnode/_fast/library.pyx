# cython: language_level=3, binding=True
"""NVML's library by its path: opened before the extension that is linked to it is imported."""

from libc.stdlib cimport free
from libc.string cimport strdup

import os

cdef extern from "<dlfcn.h>" nogil:
    void *dlopen(const char *path, int flags)
    void *dlsym(void *handle, const char *name)
    int dlclose(void *handle)
    char *dlerror()
    int dlinfo(void *handle, int request, void *answer)
    enum: RTLD_NOW, RTLD_LOCAL, RTLD_NOLOAD, RTLD_DI_LINKMAP

cdef extern from "<link.h>" nogil:
    struct link_map:
        char *l_name

cdef extern from *:
    """
    #include "nvml_abi.h"
    #define NAME_OF(name, arguments) #name,
    #define NOTHING_OF(name, arguments)
    static const char *REQUIRED[] = {NVML_FUNCTIONS(NAME_OF, NOTHING_OF) NULL};
    """
    const char **REQUIRED

#: What the extension is linked to.
cdef const char *NEEDED = "libnvidia-ml.so.1"


cdef bint _is_needed(void *handle) noexcept nogil:
    """Whether the loader takes an open library for the one that the extension needs."""
    cdef void *found = dlopen(NEEDED, RTLD_NOW | RTLD_NOLOAD)
    if found != NULL:
        dlclose(found)
    return found == handle


cdef bint _name(void *handle) noexcept nogil:
    """Makes the loader take an open library for the needed one; False if that cannot be done.

    glibc compares a needed name with the name of each library that is loaded (l_name, of which
    <link.h> says where it is), and after that with its SONAME. One whose SONAME is another, or that
    has none, is found by the first, so that any NVML serves, whatever its file is called. Both
    names are malloc's, as the loader frees the one that it finds when it unloads the library."""
    cdef link_map *entry = NULL
    cdef char *before
    if _is_needed(handle):
        return True
    if dlinfo(handle, RTLD_DI_LINKMAP, &entry) != 0:
        return False
    before = entry.l_name
    entry.l_name = strdup(NEEDED)
    if entry.l_name != NULL and _is_needed(handle):
        return True  # what the name was is leaked: a few bytes, once
    free(entry.l_name)
    entry.l_name = before
    return False


def open_library(bytes path not None):
    """Opens NVML, for the rest of the process, so that an extension that needs libnvidia-ml.so.1
    gets this one, wherever it is. It stays open; what is not NVML is closed again.

    Raises OSError with the loader's words for what it cannot load, and ValueError with what a
    library lacks to be NVML."""
    cdef const char *file = path
    cdef const char **name = REQUIRED
    cdef void *handle
    with nogil:  # from a file system that may be slow
        handle = dlopen(file, RTLD_NOW | RTLD_LOCAL)
    if handle == NULL:
        raise OSError(os.fsdecode(dlerror()))
    while name[0] != NULL:
        if dlsym(handle, name[0]) == NULL:
            dlclose(handle)
            raise ValueError(f"not NVML: it has no {name[0].decode()}")
        name += 1
    if not _name(handle):
        dlclose(handle)
        raise ValueError("another libnvidia-ml.so.1 is loaded already")
