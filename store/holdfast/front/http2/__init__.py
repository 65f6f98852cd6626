"""HTTP/2 as far as gRPC needs it, and the front built on it, in plain Python that passes calls on in batches."""
