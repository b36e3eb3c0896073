"""A worker process: from a delivery to an outcome the server has confirmed.

Each background loop is one module. Workers may import `broker`, `execution` and the layers below.
"""
