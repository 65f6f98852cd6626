"""The services, one file each: bytes in, bytes out. Nothing here knows which front carries them."""
