"""What a person must agree to: the rules of asking and answering, and whether people really look."""
