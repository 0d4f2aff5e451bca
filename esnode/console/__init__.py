"""The full-screen console: what a running agent says, and a few things to change."""
