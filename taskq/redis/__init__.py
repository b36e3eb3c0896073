"""The connection to the server: addresses, RESP3, scripts, health.

It may import `core` only, and knows neither jobs nor keys. `broker` is its main user.
"""
