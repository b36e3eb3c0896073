"""The connection to the server: addresses, RESP3, scripts, health.

This room may import `core` only and knows neither jobs nor keys. `broker` is its main user.
"""
