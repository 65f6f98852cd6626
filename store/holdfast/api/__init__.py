"""The services, one file each: bytes in, bytes out, independent of the front that carries them."""
