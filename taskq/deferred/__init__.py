"""Deferred calls: tasks and plain functions that run in this process, supervised, without a server.

It may import `broker`, `execution`, `codec` and `core`. The runner reaches the queue through
`durable.Backing` only.
"""
