"""Where one attempt of a task runs: a thread of taskq's own, or a process of its own.

Executors know functions, arguments and limits. They know no job, no broker and no retry policy.
"""
