"""Frozen values and pure rules: jobs, options, outcomes, errors, and every time that matters.

It stands on the standard library and msgpack, and imports no other package of taskq.
"""
