"""The report of an ablation: one HTML file with its answer, its pictures and its tables."""
