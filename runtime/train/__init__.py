"""Training: epochs, validation, stopping, rescue, and the search of hypers."""
