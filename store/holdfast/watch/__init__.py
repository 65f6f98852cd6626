"""Watches: delivers applied changes to the streams of the clients that watch them."""
