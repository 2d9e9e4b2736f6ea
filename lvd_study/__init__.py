"""The parts of reproduce_tables.py: what the study is made of, in the order in which it is done.

settings (study.yaml) → tasks, runner (the scripts that make what is missing) → study (recordings,
detectors, votes) → tables/* (one module a table) → intervals, table, pages (Markdown, CSV).
"""
