"""The demo: two models on the flights of 2013, and what the loop is worth to them."""
