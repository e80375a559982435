"""How much of stored bytes the system has in memory."""

from loaders.page_eviction import StoredBytes, resident_pages


def resident_share(stored: StoredBytes) -> float:
    """Of the bytes' pages, the share that is in memory, 0-1."""
    resident, pages = resident_pages(stored.ranges)
    return resident / max(1, pages)
