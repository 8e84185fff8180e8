"""What channels and directions of a layer stand for: concepts given, found, drawn, or measured on masks."""
