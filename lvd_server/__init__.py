"""A guarded video pipeline behind HTTP: what serve.py is made of."""
