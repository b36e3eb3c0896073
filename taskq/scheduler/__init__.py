"""The scheduler: who leads it, what fires when, and how schedules are changed."""
