from tests.object_store import bucket, proxy, server, silent

__all__ = ["bucket", "proxy", "server", "silent"]
