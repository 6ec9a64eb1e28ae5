"""A minute of everyday load on four instances while things break: see `__main__.py`."""
