"""What the operator would do with a file of objects, asked from outside the cluster. Nothing is changed."""
