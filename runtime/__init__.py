"""Calling what was compiled: arrays in and out, training, data, files, the command line."""
