"""Small worlds that tests run the real scripts on, and what starts them."""
