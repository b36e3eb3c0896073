"""taskq's conversations with the server: one module for each, with the Lua scripts they run.

`keys` names every key. A script in `lua/` and its typed wrapper here are one unit. This room may
import `redis`, `codec`, `core` and the ports of `execution`; it runs no tasks.
"""
