"""The parts of MagicTime/app.py, a page that shows a guarded video while it is sampled."""
