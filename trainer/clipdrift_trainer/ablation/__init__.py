"""Which clipping policy, and does it matter? Thresholds by rules by seeds on the user's task, paired, with a plain answer."""
