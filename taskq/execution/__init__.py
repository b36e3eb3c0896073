"""One attempt of a task, from its arguments to its Outcome, and the handles users hold.

This room may import `codec` and `core`. It does not know the server: what it needs from outside is
a Protocol in `ports`.
"""
