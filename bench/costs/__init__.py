"""What `bench/run.py` is made of: the sides that are measured, each in a process of its own, and the tables."""
