"""One attempt of a task, from its arguments to its Outcome, and the handles users hold.

It may import `codec` and `core`, and knows no server: what it needs from outside is a Protocol in
`ports`.
"""
