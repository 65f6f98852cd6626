"""The holdfast operator."""
