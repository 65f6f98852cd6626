"""What users write and read: the specs and statuses of our kinds, and the CRDs made from them."""
