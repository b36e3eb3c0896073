"""The `taskq` command: it reads options and prints. What it shows is computed in `ops`.

One module for each command; it may import everything.
"""
