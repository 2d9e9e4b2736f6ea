"""Stops unsafe videos while a pipeline samples them."""
