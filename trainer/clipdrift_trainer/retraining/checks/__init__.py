"""What a candidate must show beside a lower loss: one check a file, each with its policy and how it is measured."""
