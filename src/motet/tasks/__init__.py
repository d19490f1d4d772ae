"""What a model is for: labels and numbers, retrieval, their evaluation and the model card."""
