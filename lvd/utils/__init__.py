"""Plumbing that any project could use: files, locks, videos, the command line, configs, processes,
plots."""
