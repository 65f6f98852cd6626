"""HTTP/2 as gRPC needs it, and the front on it: plain Python that hands over batches."""
