"""report.html: a page on which the recorded videos, their scores and the rules can be looked at."""
