"""What botd costs, measured beside what the machine itself costs in the same run. `python -m benchmarks --help`."""
