"""How good are votes and scores? Metrics, votes of the held-out videos, reports, figures."""
