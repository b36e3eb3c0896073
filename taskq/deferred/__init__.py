"""Deferred calls: tasks and plain functions that run in this process, supervised, without a server.

The runner reaches the queue through `durable.Backing` only.
"""
