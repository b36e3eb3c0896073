"""Frozen values and pure rules: jobs, options, outcomes, errors, and all timing constants.

It uses the standard library and msgpack, and imports no other room of taskq.
"""
