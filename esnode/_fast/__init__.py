"""What runs without the GIL, in Cython: readers, tables, encoders. A .pyi is for mypy."""
