"""Triggers: pure rules that give fire times. They read no clock and do no I/O.

They may import `core` only, and `croniter`, which no other room uses.
"""
