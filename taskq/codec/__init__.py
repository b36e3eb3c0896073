"""Serialisation: arguments, results, jobs and failures as bytes, and back.

It imports `core` only, and never imports or calls a name that arrives in a message: the annotations
of the receiving task say what a value becomes.
"""
