"""Tensors in, tensors out: models, versions, routing, receipts. Knows no transport."""
