"""Feature flags as they are kept in keys: where they are, what a valid definition is, and the document made of them.

Pure: no I/O, no clock. `api.flags` serves the documents to OpenFeature's providers.
"""
