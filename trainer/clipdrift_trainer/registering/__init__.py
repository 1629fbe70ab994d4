"""What is kept of a version beside its model: the model card, the software it was made with, the signature, its entry in the
registry."""
