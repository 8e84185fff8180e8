"""What an image classifier has learned, and why it decided as it did."""
