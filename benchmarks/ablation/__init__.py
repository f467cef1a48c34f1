"""The parts of `ablations.py`: networks that differ in one thing, their comparison, and long videos."""
