"""The benchmarks of taskq: `python -m benchmarks --help`; the method is in README.md."""
