"""HTTP: granian's embedded server around an RSGI application."""
