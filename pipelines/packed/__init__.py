"""Recordings packed into tar shards: writing them, their indexes, and clips out of them."""
