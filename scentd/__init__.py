"""The name under which scentd is installed. Its folders lie in `app`; see `__main__`."""
