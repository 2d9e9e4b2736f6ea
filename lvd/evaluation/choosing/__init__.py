"""Choosing a rule: candidates, exact bounds on their false positive rate, and the best of them."""
