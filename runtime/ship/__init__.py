"""Networks that leave: files that need nothing of ours."""
