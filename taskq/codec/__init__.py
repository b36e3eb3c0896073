"""Values and bytes: arguments, results and jobs as they travel, and back.

It may import `core` only. It never imports or calls a name that arrives in a message: values are
rebuilt from the annotations of the task that receives them.
"""
