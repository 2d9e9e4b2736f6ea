"""Networks that read a clip, what their scores mean, and the bank that asks them."""
