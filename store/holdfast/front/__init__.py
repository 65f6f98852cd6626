"""The door: calls in batches, bytes in and bytes out, whatever carries them."""
