"""Data sets: files and arrays as named columns, their order and their scaling."""
