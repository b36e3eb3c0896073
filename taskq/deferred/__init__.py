"""Calls that run in this process, supervised: the same tasks, without a server.

A runner may use what is outside this process through `ports.Backing` alone.
"""
