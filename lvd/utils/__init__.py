"""What any project could use: files, locks, videos, plots, the command line, settings, processes,
progress.
"""
