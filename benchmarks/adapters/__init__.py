"""What is measured: taskq itself, and two ways of doing the same by hand."""
