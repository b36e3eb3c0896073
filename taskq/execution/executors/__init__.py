"""Where an attempt runs other than in the event loop: in a thread or in a process of its own.

Executors know functions, arguments and limits; they do not know jobs, brokers or retries.
"""
