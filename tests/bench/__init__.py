"""A benchmark anyone can run: `python -m tests.bench`. The README of the room says what is measured and how."""
