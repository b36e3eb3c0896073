"""FastAPI's dependencies, resolved without a request.

`graph.py` reads them with FastAPI's own analysis, and refuses what only a request can give;
`resolver.py` calls them around an attempt. Loaded with the first task that has a dependency.
"""
