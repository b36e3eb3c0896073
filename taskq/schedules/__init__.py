"""Schedules: storing them, electing the process that fires them, and turning fires into jobs.

It may import `broker`, `execution`, `triggers` and the rooms below.
`triggers` computes the fire times.
"""
