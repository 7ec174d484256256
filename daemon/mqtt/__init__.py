"""Daemon: everything between a prediction and the broker, and requests back."""
