"""Training: optimizers per modality, one resumable loop, the folder of a run, and `fit`."""
