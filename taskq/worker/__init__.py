"""A worker process: from a delivery to an outcome the server has confirmed.

One background loop is one module. It may import `broker`, `execution` and what lies below.
"""
