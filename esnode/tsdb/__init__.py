"""The local history: blocks of JSON Lines. Its format is docs/reference/tsdb-format.md."""
