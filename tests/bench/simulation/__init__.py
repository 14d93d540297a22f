"""A day of many clients on a simulated clock; `python -m tests.bench.simulate` tells what it is for."""
