"""Files of what was learned: checkpoints, weights from elsewhere, safetensors; written so that nothing is lost."""
