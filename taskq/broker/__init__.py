"""taskq's conversations with the server, one module for each, and the Lua scripts they run.

Every key is named in `keys`. A script in `lua/` and its typed wrapper here are one unit. It may
import `redis`, `codec`, `core` and the ports of `execution`; it runs no task.
"""
