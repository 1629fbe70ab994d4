"""What clipping did, kept on the device and sent once a window."""
